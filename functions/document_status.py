"""Serves `GET /documents/{docId}` of an HTTP API: how a document stands, in the words of the WebSocket's snapshot.

The answer has the state's sequence as its ETag, so asking again with If-None-Match costs no body. It has Retry-After as
long as more is to come. Who may not watch a document is told so in the same words whether it is there or not.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus

from aws_lambda_powertools import Logger

from docprogress.messages import snapshot_message
from docprogress.table.client import Table
from docprogress.table.states import States
from documents.asking import Answer, AskingSettings, Documents, Event, answered, asked, http_answer
from sandbox import started

logger = Logger(use_rfc3339=True)

# A document at work says something new several times a second; who wants to hear that uses the WebSocket.
RETRY_AFTER_SECONDS = 2


def answer(event: Event, documents: Documents, known: AskingSettings) -> Answer:
    """The answer to a request, payload format 2.0. Raises RequestRefused."""
    document_id, principal_id, state = asked(event, documents, known)
    message = snapshot_message(document_id, state)
    logger.info("Status told", document_id=document_id, principal_id=principal_id, status=message["status"])
    headers = {} if state and state.is_final else {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if state is None or "sequence" not in message:
        # Nobody has started it.
        return http_answer(HTTPStatus.NOT_FOUND, message, headers)
    headers["ETag"] = f'"{state.sequence}"'
    if _is_known(headers["ETag"], event):
        return http_answer(HTTPStatus.NOT_MODIFIED, headers=headers)
    return http_answer(HTTPStatus.OK, message, headers)


@cache
def table() -> Table:
    return Table(AskingSettings.from_environment().table_name)


@cache
def wired() -> tuple[Documents, AskingSettings]:
    """One for a sandbox, from the environment that `AskingSettings` reads."""
    return States(table()), AskingSettings.from_environment()


def handler(event: Event, _context: object) -> Answer:
    return answered(lambda: answer(event, *wired()), logger)


def _is_known(etag: str, event: Event) -> bool:
    """https://www.rfc-editor.org/rfc/rfc9110#field.if-none-match, where a weak tag is as good as a strong one."""
    asked_for = (event.get("headers") or {}).get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in asked_for.split(","))


started(logger, lambda: (wired(), table().client))
