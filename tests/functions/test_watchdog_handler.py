"""Which silent documents are ended and told. Not proven here: how they are found (test_store) nor the schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import stall_watchdog
from progress.delivery import DeliveryRefused, DeliveryReport
from progress.document import DocumentState, ErrorCode, Failure, Status
from progress.store import SilentDocument


@dataclass
class Reporter:
    """A publisher over a few silent documents; `heard_of` have written again meanwhile."""

    silent: list[str]
    heard_of: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    told: list[DocumentState] = field(default_factory=list)
    announcer: None = None

    @property
    def store(self) -> Any:
        return self

    def silent_documents(self, silent_seconds: float) -> Iterator[SilentDocument]:
        assert silent_seconds == 120
        return (SilentDocument(document_id, 1) for document_id in self.silent)

    def end_silent(self, silent: SilentDocument, failure: Failure) -> DocumentState | None:
        if silent.document_id in self.heard_of:
            return None
        return DocumentState(
            document_id=silent.document_id,
            status=Status.ERROR,
            sequence=8,
            total_pages=10,
            run_id="run",
            failure=failure,
        )

    def announce(self, state: DocumentState, deadline_seconds: float) -> None:
        if state.document_id in self.refused:
            raise DeliveryRefused(403, DeliveryReport(failed=1), "c", "")
        self.told.append(state)


def end_stalled(reporter: Any) -> list[str]:
    return stall_watchdog.end_stalled(reporter, 120)


def test_watchers_of_a_silent_document_are_told_that_they_may_try_again() -> None:
    reporter = Reporter(["a"])
    assert end_stalled(reporter) == ["a"]
    (state,) = reporter.told
    assert state.failure is not None
    assert (state.failure.code, state.failure.recoverable) == (ErrorCode.PROCESSING_STALLED, True)


def test_a_document_that_was_heard_of_meanwhile_is_left_alone() -> None:
    reporter = Reporter(["a", "b"], heard_of={"a"})
    assert end_stalled(reporter) == ["b"]
    assert [state.document_id for state in reporter.told] == ["b"]


def test_a_refusal_is_raised_after_all_the_others_were_told() -> None:
    reporter = Reporter(["a", "b", "c"], refused={"a"})
    with pytest.raises(DeliveryRefused):
        end_stalled(reporter)
    assert sorted(state.document_id for state in reporter.told) == ["b", "c"]
