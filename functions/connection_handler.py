"""Serves the WebSocket routes: who is connected, which documents they watch, and how those stand now.

Answers are the route's reply, so this function may not post to connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from progress.document import ErrorCode, Failure
from progress.messages import (
    PONG,
    Message,
    Ping,
    RequestRefused,
    encode,
    error_message,
    parse_request,
    snapshot_message,
)
from progress.settings import ConnectionSettings
from progress.store import ProgressStore, dynamodb_client

logger = Logger()

Event = Mapping[str, Any]
Reply = dict[str, Any]


class ConnectionService:
    """What the routes do, apart from Lambda's event shapes."""

    def __init__(self, store: ProgressStore, settings: ConnectionSettings) -> None:
        self._store = store
        self._settings = settings

    def connect(self, context: Mapping[str, Any]) -> None:
        principal_id = (context.get("authorizer") or {}).get("principalId")
        self._store.add_connection(
            context["connectionId"],
            connected_at=context["connectedAt"],
            principal_id=principal_id,
            expires_at=self._expires_at(context),
        )

    def disconnect(self, context: Mapping[str, Any]) -> None:
        self._store.remove_connection(context["connectionId"])

    def answer(self, context: Mapping[str, Any], body: str | None) -> Message:
        """Raises RequestRefused."""
        request = parse_request(body)
        if isinstance(request, Ping):
            return PONG
        connection_id = context["connectionId"]
        if request.subscribe:
            # Before the read: an update between the two reaches the new watcher, or is in the snapshot.
            self._store.subscribe(request.document_id, connection_id, expires_at=self._expires_at(context))
        else:
            self._store.unsubscribe(request.document_id, connection_id)
        return snapshot_message(request.document_id, self._store.read(request.document_id))

    def _expires_at(self, context: Mapping[str, Any]) -> int:
        # connectedAt is in milliseconds, TTL in seconds.
        return int(context["connectedAt"]) // 1000 + self._settings.connection_max_age_seconds


@cache
def _service() -> ConnectionService:
    settings = ConnectionSettings.from_environment()
    return ConnectionService(ProgressStore(dynamodb_client(), settings.table_name), settings)


def handler(event: Event, _context: object) -> Reply:
    context = event["requestContext"]
    try:
        # By event type, not by route key: {"action": "$connect"} is a message, whatever it looks like.
        match context["eventType"]:
            case "CONNECT":
                _service().connect(context)
                return _accept(event)
            case "DISCONNECT":
                _service().disconnect(context)
                return {"statusCode": 200}
            case _:
                return _reply(_service().answer(context, event.get("body")))
    except RequestRefused as refused:
        logger.info("Request refused", connection_id=context["connectionId"], error_code=refused.code.value)
        return _reply(error_message(Failure(str(refused), refused.code), refused.document_id))
    except Exception:
        logger.exception("Request failed", connection_id=context["connectionId"], route_key=context["routeKey"])
        failure = Failure("The server failed. Try again.", ErrorCode.INTERNAL_ERROR, recoverable=True)
        if context["eventType"] == "MESSAGE":
            return _reply(error_message(failure))
        # On $connect the status refuses the connection; nobody hears the answer to $disconnect.
        return {"statusCode": 500}


def _accept(event: Event) -> Reply:
    """Accept, and echo the first subprotocol offered: without, browsers drop the connection (RFC 6455, 4.1)."""
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    offered = headers.get("sec-websocket-protocol", "").split(",")[0].strip()
    if not offered:
        return {"statusCode": 200}
    return {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": offered}}


def _reply(message: Message) -> Reply:
    return {"statusCode": 200, "body": encode(message)}
