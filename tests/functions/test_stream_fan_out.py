"""What of a batch of the table's stream is announced, and what is asked for again. Events as Lambda documents them.

Not proven here: the mapping's filter (tests/infra), nor the order of a real stream.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

import stream_fan_out
from docprogress.announcer import Announcer, Totals
from docprogress.document import DocumentState
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from docprogress.tracker import FINAL_DELIVERY_SECONDS, PROGRESS_DELIVERY_SECONDS


class RecordingAnnouncer(Announcer):
    def __init__(self, outcomes: dict[str, DeliveryReport | Exception]) -> None:
        self.told: list[tuple[str, int]] = []
        self.deadlines: dict[str, float] = {}
        self.noted: list[DocumentState] = []
        self._outcomes = outcomes

    def announce(self, state: DocumentState, deadline_seconds: float) -> DeliveryReport:
        outcome = self._outcomes.get(state.document_id, DeliveryReport(delivered=1))
        if isinstance(outcome, Exception):
            raise outcome
        self.told.append((state.document_id, state.sequence))
        self.deadlines[state.document_id] = deadline_seconds
        return outcome

    def take_totals(self) -> Totals:
        return Totals(DeliveryReport(delivered=len(self.told)))


def record(document_id: str, sequence: int, *, before: int | None = None, status: str = "progress") -> dict[str, Any]:
    image = {
        "pk": {"S": f"DOCUMENT#{document_id}"},
        "sk": {"S": "STATE"},
        "status": {"S": status},
        "sequence": {"N": str(sequence)},
        "total_pages": {"N": "10"},
        "pages_processed": {"N": "5"},
        "run_id": {"S": "run"},
    }
    change: dict[str, Any] = {"NewImage": image, "SequenceNumber": f"{document_id}-{sequence}"}
    if before is not None:
        change["OldImage"] = {**image, "sequence": {"N": str(before)}}
    return {"eventName": "MODIFY", "dynamodb": change}


def published(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, DeliveryReport | Exception]) -> RecordingAnnouncer:
    announcer = RecordingAnnouncer(outcomes)
    reporter = SimpleNamespace(announcer=announcer, announce=announcer.announce, note_announced=announcer.noted.append)
    monkeypatch.setattr(stream_fan_out, "publisher", lambda: reporter)
    return announcer


def invoke(
    monkeypatch: pytest.MonkeyPatch, *records: dict[str, Any], **outcomes: DeliveryReport | Exception
) -> tuple[list[tuple[str, int]], list[str]]:
    """What was told, and where the stream is asked to begin again."""
    announcer = published(monkeypatch, outcomes)
    answer = stream_fan_out.handler({"Records": list(records)}, object())
    return sorted(announcer.told), [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def test_only_the_newest_state_of_each_document_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record("a", 1), record("b", 4, before=3), record("a", 2, before=1), record("a", 3, before=2)]
    assert invoke(monkeypatch, *records) == ([("a", 3), ("b", 4)], [])


def test_a_heartbeat_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(monkeypatch, record("a", 3, before=3)) == ([], [])


def test_a_removal_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    removal = {"eventName": "REMOVE", "dynamodb": {"SequenceNumber": "1", "OldImage": {}}}
    assert invoke(monkeypatch, removal) == ([], [])


@pytest.mark.parametrize("spoil", [{"status": {"S": "dancing"}}, {"sequence": {"N": "much"}}, {"run_id": {}}])
def test_a_record_that_cannot_be_read_costs_the_others_of_its_batch_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spoil: dict[str, Any]
) -> None:
    poison, unknown = record("a", 1) | {"eventID": "c4ca"}, {"eventName": "MODIFY"}
    poison["dynamodb"]["NewImage"] |= spoil
    assert invoke(monkeypatch, record("b", 1), poison, unknown, record("c", 1)) == ([("b", 1), ("c", 1)], [])
    assert [line.event_id for line in caplog.records if line.levelname == "ERROR"] == ["c4ca", None]


def test_a_document_that_fails_is_asked_for_again_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = DeliveryRefused(403, DeliveryReport(failed=1), "c", "")
    assert invoke(monkeypatch, record("a", 1), record("b", 1), a=refused) == ([("b", 1)], ["a-1"])
    (line,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert (line.document_id, line.sequence) == ("a", 1)


def test_watchers_of_an_end_have_more_time_than_those_of_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    announcer = published(monkeypatch, {})
    records = [record("running", 1), record("ended", 9, status="processing_complete")]
    stream_fan_out.handler({"Records": records}, object())
    assert announcer.deadlines == {"running": PROGRESS_DELIVERY_SECONDS, "ended": FINAL_DELIVERY_SECONDS}


def test_what_was_told_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    invoke(monkeypatch, record("a", 1), record("b", 1))
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "MessagesDelivered" in line]
    assert line["MessagesDelivered"] == [2.0]


def test_a_function_that_cannot_post_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_fan_out, "publisher", lambda: SimpleNamespace(announcer=None))
    with pytest.raises(RuntimeError, match="CALLBACK_URL"):
        stream_fan_out.handler({"Records": []}, object())


@pytest.mark.parametrize(
    "report",
    [
        DeliveryReport(throttled=1),
        DeliveryReport(failed=19),
        DeliveryReport(delivered=20, failed=300),
        DeliveryReport(stale=1_000, untried=10_000),
        DeliveryReport(refused=1_000),
    ],
)
def test_stragglers_never_have_a_record_told_again(monkeypatch: pytest.MonkeyPatch, report: DeliveryReport) -> None:
    """Everyone else would hear the end once more, and the documents of the shard would wait."""
    assert invoke(monkeypatch, record("a", 9, status="processing_complete"), a=report) == ([("a", 9)], [])


@pytest.mark.parametrize(
    ("report", "noted"),
    [
        (DeliveryReport(delivered=1, failed=1), 0),  # as by announcing it
        (DeliveryReport(failed=19), 1),
        (DeliveryReport(stale=1_000, untried=10_000), 0),
        (DeliveryReport(failed=20), 0),
    ],
)
def test_stragglers_do_not_have_an_end_written_again(
    monkeypatch: pytest.MonkeyPatch, report: DeliveryReport, noted: int
) -> None:
    announcer = published(monkeypatch, {"a": report})
    stream_fan_out.handler({"Records": [record("a", 9, status="processing_complete")]}, object())
    assert len(announcer.noted) == noted


@pytest.mark.parametrize(
    "report",
    [
        DeliveryReport(untried=1),
        DeliveryReport(failed=20),
        DeliveryReport(throttled=100),
        DeliveryReport(delivered=10, failed=150, untried=50),
    ],
)
def test_a_last_state_that_an_outage_kept_from_almost_everyone_is_told_again(
    monkeypatch: pytest.MonkeyPatch, report: DeliveryReport
) -> None:
    assert invoke(monkeypatch, record("a", 9, status="processing_complete"), a=report)[1] == ["a-9"]
    assert invoke(monkeypatch, record("a", 8), a=report)[1] == [], "the next update makes up for this one"
