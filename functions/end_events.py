"""Puts an event on EventBridge for every end of every run, from the table's stream, so every writer's ends count.

    {"source": "docprogress", "detail-type": "document.completed" or "document.failed",
     "detail": {"docId": str, "status": str, "run": str, "sequence": int, "owner"?: str, "result"?: object,
                "error"?: {"errorCode": str, "message": str}}}
At least once: what EventBridge did not take is reported back, and the stream gives it again. An error that is tried
again is no end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger

from docprogress import clients
from docprogress.document import DocumentState, Status, correlated
from docprogress.table.items import state_of
from sandbox import started

logger = Logger(use_rfc3339=True)

SOURCE = "docprogress"
COMPLETED, FAILED = "document.completed", "document.failed"
# https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
_MOST_ENTRIES = 10

Record = Mapping[str, Any]


class End(NamedTuple):
    """position: the record's sequence number in the stream, where a retry starts."""

    position: str
    state: DocumentState


def ends(records: Sequence[Record]) -> Iterator[End]:
    """The records by which a run ended, without those that change an end that was there, such as its announcement."""
    for record in records:
        change = record["dynamodb"]
        try:
            before = state_of(change["OldImage"]) if "OldImage" in change else None
            state = state_of(change["NewImage"]) if "NewImage" in change else None
        except (KeyError, ValueError):
            # It would come again and again, and keep all others of its shard waiting.
            logger.exception("No state", keys=change.get("Keys"))
            continue
        if state is None or not state.is_final:
            continue
        if before is None or not before.is_final or before.run_id != state.run_id:
            yield End(change["SequenceNumber"], state)


def entry(state: DocumentState) -> dict[str, str]:
    said = {
        "docId": state.document_id,
        "status": state.status.value,
        "run": state.run_id,
        "sequence": state.sequence,
        "owner": state.owner,
        "result": state.result,
        "error": state.failure and {"errorCode": state.failure.code, "message": state.failure.message},
    }
    return {
        "Source": SOURCE,
        "DetailType": COMPLETED if state.status is Status.COMPLETE else FAILED,
        "Detail": json.dumps({name: value for name, value in said.items() if value is not None}),
    }


@cache
def events() -> Any:
    return clients.client("events", clients.new_session())


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    found = list(ends(event["Records"]))
    untold: list[str] = []
    for first in range(0, len(found), _MOST_ENTRIES):
        batch = found[first : first + _MOST_ENTRIES]
        answer = events().put_events(Entries=[entry(end.state) for end in batch])
        for end, told in zip(batch, answer["Entries"], strict=True):
            said: dict[str, Any] = {"document_id": end.state.document_id, "sequence": end.state.sequence}
            said |= correlated(end.state.correlation_id)
            if "EventId" in told:
                logger.info("Event put", **said)
            else:
                logger.warning("Event not put", error_code=told.get("ErrorCode"), **said)
                untold.append(end.position)
    return {"batchItemFailures": [{"itemIdentifier": position} for position in untold]}


started(logger, events)
