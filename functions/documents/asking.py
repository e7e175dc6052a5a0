"""Who asks over HTTP about one document, whether they may see it, and how they are answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from aws_lambda_powertools import Logger

from docprogress import settings
from docprogress.access import Owned, may_watch
from docprogress.document import DocumentState, ErrorCode, Failure, Ownership, is_document_id
from docprogress.errors import RequestRefused
from docprogress.messages import Message, encode, error_message
from documents.callers import NamelessCaller, principal_of

_STATUS = {
    ErrorCode.INVALID_MESSAGE: HTTPStatus.BAD_REQUEST,
    ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
}

Event = Mapping[str, Any]
Answer = dict[str, Any]


class Documents(Protocol):
    def read(self, document_id: str) -> DocumentState | None: ...

    def ownership(self, document_id: str) -> Ownership | None: ...


class AskingSettings(NamedTuple):
    """
    Attributes:
        callers_are_known: whether the route has an authorizer, so that a caller without a name is nobody.
        shared_documents: show documents without an owner to every principal. False: to none of them.
    """

    table_name: str
    callers_are_known: bool
    shared_documents: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> AskingSettings:
        return cls(
            table_name=settings.text(environment, "TABLE_NAME"),
            callers_are_known=settings.callers_are_known(environment),
            shared_documents=settings.are_documents_shared(environment),
        )


class Asked(NamedTuple):
    """state: None for a document that nobody knows, on a stack where that may be told."""

    document_id: str
    principal_id: str | None
    state: DocumentState | None


def asked(event: Event, documents: Documents, known: AskingSettings) -> Asked:
    """The document that a request is about, of payload format 2.0.

    Raises:
        RequestRefused: the id is none, or its asker may not watch it, in the same words whether it is there or not.
    """
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
    return Asked(document_id, principal_id, state)


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


def answered(answer: Callable[[], Answer], logger: Logger) -> Answer:
    """An answer; or the wire's message of why there is none, with the status 400, 403 or 500."""
    try:
        return answer()
    except RequestRefused as refused:
        logger.info("Request refused", error_code=refused.code.value, document_id=refused.document_id)
        failure = Failure(str(refused), refused.code, refused.recoverable)
        return http_answer(_STATUS[refused.code], error_message(failure, refused.document_id))
    except Exception:
        logger.exception("Request not answered")
        failure = Failure("The server failed. Try again.", ErrorCode.INTERNAL_ERROR, recoverable=True)
        return http_answer(HTTPStatus.INTERNAL_SERVER_ERROR, error_message(failure))


def http_answer(status: HTTPStatus, body: Message | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    # The next answer may be another one, and may be somebody else's to know.
    answer: Answer = {"statusCode": int(status), "headers": {**(headers or {}), "Cache-Control": "no-store"}}
    if body is not None:
        answer["headers"]["Content-Type"] = "application/json"
        answer["body"] = encode(body)
    return answer


def _forbidden(document_id: str) -> RequestRefused:
    return RequestRefused(ErrorCode.FORBIDDEN, "You may not watch this document.", document_id)
