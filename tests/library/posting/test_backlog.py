"""Who is posted to next and who is tried again when, on a clock that the test holds. No sockets, no threads.

Not proved here: the sending (test_fan_out), and how many may be in flight (test_window).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from docprogress.posting import backlog as rules
from docprogress.posting.backlog import Backlog, Place
from docprogress.posting.http1 import Response
from docprogress.posting.report import DeliveryReport
from docprogress.posting.sigv4 import Payload
from docprogress.posting.update import Update
from docprogress.posting.verdict import classify
from tests.library.posting.samples import Watcher, watchers


class Desk:
    """A backlog whose posts the test takes and answers. Retries come after the longest time that jitter gives."""

    def __init__(self, *, most_late: int = 4) -> None:
        self.now = 0.0
        self.backlog = Backlog(most_late)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.left_stale: list[str] = []

    def tell(
        self, everyone: Sequence[Watcher], *, topic: str = "d", version: int = 1, settle_seconds: float = 0.0
    ) -> Update:
        update = Update(
            topic,
            "POST",
            version,
            Payload.of(b"%d" % version),
            later=self._later,
            seconds=1_000.0,
            settle_seconds=settle_seconds,
            left_stale=lambda: self.left_stale.append(topic),
        )
        self.backlog.begin(update, self.now)
        self.backlog.add(update, everyone)
        update.end_of_pages()
        return update

    def _later(self, seconds: float, act: Callable[[], None]) -> Desk:
        self.timers.append((self.now + seconds, act))
        return self

    def cancel(self) -> None:
        """A timer of an update that is over does nothing."""

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for at, act in self.timers:
            if at <= self.now:
                act()
        self.backlog.wake(self.now)

    def take(self, *, window: int = 1_000) -> Place | None:
        return self.backlog.next(window, self.now)

    def take_all(self, *, window: int = 1_000) -> list[Place]:
        return list(iter(lambda: self.take(window=window), None))

    def answer(self, place: Place, status: int) -> None:
        self.backlog.ended(place)
        response = Response(status)
        self.backlog.answered(place, classify(response), response, self.now)

    def hang(self, place: Place) -> None:
        self.backlog.slow(place)
        self.backlog.ended(place)
        self.backlog.unanswered(place, "TimeoutError", self.now, hung=True)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("docprogress.posting.backlog.jitter", lambda _least, most: most)
    return Desk()


def ids(places: Sequence[Place]) -> list[str]:
    return [place.recipient.connection_id for place in places]


def test_an_update_is_over_when_everyone_was_tried_whatever_became_of_it(desk: Desk) -> None:
    update = desk.tell(watchers(4))
    delivered, throttled, refused, hanging = desk.take_all()
    for place, status in ((delivered, 200), (throttled, 429), (refused, 403)):
        desk.answer(place, status)
        assert not update.over
    desk.backlog.slow(hanging)
    assert update.over
    assert update.report(4) == DeliveryReport(delivered=1, throttled=1, refused=1, failed=1)


def test_stragglers_come_after_those_never_tried_and_on_a_small_share(desk: Desk) -> None:
    desk.tell(watchers(10, "bad"))
    for place in desk.take_all():
        desk.answer(place, 503)
    desk.wait(1.0)
    desk.tell(watchers(3), topic="other")
    assert ids(desk.take_all()) == [*ids_of(watchers(3)), *ids_of(watchers(4, "bad"))]


def ids_of(some: Sequence[Watcher]) -> list[str]:
    return [watcher.connection_id for watcher in some]


def test_what_hangs_leaves_half_of_the_stragglers_share_to_those_that_answer(desk: Desk) -> None:
    desk.tell([*watchers(10, "hang"), *watchers(2, "busy")])
    for place in desk.take_all():
        if place.recipient.connection_id.startswith("hang"):
            desk.hang(place)
        else:
            desk.answer(place, 429)
    desk.wait(5.0)
    assert ids(desk.take_all()) == [*ids_of(watchers(2, "busy")), *ids_of(watchers(2, "hang"))]


def test_each_failure_makes_the_next_retry_later_up_to_a_bound(desk: Desk) -> None:
    desk.tell(watchers(1))
    waits = []
    for _ in range(9):
        place = desk.take()
        assert place is not None
        desk.answer(place, 503)
        due_at = desk.backlog.next_due
        assert due_at is not None
        waits.append(round(due_at - desk.now, 2))
        place.since = desk.now = due_at  # as if there were newer messages
        desk.backlog.wake(desk.now)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_nobody_is_tried_for_ever(desk: Desk) -> None:
    desk.tell(watchers(1))
    for _ in range(100):
        place = desk.take()
        if place is None:
            break
        desk.answer(place, 429)
        desk.wait((desk.backlog.next_due or desk.now) - desk.now)
    assert desk.backlog.next_due is None
    assert desk.now <= rules.GIVE_UP_SECONDS + 10


def test_who_was_slow_comes_last_at_the_next_update_and_is_not_waited_for(desk: Desk) -> None:
    desk.tell(watchers(3))
    slow, *others = desk.take_all()
    desk.backlog.slow(slow)
    for place in (slow, *others):
        desk.answer(place, 200)
    update = desk.tell(watchers(3), version=2)
    *others, last = desk.take_all()
    assert last.recipient == slow.recipient
    for place in others:
        desk.answer(place, 200)
    assert update.over
    desk.answer(last, 200)
    desk.tell(watchers(3), version=3)
    assert ids(desk.take_all()) == ids_of(watchers(3)), "it was quick this time"


def test_a_post_under_way_is_followed_by_the_newest_message_and_by_no_older(desk: Desk) -> None:
    desk.tell(watchers(1))
    (place,) = desk.take_all()
    for version in (2, 3):
        update = desk.tell(watchers(1), version=version)
        assert desk.take() is None, "two posts to one connection might overtake each other"
        assert update.over, "it is not waited for"
    desk.answer(place, 200)
    again = desk.take()
    assert again is place
    assert again.payload.body == b"3"
    desk.answer(again, 200)
    assert desk.take() is None


def test_refusals_by_turns_with_deliveries_do_not_slow_the_rest(desk: Desk) -> None:
    desk.tell(watchers(300))
    for number, place in enumerate(desk.take_all(window=100)):
        desk.answer(place, 403 if number % 2 else 200)
    assert len(desk.take_all(window=100)) == 75


def test_after_many_refusals_in_a_row_one_at_a_time_is_asked_until_somebody_takes_the_message(desk: Desk) -> None:
    desk.tell(watchers(300))
    for place in desk.take_all(window=100):
        desk.answer(place, 403)
    (only,) = desk.take_all(window=100)
    desk.answer(only, 200)
    assert len(desk.take_all(window=100)) == 75


def test_topics_share_the_window_and_one_alone_leaves_room_for_another(desk: Desk) -> None:
    desk.tell(watchers(100, "a"), topic="a")
    assert len(desk.take_all(window=40)) == 30
    desk.tell(watchers(100, "b"), topic="b")
    assert len(desk.take_all(window=40)) == 20, "half of the window is its share"


def test_no_more_stragglers_are_held_than_memory_bears(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_MAX_STRAGGLERS", 3)
    update = desk.tell(watchers(10))
    for place in desk.take_all():
        desk.answer(place, 429)
    assert update.report(10) == DeliveryReport(throttled=10)
    desk.wait(1.0)
    assert len(desk.take_all()) == 3


def test_a_connection_known_to_be_gone_is_not_posted_to_while_it_waits_to_be_forgotten(desk: Desk) -> None:
    desk.tell(watchers(2))
    for place in desk.take_all():
        desk.answer(place, 410)
    update = desk.tell(watchers(3), version=2)
    assert ids(desk.take_all()) == ["w2="]
    assert set(update.stale) == {"w0=", "w1="}


def test_connections_found_gone_after_the_update_are_left_to_be_forgotten_together(desk: Desk) -> None:
    update = desk.tell(watchers(3))
    for place in desk.take_all():
        desk.answer(place, 429)
    assert update.over
    desk.wait(0.1)
    for place in desk.take_all():
        desk.answer(place, 410)
    assert desk.left_stale == []
    desk.wait(1.0)
    assert desk.left_stale == ["d"]
    assert set(update.stale) == {"w0=", "w1=", "w2="}


def test_a_last_message_is_tried_again_at_once_on_who_waits_for_a_retry(desk: Desk) -> None:
    desk.tell(watchers(1))
    (place,) = desk.take_all()
    desk.hang(place)
    update = desk.tell(watchers(1), version=2, settle_seconds=2.0)
    again = desk.take()
    assert again is place
    assert not update.over
    desk.answer(again, 200)
    assert update.report(1) == DeliveryReport(delivered=1)


def test_who_is_due_already_has_one_turn_though_a_last_message_comes(desk: Desk) -> None:
    desk.tell(watchers(1))
    desk.answer(desk.take_all()[0], 429)
    desk.wait(rules.GIVE_UP_SECONDS)
    update = desk.tell(watchers(1), version=2, settle_seconds=2.0)
    (place,) = desk.take_all()
    desk.answer(place, 200)
    assert update.over


def test_a_progress_message_waits_for_the_turn_of_who_waits_for_a_retry(desk: Desk) -> None:
    desk.tell(watchers(1))
    (place,) = desk.take_all()
    desk.answer(place, 429)
    desk.tell(watchers(1), version=2)
    assert desk.take() is None
    desk.wait(rules.GIVE_UP_SECONDS)
    assert desk.take() is place


def test_topics_that_nobody_tells_of_any_more_are_forgotten(desk: Desk) -> None:
    for number in range(400):
        desk.tell(watchers(1), topic=str(number))
        desk.answer(*desk.take_all(), 200)
    assert desk.tell([], topic="0", version=0).over
    update = desk.tell(watchers(1), topic="0", version=0)
    assert desk.take() is not None, "that it had a newer version is forgotten with it"
    assert not update.over
