"""The wire protocol: what a client may say, and what it is told. No I/O.

Client to server, text frames of JSON:
    {"action": "progress", "docId": str}                       subscribe, answered with the snapshot
    {"action": "progress", "docId": str, "subscribe": false}   only ask, or end a subscription
    {"action": "cancel", "docId": str}                         end the document's run, answered with its end
    {"action": "ping"}                                         keeps the connection open
Each may have "correlationId": str, by which its log lines are found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from docprogress.document import (
    PAGES,
    DocumentState,
    ErrorCode,
    Failure,
    Phase,
    Status,
    composed,
    is_correlation_id,
    is_document_id,
)
from docprogress.errors import RequestRefused

Message = dict[str, Any]

# A docId of 256 characters, each escaped twice over as surrogates are, takes 3,072; no request needs much more.
MAX_REQUEST_CHARACTERS = 8192

# What Python's reader takes differs from version to version, 3.13's thousands; no request needs more than one.
MAX_REQUEST_DEPTH = 16

PONG: Message = {"status": "pong"}

# A frame of API Gateway's. A longer one would be split, and charged as several.
MAX_FRAME_BYTES = 32 * 1024
_STATUSES_OF_OURS = {*(status.value for status in Status), "pong"}


class Ping(NamedTuple):
    correlation_id: str | None = None


class ProgressRequest(NamedTuple):
    document_id: str
    subscribe: bool = True
    correlation_id: str | None = None


class CancelRequest(NamedTuple):
    document_id: str
    correlation_id: str | None = None


def parse_request(body: str | None) -> Ping | ProgressRequest | CancelRequest:
    """Read one client frame.

    Raises:
        RequestRefused: INVALID_MESSAGE or UNKNOWN_ACTION, with a sentence for the client.
    """
    if not body or len(body) > MAX_REQUEST_CHARACTERS:
        raise RequestRefused(
            ErrorCode.INVALID_MESSAGE,
            f"A message is a JSON object of 1 to {MAX_REQUEST_CHARACTERS} characters.",
        )
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefused(ErrorCode.INVALID_MESSAGE, "The message is not JSON.") from None
    if not isinstance(request, dict) or not isinstance(request.get("action"), str):
        raise RequestRefused(
            ErrorCode.INVALID_MESSAGE, 'A message is a JSON object with an "action": "progress", "cancel" or "ping".'
        )
    if _is_deeper(request, MAX_REQUEST_DEPTH):
        raise RequestRefused(ErrorCode.INVALID_MESSAGE, f"A message is nested at most {MAX_REQUEST_DEPTH} levels deep.")
    match request["action"]:
        case "ping":
            return Ping(_correlation_id(request))
        case "progress":
            return _parse_progress(request)
        case "cancel":
            return CancelRequest(_document_id(request), _correlation_id(request))
    raise RequestRefused(ErrorCode.UNKNOWN_ACTION, 'The known actions are "progress", "cancel" and "ping".')


def _is_deeper(value: object, depth: int) -> bool:
    """Whether objects and lists stand in one another more than depth levels; without recursion of its own."""
    level = [value]
    for _ in range(depth):
        level = [inner for each in level for inner in _values(each)]
    return any(isinstance(each, dict | list) for each in level)


def _values(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _parse_progress(request: Message) -> ProgressRequest:
    document_id = _document_id(request)
    subscribe = request.get("subscribe", True)
    if not isinstance(subscribe, bool):
        raise RequestRefused(ErrorCode.INVALID_MESSAGE, '"subscribe" is true or false.', document_id)
    return ProgressRequest(document_id, subscribe, _correlation_id(request))


def _correlation_id(request: Message) -> str | None:
    correlation_id = request.get("correlationId")
    if correlation_id is not None and not is_correlation_id(correlation_id):
        raise RequestRefused(
            ErrorCode.INVALID_MESSAGE, '"correlationId" is 1 to 128 letters, digits and any of . _ : and -.'
        )
    return correlation_id


def _document_id(request: Message) -> str:
    document_id: Any = request.get("docId")
    if isinstance(document_id, str):
        document_id = composed(document_id)
    if not is_document_id(document_id):
        raise RequestRefused(
            ErrorCode.INVALID_MESSAGE,
            '"docId" is a string of 1 to 256 characters without control characters.',
        )
    return str(document_id)


def state_message(state: DocumentState) -> Message:
    """What watchers hear of a state, and what a snapshot of it looks like."""
    if state.status is Status.PENDING:
        return snapshot_message(state.document_id, None)
    message: Message = {"status": state.status.value, "docId": state.document_id, "sequence": state.sequence}
    match state.status:
        case Status.STARTED:
            message |= _counts(state, with_processed=False)
        case Status.PROGRESS:
            message |= _counts(state, with_processed=True)
            message |= _said({"message": state.message, "phase": state.phase and _phase_fields(state.phase)})
        case Status.COMPLETE:
            message |= _said({"result": state.result, "pagesUnreadable": state.pages_unreadable or None})
        case Status.ERROR:
            message |= _error_fields(state.failure or Failure("Processing failed."))
            message |= _said({"phase": state.phase and _phase_fields(state.phase)})
    return message


def _counts(state: DocumentState, *, with_processed: bool) -> Message:
    """In words of pages, as the first clients know them, or of another unit."""
    # A worker that counts a page twice after a retry must not show 101 of 100.
    processed = state.processed if state.total is None else min(state.processed, state.total)
    if state.unit == PAGES:
        return _said({"pagesProcessed": processed if with_processed else None, "totalPages": state.total})
    return _said({"processed": processed if with_processed else None, "total": state.total, "unit": state.unit})


def _phase_fields(phase: Phase) -> Message:
    return _said({"name": phase.name, "index": phase.number, "of": phase.of})


def _said(fields: Message) -> Message:
    """Without what there is nothing to say of."""
    return {name: value for name, value in fields.items() if value is not None}


def snapshot_message(document_id: str, state: DocumentState | None) -> Message:
    """The answer to a progress request; a document nobody has started yet is pending."""
    return state_message(state) if state else {"status": "pending", "docId": document_id}


def error_message(failure: Failure, document_id: str | None = None) -> Message:
    """An answer to a request that could not be served; it is no state, so it has no sequence."""
    message: Message = {"status": "error", **_error_fields(failure)}
    if document_id is not None:
        message["docId"] = document_id
    return message


def _error_fields(failure: Failure) -> Message:
    return {"errorCode": failure.code, "message": failure.message, "recoverable": failure.recoverable}


def own_message(document_id: str, said: Mapping[str, Any]) -> Message:
    """What watchers of a document hear that is no state of it.

    Raises:
        ValueError: the status is missing or one of this protocol's, docId is given, or it is no JSON object of 32 KB.
    """
    if not is_document_id(document_id):
        raise ValueError(f"the document id is {document_id!r}; it is 1 to 256 characters without control characters.")
    if not isinstance(said, Mapping) or not isinstance(status := said.get("status"), str) or not status:
        raise ValueError(f"the message is {said!r}; it is an object with a status of its own, such as 'chat'.")
    if status in _STATUSES_OF_OURS:
        raise ValueError(f"the status {status!r} says how a document is; a message of one's own has another.")
    if "docId" in said or "sequence" in said:
        raise ValueError("the message has a docId or a sequence; the first is added, and only a state has the second.")
    message = {**said, "docId": document_id}
    try:
        size = len(json.dumps(message, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the message is no JSON object: {error}.") from error
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"the message has {size} bytes as JSON; a frame has {MAX_FRAME_BYTES}.")
    return message


def encode(message: Message) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)
