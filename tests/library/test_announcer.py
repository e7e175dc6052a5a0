"""Who is told of a state, over a table and a poster in memory.

Not proved here: the sending, its retries and deadlines (test_fanout), and the Query behind the watchers (test_store).
"""

from __future__ import annotations

import contextlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from docprogress.announcer import Announcer
from docprogress.document import Connection, DocumentState, Status
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from tests.functions.fakes import InMemoryStore, RecordingPoster

NOW = 1_800_000_000.0


class Hall:
    """A document's watchers and the announcer who tells them."""

    def __init__(self, *, close_expired: bool = False) -> None:
        self.store = InMemoryStore(lambda: NOW)
        self.poster = RecordingPoster()
        self.announcer = Announcer(self.store, self.poster, close_expired=close_expired, now=lambda: NOW)

    def admit(self, *connection_ids: str, principal_id: str | None = None, seconds: float = 60) -> None:
        for connection_id in connection_ids:
            self.store.subscribe("d", Connection(connection_id, int(NOW + seconds), principal_id))

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


def test_a_document_without_an_owner_is_told_to_all() -> None:
    hall = Hall()
    hall.admit("alice's", principal_id="alice")
    hall.admit("anonymous")

    hall.announcer.announce(state(), 2.0)

    assert hall.told == ["alice's", "anonymous"]


@pytest.mark.parametrize("close_expired", [True, False])
def test_an_expired_watcher_is_not_told_and_is_forgotten(close_expired: bool) -> None:
    hall = Hall(close_expired=close_expired)
    hall.admit("live")
    hall.admit("expired", seconds=0)

    hall.announcer.announce(state(), 2.0)

    assert hall.told == ["live"]
    assert hall.watching == ["live"]
    assert hall.poster.disconnected == (["expired"] if close_expired else [])


def test_watchers_that_may_not_be_disconnected_are_forgotten_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hall = Hall(close_expired=True)
    hall.admit("live")
    hall.admit("expired", seconds=-1)

    def refuse(connection_ids: list[str], *, deadline_seconds: float) -> DeliveryReport:
        raise DeliveryRefused(403, DeliveryReport(failed=1), "expired", "")

    monkeypatch.setattr(hall.poster, "disconnect", refuse)
    with contextlib.suppress(DeliveryRefused):
        hall.announcer.announce(state(), 2.0)

    assert hall.told == ["live"]
    assert hall.watching == ["live"]
    assert hall.announcer.take_totals().report.delivered == 1, "what was delivered is counted whatever follows"


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
    hall.poster.refusal = DeliveryRefused(403, DeliveryReport(delivered=1, failed=1), "c2", "")

    with pytest.raises(DeliveryRefused):
        hall.announcer.announce(state(), 2.0)

    assert hall.announcer.take_totals().report == DeliveryReport(delivered=1, failed=1)


def test_an_announcement_is_logged_in_one_line_with_its_figures(caplog: pytest.LogCaptureFixture) -> None:
    hall = Hall()
    hall.admit("c1")
    with caplog.at_level(logging.INFO, logger="docprogress.announcer"):
        hall.announcer.announce(state(owner="alice"), 2.0)

    (record,) = [record for record in caplog.records if record.name == "docprogress.announcer"]
    assert (record.document_id, record.sequence, record.status) == ("d", 1, "processing_started")  # type: ignore[attr-defined]
    assert (record.delivered, record.stale, record.throttled, record.failed) == (0, 0, 0, 0)  # type: ignore[attr-defined]
