"""Who is told of a state, over a table and a poster in memory.

Not proved here: the sending, its retries and deadlines (posting), and the Query behind the watchers (table).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from docprogress.announcer import Announcer
from docprogress.document import Connection, DocumentState, Status, Subscription
from docprogress.errors import StoreUnavailable
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from tests.functions.fakes import PATIENCE_SECONDS, InMemoryStore, RecordingPoster, eventually

NOW = 1_800_000_000.0


class Hall:
    """A document's watchers and the announcer who tells them."""

    def __init__(self, **options: bool) -> None:
        self.store = InMemoryStore(lambda: NOW)
        self.poster = RecordingPoster()
        self.announcer = Announcer(self.store, self.poster, **options, now=lambda: NOW)

    def admit(self, *connection_ids: str, principal_id: str | None = None, seconds: float = 60) -> None:
        for connection_id in connection_ids:
            self.store.subscribe("d", Connection(connection_id, int(NOW + seconds), principal_id))

    def interrupt(self, *, after: str) -> None:
        """Let the table fail once, when it has named this connection."""
        watchers = self.store.watchers

        def interrupted(document_id: str, *, after: str | None = None) -> Iterator[Sequence[Subscription]]:
            for page in watchers(document_id, after=after):
                yield [each for each in page if each.connection_id <= last]
                self.store.watchers = watchers  # type: ignore[method-assign]
                raise StoreUnavailable("the Query was throttled")

        last = after
        self.store.watchers = interrupted  # type: ignore[method-assign]

    @property
    def told(self) -> list[str]:
        return [connection_id for connection_id, _ in self.poster.posts]

    @property
    def watching(self) -> list[str]:
        return [connection_id for _, connection_id in self.store.subscriptions]


def state(owner: str | None = None) -> DocumentState:
    return DocumentState(document_id="d", status=Status.STARTED, sequence=1, total=9, run_id="r", owner=owner)


def test_everyone_who_watches_the_document_hears_its_state_and_nobody_else() -> None:
    hall = Hall()
    hall.admit("c1", "c2")
    hall.store.subscribe("another", Connection("c3", int(NOW) + 60))

    report = hall.announcer.announce(state(), 2.0)

    assert hall.told == ["c1", "c2"]
    assert report == DeliveryReport(delivered=2)
    assert {json.dumps(json.loads(message), sort_keys=True) for _, message in hall.poster.posts} == {
        '{"docId": "d", "sequence": 1, "status": "processing_started", "totalPages": 9}'
    }


def test_the_deadline_is_handed_on() -> None:
    hall = Hall()
    hall.announcer.announce(state(), 2.0)

    assert hall.poster.deadlines == [2.0]


def test_a_connection_that_is_gone_is_forgotten_for_this_document() -> None:
    hall = Hall()
    hall.admit("c1", "gone")
    hall.poster.stale = {"gone"}

    assert hall.announcer.announce(state(), 2.0) == DeliveryReport(delivered=1, stale=1)
    assert hall.watching == ["c1"]


def test_a_document_with_an_owner_is_told_to_its_owner_alone() -> None:
    hall = Hall()
    hall.admit("alice's", "alice's second", principal_id="alice")
    hall.admit("bob's", principal_id="bob")
    hall.admit("anonymous")

    hall.announcer.announce(state(owner="alice"), 2.0)

    assert hall.told == ["alice's", "alice's second"]


@pytest.mark.parametrize(("shared", "told"), [(False, ["anonymous"]), (True, ["alice's", "anonymous"])])
def test_a_document_without_an_owner_is_told_to_those_with_a_name_only_where_documents_are_shared(
    shared: bool, told: list[str]
) -> None:
    hall = Hall(shared_documents=shared)
    hall.admit("alice's", principal_id="alice")
    hall.admit("anonymous")

    hall.announcer.announce(state(), 2.0)

    assert hall.told == told


@pytest.mark.parametrize(("options", "disconnected"), [({}, []), ({"close_expired": True}, ["expired"])])
def test_an_expired_watcher_is_not_told_and_is_forgotten_and_disconnected_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], disconnected: list[str]
) -> None:
    monkeypatch.setattr("docprogress.announcer._EXPIRED_SECONDS", PATIENCE_SECONDS)
    hall = Hall(**options)
    hall.admit("live")
    hall.admit("expired", seconds=0)

    hall.announcer.announce(state()._replace(status=Status.COMPLETE), 2.0)

    assert hall.told == ["live"]
    assert (hall.watching, hall.poster.disconnected) == (["live"], disconnected), "a last state waits for that"


def test_no_more_expired_watchers_are_held_than_a_thousand_and_the_rest_comes_later() -> None:
    hall = Hall()
    hall.admit(*(f"expired {number}" for number in range(1_500)), seconds=0)

    hall.announcer.announce(state(), 2.0)
    assert eventually(lambda: len(hall.watching) == 500)
    hall.announcer.announce(state(), 2.0)
    assert eventually(lambda: hall.watching == [])


def test_expired_watchers_that_take_long_to_forget_hold_up_no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docprogress.announcer._EXPIRED_SECONDS", PATIENCE_SECONDS)
    hall = Hall()
    hall.admit("live")
    hall.admit("expired", seconds=0)
    forgetting, has_returned, forgotten = threading.Event(), threading.Event(), threading.Event()

    def forget(*_: object) -> None:
        forgetting.set()
        has_returned.wait(PATIENCE_SECONDS / 4)
        forgotten.set()

    monkeypatch.setattr(hall.store, "forget", forget)
    for _ in range(2):
        hall.announcer.announce(state(), 2.0)
    assert forgetting.wait(PATIENCE_SECONDS)
    assert not forgotten.is_set(), "the update waited for it"
    assert hall.told == ["live"] * 2
    assert [thread.name for thread in threading.enumerate()].count("docprogress-aside") == 1, "one at a time"
    has_returned.set()


@pytest.mark.parametrize(("status", "seconds"), [(Status.PROGRESS, 0.0), (Status.COMPLETE, 1.0)])
def test_that_expired_watchers_are_forgotten_is_waited_for_after_a_last_state_alone(
    monkeypatch: pytest.MonkeyPatch, status: Status, seconds: float
) -> None:
    waits: list[float] = []

    class Aside:
        def do(self, _key: object, call: Callable[[], object], *, wait_seconds: float) -> None:
            waits.append(wait_seconds)
            call()

    monkeypatch.setattr("docprogress.announcer.aside", Aside())
    hall = Hall()
    hall.admit("expired", seconds=0)
    hall.announcer.announce(state()._replace(status=status), 2.0)

    assert (waits, hall.watching) == ([seconds], [])


def test_a_read_that_the_table_refused_is_tried_again_where_it_stopped() -> None:
    hall = Hall()
    hall.admit("c1", "c2", "c3")
    hall.interrupt(after="c2")

    assert hall.announcer.announce(state(), 60.0) == DeliveryReport(delivered=3)
    assert hall.told == ["c1", "c2", "c3"], "each once"


def test_watchers_that_cannot_be_read_until_the_deadline_are_an_error() -> None:
    hall = Hall()
    hall.admit("c1")
    hall.store.before = _unavailable

    with pytest.raises(StoreUnavailable):
        hall.announcer.announce(state(), 0.1)


def _unavailable(method: str) -> None:
    raise StoreUnavailable(method)


def test_an_update_begins_where_the_last_was_cut_short_and_reaches_the_others_after() -> None:
    hall = Hall()
    hall.admit(*"abcdefgh")
    for untried in (5, 5, 5, 0, 0):
        hall.poster.untried = untried
        hall.announcer.announce(state(), 2.0)

    assert "".join(hall.told) == "abcdefghabcdefghaabcdefgh"


def test_no_more_updates_that_were_cut_short_are_remembered_than_memory_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docprogress.announcer._MAX_CUT_SHORT", 2)
    hall = Hall()
    hall.poster.untried = 1
    for document_id in ("d1", "d2", "d3"):
        for connection_id in ("a", "b"):
            hall.store.subscribe(document_id, Connection(connection_id, int(NOW) + 60))
        hall.announcer.announce(state()._replace(document_id=document_id), 2.0)

    hall.poster.untried = 0
    hall.poster.posts.clear()
    for document_id in ("d1", "d2", "d3"):
        hall.announcer.announce(state()._replace(document_id=document_id), 2.0)

    assert "".join(hall.told) == "ab" + "ba" + "ba", "the first is forgotten, the newer ones go on behind a"


@pytest.mark.parametrize(("status", "seconds"), [(Status.STARTED, 0.0), (Status.PROGRESS, 0.0), (Status.COMPLETE, 2.0)])
def test_stragglers_are_waited_for_after_a_last_state_alone(status: Status, seconds: float) -> None:
    hall = Hall()
    hall.announcer.announce(state()._replace(status=status, sequence=7), 10.0)

    assert hall.poster.settled == [seconds]
    assert hall.poster.topics == [("d", 7)], "so that an older state never follows a newer one"


def test_totals_add_up_and_are_taken_once() -> None:
    hall = Hall()
    hall.admit("c1", "c2", "gone")
    hall.poster.stale = {"gone"}
    for _ in range(3):
        hall.announcer.announce(state(), 2.0)

    totals = hall.announcer.take_totals()

    assert totals.report == DeliveryReport(delivered=6, stale=1)
    assert len(totals.fan_out_milliseconds) == 3
    assert all(milliseconds >= 0 for milliseconds in totals.fan_out_milliseconds)
    assert hall.announcer.take_totals().report == DeliveryReport()


def test_the_time_of_a_fan_out_is_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    hall, now = Hall(), [100.0]
    post = hall.poster.post

    def take_a_quarter_second(*arguments: Any, **options: Any) -> DeliveryReport:
        now[0] += 0.25
        return post(*arguments, **options)

    monkeypatch.setattr("docprogress.announcer.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(hall.poster, "post", take_a_quarter_second)
    hall.announcer.announce(state(), 2.0)
    assert list(hall.announcer.take_totals().fan_out_milliseconds) == [250.0]


def test_totals_that_nobody_takes_do_not_grow_for_ever() -> None:
    hall = Hall()
    for _ in range(10_100):
        hall.announcer.announce(state(), 2.0)

    assert len(hall.announcer.take_totals().fan_out_milliseconds) == 10_000


def test_totals_of_parallel_announcements_lose_nothing() -> None:
    hall = Hall()
    hall.admit("c1")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(400):
            pool.submit(hall.announcer.announce, state(), 2.0)

    totals = hall.announcer.take_totals()
    assert totals.report == DeliveryReport(delivered=400)
    assert len(totals.fan_out_milliseconds) == 400


def test_what_a_refused_delivery_did_reach_is_counted() -> None:
    hall = Hall()
    hall.admit("c1", "c2")
    hall.poster.refusal = DeliveryRefused(403, DeliveryReport(refused=2), "c2", "")

    with pytest.raises(DeliveryRefused):
        hall.announcer.announce(state(), 2.0)

    assert hall.announcer.take_totals().report == DeliveryReport(refused=2)


def test_an_announcement_is_logged_in_one_line_with_its_figures(caplog: pytest.LogCaptureFixture) -> None:
    hall = Hall()
    hall.admit("c1", "gone", "gone too", "late", "later", "latest")
    hall.poster.stale = {"gone", "gone too"}
    hall.poster.untried = 3
    with caplog.at_level(logging.INFO, logger="docprogress.announcer"):
        hall.announcer.announce(state(), 2.0)

    (record,) = [record for record in caplog.records if record.name == "docprogress.announcer"]
    assert (record.document_id, record.sequence, record.status) == ("d", 1, "processing_started")  # type: ignore[attr-defined]
    assert (record.delivered, record.stale, record.untried) == (1, 2, 3)  # type: ignore[attr-defined]


# --- what is no state ---


def test_a_message_that_is_no_state_is_told_to_those_who_may_watch() -> None:
    hall = Hall()
    hall.admit("a", principal_id="alice")
    hall.admit("b", principal_id="bob")
    hall.announcer.post("d", state(owner="alice"), {"status": "chat", "text": "é", "docId": "d"}, 5.0)

    assert hall.poster.posts == [("a", '{"status":"chat","text":"é","docId":"d"}'.encode())]
    assert (hall.poster.deadlines, hall.poster.settled) == ([5.0], [2.0]), "no later message makes up for it"


def test_of_an_unknown_document_only_those_hear_who_have_no_name() -> None:
    hall = Hall()
    hall.admit("a", principal_id="alice")
    hall.admit("anybody")
    hall.announcer.post("d", None, {"status": "chat", "docId": "d"}, 5.0)

    assert hall.told == ["anybody"]


def test_no_message_takes_the_place_of_another_or_of_a_state() -> None:
    hall = Hall()
    hall.admit("a")
    for _ in range(2):
        hall.announcer.post("d", None, {"status": "chat", "docId": "d"}, 5.0)
    hall.announcer.announce(state(), 5.0)

    assert len({topic for topic, _ in hall.poster.topics}) == 3


def test_the_line_about_a_state_has_its_correlation_id(caplog: pytest.LogCaptureFixture) -> None:
    hall = Hall()
    with caplog.at_level(logging.INFO):
        hall.announcer.announce(state()._replace(correlation_id="page-1"), 1.0)
        hall.announcer.announce(state(), 1.0)
    correlated, not_correlated = (vars(record) for record in caplog.records if record.message == "Announced")
    assert correlated["correlation_id"] == "page-1"
    assert "correlation_id" not in not_correlated
