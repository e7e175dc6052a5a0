"""A server that speaks the wire protocol and does exactly what a test tells it to, and a bucket in memory."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import IO, Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tests.browser.progress_page import REMOTE_HOST

Message = dict[str, Any]


class ScriptedBackend:
    """Answers like the real API from `documents`, pushes what `publish` gives it, and fails on command."""

    def __init__(self) -> None:
        self.documents: dict[str, Message] = {}
        self.connections: set[ServerConnection] = set()
        self.paths: list[str] = []
        self.offers: list[str | None] = []
        self.is_refusing = False
        self.may_cancel = True
        self.most_subscriptions = 100  # of one connection
        self._watchers: dict[str, set[ServerConnection]] = {}
        self._lock = threading.Condition()
        self._server: Server = serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._admit,
            select_subprotocol=lambda _, offered: next(iter(offered), None),
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="scripted-backend")
        self.url = f"ws://{REMOTE_HOST}:{self._server.socket.getsockname()[1]}/local"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self.drop_connections()
        self._thread.join()

    def publish(self, message: Message) -> None:
        """Store a state and tell whoever watches its document."""
        with self._lock:
            self.documents[message["docId"]] = message
            watchers = list(self._watchers.get(message["docId"], ()))
        for connection in watchers:
            self._send(connection, message)

    def wait_until_watched(self, document_id: str) -> None:
        """For tests of what lies before the newest state: who asks later is told of the newest only."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._watchers.get(document_id), timeout=60), "nobody asked for it"

    def wait_until_unwatched(self, document_id: str) -> None:
        with self._lock:
            assert self._lock.wait_for(lambda: not self._watchers.get(document_id), timeout=60), "still watched"

    def start(self, document_id: str, total_pages: int, sequence: int = 1) -> None:
        self.publish(
            {
                "status": "processing_started",
                "docId": document_id,
                "totalPages": total_pages,
                "sequence": sequence,
            }
        )

    def reach(self, document_id: str, pages: int, total_pages: int, sequence: int | None = None) -> None:
        self.publish(
            {
                "status": "progress",
                "docId": document_id,
                "pagesProcessed": pages,
                "totalPages": total_pages,
                "sequence": sequence or pages + 1,
            }
        )

    def complete(self, document_id: str, sequence: int = 1000, **said: Any) -> None:
        self.publish({"status": "processing_complete", "docId": document_id, "sequence": sequence, **said})

    def fail(self, document_id: str, message: str, *, recoverable: bool = False, sequence: int = 1000) -> None:
        self.publish(
            {
                "status": "error",
                "errorCode": "PROCESSING_FAILED",
                "message": message,
                "docId": document_id,
                "recoverable": recoverable,
                "sequence": sequence,
            }
        )

    def drop_connections(self) -> None:
        """Cut every connection as a network does: without a close frame."""
        with self._lock:
            connections = list(self.connections)
        for connection in connections:
            with suppress(OSError):  # the other side was faster
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.offers.append(request.headers.get("Sec-WebSocket-Protocol"))
        if self.is_refusing:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "")
        return None

    def _serve(self, connection: ServerConnection) -> None:
        with self._lock:
            self.connections.add(connection)
        try:
            for text in connection:
                self._answer(connection, json.loads(text))
        except ConnectionClosed:
            return  # cut by drop_connections, or by the page
        finally:
            with self._lock:
                self.connections.discard(connection)
                for watchers in self._watchers.values():
                    watchers.discard(connection)

    def _answer(self, connection: ServerConnection, request: Message) -> None:
        if request["action"] == "ping":
            self._send(connection, {"status": "pong"})
            return
        document_id = request["docId"]
        if request["action"] == "cancel":
            self._cancel(connection, document_id)
            return
        with self._lock:
            watchers = self._watchers.setdefault(document_id, set())
            (watchers.add if request.get("subscribe", True) else watchers.discard)(connection)
            self._lock.notify_all()
            snapshot = self.documents.get(document_id, {"status": "pending", "docId": document_id})
            if sum(connection in watchers for watchers in self._watchers.values()) > self.most_subscriptions:
                watchers.remove(connection)
                snapshot = {
                    "status": "error",
                    "errorCode": "TOO_MANY_SUBSCRIPTIONS",
                    "message": "Too many",
                    "docId": document_id,
                    "recoverable": False,
                }
        self._send(connection, snapshot)

    def _cancel(self, connection: ServerConnection, document_id: str) -> None:
        error = {"status": "error", "docId": document_id, "recoverable": False}
        if self.may_cancel:
            self.publish({**error, "errorCode": "CANCELLED", "message": "Its owner cancelled it.", "sequence": 2000})
        else:
            self._send(connection, {**error, "errorCode": "FORBIDDEN", "message": "You may not cancel this document."})

    def _send(self, connection: ServerConnection, message: Message) -> None:
        try:
            connection.send(json.dumps(message))
        except ConnectionClosed:
            return  # the page asks again on its next connection


class MemoryBucket:
    """The one method of an S3 client that the page's server uses."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.is_failing = False

    def upload_fileobj(
        self, Fileobj: IO[bytes], Bucket: str, Key: str, ExtraArgs: dict[str, str], Config: object
    ) -> None:
        body = Fileobj.read()
        if self.is_failing:
            raise OSError("The bucket is not there")
        self.documents[Key.removesuffix(".pdf")] = body
