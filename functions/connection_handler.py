"""Serves the WebSocket routes: who is connected, which documents they watch, and how those stand now.

Answers are the route's reply, so this function may not post to connections.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol

from aws_lambda_powertools import Logger

from docprogress import settings
from docprogress.access import Owned, may_cancel, may_watch
from docprogress.document import Connection, DocumentState, ErrorCode, Failure, Ownership
from docprogress.errors import RequestRefused
from docprogress.messages import (
    PONG,
    CancelRequest,
    Message,
    Ping,
    ProgressRequest,
    encode,
    error_message,
    parse_request,
    snapshot_message,
)
from docprogress.process import making_what_stays
from docprogress.table.client import Table, dynamodb_client
from docprogress.table.connections import Connections
from docprogress.table.states import States
from docprogress.telemetry import counted
from sandbox import started

logger = Logger(use_rfc3339=True)

Event = Mapping[str, Any]
Reply = dict[str, Any]


# API Gateway ends a connection after two hours, whatever it does.
MAX_CONNECTION_AGE_SECONDS = 7200
# The only subprotocol that is accepted; the token that may be offered beside it is never echoed.
SUBPROTOCOL = "docprogress"
# A page of documents, with room; what is more is a client gone wild.
MAX_SUBSCRIPTIONS = 100


class ConnectionSettings(NamedTuple):
    """
    Attributes:
        connection_max_age_seconds: how long a connection may last.
        allowed_origins: the pages that may connect, as `https://host[:port]`; empty for any.
        callers_are_known: whether $connect has an authorizer, so that a caller without a name is nobody.
        shared_documents: show documents without an owner to every principal. False: to none of them.
        cancellation: whether a document can be cancelled over a connection.
    """

    connection_max_age_seconds: int
    allowed_origins: frozenset[str]
    callers_are_known: bool
    shared_documents: bool = False
    cancellation: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ConnectionSettings:
        return cls(
            connection_max_age_seconds=settings.positive(
                environment, "CONNECTION_MAX_AGE_SECONDS", MAX_CONNECTION_AGE_SECONDS
            ),
            allowed_origins=frozenset(environment.get("ALLOWED_ORIGINS", "").split()),
            callers_are_known=settings.callers_are_known(environment),
            shared_documents=settings.are_documents_shared(environment),
            cancellation=environment.get("CANCELLATION") != "false",
        )


class Caller(NamedTuple):
    """The connection that an event is of, with what the authorizer said of it on $connect.

    Attributes:
        connected_at: epoch milliseconds.
        asked_at: epoch milliseconds; None for an event that does not say.
        principal_id: a token's subject, or the caller of a signed request. None where the event names nobody.
        token_expires_at: epoch seconds; None for a connection without a token.
    """

    connection_id: str
    connected_at: int
    asked_at: int | None = None
    principal_id: str | None = None
    token_expires_at: int | None = None

    @classmethod
    def from_event(cls, event: Event) -> Caller:
        context = event["requestContext"]
        authorizer = context.get("authorizer") or {}
        # All users of a Cognito identity pool share one userArn.
        identity = context.get("identity") or {}
        asked_at, token_expires_at = context.get("requestTimeEpoch"), authorizer.get("expires_at")
        return cls(
            connection_id=context["connectionId"],
            connected_at=int(context["connectedAt"]),
            asked_at=None if asked_at is None else int(asked_at),
            principal_id=_first_named(
                authorizer.get("principalId"), identity.get("cognitoIdentityId"), identity.get("userArn")
            ),
            token_expires_at=None if token_expires_at is None else int(token_expires_at),
        )

    def expires_at(self, max_age_seconds: int) -> int:
        """When the connection is over, of age or with its token; epoch seconds."""
        of_age = self.connected_at // 1000 + max_age_seconds
        return of_age if self.token_expires_at is None else min(of_age, self.token_expires_at)


def _first_named(*names: str | None) -> str | None:
    return next((name for name in names if name and name.strip()), None)


class Documents(Protocol):
    def read(self, document_id: str) -> DocumentState | None: ...

    def ownership(self, document_id: str) -> Ownership | None: ...

    def cancel(self, document_id: str, *, principal_id: str | None) -> DocumentState | None: ...


class ConnectionRefused(Exception):
    """The text is a reason for the log."""


class ConnectionService:
    """What the routes do, apart from Lambda's event shapes."""

    def __init__(self, connections: Connections, documents: Documents, settings: ConnectionSettings) -> None:
        self._connections = connections
        self._documents = documents
        self._settings = settings

    def connect(self, caller: Caller, origin: str | None) -> None:
        """Raises ConnectionRefused."""
        # API Gateway asks an authorizer before, so this is a route that was left without one.
        if self._settings.callers_are_known and caller.principal_id is None:
            raise ConnectionRefused("no_principal")
        # A browser sends any page's WebSocket with the user's cookies and says so only here (RFC 6455, 10.2).
        if self._settings.allowed_origins and origin not in self._settings.allowed_origins:
            raise ConnectionRefused("origin")
        connection = Connection(caller.connection_id, self._expires_at(caller), caller.principal_id)
        self._connections.add_connection(connection, connected_at=caller.connected_at)

    def disconnect(self, caller: Caller) -> None:
        self._connections.remove_connection(caller.connection_id)

    def pong(self, caller: Caller) -> Message:
        """Raises RequestRefused."""
        # From the event alone, which has what the authorizer said on $connect: a ping costs no read.
        if caller.asked_at is not None and self._expires_at(caller) * 1000 <= caller.asked_at:
            raise _expired(None)
        return PONG

    def answer(self, caller: Caller, request: ProgressRequest) -> Message:
        """Raises RequestRefused."""
        document_id = request.document_id
        connection = self._connection(caller, document_id)
        if not request.subscribe:
            # Before the permission check: if the document has a new owner, the check raises, and the row would count
            # against the limit until its TTL.
            self._connections.unsubscribe(document_id, connection.connection_id)
            self._require_entitled(connection, document_id, self._documents.ownership(document_id))
            logger.info("Unsubscribed", **_who(connection), document_id=document_id, **_answered("ask"))
            return snapshot_message(document_id, self._read(document_id, connection))
        # Before anything is stored for a stranger. Of the whole document, the time would tell whether it is there.
        self._require_entitled(connection, document_id, self._documents.ownership(document_id))
        if not self._connections.may_subscribe(document_id, connection.connection_id, limit=MAX_SUBSCRIPTIONS):
            raise RequestRefused(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                f"A connection may watch {MAX_SUBSCRIPTIONS} documents. End a subscription first.",
                document_id,
            )
        self._connections.subscribe(document_id, connection)
        # Read again: an update since the first read may have found no subscription; from here on each one does.
        try:
            snapshot = snapshot_message(document_id, self._read(document_id, connection))
        except RequestRefused:
            # It has become somebody's meanwhile.
            self._connections.unsubscribe(document_id, connection.connection_id)
            raise
        logger.info("Subscribed", **_who(connection), document_id=document_id, **_answered("subscribe"))
        return snapshot

    def cancel(self, caller: Caller, request: CancelRequest) -> Message:
        """Raises RequestRefused."""
        document_id = request.document_id
        connection = self._connection(caller, document_id)
        principal_id = connection.principal_id
        if not self._settings.cancellation or not may_cancel(principal_id, self._documents.ownership(document_id)):
            raise RequestRefused(ErrorCode.FORBIDDEN, "You may not cancel this document.", document_id)
        document = self._documents.cancel(document_id, principal_id=principal_id)
        if document is None or not may_cancel(principal_id, document):
            # It has become somebody's meanwhile, or is gone.
            raise RequestRefused(ErrorCode.FORBIDDEN, "You may not cancel this document.", document_id)
        status = document.status.value
        logger.info("Cancelled", **_who(connection), document_id=document_id, status=status, **_answered("cancel"))
        return snapshot_message(document_id, document)

    def _expires_at(self, caller: Caller) -> int:
        return caller.expires_at(self._settings.connection_max_age_seconds)

    def _connection(self, caller: Caller, document_id: str) -> Connection:
        """Raises RequestRefused."""
        connection = self._connections.connection(caller.connection_id)
        # One without a name is of the time before the stack had an authorization.
        if connection is None or (self._settings.callers_are_known and connection.principal_id is None):
            raise _expired(document_id)
        return connection

    def _read(self, document_id: str, connection: Connection) -> DocumentState | None:
        """Raises RequestRefused."""
        document = self._documents.read(document_id)
        self._require_entitled(connection, document_id, document)
        return document

    def _require_entitled(self, connection: Connection, document_id: str, document: Owned | None) -> None:
        """Raises RequestRefused, in the same words whether the document is there or not."""
        if not may_watch(connection.principal_id, document, shared=self._settings.shared_documents):
            raise RequestRefused(ErrorCode.FORBIDDEN, "You may not watch this document.", document_id)


def _who(connection: Connection) -> dict[str, Any]:
    return {"connection_id": connection.connection_id, "principal_id": connection.principal_id}


def _answered(kind: str) -> dict[str, Any]:
    return counted("Messages", kind=kind, outcome="answered")


def _kind(request: Ping | ProgressRequest | CancelRequest) -> str:
    match request:
        case Ping():
            return "ping"
        case CancelRequest():
            return "cancel"
        case ProgressRequest():
            return "subscribe" if request.subscribe else "ask"


def _expired(document_id: str | None) -> RequestRefused:
    return RequestRefused(
        ErrorCode.FORBIDDEN, "The connection has expired. Connect again.", document_id, recoverable=True
    )


@cache
def table() -> Table:
    return Table(settings.text(os.environ, "TABLE_NAME"), making_what_stays()(dynamodb_client))


@cache
def service() -> ConnectionService:
    return ConnectionService(Connections(table()), States(table()), ConnectionSettings.from_environment())


def handler(event: Event, _context: object) -> Reply:
    context = event["requestContext"]
    caller = Caller.from_event(event)
    # In each line: by the request the access log is found, by the connection everything else.
    with logger.append_context_keys(
        connection_id=caller.connection_id,
        request_id=context.get("requestId"),
        principal_id=caller.principal_id,
        correlation_id=None,
    ):
        return _handle(event, caller)


def _handle(event: Event, caller: Caller) -> Reply:
    context = event["requestContext"]
    document_id, kind = None, "unknown"
    try:
        # By event type, not by route key: {"action": "$connect"} is a message, whatever it looks like.
        match context["eventType"]:
            case "CONNECT":
                headers = _headers(event)
                service().connect(caller, headers.get("origin"))
                logger.info("Connected", **counted("ConnectionsOpened"))
                return _accept(headers)
            case "DISCONNECT":
                service().disconnect(caller)
                logger.info("Disconnected", code=context.get("disconnectStatusCode"), **counted("ConnectionsClosed"))
                return {"statusCode": 200}
            case _:
                request = parse_request(event.get("body"))
                kind = _kind(request)
                logger.append_keys(correlation_id=request.correlation_id)
                if isinstance(request, Ping):
                    return _reply(service().pong(caller))
                document_id = request.document_id
                if isinstance(request, CancelRequest):
                    return _reply(service().cancel(caller, request))
                if context["routeKey"] != "progress":
                    # A key given twice can mean one action to API Gateway and another to us, past the throttle.
                    raise RequestRefused(ErrorCode.INVALID_MESSAGE, 'The message has more than one "action".')
                return _reply(service().answer(caller, request))
    except ConnectionRefused as refused:
        origin = _headers(event).get("origin")
        logger.warning("Connection refused", reason=str(refused), origin=origin, **counted("ConnectionsRefused"))
        return {"statusCode": 403}
    except RequestRefused as refused:
        code, count = refused.code.value, counted("Messages", kind=kind, outcome="refused")
        logger.info("Request refused", error_code=code, document_id=document_id, **count)
        failure = Failure(str(refused), refused.code, refused.recoverable)
        return _reply(error_message(failure, refused.document_id))
    except Exception:
        is_message = context["eventType"] == "MESSAGE"
        count = counted("Messages", kind=kind, outcome="failed") if is_message else {}
        logger.exception("Request failed", route_key=context["routeKey"], document_id=document_id, **count)
        failure = Failure("The server failed. Try again.", ErrorCode.INTERNAL_ERROR, recoverable=True)
        if is_message:
            return _reply(error_message(failure, document_id))
        # On $connect the status refuses the connection; nobody hears the answer to $disconnect.
        return {"statusCode": 500}


def _headers(event: Event) -> dict[str, str]:
    return {name.lower(): value for name, value in (event.get("headers") or {}).items()}


def _accept(headers: Mapping[str, str]) -> Reply:
    """Accept, and echo our subprotocol where it is offered: without, browsers drop the connection (RFC 6455, 4.1)."""
    offered = headers.get("sec-websocket-protocol", "").split(",")
    if SUBPROTOCOL not in (each.strip() for each in offered):
        return {"statusCode": 200}
    return {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": SUBPROTOCOL}}


def _reply(message: Message) -> Reply:
    return {"statusCode": 200, "body": encode(message)}


started(logger, lambda: (service(), table().client))
