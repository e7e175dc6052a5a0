"""Which records of the stream become events, and what they say.

Does not prove what EventBridge does with them (tests/local/test_end_events.py).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import end_events
from end_events import handler

RUNNING = {
    "pk": {"S": "DOCUMENT#report"},
    "sk": {"S": "STATE"},
    "status": {"S": "progress"},
    "sequence": {"N": "7"},
    "run_id": {"S": "run"},
    "owner": {"S": "alice"},
}
COMPLETE = {**RUNNING, "status": {"S": "processing_complete"}, "sequence": {"N": "8"}, "result": {"S": '{"key":"r"}'}}
FAILED = {
    **RUNNING,
    "status": {"S": "error"},
    "sequence": {"N": "8"},
    "error_code": {"S": "CANCELLED"},
    "error_message": {"S": "It was cancelled."},
    "recoverable": {"BOOL": False},
}
RETRIED = {**FAILED, "recoverable": {"BOOL": True}}


class Bus:
    """Takes ten entries at once; refuses those of the documents named."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.entries: list[dict[str, Any]] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        assert 1 <= len(Entries) <= 10
        answers = []
        for entry in Entries:
            if json.loads(entry["Detail"])["docId"] in self.refused:
                answers.append({"ErrorCode": "ThrottlingException"})
            else:
                self.entries.append(entry)
                answers.append({"EventId": "1"})
        return {"Entries": answers}


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    bus = Bus()
    monkeypatch.setattr(end_events, "events", lambda: bus)
    return bus


def record(new: Any, old: Any = None, position: str = "1") -> dict[str, Any]:
    images = {name: image for name, image in (("NewImage", new), ("OldImage", old)) if image}
    return {"dynamodb": {"SequenceNumber": position, "Keys": new and {"pk": new["pk"]}, **images}}


def put(*records: dict[str, Any]) -> list[str]:
    return [each["itemIdentifier"] for each in handler({"Records": list(records)}, None)["batchItemFailures"]]


def test_an_end_says_what_the_watchers_hear_and_whose_run_it_was(bus: Bus) -> None:
    assert put(record(COMPLETE, RUNNING), record(FAILED, RUNNING)) == []
    common = {"docId": "report", "run": "run", "sequence": 8, "owner": "alice"}
    assert [(each["Source"], each["DetailType"], json.loads(each["Detail"])) for each in bus.entries] == [
        (
            "docprogress",
            "document.completed",
            {**common, "status": "processing_complete", "result": {"key": "r"}},
        ),
        (
            "docprogress",
            "document.failed",
            {**common, "status": "error", "error": {"errorCode": "CANCELLED", "message": "It was cancelled."}},
        ),
    ]


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (FAILED, None),  # cancelled before anyone had begun
        (FAILED, RETRIED),  # was to be tried again, and was not
        (COMPLETE, {**COMPLETE, "run_id": {"S": "the one before"}}),
    ],
)
def test_every_end_is_put(bus: Bus, new: Any, old: Any) -> None:
    put(record(new, old))
    assert len(bus.entries) == 1


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (RUNNING, None),
        (RETRIED, RUNNING),
        (COMPLETE, {**COMPLETE, "active_shard": {"S": "ACTIVE#1"}}),  # it was announced
        ({**FAILED, "sequence": {"N": "9"}}, FAILED),  # told once more
        (None, COMPLETE),  # it expired
    ],
)
def test_what_is_no_new_end_is_not_put(bus: Bus, new: Any, old: Any) -> None:
    assert put(record(new, old)) == []
    assert bus.entries == []


def test_what_the_bus_does_not_take_is_reported_back(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    def numbered(number: int) -> dict[str, Any]:
        return record({**COMPLETE, "pk": {"S": f"DOCUMENT#{number}"}}, RUNNING, str(number))

    bus.refused = {"3", "12"}
    assert put(*map(numbered, range(25))) == ["3", "12"]
    assert len(bus.entries) == 23
    refused = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [(line.document_id, line.sequence, line.error_code) for line in refused] == [
        ("3", 8, "ThrottlingException"),
        ("12", 8, "ThrottlingException"),
    ]


def test_an_event_is_found_in_the_log_by_its_document_and_what_the_page_called_it(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        put(record({**COMPLETE, "correlation_id": {"S": "page-1"}}, RUNNING))
    (line,) = caplog.records
    assert (line.message, line.document_id, line.sequence, line.correlation_id) == ("Event put", "report", 8, "page-1")


def test_a_row_that_is_no_state_holds_up_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    assert put(record({"pk": {"S": "DOCUMENT#odd"}}), record({**COMPLETE, "status": {"S": "odd"}}, RUNNING)) == []
    put(record(COMPLETE, RUNNING))
    assert len(bus.entries) == 1
    assert [line.keys for line in caplog.records if line.levelname == "ERROR"] == [
        {"pk": {"S": "DOCUMENT#odd"}},
        {"pk": {"S": "DOCUMENT#report"}},
    ]
