"""The rules of reporting a document, over a store and a listener in memory.

Not proved here: that the table keeps to the store's promises (test_store), that messages reach browsers
(test_fanout), and any figure of speed: the rates are high so that the tests are short.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docprogress import tracker as tracker_module
from docprogress.document import DocumentState, ErrorCode, Failure, Phase, Run, Status, Update
from docprogress.errors import (
    AlreadyProcessed,
    BeingProcessed,
    Cancelled,
    StartRefused,
    StoreUnavailable,
    Superseded,
    TimeLimitExceeded,
)
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from docprogress.process import Background
from docprogress.tracker import ProgressTracker
from tests.functions.fakes import PATIENCE_SECONDS, InMemoryStore, Listener, eventually, started

FAST = 1000.0


@dataclass
class Desk:
    """A store, a listener, and trackers between the two."""

    store: InMemoryStore
    listener: Listener

    def tracker(self, document_id: str = "d", **arguments: Any) -> ProgressTracker:
        arguments = {"run_id": "run-1", "max_messages_per_second": FAST, **arguments}
        return ProgressTracker(document_id, store=self.store, deliver=self.listener.deliver, **arguments)

    @property
    def heard(self) -> list[DocumentState]:
        return self.listener.heard

    @property
    def statuses(self) -> list[Status]:
        return [state.status for state in self.listener.heard]


@pytest.fixture
def desk() -> Iterator[Desk]:
    before = set(threading.enumerate())
    # The machine's clock may be set while a test runs, and then the store would refuse what the tracker finds due.
    yield Desk(InMemoryStore(time.monotonic), Listener())
    left = set(threading.enumerate()) - before
    assert eventually(lambda: not any(thread.is_alive() for thread in left)), f"threads were left behind: {left}"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def refuse_once(error: Exception, method: str, times: int = 1) -> Any:
    """For InMemoryStore.before: the first calls of the method raise the error."""
    left = [times]

    def before(called: str) -> None:
        if called == method and left[0]:
            left[0] -= 1
            raise error

    return before


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of the document's run."""
    records: list[Any] = caplog.records
    return [record.getMessage() for record in records if (record.document_id, record.run_id) == ("d", "run-1")]


def advance_until_refused(tracker: ProgressTracker) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        tracker.advance()
        time.sleep(0.001)
    pytest.fail("no page was refused")


# --- start, advance, end ---


def test_watchers_hear_the_start_with_the_number_of_pages(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.owner = "alice"
        tracker.start(total=3)
        desk.listener.wait_for(lambda heard: len(heard) > 0)

        (state,) = desk.heard
        assert (state.status, state.total, state.processed) == (Status.STARTED, 3, 0)
        assert (state.run_id, state.attempt, state.owner) == ("run-1", 1, "alice")


def test_an_owner_that_is_found_out_later_is_noted_before_the_document_starts(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.owner = "alice"

        def noted() -> bool:
            state = desk.store.read("d")
            return state is not None and state.owner == "alice"

        assert eventually(noted), "if the worker dies now, its end is alice's alone to see"


def test_the_owner_that_was_noted_earlier_stands_at_the_tracker_once_the_document_is_taken_up(desk: Desk) -> None:
    started(desk.store, run_id="earlier", owner="alice")
    with desk.tracker() as tracker:
        assert tracker.owner == "alice"
    with desk.tracker(run_id="run-2", owner="bob") as tracker:
        assert tracker.owner == "bob"


def test_leaving_the_block_completes_the_document_with_all_pages_counted(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=3)
        for _ in range(3):
            tracker.advance()

    assert desk.statuses[-1] is Status.COMPLETE
    assert desk.heard[-1].processed == 3
    assert desk.heard[-1] == desk.store.published[-1]


def test_several_pages_can_be_counted_at_once(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=12)
        tracker.advance(5)
        tracker.advance(7)

    assert desk.heard[-1].processed == 12


def test_a_page_is_heard_of_without_a_further_call(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=2)
        tracker.advance()

        desk.listener.wait_for(lambda heard: bool(heard) and heard[-1].status is Status.PROGRESS)
        assert desk.heard[-1].processed == 1


def test_completing_by_hand_is_completing_once(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=1)
        tracker.complete()

    assert desk.statuses == [Status.STARTED, Status.COMPLETE]


def test_a_failure_is_told_in_the_words_given(desk: Desk) -> None:
    failure = Failure("The PDF needs a password.", ErrorCode.PROCESSING_FAILED, recoverable=False)

    with desk.tracker() as tracker:
        tracker.start(total=1)
        tracker.fail(failure)

    assert desk.heard[-1].failure == failure
    assert desk.statuses == [Status.STARTED, Status.ERROR]


def test_a_file_that_cannot_be_opened_fails_before_its_pages_are_known(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.fail(Failure("The file is empty."))

    assert desk.statuses[-1] is Status.ERROR
    assert desk.heard[-1].failure == Failure("The file is empty.")


def test_the_pages_counted_before_a_failure_are_kept(desk: Desk) -> None:
    with desk.tracker(max_messages_per_second=0.01) as tracker:
        tracker.start(total=9)
        tracker.advance(4)
        tracker.fail(Failure("No."))

    assert desk.heard[-1].processed == 4


def test_a_document_that_was_taken_up_reaches_an_end_even_if_its_block_starts_nothing(desk: Desk) -> None:
    with desk.tracker():
        pass

    assert desk.statuses == [Status.COMPLETE]


def test_a_document_is_taken_up_before_it_is_started_and_watchers_hear_nothing_of_that(desk: Desk) -> None:
    with desk.tracker():
        taken_up = desk.store.read("d")
        assert taken_up is not None
        assert (taken_up.status, taken_up.run_id, taken_up.attempt) == (Status.PENDING, "run-1", 1)
        assert desk.heard == []


def test_every_tracker_without_a_run_id_is_a_run_of_its_own(desk: Desk) -> None:
    for _ in range(2):
        with desk.tracker(run_id=None) as tracker:
            tracker.start(total=1)

    assert desk.statuses == [Status.STARTED, Status.COMPLETE] * 2
    assert all(earlier.sequence < later.sequence for earlier, later in pairwise(desk.heard))


@pytest.mark.parametrize("total", [0, -1, 2.5, "3", True])
def test_a_document_without_pages_cannot_be_started(desk: Desk, total: Any) -> None:
    with desk.tracker() as tracker, pytest.raises(ValueError, match=f"total is {total!r}; it is"):
        tracker.start(total=total)

    assert Status.STARTED not in desk.statuses


def test_a_joined_worker_is_seen_to_be_alive_before_its_first_page_is_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docprogress.tracker.HEARTBEAT_SECONDS", 0.01)
    started(desk.store, total=2)
    with desk.tracker(joined=True):
        assert eventually(lambda: "heartbeat" in desk.store.calls)


@pytest.mark.parametrize("pages", [-1, 0.5, 2**53, True])
def test_what_is_no_number_of_pages_is_refused_and_the_others_count(desk: Desk, pages: Any) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=2)
        with pytest.raises(ValueError, match=f"count is {pages}; it is a whole number"):
            tracker.advance(pages)
        tracker.advance(2)

    assert desk.heard[-1].processed == 2


@pytest.mark.parametrize("document_id", ["", "a\0b", "y" * 257, "\ud800", None])
def test_a_document_that_nobody_could_watch_is_refused(desk: Desk, document_id: Any) -> None:
    with pytest.raises(ValueError, match="1 to 256 characters"):
        desk.tracker(document_id)


@pytest.mark.parametrize("run_id", ["", "-", "a\0b", "y" * 257, "\ud800", 7])
def test_what_names_no_run_is_refused(desk: Desk, run_id: Any) -> None:
    with pytest.raises(ValueError, match="run_id is "):
        desk.tracker(run_id=run_id)


def test_a_document_is_written_under_its_composed_name(desk: Desk) -> None:
    assert desk.tracker("u\u0308ber").document_id == "\u00fcber", (
        "people type names composed, and a Mac writes them not so"
    )


@pytest.mark.parametrize("owner", ["", " ", "\n", 7])
def test_a_blank_owner_is_refused_whenever_it_is_given(desk: Desk, owner: str) -> None:
    with pytest.raises(ValueError, match="owner is"):
        desk.tracker(owner=owner)
    tracker = desk.tracker()
    with pytest.raises(ValueError, match="owner is"):
        tracker.owner = owner
    assert tracker.owner is None


def test_a_tracker_starts_once(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=2)
        tracker.advance(2)
        with pytest.raises(RuntimeError, match="a retry has its own tracker"):
            tracker.start(total=2)

    assert desk.heard[-1].processed == 2


def test_pages_are_not_counted_before_the_start(desk: Desk) -> None:
    with desk.tracker() as tracker, pytest.raises(RuntimeError, match=r"advance\(\) on document 'd', which has not"):
        tracker.advance()


@pytest.mark.parametrize("action", ["advance", "complete"])
def test_nothing_follows_the_end(desk: Desk, action: str) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=1)
        tracker.complete()
        with pytest.raises(RuntimeError, match=rf"{action}\(\) on document 'd', which has ended"):
            getattr(tracker, action)()

    assert desk.statuses == [Status.STARTED, Status.COMPLETE]


# --- exceptions that leave the block ---


def test_an_exception_fails_the_document_and_goes_on(desk: Desk) -> None:
    with pytest.raises(LookupError, match="secret"), desk.tracker() as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=3)
        raise LookupError("secret: s3://bucket/key of alice")

    assert desk.statuses == [Status.STARTED, Status.ERROR]
    assert desk.heard[-1].failure == Failure("Processing failed.", ErrorCode.PROCESSING_FAILED, recoverable=False)


def test_an_exception_that_is_tried_again_is_told_as_recoverable(desk: Desk) -> None:
    with pytest.raises(LookupError), desk.tracker(retry_follows=True) as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=3)
        raise LookupError("secret")

    failure = desk.heard[-1].failure
    assert failure is not None
    assert failure.recoverable
    assert "secret" not in failure.message
    assert "LookupError" not in failure.message


def test_an_exception_before_the_start_fails_the_document_too(desk: Desk) -> None:
    with pytest.raises(LookupError), desk.tracker():
        raise LookupError

    assert desk.statuses == [Status.ERROR]


def test_a_recoverable_failure_may_be_tried_again_under_the_same_run(desk: Desk) -> None:
    with pytest.raises(LookupError), desk.tracker(retry_follows=True) as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=2)
        tracker.advance()
        raise LookupError

    with desk.tracker() as tracker:
        tracker.start(total=2)
        tracker.advance(2)

    assert desk.statuses[-1] is Status.COMPLETE
    assert desk.heard[-1].processed == 2, "the pages of the attempt that failed do not count"


def test_the_workers_own_exception_is_not_hidden_by_one_of_reporting_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse_errors(state: DocumentState) -> None:
        if state.status is Status.ERROR:
            raise DeliveryRefused(403, DeliveryReport(failed=1), "c", "")

    desk.listener.during = refuse_errors

    with pytest.raises(LookupError), desk.tracker() as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=1)
        raise LookupError
    assert logged(caplog) == ["The failure LookupError could not be reported"]


def test_a_repeated_event_writes_nothing(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=1)
    written = list(desk.store.published)

    with pytest.raises(AlreadyProcessed), desk.tracker() as tracker:
        tracker.start(total=1)

    assert desk.store.published == written
    assert desk.heard == written


def test_a_repeated_event_of_a_run_under_way_writes_nothing(desk: Desk) -> None:
    with desk.tracker() as first:
        first.start(total=1)
        with pytest.raises(BeingProcessed), desk.tracker():
            pytest.fail("two workers were on one run")
        desk.listener.wait_for(lambda heard: len(heard) > 0)
        assert desk.statuses == [Status.STARTED]

    assert desk.statuses == [Status.STARTED, Status.COMPLETE]


def test_a_repeated_event_of_a_file_that_cannot_be_opened_writes_nothing(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.fail(Failure("Empty."))
    written = list(desk.store.published)

    with pytest.raises(StartRefused), desk.tracker() as tracker:
        tracker.fail(Failure("Empty."))

    assert desk.store.published == written


def test_a_run_whose_worker_has_fallen_silent_is_taken_over(desk: Desk) -> None:
    clock = Clock()
    desk.store = InMemoryStore(clock)
    started(desk.store, total=5)
    desk.store.write(Run("d", "run-1"), Update(status=Status.PROGRESS, pages=3))
    clock.now += 60

    with desk.tracker() as tracker:
        tracker.start(total=5)
        tracker.advance(5)

    assert desk.heard[-1].status is Status.COMPLETE
    assert desk.heard[-1].processed == 5, "the pages of the worker that died do not count"


def test_a_worker_learns_that_a_newer_run_has_taken_its_document(desk: Desk) -> None:
    with pytest.raises(Superseded), desk.tracker() as older:  # noqa: PT012  leaving the block is the test
        older.start(total=9)
        with desk.tracker(run_id="run-2") as newer:
            newer.start(total=5)
            newer.advance(5)
        advance_until_refused(older)

    assert [state.run_id for state in desk.store.published] == ["run-1", *["run-2"] * (len(desk.store.published) - 1)]
    newest = max(desk.heard, key=lambda state: state.sequence)
    assert (newest.status, newest.processed) == (Status.COMPLETE, 5)


def test_a_worker_whose_document_was_taken_neither_completes_nor_fails_it(desk: Desk) -> None:
    def take(run_id: str) -> None:
        started(desk.store, run_id=run_id, total=5)

    with pytest.raises(Superseded), desk.tracker(max_messages_per_second=0.01) as completing:  # noqa: PT012  leaving the block is the test
        completing.start(total=9)
        take("run-2")
    with pytest.raises(LookupError), desk.tracker(run_id="run-3", max_messages_per_second=0.01) as failing:  # noqa: PT012  leaving the block is the test
        failing.start(total=9)
        take("run-4")
        raise LookupError

    assert {state.status for state in desk.store.published} == {Status.STARTED}


# --- how often ---


def test_a_burst_of_pages_is_told_in_a_bounded_number_of_messages_and_none_is_lost(desk: Desk) -> None:
    rate = 50.0
    started_at = time.monotonic()

    with desk.tracker(max_messages_per_second=rate) as tracker:
        tracker.start(total=10_000)
        for _ in range(10_000):
            tracker.advance()

    seconds = time.monotonic() - started_at
    assert len(desk.heard) <= 2 + seconds * rate
    assert desk.statuses[0] is Status.STARTED
    assert desk.statuses[-1] is Status.COMPLETE
    assert desk.heard[-1].processed == 10_000


def test_a_burst_costs_the_table_no_more_writes_than_it_makes_messages(desk: Desk) -> None:
    with desk.tracker(max_messages_per_second=50.0) as tracker:
        tracker.start(total=10_000)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(desk.heard) < 8 and time.monotonic() < deadline:
            tracker.advance()

    assert len(desk.heard) >= 8
    # Every refused claim of a turn would cost a write as well.
    assert len(desk.store.calls) <= len(desk.heard) + 2


def test_watchers_hear_how_it_goes_on_while_pages_come(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=10_000)

        def three_updates(heard: list[DocumentState]) -> bool:
            tracker.advance()
            return sum(state.status is Status.PROGRESS for state in heard) >= 3

        assert eventually(lambda: three_updates(desk.heard))

    pages = [state.processed for state in desk.heard]
    assert pages == sorted(pages)


def test_pages_that_wait_for_their_turn_are_told_with_the_end(desk: Desk) -> None:
    with desk.tracker(max_messages_per_second=0.01) as tracker:
        tracker.start(total=7)
        for _ in range(7):
            tracker.advance()

    assert desk.statuses == [Status.STARTED, Status.COMPLETE]
    assert desk.heard[-1].processed == 7


def test_a_tracker_never_makes_two_deliveries_at_once(desk: Desk) -> None:
    desk.listener.during = lambda state: time.sleep(0.002)

    with desk.tracker() as tracker:
        tracker.start(total=400)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(400):
                pool.submit(tracker.advance)

    assert not desk.listener.overlapped
    assert desk.heard[-1].processed == 400


def test_a_delivery_that_hangs_does_not_hold_up_the_worker(desk: Desk) -> None:
    hangs = threading.Event()
    released = threading.Event()
    over = threading.Event()

    def hang(state: DocumentState) -> None:
        if state.status is Status.PROGRESS and not released.is_set():
            hangs.set()
            released.wait(PATIENCE_SECONDS)
            over.set()

    desk.listener.during = hang
    with desk.tracker() as tracker:
        tracker.start(total=1001)
        tracker.advance()
        assert hangs.wait(PATIENCE_SECONDS)
        for _ in range(1000):
            tracker.advance()
        assert not over.is_set(), "all 1,000 calls returned while the delivery was under way"
        released.set()

    assert desk.heard[-1].processed == 1001


def test_sequences_are_delivered_in_strictly_growing_order(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=500)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(500):
                pool.submit(tracker.advance)

    sequences = [state.sequence for state in desk.heard]
    assert all(earlier < later for earlier, later in pairwise(sequences))


def test_a_delivery_may_take_as_long_as_the_worker_has_left(desk: Desk) -> None:
    with desk.tracker(remaining_seconds=lambda: 1.5) as tracker:
        tracker.start(total=1)

    assert all(0 < deadline < 1.5 for deadline in desk.listener.deadlines), "returning takes time as well"


def test_a_worker_without_time_left_is_not_given_a_negative_one(desk: Desk) -> None:
    with desk.tracker(remaining_seconds=lambda: 0.1) as tracker:
        tracker.start(total=1)

    assert desk.listener.deadlines == [0.0, 0.0]


def test_the_last_message_may_take_longer_than_one_that_others_follow(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=1)

    first, last = desk.listener.deadlines
    assert 0 < first < last < 29, "the end has no message after it"


# --- faults ---


def test_a_table_that_is_unavailable_for_a_while_loses_no_page(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=100)
        desk.store.before = refuse_once(StoreUnavailable("throttled"), "progress", times=3)
        for _ in range(100):
            tracker.advance()
        desk.listener.wait_for(lambda heard: bool(heard) and heard[-1].processed == 100)

    assert desk.heard[-1].status is Status.COMPLETE
    assert desk.heard[-1].processed == 100
    assert logged(caplog) == ["Progress is not recorded, will retry: throttled"] * 3


def test_a_table_that_is_unavailable_is_not_asked_in_a_hot_loop(desk: Desk) -> None:
    unavailable = refuse_once(StoreUnavailable("down"), "progress", times=1_000_000)
    with desk.tracker(max_messages_per_second=20.0) as tracker:
        tracker.start(total=1)
        desk.store.before = unavailable
        started_at = time.monotonic()
        tracker.advance()
        assert eventually(lambda: desk.store.calls.count("progress") >= 5)
        asked = desk.store.calls.count("progress")
        seconds = time.monotonic() - started_at
        desk.store.before = lambda method: None

    assert asked <= 2 * 20.0 * seconds + 1


def test_a_table_that_is_unavailable_for_a_moment_does_not_lose_the_end(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=1)
        tracker.advance()
        desk.store.before = refuse_once(StoreUnavailable("throttled"), "processing_complete")

    assert desk.statuses[-1] is Status.COMPLETE, "watchers would wait for ever: the document is not processed again"
    assert desk.heard[-1].processed == 1


def test_pages_whose_answer_is_lost_again_and_again_are_counted_once(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=100)
        desk.store.after = refuse_once(StoreUnavailable("the answer was lost"), "progress", times=3)
        for _ in range(100):
            tracker.advance()
        assert eventually(lambda: desk.store.published[-1].processed == 100)
        tracker.advance(5)

    assert desk.heard[-1].processed == 105


def test_pages_whose_answer_was_lost_are_not_counted_again_with_the_end(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=100)
        desk.store.after = refuse_once(StoreUnavailable("the answer was lost"), "progress", times=1_000)
        tracker.advance(5)
        assert eventually(lambda: "progress" in desk.store.calls)

    assert (desk.heard[-1].status, desk.heard[-1].processed) == (Status.COMPLETE, 5)


def test_an_end_whose_answer_is_lost_is_told(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=1)
        tracker.advance()
        desk.store.after = refuse_once(StoreUnavailable("the answer was lost"), "processing_complete")

    assert desk.heard[-1] == desk.store.published[-1]
    assert (desk.heard[-1].status, desk.heard[-1].processed) == (Status.COMPLETE, 1)


@pytest.mark.parametrize("write", ["begin", "processing_started"])
@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_table_that_is_unavailable_for_a_moment_does_not_keep_a_document_from_starting(
    desk: Desk, write: str, fault: str
) -> None:
    setattr(desk.store, fault, refuse_once(StoreUnavailable("throttled"), write, times=2))
    with desk.tracker() as tracker:
        tracker.start(total=7)

    assert [state.status for state in desk.store.published] == [Status.STARTED, Status.COMPLETE]
    assert desk.store.published[0].attempt == 1, "a beginning that was made is not made twice"


def test_a_write_that_is_refused_in_the_background_is_logged_and_its_pages_are_counted_with_the_end(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=4)
        desk.store.before = refuse_once(PermissionError("the token has expired"), "progress")
        tracker.advance(4)
        assert eventually(lambda: "progress" in desk.store.calls)

    assert (desk.heard[-1].status, desk.heard[-1].processed) == (Status.COMPLETE, 4)
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.exc_info is not None
    assert "the token has expired" in str(error.exc_info[1])
    assert logged(caplog) == ["No more updates until the last"]


def test_watchers_that_cannot_be_read_for_a_moment_cost_one_update_and_not_the_document(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [StoreUnavailable("the Query of the watchers was throttled")]

    def fail_once(state: DocumentState) -> None:
        if state.status is Status.PROGRESS and faults:
            raise faults.pop()

    desk.listener.during = fail_once
    with desk.tracker() as tracker:
        tracker.start(total=10)
        tracker.advance(4)
        assert eventually(lambda: not faults)
        tracker.advance(6)

    assert desk.heard[-1].status is Status.COMPLETE
    assert desk.heard[-1].processed == 10, "the pages of the update nobody heard were in the table already"
    assert logged(caplog) == ["The watchers could not be read: the Query of the watchers was throttled"]


def test_watchers_that_cannot_be_told_for_whatever_reason_do_not_stop_the_work(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(state: DocumentState) -> None:
        raise PermissionError("the credentials' endpoint is away")

    desk.listener.during = fail
    with desk.tracker() as tracker:
        tracker.start(total=10)
        tracker.advance(4)
        assert eventually(lambda: "progress" in desk.store.calls)
        tracker.advance(6)

    assert (desk.store.published[-1].status, desk.store.published[-1].processed) == (Status.COMPLETE, 10)
    assert set(logged(caplog)) == {"The watchers are not told"}


def test_a_delivery_that_is_refused_in_the_background_is_raised_by_the_next_page(desk: Desk) -> None:
    refused = DeliveryRefused(403, DeliveryReport(failed=1), "c", "")

    def refuse_progress(state: DocumentState) -> None:
        if state.status is Status.PROGRESS:
            raise refused

    desk.listener.during = refuse_progress
    with pytest.raises(DeliveryRefused) as caught, desk.tracker() as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=10_000)
        advance_until_refused(tracker)

    assert caught.value is refused
    assert desk.statuses[-1] is Status.ERROR
    assert desk.statuses.count(Status.PROGRESS) == 1


# --- heartbeat ---


def test_a_worker_on_a_long_page_shows_that_it_is_alive_and_tells_nobody(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.005)
    with desk.tracker() as tracker:
        tracker.start(total=1)
        assert eventually(lambda: desk.store.heartbeats >= 3)

    assert desk.statuses == [Status.STARTED, Status.COMPLETE]


def test_a_worker_learns_from_its_heartbeat_that_its_document_was_taken(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.005)
    threads = set(threading.enumerate())
    with pytest.raises(Superseded), desk.tracker(max_messages_per_second=0.01) as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=9)
        started(desk.store, run_id="run-2", total=9)
        assert eventually(lambda: set(threading.enumerate()) == threads)
        tracker.advance()
        pytest.fail("a page of a document that was taken was counted")


def test_a_heartbeat_that_cannot_be_written_is_not_tried_in_a_hot_loop(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.05)
    with desk.tracker(max_messages_per_second=20.0) as tracker:
        tracker.start(total=1)
        desk.store.before = refuse_once(StoreUnavailable("down"), "heartbeat", times=1_000_000)
        started_at = time.monotonic()
        before = desk.store.calls.count("heartbeat")
        assert eventually(lambda: desk.store.calls.count("heartbeat") >= before + 5)
        asked = desk.store.calls.count("heartbeat") - before
        seconds = time.monotonic() - started_at
        desk.store.before = lambda method: None

    assert asked <= 2 * 20.0 * seconds + 1


def test_a_heartbeat_that_was_not_written_does_not_count_as_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def throttle_once(method: str) -> None:
        if method == "heartbeat":
            desk.store.before = lambda _: None
            monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 3600.0)
            raise StoreUnavailable("throttled")

    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.005)
    desk.store.before = throttle_once
    with desk.tracker():
        assert eventually(lambda: desk.store.heartbeats == 1), "it must not look dead until the next one is due"


def test_two_heartbeats_may_be_missed_before_a_run_is_taken_for_abandoned() -> None:
    margin = tracker_module.ABANDONED_AFTER_SECONDS - 2 * tracker_module.HEARTBEAT_SECONDS
    assert margin >= 5
    # Lambda's first retry comes after a minute: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html
    assert tracker_module.ABANDONED_AFTER_SECONDS < 60


def test_a_worker_that_was_refused_sends_no_more_heartbeats(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.005)
    threads = set(threading.enumerate())
    with pytest.raises(Superseded), desk.tracker() as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=9)
        started(desk.store, run_id="run-2")
        tracker.require_current()

    assert set(threading.enumerate()) == threads


def test_an_end_that_cannot_be_written_is_not_tried_in_a_hot_loop(desk: Desk) -> None:
    with desk.tracker(remaining_seconds=lambda: 1.5) as tracker:
        tracker.start(total=1)
        desk.store.before = refuse_once(StoreUnavailable("down"), "processing_complete", times=1_000_000)
        with pytest.raises(StoreUnavailable):
            tracker.complete()

    assert desk.store.calls.count("processing_complete") < 100


def test_a_tracker_that_nobody_ended_does_not_keep_its_process_alive(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "from docprogress.tracker import ProgressTracker\n"
        "from tests.functions.fakes import InMemoryStore, Listener\n"
        "ProgressTracker('d', store=InMemoryStore(), deliver=Listener().deliver).__enter__().start(total=2)\n"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / folder) for folder in ("", "library"))
    subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60)


def test_a_worker_that_thaws_after_a_retry_took_its_run_over_is_superseded(desk: Desk) -> None:
    clock = Clock()
    desk.store = InMemoryStore(clock)
    with pytest.raises(Superseded), desk.tracker() as frozen:  # noqa: PT012  leaving the block is the test
        frozen.start(total=5)
        clock.now += 60
        with desk.tracker() as retry:
            retry.start(total=5)
            with pytest.raises(Superseded):
                frozen.require_current()
            retry.advance(5)
        frozen.complete()

    newest = max(desk.heard, key=lambda state: state.sequence)
    assert (newest.status, newest.processed, newest.attempt) == (Status.COMPLETE, 5, 2)


def test_a_tracker_that_is_dropped_without_an_end_falls_silent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.005)
    threads = set(threading.enumerate())
    tracker = desk.tracker()
    tracker.start(total=2)
    (sender,) = set(threading.enumerate()) - threads
    assert eventually(lambda: desk.store.heartbeats >= 1)

    del tracker
    gc.collect()

    # As long as it writes, neither the watchdog nor a second worker may take the document.
    assert eventually(lambda: not sender.is_alive())


def test_a_generator_that_ends_where_nobody_may_wait_ends_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may end it on the very thread that would have to be waited for."""
    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.005)  # its sender looks as often whether it was dropped

    def work() -> Iterator[None]:
        with desk.tracker() as tracker:
            tracker.start(total=2)
            while True:
                tracker.advance()
                yield

    working = work()
    next(working)
    thread = Background(working.close, "of this package")  # type: ignore[attr-defined]  # a generator has it
    thread.start()
    thread.join(PATIENCE_SECONDS)

    assert not thread.is_alive()
    assert desk.store.published[-1].is_active, "the watchdog ends it"
    # Until it is dropped it writes signs of life.
    del working, thread
    gc.collect()


def test_threads_that_are_the_first_to_use_a_joined_tracker_count_every_page(desk: Desk) -> None:
    started(desk.store, total=1_000)
    desk.store.before = lambda method: time.sleep(0.01) if method == "heartbeat" else None
    tracker = desk.tracker(joined=True)
    together = threading.Barrier(8)

    def count() -> None:
        together.wait(PATIENCE_SECONDS)
        for _ in range(50):
            tracker.advance()

    with ThreadPoolExecutor(8) as pool:
        for counted in [pool.submit(count) for _ in range(8)]:
            counted.result(PATIENCE_SECONDS)
    tracker.__exit__(None, None, None)

    assert desk.store.published[-1].processed == 400


# --- more to say ---


def test_a_message_a_phase_and_a_total_are_told_with_the_pages(desk: Desk) -> None:
    with desk.tracker(max_messages_per_second=0.01) as tracker:
        tracker.start(unit="rows")
        tracker.advance(2, message="Reading")
        tracker.phase("ocr", 2, of=3)
        tracker.advance(message="Recognizing")
        tracker.total(40)
        tracker.advance(3)
        tracker.fail(Failure("No."))

    (end,) = [state for state in desk.store.published if state.has_ended]
    assert (end.processed, end.total, end.unit, end.phase) == (6, 40, "rows", Phase("ocr", 2, 3))


def test_what_is_said_faster_than_it_may_be_told_keeps_the_newest_message_and_loses_no_phase_or_total(
    desk: Desk,
) -> None:
    with desk.tracker(max_messages_per_second=20.0) as tracker:
        tracker.start()
        desk.store.before = refuse_once(StoreUnavailable("throttled"), "progress", times=2)
        tracker.phase("reading", 1)
        tracker.total(500)
        for page in range(300):
            tracker.advance(message=f"Page {page}")
        desk.listener.wait_for(lambda heard: bool(heard) and heard[-1].processed == 300)

        told = desk.heard[-1]
        assert (told.message, told.phase, told.total) == ("Page 299", Phase("reading", 1), 500)
        tracker.advance()
        desk.listener.wait_for(lambda heard: heard[-1].processed == 301)
        assert desk.heard[-1].message == "Page 299", "what nobody has changed stands"


def test_a_message_and_a_new_total_are_told_though_no_page_is_done(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=2)
        tracker.advance(0, message="Waiting for the scanner")
        tracker.total(3)
        desk.listener.wait_for(lambda heard: bool(heard) and heard[-1].total == 3)
        assert (desk.heard[-1].message, desk.heard[-1].processed) == ("Waiting for the scanner", 0)


def test_a_phase_is_told_though_no_page_comes(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start()
        tracker.phase("upload", 1)
        desk.listener.wait_for(lambda heard: heard[-1:] != [] and heard[-1].phase == Phase("upload", 1))


def test_a_result_is_told_with_the_end(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=3)
        tracker.complete(result={"key": "results/d.json"}, pages_unreadable=2)

    assert (desk.heard[-1].result, desk.heard[-1].pages_unreadable) == ({"key": "results/d.json"}, 2)


def test_a_result_that_is_too_large_raises_with_its_size_and_the_document_can_still_end_well(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=3)
        with pytest.raises(ValueError, match="result has 3011 bytes as JSON; watchers are told up to 2048"):
            tracker.complete(result={"text": "ü" * 1500})
        tracker.complete(result={"text": "ü" * 1000})

    assert desk.statuses == [Status.STARTED, Status.COMPLETE]


@pytest.mark.parametrize("result", [{"a": float("nan")}, {"a": b"1"}, [1], "text", 7])
def test_a_result_that_is_no_json_object_is_refused(desk: Desk, result: Any) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=3)
        with pytest.raises(ValueError, match="result is no JSON object"):
            tracker.complete(result=result)


@pytest.mark.parametrize(
    "say",
    [
        lambda tracker: tracker.phase("", 1),
        lambda tracker: tracker.phase("ocr", 0),
        lambda tracker: tracker.phase("ocr", 3, of=2),
        lambda tracker: tracker.total(0),
        lambda tracker: tracker.advance(1, message=7),
    ],
)
def test_what_cannot_be_told_is_refused_when_it_is_said(desk: Desk, say: Callable[[ProgressTracker], None]) -> None:
    with desk.tracker() as tracker:
        tracker.start()
        with pytest.raises(ValueError, match="; it is a "):
            say(tracker)

    assert desk.statuses[-1] is Status.COMPLETE


# --- runs in order ---


def test_an_older_run_neither_begins_nor_writes_once_a_newer_one_has_begun(desk: Desk) -> None:
    with desk.tracker(run_id="newer", order=20) as tracker:
        tracker.start(total=1)
    written = list(desk.store.published)

    for run_id, order in (("older", 19), ("oldest", 0)):
        with pytest.raises(Superseded), desk.tracker(run_id=run_id, order=order):
            pytest.fail("it would write over the newer one's result")
    with pytest.raises(AlreadyProcessed), desk.tracker(run_id="newer", order=20):
        pytest.fail("a repeated event")

    assert desk.store.published == written


def test_an_older_run_under_way_may_not_store_its_result_over_a_newer_ones(desk: Desk) -> None:
    with pytest.raises(Superseded), desk.tracker(run_id="older", order=1) as older:  # noqa: PT012  leaving the block is the test
        older.start(total=1)
        with desk.tracker(run_id="newer", order=2) as newer:
            newer.start(total=1)
        older.require_current()
        pytest.fail("it would store an old result")

    assert desk.store.published[-1].run_id == "newer"


@pytest.mark.parametrize("order", [-1, 1.5, "7", 10**38, True])
def test_what_is_no_order_is_refused(desk: Desk, order: Any) -> None:
    with pytest.raises(ValueError, match="order is "):
        desk.tracker(order=order)


# --- cancelling ---


def test_a_worker_whose_document_is_cancelled_learns_of_it_and_tells_the_watchers(desk: Desk) -> None:
    with pytest.raises(Cancelled), desk.tracker() as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=9)
        desk.store.cancel("d", principal_id=None)
        advance_until_refused(tracker)

    assert [state.status for state in desk.store.published] == [Status.STARTED, Status.ERROR]
    assert desk.heard[-1] == desk.store.published[-1]
    with pytest.raises(AlreadyProcessed), desk.tracker():
        pytest.fail("a retry of a cancelled run")


def test_a_document_that_is_cancelled_keeps_no_half_result_and_does_not_complete(desk: Desk) -> None:
    with pytest.raises(Cancelled), desk.tracker(max_messages_per_second=0.01) as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=9)
        desk.store.cancel("d", principal_id=None)
        tracker.require_current()
        pytest.fail("it would store its result")
    with pytest.raises(Cancelled), desk.tracker(run_id="run-2", max_messages_per_second=0.01) as tracker:  # noqa: PT012  leaving the block is the test
        tracker.start(total=9)
        desk.store.cancel("d", principal_id=None)
        tracker.complete()

    assert Status.COMPLETE not in desk.statuses
    assert desk.heard[-1].is_cancelled


def test_every_worker_of_several_learns_of_a_cancellation(desk: Desk) -> None:
    started(desk.store, total=10)
    workers = [desk.tracker(joined=True), desk.tracker(joined=True)]
    for worker in workers:
        worker.advance()
    desk.store.cancel("d", principal_id=None)
    for worker in workers:
        with pytest.raises(Cancelled), worker:
            advance_until_refused(worker)


def test_a_document_that_is_cancelled_before_it_begins_does_not_begin_but_its_next_run_does(desk: Desk) -> None:
    desk.store.cancel("d", principal_id=None)

    for refusal in (Cancelled, AlreadyProcessed):
        with pytest.raises(refusal), desk.tracker(run_id="run-1"):
            pytest.fail("it was cancelled")
    with desk.tracker(run_id="run-2") as tracker:
        tracker.start(total=1)

    assert desk.heard[-1].status is Status.COMPLETE


# --- attempts, and the time there is ---


def test_the_last_attempt_says_that_nothing_follows(desk: Desk) -> None:
    for _ in range(3):
        with pytest.raises(LookupError), desk.tracker(retry_follows=2) as tracker:  # noqa: PT012  leaving the block is the test
            tracker.start(total=1)
            raise LookupError

    failures = [state.failure for state in desk.heard if state.failure]
    assert [failure.recoverable for failure in failures] == [True, True, False]
    with pytest.raises(AlreadyProcessed), desk.tracker(retry_follows=2):
        pytest.fail("the document has ended")


@dataclass
class Time:
    left: float = 900.0

    def __call__(self) -> float:
        return self.left


def test_work_that_cannot_end_in_time_stops_before_and_says_what_to_do(desk: Desk) -> None:
    time_left = Time()
    with (  # noqa: PT012  leaving the block is the test
        pytest.raises(TimeLimitExceeded),
        desk.tracker(retry_follows=2, remaining_seconds=time_left) as tracker,
    ):
        tracker.start(total=300)
        tracker.advance()
        time_left.left = 15.0
        tracker.advance()
        pytest.fail("it would be killed in the middle of a page")

    assert desk.heard[-1].failure == Failure(
        "The document takes longer than the 15 minutes that there are for one. Split it into smaller ones.",
        ErrorCode.TIME_LIMIT_EXCEEDED,
        recoverable=False,
    )


def test_a_page_that_outlasts_the_time_ends_the_document_though_its_worker_says_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "HEARTBEAT_SECONDS", 0.005)
    time_left = Time()
    with (  # noqa: PT012  leaving the block is the test
        pytest.raises(TimeLimitExceeded),
        desk.tracker(retry_follows=True, remaining_seconds=time_left) as tracker,
    ):
        time_left.left = 15.0
        desk.listener.wait_for(lambda heard: bool(heard) and heard[-1].has_ended)
        tracker.start(total=300)
        tracker.advance()

    assert [state.status for state in desk.store.published] == [Status.ERROR]
    assert desk.heard[-1].failure is not None
    assert desk.heard[-1].failure.code == ErrorCode.TIME_LIMIT_EXCEEDED


# --- watchers ---


def test_neither_the_start_nor_a_page_waits_for_a_watcher(desk: Desk) -> None:
    released = threading.Event()
    desk.listener.during = lambda state: None if released.wait(PATIENCE_SECONDS) else pytest.fail("never released")
    with desk.tracker() as tracker:
        tracker.start(total=3)
        tracker.advance(2)
        desk.listener.wait_for(lambda heard: len(heard) == 1)
        assert not released.is_set()
        released.set()

    assert [state.processed for state in desk.heard][-1] == 2


def test_a_start_is_told_though_its_tracker_is_dropped_at_once(desk: Desk) -> None:
    desk.tracker().start(total=3)
    gc.collect()

    desk.listener.wait_for(lambda heard: [state.status for state in heard] == [Status.STARTED])


# --- joined trackers ---


def test_a_joined_tracker_needs_to_know_its_run(desk: Desk) -> None:
    with pytest.raises(ValueError, match="run_id"):
        desk.tracker(run_id=None, joined=True)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_parallel_workers_count_every_page_and_complete_the_document_once(desk: Desk, workers: int) -> None:
    started(desk.store, total=25 * workers)
    listeners = [Listener() for _ in range(workers)]
    ready = threading.Barrier(workers)

    def work(number: int) -> None:
        ready.wait(PATIENCE_SECONDS)
        with ProgressTracker(
            "d",
            store=desk.store,
            deliver=listeners[number].deliver,
            run_id="run-1",
            joined=True,
            max_messages_per_second=200.0,
        ) as tracker:
            for _ in range(25):
                tracker.advance()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))

    heard = [state for listener in listeners for state in listener.heard]
    assert [state.status for state in desk.store.published].count(Status.COMPLETE) == 1
    assert [state.status for state in heard].count(Status.COMPLETE) == 1
    assert max(heard, key=lambda state: state.sequence).status is Status.COMPLETE
    assert desk.store.published[-1].processed == 25 * workers
    assert not any(listener.overlapped for listener in listeners)


def test_the_one_that_has_begun_may_leave_after_the_others_have_completed_the_document(desk: Desk) -> None:
    with desk.tracker() as first:
        first.start(total=10)
        with desk.tracker(joined=True) as joined:
            joined.advance(10)

    assert [state.status for state in desk.store.published].count(Status.COMPLETE) == 1


def test_a_parent_with_nothing_more_to_say_agrees_with_the_end_that_its_joined_workers_have_written(desk: Desk) -> None:
    parent = desk.tracker()
    parent.start(10)
    with desk.tracker(joined=True) as joined:
        joined.advance(10)
    parent.complete()
    assert [state.status for state in desk.store.published] == [Status.STARTED, Status.PROGRESS, Status.COMPLETE]


def test_a_parent_whose_result_comes_after_the_end_is_told_that_nobody_hears_it(desk: Desk) -> None:
    parent = desk.tracker()
    parent.start(10)
    with desk.tracker(joined=True) as joined:
        joined.advance(10)
    with pytest.raises(Superseded):
        parent.complete({"key": "results/d.json"})


def test_the_workers_of_a_document_share_its_rate_and_a_few_bytes_tell_them_apart(desk: Desk) -> None:
    started(desk.store, total=10)
    with desk.tracker(joined=True, max_messages_per_second=0.001) as tracker:
        tracker.advance()
        assert eventually(lambda: "progress" in desk.store.calls)
        assert [state.status for state in desk.store.published] == [Status.STARTED]

    assert desk.store.published[-1].processed == 1
    with desk.tracker(joined=True) as tracker:
        tracker.advance()
        assert eventually(lambda: len(desk.store.tallies("d")) == 1)
        assert all(len(worker) <= 8 for worker in desk.store.tallies("d")), "the row holds one for each worker"


def test_a_joined_worker_that_leaves_early_leaves_the_document_open(desk: Desk) -> None:
    started(desk.store, total=10)

    with desk.tracker(joined=True) as tracker:
        tracker.advance(4)

    assert desk.store.published[-1].status is Status.PROGRESS
    assert desk.store.published[-1].processed == 4
    assert desk.heard[-1] == desk.store.published[-1], "its last pages are told before it leaves"


def test_a_joined_worker_whose_last_answer_is_lost_counts_its_pages_once(desk: Desk) -> None:
    started(desk.store, total=20)

    def lose(method: str) -> None:
        if method == "progress":
            desk.store.after = lambda method: None
            desk.store.write(Run("d", "run-1"), Update(status=Status.PROGRESS, pages=1))
            raise StoreUnavailable("the answer was lost")

    desk.store.after = lose
    with desk.tracker(joined=True, max_messages_per_second=0.01) as tracker:
        tracker.advance(10)

    assert desk.store.published[-1].status is Status.PROGRESS, "nine pages are still to come"
    assert desk.heard[-1].processed == 11


def test_a_joined_worker_whose_update_was_refused_hands_its_pages_in_when_it_leaves(desk: Desk) -> None:
    started(desk.store, total=20)
    desk.store.before = refuse_once(PermissionError("the token has expired"), "progress")

    for _ in range(2):
        with desk.tracker(joined=True) as tracker:
            tracker.advance(10)
            assert eventually(lambda: "progress" in desk.store.calls)

    assert (desk.heard[-1].status, desk.heard[-1].processed) == (Status.COMPLETE, 20)


def test_a_joined_worker_that_has_left_is_not_remembered(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "docprogress.tracker")
    started(desk.store, total=20)
    desk.store.before = refuse_once(StoreUnavailable("throttled"), "leave")

    for _ in range(3):
        with desk.tracker(joined=True) as tracker:
            tracker.advance(2)

    assert list(desk.store.tallies("d").values()) == [2], "of the one whose leaving could not be written"
    assert logged(caplog) == ["The tally of a worker that left stays behind: throttled"]
    with desk.tracker(joined=True):
        before = desk.store.calls.count("leave")
    assert desk.store.calls.count("leave") == before, "one that counted nothing has no tally"


def test_a_joined_worker_that_completes_the_run_spares_the_write_that_would_end_its_tally(desk: Desk) -> None:
    started(desk.store, total=2)

    with desk.tracker(joined=True) as tracker:
        tracker.advance(2)

    assert desk.heard[-1].status is Status.COMPLETE
    assert "leave" not in desk.store.calls, "no tally outlives the run"


def test_a_joined_worker_that_fails_hands_in_its_pages_and_the_others_go_on(desk: Desk) -> None:
    started(desk.store, total=10)

    with pytest.raises(LookupError), desk.tracker(joined=True) as tracker:  # noqa: PT012  leaving the block is the test
        tracker.advance(4)
        raise LookupError
    with desk.tracker(joined=True) as other:
        other.advance(6)

    assert (desk.heard[-1].status, desk.heard[-1].processed) == (Status.COMPLETE, 10)


def test_a_joined_worker_ends_the_document_for_all_if_it_says_so(desk: Desk) -> None:
    started(desk.store, total=10)

    with desk.tracker(joined=True) as tracker:
        tracker.fail(Failure("The scan is blank."))

    assert desk.statuses == [Status.ERROR]


def test_a_joined_worker_of_an_attempt_that_was_replaced_counts_nothing(desk: Desk) -> None:
    with desk.tracker(retry_follows=True, joined=False) as first:
        first.start(total=10)
        attempt = first.attempt
        first.fail(Failure("Again.", recoverable=True))
    with desk.tracker() as second:
        second.start(total=10)
        with pytest.raises(Superseded), desk.tracker(joined=True, attempt=attempt) as late:  # noqa: PT012  leaving the block is the test
            late.advance(4)
            advance_until_refused(late)
        with desk.tracker(joined=True) as joined:
            joined.advance(3)

    assert desk.heard[-1].processed == 3


def test_a_joined_worker_of_a_document_that_has_ended_is_told_so_at_once(desk: Desk) -> None:
    with desk.tracker() as tracker:
        tracker.start(total=2)
    written = list(desk.store.published)

    with pytest.raises(Superseded), desk.tracker(joined=True):
        pytest.fail("it would work for nothing")

    assert desk.store.published == written


# --- any interleaving ---

_RUNS = 3
_steps = st.lists(
    st.tuples(
        st.integers(0, _RUNS - 1),
        st.sampled_from(
            ["start", "progress", "progress", "progress", "complete", "fail", "recoverable", "repeat", "pause"]
        ),
    ),
    max_size=14,
)


@settings(max_examples=60)
@given(_steps)
def test_whatever_the_workers_do_the_states_of_a_document_make_sense(steps: list[tuple[int, str]]) -> None:
    desk = Desk(InMemoryStore(), Listener())
    trackers = {run: desk.tracker(run_id=f"run-{run}") for run in range(_RUNS)}
    pages = dict.fromkeys(range(_RUNS), 0)
    finished_with: dict[str, int] = {}

    for run, step in steps:
        tracker = trackers[run]
        try:
            match step:
                case "start":
                    tracker.start(total=100)
                    pages[run] = 0
                case "advance":
                    tracker.advance(run + 1)
                    pages[run] += run + 1
                case "complete":
                    tracker.complete()
                    finished_with[tracker.run_id] = pages[run]
                case "fail":
                    tracker.fail(Failure("No."))
                    finished_with[tracker.run_id] = pages[run]
                case "recoverable":
                    tracker.fail(Failure("Again.", recoverable=True))
                    # A retry comes with a tracker of its own.
                    trackers[run] = desk.tracker(run_id=tracker.run_id)
                    pages[run] = 0
                case "repeat":
                    known = desk.store.read("d")
                    if known is None or known.run_id != tracker.run_id or known.failure:
                        continue
                    with desk.tracker(run_id=tracker.run_id):
                        pytest.fail("a run under way, or one that has ended, was taken up by another worker")
                case "pause":
                    time.sleep(0.002)
        except (StartRefused, Superseded, RuntimeError):
            continue
    for tracker in trackers.values():
        if tracker.run_id in finished_with:
            continue
        try:
            with tracker:
                pass
        except (StartRefused, Superseded):
            continue
        finished_with[tracker.run_id] = pages[int(tracker.run_id[-1])]

    published = desk.store.published
    for earlier, later in pairwise(published):
        assert later.sequence > earlier.sequence
        if earlier.has_ended or later.run_id != earlier.run_id:
            assert later.status is not Status.PROGRESS, f"{later} follows {earlier}"
    for state in published:
        expected = finished_with.get(state.run_id, -1)
        if state.status is Status.COMPLETE and expected >= 0:
            assert state.processed == expected
    # A browser drops what is not newer than what it has.
    newest = max(desk.heard, key=lambda state: state.sequence, default=None)
    assert newest == (published[-1] if published else None), "the last state must be told to those who watch"


# Correlation


def test_a_correlation_id_is_written_with_the_start_or_with_a_failure_before_it(desk: Desk) -> None:
    with desk.tracker(correlation_id="request-1") as tracker:
        tracker.start(total=1)
        tracker.advance()
    assert [state.correlation_id for state in desk.store.published] == ["request-1"] * len(desk.store.published)
    refused = desk.tracker("other", run_id="r")
    refused.correlation_id = "request-2"
    refused.fail(Failure("It is no PDF."))
    assert desk.store.published[-1].correlation_id == "request-2"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "é", 5])
def test_what_is_no_correlation_id_is_refused_at_once(desk: Desk, bad: Any) -> None:
    with pytest.raises(ValueError, match="correlation_id is"):
        desk.tracker(correlation_id=bad)
