"""Serves the WebSocket routes: who is connected, which documents they watch, and how those stand now.

Answers are the route's reply, so this function may not post to connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from docprogress.access import may_watch
from docprogress.document import Connection, DocumentState, ErrorCode, Failure
from docprogress.messages import (
    PONG,
    Message,
    Ping,
    ProgressRequest,
    RequestRefused,
    encode,
    error_message,
    parse_request,
    snapshot_message,
)
from docprogress.settings import ConnectionSettings
from docprogress.table.store import ProgressStore, dynamodb_client

logger = Logger(use_rfc3339=True)

Event = Mapping[str, Any]
Reply = dict[str, Any]


# A page of documents, with room; what is more is a client gone wild.
MAX_SUBSCRIPTIONS = 100


class OriginRefused(Exception):
    """The page that connects is not among the allowed ones."""


class ConnectionService:
    """What the routes do, apart from Lambda's event shapes."""

    def __init__(self, store: ProgressStore, settings: ConnectionSettings) -> None:
        self._store = store
        self._settings = settings

    def connect(self, context: Mapping[str, Any], origin: str | None) -> None:
        """Raises OriginRefused."""
        # A browser sends any page's WebSocket with the user's cookies and says so only here (RFC 6455, 10.2).
        if self._settings.allowed_origins and origin not in self._settings.allowed_origins:
            raise OriginRefused(origin)
        # A token's subject, or the caller of a signed request.
        principal_id = _authorizer(context).get("principalId") or context.get("identity", {}).get("userArn")
        connection = Connection(context["connectionId"], self._expires_at(context), principal_id)
        self._store.add_connection(connection, connected_at=int(context["connectedAt"]))

    def disconnect(self, context: Mapping[str, Any]) -> None:
        self._store.remove_connection(context["connectionId"])

    def pong(self, context: Mapping[str, Any]) -> Message:
        """Raises RequestRefused."""
        # From the event alone, which has what the authorizer said on $connect: a ping costs no read.
        asked_at = context.get("requestTimeEpoch")
        if asked_at is not None and self._expires_at(context) * 1000 <= int(asked_at):
            raise _expired(None)
        return PONG

    def answer(self, context: Mapping[str, Any], request: ProgressRequest) -> Message:
        """Raises RequestRefused."""
        document_id = request.document_id
        connection = self._store.connection(context["connectionId"])
        if connection is None:
            raise _expired(document_id)
        if not request.subscribe:
            # First, since it may have become somebody else's, and would count towards the limit for ever.
            self._store.unsubscribe(document_id, connection.connection_id)
            return snapshot_message(document_id, self._read(document_id, connection))
        self._read(document_id, connection)  # before anything is stored for a stranger
        if not self._store.may_subscribe(document_id, connection.connection_id, limit=MAX_SUBSCRIPTIONS):
            raise RequestRefused(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                f"A connection may watch {MAX_SUBSCRIPTIONS} documents. End a subscription first.",
                document_id,
            )
        self._store.subscribe(document_id, connection)
        # Read again: an update since the first read may have found no subscription; from here on each one does.
        try:
            return snapshot_message(document_id, self._read(document_id, connection))
        except RequestRefused:
            # It has become somebody's meanwhile.
            self._store.unsubscribe(document_id, connection.connection_id)
            raise

    def _expires_at(self, context: Mapping[str, Any]) -> int:
        """In epoch seconds; API Gateway's times are in milliseconds."""
        expires_at = int(context["connectedAt"]) // 1000 + self._settings.connection_max_age_seconds
        return min(expires_at, int(_authorizer(context).get("expires_at", expires_at)))

    def _read(self, document_id: str, connection: Connection) -> DocumentState | None:
        """Raises RequestRefused, in the same words whether the document is there or not."""
        document = self._store.read(document_id)
        if not may_watch(connection.principal_id, document):
            raise RequestRefused(ErrorCode.FORBIDDEN, "You may not watch this document.", document_id)
        return document


def _authorizer(context: Mapping[str, Any]) -> Mapping[str, Any]:
    return context.get("authorizer") or {}


def _expired(document_id: str | None) -> RequestRefused:
    return RequestRefused(
        ErrorCode.FORBIDDEN, "The connection has expired. Connect again.", document_id, recoverable=True
    )


@cache
def _service() -> ConnectionService:
    settings = ConnectionSettings.from_environment()
    return ConnectionService(ProgressStore(dynamodb_client(), settings.table_name), settings)


def handler(event: Event, _context: object) -> Reply:
    context = event["requestContext"]
    document_id = None
    try:
        # By event type, not by route key: {"action": "$connect"} is a message, whatever it looks like.
        match context["eventType"]:
            case "CONNECT":
                headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
                _service().connect(context, headers.get("origin"))
                return _accept(headers)
            case "DISCONNECT":
                _service().disconnect(context)
                return {"statusCode": 200}
            case _:
                request = parse_request(event.get("body"))
                if isinstance(request, Ping):
                    return _reply(_service().pong(context))
                document_id = request.document_id
                if context["routeKey"] != "progress":
                    # A key given twice can mean one action to API Gateway and another to us, past the throttle.
                    raise RequestRefused(ErrorCode.INVALID_MESSAGE, 'The message has more than one "action".')
                return _reply(_service().answer(context, request))
    except OriginRefused as refused:
        logger.warning("Connection refused", connection_id=context["connectionId"], origin=str(refused))
        return {"statusCode": 403}
    except RequestRefused as refused:
        logger.info("Request refused", connection_id=context["connectionId"], error_code=refused.code.value)
        failure = Failure(str(refused), refused.code, refused.recoverable)
        return _reply(error_message(failure, refused.document_id))
    except Exception:
        logger.exception("Request failed", connection_id=context["connectionId"], route_key=context["routeKey"])
        failure = Failure("The server failed. Try again.", ErrorCode.INTERNAL_ERROR, recoverable=True)
        if context["eventType"] == "MESSAGE":
            return _reply(error_message(failure, document_id))
        # On $connect the status refuses the connection; nobody hears the answer to $disconnect.
        return {"statusCode": 500}


def _accept(headers: Mapping[str, str]) -> Reply:
    """Accept, and echo the first subprotocol offered: without, browsers drop the connection (RFC 6455, 4.1)."""
    offered = headers.get("sec-websocket-protocol", "").split(",")[0].strip()
    if not offered:
        return {"statusCode": 200}
    return {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": offered}}


def _reply(message: Message) -> Reply:
    return {"statusCode": 200, "body": encode(message)}
