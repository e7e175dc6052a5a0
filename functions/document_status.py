"""Serves `GET /documents/{docId}` of an HTTP API: how a document stands, in the words of the WebSocket's snapshot.

The answer has the state's sequence as its ETag, so asking again with If-None-Match costs no body. It has Retry-After as
long as more is to come. Who may not watch a document is told so in the same words whether it is there or not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from aws_lambda_powertools import Logger

from docprogress import settings
from docprogress.access import Owned, may_watch
from docprogress.document import DocumentState, ErrorCode, Failure, Ownership, is_document_id
from docprogress.errors import RequestRefused
from docprogress.messages import Message, encode, error_message, snapshot_message
from docprogress.table.client import Table
from docprogress.table.states import States
from documents.callers import NamelessCaller, principal_of

logger = Logger(use_rfc3339=True)
logger.info("Cold start")  # once a sandbox: Lambda itself says so only in lines that it writes for each call

# A document at work says something new several times a second; who wants to hear that uses the WebSocket.
RETRY_AFTER_SECONDS = 2

_STATUS = {
    ErrorCode.INVALID_MESSAGE: HTTPStatus.BAD_REQUEST,
    ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
}

Event = Mapping[str, Any]
Answer = dict[str, Any]


class Documents(Protocol):
    def read(self, document_id: str) -> DocumentState | None: ...

    def ownership(self, document_id: str) -> Ownership | None: ...


class StatusSettings(NamedTuple):
    """
    Attributes:
        callers_are_known: whether the route has an authorizer, so that a caller without a name is nobody.
        shared_documents: show documents without an owner to every principal. False: to none of them.
    """

    table_name: str
    callers_are_known: bool
    shared_documents: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StatusSettings:
        return cls(
            table_name=settings.text(environment, "TABLE_NAME"),
            callers_are_known=settings.callers_are_known(environment),
            shared_documents=settings.are_documents_shared(environment),
        )


def answer(event: Event, documents: Documents, known: StatusSettings) -> Answer:
    """The answer to a request, payload format 2.0. Raises RequestRefused."""
    document_id = document_id_of(event)
    try:
        principal_id = principal_of(event["requestContext"])
    except NamelessCaller:
        raise _forbidden(document_id) from None
    if principal_id is None and known.callers_are_known:
        raise _forbidden(document_id)

    def require_entitled(document: Owned | None) -> None:
        if not may_watch(principal_id, document, shared=known.shared_documents):
            raise _forbidden(document_id)

    # Of the whole document, the time would tell a stranger whether it is there.
    require_entitled(documents.ownership(document_id))
    state = documents.read(document_id)
    require_entitled(state)
    message = snapshot_message(document_id, state)
    logger.info("Status told", document_id=document_id, principal_id=principal_id, status=message["status"])
    headers = {} if state and state.is_final else {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if state is None or "sequence" not in message:
        # Nobody has started it.
        return _answer(HTTPStatus.NOT_FOUND, headers, message)
    headers["ETag"] = f'"{state.sequence}"'
    if _is_known(headers["ETag"], event):
        return _answer(HTTPStatus.NOT_MODIFIED, headers)
    return _answer(HTTPStatus.OK, headers, message)


def document_id_of(event: Event) -> str:
    """Raises RequestRefused."""
    # API Gateway decodes the path of an HTTP API but for the percent sign itself, so that an escape is never decoded
    # twice.
    document_id = (event.get("pathParameters") or {}).get("docId", "").replace("%25", "%")
    if not is_document_id(document_id):
        raise RequestRefused(
            ErrorCode.INVALID_MESSAGE, "A document's id is 1 to 256 characters without control characters."
        )
    return str(document_id)


@cache
def wired() -> tuple[Documents, StatusSettings]:
    """One for a sandbox, from the environment that `StatusSettings` reads."""
    known = StatusSettings.from_environment()
    return States(Table(known.table_name)), known


def handler(event: Event, _context: object) -> Answer:
    """Errors are answered as the wire's, with the status 400, 403 or 500."""
    try:
        return answer(event, *wired())
    except RequestRefused as refused:
        logger.info("Request refused", error_code=refused.code.value, document_id=refused.document_id)
        return _answer(_STATUS[refused.code], {}, error_message(_failure(refused), refused.document_id))
    except Exception:
        logger.exception("Status not told")
        failure = Failure("The server failed. Try again.", ErrorCode.INTERNAL_ERROR, recoverable=True)
        return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, {}, error_message(failure))


def _failure(refused: RequestRefused) -> Failure:
    return Failure(str(refused), refused.code, refused.recoverable)


def _forbidden(document_id: str) -> RequestRefused:
    return RequestRefused(ErrorCode.FORBIDDEN, "You may not watch this document.", document_id)


def _is_known(etag: str, event: Event) -> bool:
    """https://www.rfc-editor.org/rfc/rfc9110#field.if-none-match, where a weak tag is as good as a strong one."""
    asked = (event.get("headers") or {}).get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in asked.split(","))


def _answer(status: HTTPStatus, headers: Mapping[str, str], message: Message | None = None) -> Answer:
    # The next answer may be another one, and may be somebody else's to know.
    answer: Answer = {"statusCode": int(status), "headers": {**headers, "Cache-Control": "no-store"}}
    if message is not None:
        answer["headers"]["Content-Type"] = "application/json"
        answer["body"] = encode(message)
    return answer
