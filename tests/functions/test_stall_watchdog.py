"""Which silent documents are ended and told. Not proven: how they are found (tests/library/table), the schedule."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import stall_watchdog
from docprogress.announcer import Totals
from docprogress.document import DocumentState, ErrorCode, Failure, Status
from docprogress.errors import SettingsError, StoreUnavailable
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from docprogress.table.states import Settled, SilentDocument
from docprogress.tracker import FINAL_DELIVERY_SECONDS
from stall_watchdog import WatchdogSettings
from tests.functions.fakes import PATIENCE_SECONDS, eventually


@dataclass
class Reporter:
    """A publisher over a few silent documents; `heard_of` have written again meanwhile, `untold` have ended before."""

    silent: list[str]
    heard_of: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unwritable: set[str] = field(default_factory=set)
    untold: set[str] = field(default_factory=set)
    told: list[DocumentState] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    during: Callable[[], object] = lambda: None
    announcer: object | None = field(default_factory=object)
    report: DeliveryReport | None = None
    updated_at: int = 1
    noted: list[str] = field(default_factory=list)

    @property
    def table(self) -> Any:
        return SimpleNamespace(now=lambda: 1_000.0)

    def note_announced(self, state: DocumentState) -> None:
        self.noted.append(state.document_id)

    @property
    def states(self) -> Any:
        return self

    def silent_documents(self, silent_seconds: float) -> Iterator[SilentDocument]:
        assert silent_seconds == 120
        return (SilentDocument(document_id, self.updated_at) for document_id in self.silent)

    def settle(self, silent: SilentDocument, silent_seconds: float, *, again: bool) -> Settled | None:
        assert (silent_seconds, again) == (120, self.announcer is None)
        if silent.document_id in self.heard_of:
            return None
        if silent.document_id in self.unwritable:
            raise StoreUnavailable
        self.ended.append(silent.document_id)
        if silent.document_id in self.untold:
            state = DocumentState(silent.document_id, Status.COMPLETE, 8, run_id="run", correlation_id="page-1")
            return Settled(state, is_new=False)
        state = DocumentState(
            document_id=silent.document_id,
            status=Status.ERROR,
            sequence=8,
            total=10,
            run_id="run",
            failure=Failure("It stopped.", ErrorCode.PROCESSING_STALLED),
        )
        return Settled(state, is_new=True)

    def take_totals(self) -> Totals:
        return Totals(DeliveryReport(delivered=len(self.told)))

    def announce(self, state: DocumentState, deadline_seconds: float) -> DeliveryReport | None:
        if state.document_id in self.refused:
            raise DeliveryRefused(403, DeliveryReport(failed=1), "c", "")
        self.deadlines.append(deadline_seconds)
        self.during()
        self.told.append(state)
        return self.report


def end_stalled(reporter: Any, **arguments: Any) -> list[str]:
    return stall_watchdog.end_stalled(reporter, 120, **arguments)


def test_watchers_of_a_silent_document_are_told_and_have_the_time_of_a_last_message() -> None:
    reporter = Reporter(["a"])
    assert end_stalled(reporter) == ["a"]
    assert [state.document_id for state in reporter.told] == ["a"]
    assert reporter.deadlines == [FINAL_DELIVERY_SECONDS]


@pytest.mark.parametrize(
    ("report", "silent_seconds", "untold", "noted"),
    [
        (DeliveryReport(throttled=1), 901, {"a"}, ["a"]),
        (DeliveryReport(throttled=1), 899, {"a"}, []),
        (DeliveryReport(throttled=1), 901, set(), []),  # the document was silent for so long, and ends only now
        (DeliveryReport(throttled=1, untried=1), 901, {"a"}, []),
        (None, 901, {"a"}, []),
    ],
)
def test_whoever_is_out_of_reach_is_told_of_an_end_for_a_quarter_of_an_hour(
    report: DeliveryReport | None, silent_seconds: int, untold: set[str], noted: list[str]
) -> None:
    reporter = Reporter(["a"], untold=untold, report=report, updated_at=(1_000 - silent_seconds) * 1_000)
    end_stalled(reporter)
    assert reporter.noted == noted


def test_where_the_stream_tells_the_watchers_it_is_given_again_what_it_has_not_told() -> None:
    assert end_stalled(Reporter(["a"], announcer=None)) == ["a"]


def test_a_document_that_was_heard_of_meanwhile_is_left_alone() -> None:
    reporter = Reporter(["a", "b"], heard_of={"a"})
    assert end_stalled(reporter) == ["b"]
    assert [state.document_id for state in reporter.told] == ["b"]


def test_a_refusal_is_raised_after_all_the_others_were_told() -> None:
    reporter = Reporter(["a", "b", "c"], refused={"a"})
    with pytest.raises(DeliveryRefused):
        end_stalled(reporter)
    assert sorted(state.document_id for state in reporter.told) == ["b", "c"]


def test_a_document_that_cannot_be_ended_keeps_no_other_from_its_end() -> None:
    reporter = Reporter(["a", "b", "c"], unwritable={"a"})
    with pytest.raises(StoreUnavailable):
        end_stalled(reporter)
    assert sorted(state.document_id for state in reporter.told) == ["b", "c"]


def test_no_document_is_ended_long_before_its_watchers_are_told() -> None:
    released = threading.Event()
    reporter = Reporter([str(number) for number in range(100)], during=lambda: released.wait(2 * PATIENCE_SECONDS))
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(end_stalled, reporter)
        assert eventually(lambda: len(reporter.ended) == 64)
        time.sleep(0.05)
        assert len(reporter.ended) == 64, "the time-out may come before the others are told"
        released.set()
        assert len(stalled.result(PATIENCE_SECONDS)) == 100
    assert len(reporter.told) == 100


def test_documents_there_is_no_time_to_tell_of_are_left_to_the_next_minute(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter([str(number) for number in range(100)])
    seconds = iter(range(60, -60, -1))

    with caplog.at_level("WARNING"):
        stalled = end_stalled(reporter, remaining_seconds=lambda: next(seconds))

    assert 0 < len(stalled) <= 50, "an announcement that has begun may take ten seconds"
    assert sorted(stalled) == sorted(reporter.ended) == sorted(state.document_id for state in reporter.told)
    left = {record.document_id for record in caplog.records if record.message == "Left to the next minute"}
    assert left == set(reporter.silent) - set(stalled)


class Context:
    def __init__(self, remaining_seconds: int) -> None:
        self._remaining_seconds = remaining_seconds

    def get_remaining_time_in_millis(self) -> int:
        return self._remaining_seconds * 1000


def test_the_time_left_is_lambdas(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Reporter(["a"], announcer=None)
    monkeypatch.setattr(stall_watchdog, "publisher", lambda: reporter)

    assert stall_watchdog.handler({}, Context(15)) == {"stalled": []}
    assert reporter.ended == []


def test_what_the_watchdog_had_to_end_or_tell_is_counted_in_a_metric(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter(["a", "b", "c"], untold={"c"})
    reporter.announcer = reporter
    monkeypatch.setattr(stall_watchdog, "publisher", lambda: reporter)

    assert sorted(stall_watchdog.handler({}, Context(60))["stalled"]) == ["a", "b", "c"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counted = [line for line in lines if "DocumentsStalled" in line]
    assert [(line["DocumentsStalled"], line["EndsToldLate"], line["MessagesDelivered"]) for line in counted] == [
        ([2.0], [1.0], [3.0])
    ]
    reporter.silent.clear()
    stall_watchdog.handler({}, Context(60))
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["DocumentsStalled"], line["EndsToldLate"]) == ([0.0], [0.0]), (
        "the alarms of docs/operations.md look at zeros too"
    )


def test_a_stack_says_how_long_a_document_may_be_silent() -> None:
    assert WatchdogSettings.from_environment({"STALL_TIMEOUT_SECONDS": "60"}).stall_timeout_seconds == 60
    assert WatchdogSettings.from_environment({}).stall_timeout_seconds == 120
    with pytest.raises(SettingsError, match="STALL_TIMEOUT_SECONDS"):
        WatchdogSettings.from_environment({"STALL_TIMEOUT_SECONDS": "0"})


def test_a_line_says_which_document_had_to_be_ended_or_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        end_stalled(Reporter(["a"]))
        end_stalled(Reporter(["c"], untold={"c"}))
    ended, told = caplog.records
    assert (ended.message, ended.document_id, ended.status, ended.error_code, ended.silent_since) == (
        "Stalled",
        "a",
        "error",
        "PROCESSING_STALLED",
        1,
    )
    assert (told.message, told.document_id, told.status, told.error_code, told.correlation_id) == (
        "Ended untold",
        "c",
        "processing_complete",
        None,
        "page-1",
    )
