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
        self,
        everyone: Sequence[Watcher],
        *,
        topic: str = "d",
        version: int = 1,
        settle_seconds: float = 0.0,
        all_read: bool = True,
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
        if all_read:
            update.end_of_pages()
        return update

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, act))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, act in due:
            act()
        self.backlog.wake(self.now)

    def take(self, *, window: int = 1_000) -> Place | None:
        return self.backlog.next(window, self.now)

    def take_all(self, *, window: int = 1_000) -> list[Place]:
        return list(iter(lambda: self.take(window=window), None))

    def answer(self, place: Place, status: int, *, error_type: str = "", body: bytes = b"") -> None:
        if status == 200 and not place.is_tried:
            self.backlog.delivered_at_once(place)  # as the engine has it with the usual answer; 204 goes the long way
            return
        self.backlog.ended(place)
        response = Response(status, error_type, body)
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
    update = desk.tell(watchers(13))
    *answered, hanging = desk.take_all()
    for place, status in zip(answered, [200, 204, 429, 403, 410, 503] * 2, strict=True):
        desk.answer(place, status)
        assert not update.over
    desk.backlog.slow(hanging)
    assert update.over
    assert update.report(14) == DeliveryReport(delivered=4, throttled=2, refused=2, stale=2, failed=3, untried=1)
    assert update.problems == {"429": 2, "403": 2, "410": 2, "503": 2}


def test_an_update_is_not_over_before_all_pages_are_read(desk: Desk) -> None:
    update = desk.tell(watchers(1), all_read=False)
    desk.answer(*desk.take_all(), 200)
    assert not update.over
    update.end_of_pages()
    assert update.over


def test_an_update_is_over_at_its_deadline_whoever_was_not_tried(desk: Desk) -> None:
    update = desk.tell(watchers(3))
    desk.take()
    desk.wait(999.0)
    assert not update.over
    desk.wait(1.0)
    assert update.over
    assert update.report(3) == DeliveryReport(failed=1, untried=2)


def test_the_next_page_is_wanted_once_the_last_watcher_of_this_one_is_taken(desk: Desk) -> None:
    update = desk.tell(watchers(2), all_read=False)
    update.wants_page = False
    desk.take()
    assert not update.wants_page
    desk.take()
    assert update.wants_page


@pytest.mark.parametrize("status", [200, 204, 403, 410, 429, 503])
def test_a_post_that_was_answered_makes_room_for_another(desk: Desk, status: int) -> None:
    desk.tell(watchers(40))
    first = desk.take_all(window=20)
    assert len(first) == desk.backlog.in_flight == 15
    for place in first[:5]:
        desk.answer(place, status)
    assert desk.backlog.in_flight == 10
    assert len(desk.take_all(window=20)) == 5


def test_a_slow_post_makes_room_for_another_while_it_waits_and_not_once_more_when_it_is_answered(desk: Desk) -> None:
    desk.tell(watchers(40))
    slow = desk.take_all(window=20)[:5]
    for place in slow:
        desk.backlog.slow(place)
    assert desk.backlog.in_flight == 10
    assert len(desk.take_all(window=20)) == 5
    for place in slow:
        desk.answer(place, 200)
    assert desk.backlog.in_flight == 15
    assert desk.take(window=20) is None


def test_how_many_could_be_sent_now_are_those_never_tried_and_what_is_free_of_the_stragglers_share(desk: Desk) -> None:
    desk.tell(watchers(6))
    assert desk.backlog.count() == 6
    hanging, *busy = desk.take_all()[:3]
    desk.hang(hanging)
    for place in busy:
        desk.answer(place, 503)
    assert desk.backlog.count() == 0, "they wait for their turn"
    desk.wait(1.0)
    assert desk.backlog.count() == 3
    again = desk.take()
    assert again is not None
    assert desk.backlog.count() == 2
    desk.backlog.ended(again)
    desk.backlog.again(again)
    desk.tell(watchers(7, "x"), topic="other")
    assert desk.backlog.count() == 10
    desk.tell(watchers(9, "bad"), topic="bad")
    for place in desk.take_all():
        if place.topic.update.topic == "bad":
            desk.answer(place, 503)
    desk.wait(1.0)
    assert desk.backlog.count() == 1, "three of the four that may be sent to stragglers at once are on their way"


@pytest.mark.parametrize(
    ("error_type", "body", "said"),
    [("Forbidden", b"\xffNo", "\ufffdNo"), ("Forbidden", b"", "Forbidden"), ("", b"x" * 1_000, "x" * 300)],
)
def test_the_first_refusal_is_kept_with_what_was_said(desk: Desk, error_type: str, body: bytes, said: str) -> None:
    update = desk.tell(watchers(3))
    _, second, third = desk.take_all()
    desk.answer(second, 403, error_type=error_type, body=body)
    desk.answer(third, 413)
    assert update.refusal == (403, "w1=", said)


def test_stragglers_come_after_those_never_tried_and_on_a_small_share(desk: Desk) -> None:
    desk.tell(watchers(10, "bad"))
    for place in desk.take_all():
        desk.answer(place, 503)
    desk.wait(1.0)
    desk.tell(watchers(3), topic="other")
    taken = desk.take_all()
    assert ids(taken) == [*ids_of(watchers(3)), *ids_of(watchers(4, "bad"))]
    for place in taken[3:5]:
        desk.answer(place, 200)
    assert ids(desk.take_all()) == ["bad4=", "bad5="]


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


@pytest.mark.parametrize(("most_late", "at_once"), [(1, 1), (3, 1), (5, 2)])
def test_what_hangs_takes_turns_on_its_half(most_late: int, at_once: int) -> None:
    desk = Desk(most_late=most_late)
    desk.tell(watchers(10, "hang"))
    for place in desk.take_all():
        desk.hang(place)
    desk.wait(5.0)
    first = desk.take_all()
    assert len(first) == at_once
    desk.hang(first[0])
    (second,) = desk.take_all()
    desk.answer(second, 200)
    assert len(desk.take_all()) == 1


@pytest.mark.parametrize(
    ("hangs", "expected"),
    [(False, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]), (True, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0])],
)
def test_each_failure_makes_the_next_retry_later_up_to_a_bound(desk: Desk, hangs: bool, expected: list[float]) -> None:
    desk.tell(watchers(1))
    waits = []
    for _ in expected:
        place = desk.take()
        assert place is not None
        if hangs:
            desk.hang(place)
        else:
            desk.answer(place, 503)
        due_at = desk.backlog.next_due
        assert due_at is not None
        waits.append(round(due_at - desk.now, 2))
        place.since = desk.now = due_at  # as if there were newer messages
        desk.backlog.wake(desk.now)
    assert waits == expected


def test_after_a_message_was_taken_the_first_retry_comes_soon_again(desk: Desk) -> None:
    desk.tell(watchers(1))
    for _ in range(4):
        desk.hang(*desk.take_all())
        desk.wait(10.0)
    (place,) = desk.take_all()
    desk.tell(watchers(1), version=2)
    desk.answer(place, 200)
    desk.answer(*desk.take_all(), 503)
    assert desk.backlog.next_due == pytest.approx(desk.now + 0.1)


def test_nobody_is_tried_for_ever(desk: Desk) -> None:
    desk.tell(watchers(1))
    for _ in range(100):
        place = desk.take()
        if place is None:
            break
        desk.answer(place, 429)
        desk.wait((desk.backlog.next_due or desk.now) - desk.now)
    assert desk.backlog.next_due is None
    assert rules.GIVE_UP_SECONDS < desk.now <= rules.GIVE_UP_SECONDS + 10


def test_a_newer_message_gives_who_waits_for_it_a_minute_anew(desk: Desk) -> None:
    desk.tell(watchers(1))
    desk.answer(*desk.take_all(), 429)
    desk.wait(rules.GIVE_UP_SECONDS)
    desk.tell(watchers(1), version=2)
    desk.wait(1.0)
    desk.answer(*desk.take_all(), 429)
    assert desk.backlog.next_due is not None


def test_while_nobody_can_be_connected_to_who_has_waited_for_a_minute_is_given_up(desk: Desk) -> None:
    update = desk.tell(watchers(4))
    hanging, busy, again = desk.take_all(window=4)
    desk.hang(hanging)
    desk.answer(busy, 503)
    desk.backlog.ended(again)
    desk.backlog.again(again)
    desk.wait(rules.GIVE_UP_SECONDS)
    desk.backlog.unreachable("cannot connect", desk.now)
    assert desk.backlog.count() == 4
    desk.wait(0.1)
    later = desk.tell(watchers(1), topic="later")
    for _ in range(2):
        desk.backlog.unreachable("cannot connect", desk.now)
    assert desk.backlog.count() == 1
    assert (update.problems["cannot connect"], later.problems["cannot connect"]) == (3, 2)
    desk.tell(watchers(4), version=2)
    assert len(desk.take_all()) == 5, "the next message finds them as any other"


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


def test_who_gave_no_answer_until_it_was_given_up_comes_last_at_the_next_update(desk: Desk) -> None:
    desk.tell(watchers(2))
    hanging, other = desk.take_all()
    desk.answer(other, 200)
    desk.wait(rules.GIVE_UP_SECONDS)
    desk.tell([], version=2)
    desk.wait(1.0)
    desk.hang(hanging)
    desk.tell(watchers(2), version=3)
    assert ids(desk.take_all()) == ["w1=", "w0="]


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
        desk.answer(place, (200, 403, 204)[number % 3])
    assert len(desk.take_all(window=100)) == 75


def test_after_many_refusals_in_a_row_one_at_a_time_is_asked_until_somebody_takes_the_message(desk: Desk) -> None:
    desk.tell(watchers(300))
    first = desk.take_all(window=100)
    for place in first[:63]:
        desk.answer(place, 403)
    rest = desk.take_all(window=100)
    assert len(rest) == 63
    for place in (*first[63:], *rest):
        desk.answer(place, 403)
    (only,) = desk.take_all(window=100)
    desk.answer(only, 200)
    assert len(desk.take_all(window=100)) == 75


def test_topics_share_the_window_and_one_alone_leaves_room_for_another(desk: Desk) -> None:
    desk.tell(watchers(100, "a"), topic="a")
    assert len(desk.take_all(window=40)) == 30
    desk.tell(watchers(100, "b"), topic="b")
    assert len(desk.take_all(window=40)) == 20, "half of the window is its share"


def test_of_several_topics_each_has_its_turn_and_one_that_is_done_takes_none_of_another(desk: Desk) -> None:
    for topic, everyone in (("a", 1), ("b", 20), ("c", 20)):
        desk.tell(watchers(everyone, topic), topic=topic)
    taken = ids(desk.take_all(window=40))
    assert taken[:5] == ["a0=", "b0=", "c0=", "b1=", "c1="]
    assert len(taken) == 1 + 20 + 20


@pytest.mark.parametrize(("window", "each"), [(40, 13), (2, 1)])
def test_the_share_of_one_topic_of_three_is_a_third_and_one_post_at_least(desk: Desk, window: int, each: int) -> None:
    for topic in "abc":
        desk.tell(watchers(30, topic), topic=topic)
    assert len(desk.take_all(window=window)) == 3 * each


def test_no_more_stragglers_are_held_than_memory_bears(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_MAX_STRAGGLERS", 3)
    update = desk.tell(watchers(10))
    for place in desk.take_all():
        desk.answer(place, 429)
    assert update.report(10) == DeliveryReport(throttled=10)
    desk.wait(1.0)
    held = desk.take_all()
    assert len(held) == 3
    for place in held:
        desk.answer(place, 200)
    desk.tell(watchers(10), version=2)
    for place in desk.take_all():
        desk.answer(place, 429)
    desk.wait(1.0)
    assert len(desk.take_all()) == 3, "those that were reached have left their places to others"


def test_who_was_throttled_counts_as_that_until_another_answer(desk: Desk) -> None:
    update = desk.tell(watchers(5), settle_seconds=100.0)
    for place in desk.take_all():
        desk.answer(place, 429)
    assert update.report(5) == DeliveryReport(throttled=5)
    desk.wait(1.0)
    delivered, failed, hanging, gone = desk.take_all()
    desk.answer(delivered, 200)
    desk.answer(failed, 503)
    desk.hang(hanging)
    desk.answer(gone, 410)
    assert update.report(5) == DeliveryReport(delivered=1, stale=1, throttled=1, failed=2)
    assert update.problems == {"429": 5, "503": 1, "TimeoutError": 1, "410": 1}
    later = desk.tell(watchers(5), version=2)
    assert later.report(5) == DeliveryReport(untried=5)
    desk.take_all()
    assert later.report(5).throttled == 1, "its last answer is the one to the message before"


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
    assert update.stale == {watcher.connection_id: watcher for watcher in watchers(3)}


def test_one_found_gone_after_the_others_were_forgotten_is_forgotten_too(desk: Desk) -> None:
    desk.tell(watchers(2))
    for place in desk.take_all():
        desk.answer(place, 429)
    desk.wait(0.1)
    for place in desk.take_all():
        desk.answer(place, 410)
        desk.wait(1.0)
    assert desk.left_stale == ["d", "d"]


@pytest.mark.parametrize("status", [204, 403, 410])
def test_a_last_message_is_over_once_nobody_is_left_to_be_waited_for(desk: Desk, status: int) -> None:
    update = desk.tell(watchers(4), settle_seconds=100.0)
    for first in (429, status):
        for place in desk.take_all():
            assert not update.over
            desk.answer(place, first)
        desk.wait(0.1)
    assert update.over


def test_a_last_message_waits_no_longer_than_it_may_for_who_is_not_reached(desk: Desk) -> None:
    update = desk.tell(watchers(2), settle_seconds=0.5)
    for place in desk.take_all():
        desk.answer(place, 429)
    desk.wait(0.4)
    assert not update.over
    desk.wait(0.1)
    assert update.over


def test_a_last_message_is_tried_again_at_once_on_who_waits_for_a_retry(desk: Desk) -> None:
    desk.tell(watchers(1))
    (place,) = desk.take_all()
    desk.hang(place)
    update = desk.tell(watchers(1), version=2, settle_seconds=0.5)
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


def test_a_topic_with_who_waits_for_a_retry_is_not_forgotten(desk: Desk) -> None:
    desk.tell(watchers(1), topic="0")
    desk.answer(*desk.take_all(), 429)
    for number in range(1, 400):
        desk.tell(watchers(1), topic=str(number))
        desk.answer(*desk.take_all(), 200)
    desk.tell(watchers(1), topic="0", version=2)
    assert desk.take() is None, "two posts to one connection might overtake each other"
