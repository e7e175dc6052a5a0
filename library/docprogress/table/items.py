"""The rows of the table: their keys, and how their values are read and written. No I/O.

PROTOCOL.md, "Rows", is the one place that says which attributes they have.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from docprogress.document import (
    PAGES,
    DocumentState,
    ErrorCode,
    Failure,
    Ownership,
    Phase,
    Status,
    Subscription,
    result_json,
)

BY_CONNECTION = "by_connection"
BY_ACTIVITY = "by_activity"
# A partition takes 1,000 writes/s. A document at work moves in the index once in a step, which is two: eight shards
# take 60,000 documents.
ACTIVE_SHARDS = 8
# The index sees a document move this often. A write that leaves updated_at as it is costs one write unit; one that
# changes it costs three: the row, and its old and new place in the index.
ACTIVITY_STEP_MS = 15_000

# The runs before the one on the row, the last first. None of them begins again, however late its event is repeated.
PAST_RUNS = ("past_run_1", "past_run_2", "past_run_3")

Item = Mapping[str, Mapping[str, Any]]


def connection_key(connection_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"CONNECTION#{connection_id}"}, "sk": {"S": "CONNECTION"}}


def subscription_key(document_id: str, connection_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": f"CONNECTION#{connection_id}"}}


def state_key(document_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}}


def document_id_of(item: Item) -> str:
    document_id: str = item["pk"]["S"]
    return document_id.removeprefix("DOCUMENT#")


def is_past_run(item: Item, run_id: str) -> bool:
    return any(_text(item, name) == run_id for name in PAST_RUNS)


def principal(principal_id: str | None) -> dict[str, Any]:
    return {} if principal_id is None else {"principal_id": {"S": principal_id}}


def principal_of(item: Item) -> str | None:
    return item["principal_id"]["S"] if "principal_id" in item else None


def subscription_of(item: Item) -> Subscription:
    return Subscription(
        item["connection_id"]["S"],
        int(item["subscribed_at"]["N"]),
        int(item["expires_at"]["N"]),
        principal_of(item),
    )


def active_shard(document_id: str) -> dict[str, str]:
    # Not hash(): that one differs from process to process.
    return {"S": f"ACTIVE#{_hash(document_id) % ACTIVE_SHARDS}"}


def activity_step(document_id: str, now_ms: int) -> int:
    """now_ms without what is left of its step. Each document has steps of its own, so that not all move at once."""
    offset = _hash(document_id) % ACTIVITY_STEP_MS
    return (now_ms - offset) // ACTIVITY_STEP_MS * ACTIVITY_STEP_MS + offset


def _hash(document_id: str) -> int:
    return zlib.crc32(document_id.encode())


def heard_at_of(item: Item) -> int:
    """Epoch milliseconds of the last write; in a row of an older version it is not apart from updated_at."""
    return _number(item, "heard_at", _number(item, "updated_at"))


def state_values(
    *,
    total: int | None = None,
    unit: str | None = None,
    owner: str | None = None,
    message: str | None = None,
    phase: Phase | None = None,
    failure: Failure | None = None,
    result: Mapping[str, Any] | None = None,
    pages_unreadable: int = 0,
    correlation_id: str | None = None,
) -> dict[str, Any]:
    """The attributes that say so, without those that say nothing."""
    values: dict[str, Any] = {
        "total_pages": total and {"N": str(total)},
        "unit": unit and {"S": unit},
        "owner": {"S": owner} if owner is not None else None,
        "message": {"S": message} if message is not None else None,
        "phase": phase and {"M": _phase_values(phase)},
        "result": {"S": result_json(result)} if result is not None else None,
        "pages_unreadable": {"N": str(pages_unreadable)} if pages_unreadable else None,
        "correlation_id": correlation_id and {"S": correlation_id},
    }
    if failure:
        values |= {
            "error_code": {"S": failure.code},
            "error_message": {"S": failure.message},
            "recoverable": {"BOOL": failure.recoverable},
        }
    return {name: value for name, value in values.items() if value is not None}


# What a run says of itself, and a new run takes away.
SAID_BY_A_RUN = (
    *("total_pages", "unit", "message", "phase", "result", "pages_unreadable"),
    *("error_code", "error_message", "recoverable", "announced", "correlation_id"),
)


def ownership_of(item: Item) -> Ownership:
    return Ownership(Status(item["status"]["S"]), _text(item, "owner"))


def state_of(item: Item) -> DocumentState:
    """Read a state row, from an answer of the table or from an image in its stream."""
    status = Status(item["status"]["S"])
    failure = None
    if status is Status.ERROR:
        failure = Failure(
            _text(item, "error_message") or "",
            _text(item, "error_code") or ErrorCode.PROCESSING_FAILED,
            item["recoverable"]["BOOL"],
        )
    result = _text(item, "result")
    return DocumentState(
        document_id=document_id_of(item),
        status=status,
        sequence=_number(item, "sequence"),
        # 0 in a row of an older version: not known.
        total=_number(item, "total_pages") or None,
        processed=_number(item, "pages_processed"),
        unit=_text(item, "unit") or PAGES,
        run_id=item["run_id"]["S"],
        attempt=_number(item, "attempt"),
        retries_left=_number(item, "retries_left"),
        owner=_text(item, "owner"),
        message=_text(item, "message"),
        phase=_phase_of(item["phase"]["M"]) if "phase" in item else None,
        failure=failure,
        result=json.loads(result) if result else None,
        pages_unreadable=_number(item, "pages_unreadable"),
        correlation_id=_text(item, "correlation_id"),
    )


def _phase_values(phase: Phase) -> dict[str, Any]:
    known = {"name": {"S": phase.name}, "index": {"N": str(phase.number)}}
    return known if phase.of is None else {**known, "of": {"N": str(phase.of)}}


def _phase_of(values: Item) -> Phase:
    return Phase(_text(values, "name") or "", _number(values, "index"), _number(values, "of") or None)


def _number(item: Item, name: str, default: int = 0) -> int:
    return int(item[name]["N"]) if name in item else default


def _text(item: Item, name: str) -> str | None:
    return item[name]["S"] if name in item else None
