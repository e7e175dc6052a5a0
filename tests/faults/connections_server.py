"""An @connections endpoint on loopback that misbehaves as told, for fault tests.

It answers like API Gateway where it answers; it checks no signature and knows no connection. Speed is not its
aim: `sink` is the one to measure against.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from urllib.parse import unquote

DRIP_SECONDS = 1.0


class Behaviour(Enum):
    """What becomes of one request. The message counts as received where the answer would be a 2xx."""

    DELIVER = auto()
    DELIVER_CHUNKED = auto()
    DELIVER_WITHOUT_LENGTH = auto()  # the answer ends with the connection
    DELIVER_WITH_ODD_HEADERS = auto()  # repeated, empty, without a space, with an interim answer before them
    DELIVER_AS_HTTP_1_0 = auto()
    DELIVER_AND_CLOSE = auto()  # without having said so
    DELIVER_AND_ANNOUNCE_CLOSE = auto()
    DELIVER_AND_ANSWER_AGAIN = auto()  # that another one is gone, in the same packet
    DELIVER_AND_HALF_CLOSE = auto()  # it says nothing more, and would go on to read
    DELIVER_AND_RESET = auto()  # mid-response: the client cannot know
    DELIVER_AND_DRIP = auto()  # a byte at a time, slower than any patience
    GONE = auto()
    THROTTLED = auto()
    UNAVAILABLE = auto()
    FORBIDDEN = auto()
    EXPIRED_TOKEN = auto()
    TOO_LARGE = auto()
    BAD_REQUEST = auto()
    NOT_FOUND = auto()
    MOVED = auto()
    ELSEWHERE = auto()
    RESET = auto()
    HANG = auto()
    GARBAGE = auto()
    BAD_CHUNKS = auto()
    NEGATIVE_LENGTH = auto()
    HUGE_HEAD = auto()
    CONTINUE = auto()  # interim answers for ever
    FLOOD = auto()  # a body for ever


ERRORS = {
    Behaviour.GONE: (410, "GoneException", ""),
    Behaviour.THROTTLED: (429, "LimitExceededException", "Too Many Requests"),
    Behaviour.UNAVAILABLE: (500, "InternalServerErrorException", "Internal server error"),
    Behaviour.FORBIDDEN: (403, "ForbiddenException", "User is not authorized to perform this action"),
    Behaviour.EXPIRED_TOKEN: (
        403,
        "ExpiredTokenException",
        "The security token included in the request is expired",
    ),
    Behaviour.TOO_LARGE: (413, "PayloadTooLargeException", "Message too long"),
    Behaviour.BAD_REQUEST: (400, "BadRequestException", "Invalid connectionId"),
    Behaviour.NOT_FOUND: (404, "NotFoundException", "Not Found"),
    Behaviour.MOVED: (301, "Moved", ""),
    Behaviour.ELSEWHERE: (307, "Elsewhere", ""),
}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Plan = Callable[[str, int], Behaviour]


def deliver_always(_connection_id: str, _attempt: int) -> Behaviour:
    return Behaviour.DELIVER


class ConnectionsServer:
    """A server on an ephemeral port of 127.0.0.1, on a thread of its own while its `with` block lasts.

    Args:
        plan: given a connection id and how many requests there were for it before, tells what to do.
        name_errors: whether errors carry `x-amzn-errortype`; real ones come with it and without it.
        answer_seconds: how long an answer takes.
        close_after: the number of answers after which a connection is closed without a word.
    """

    def __init__(
        self,
        plan: Plan = deliver_always,
        *,
        name_errors: Callable[[str], bool] = lambda _: True,
        answer_seconds: float = 0.0,
        close_after: int | None = None,
        path: str = "/prod",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.plan = plan
        self.received: dict[str, list[bytes]] = defaultdict(list)
        self.requests: list[Request] = []
        self.accepted = 0
        self.busiest = 0
        self._name_errors = name_errors
        self._answer_seconds = answer_seconds
        self._close_after = close_after
        self._path = path
        self._ssl_context = ssl_context
        self.attempts: dict[str, int] = defaultdict(int)
        self._writers: set[asyncio.StreamWriter] = set()
        self._busy = 0
        self._port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="@connections")

    @property
    def callback_url(self) -> str:
        return f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{self._port}{self._path}"

    def __enter__(self) -> ConnectionsServer:
        self._thread.start()
        if not self._ready.wait(60):
            raise TimeoutError("the @connections server did not start within 60 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def drop_connections(self) -> None:
        """Close every open connection, as a server does while a sandbox is frozen."""

        async def drop() -> None:
            for writer in list(self._writers):
                writer.close()

        asyncio.run_coroutine_threadsafe(drop(), self._loop).result(60)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        handlers: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            task = asyncio.ensure_future(self._attend(reader, writer))
            handlers.add(task)

            def ended(task: asyncio.Task[None]) -> None:  # also one that was cancelled before it began
                handlers.discard(task)
                self._writers.discard(writer)

            task.add_done_callback(ended)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=self._ssl_context, backlog=512)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        # Until no connection is half accepted: asyncio leaks those when their server is closed.
        while len(asyncio.all_tasks()) > 1 + len(handlers):
            await asyncio.sleep(0)
        server.close()
        # An aborted transport takes a turn of the loop to close.
        while handlers or self._writers or len(asyncio.all_tasks()) > 1:
            for writer in list(self._writers):
                writer.transport.abort()
            for task in list(handlers):
                task.cancel()
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.005)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        answers = 0
        try:
            while answers != self._close_after:
                request = await _read_request(reader)
                self._busy += 1
                self.busiest = max(self.busiest, self._busy)
                try:
                    if not await self._answer(request, reader, writer):
                        return
                finally:
                    self._busy -= 1
                answers += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client has gone
        finally:
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer, and return whether the connection stays open."""
        self.requests.append(request)
        connection_id = unquote(request.target.removeprefix(f"{self._path}/%40connections/"))
        if self._answer_seconds:
            await asyncio.sleep(self._answer_seconds)
            if reader.at_eof():  # the client has given up, and nobody can tell whether its message was taken
                return False
        behaviour = self.plan(connection_id, self.attempts[connection_id])
        self.attempts[connection_id] += 1
        if behaviour.name.startswith("DELIVER"):
            self.received[connection_id].append(request.body)
        if behaviour in ERRORS:
            status, name, message = ERRORS[behaviour]
            body = json.dumps({"message": message, "connectionId": connection_id}).encode()
            header = f"x-amzn-ErrorType: {name}\r\n" if self._name_errors(connection_id) else ""
            if 300 <= status < 400:
                header = f"Location: {self.callback_url}/%40connections/elsewhere\r\n"
            writer.write(_answer_head(f"{status} {name}", len(body), header) + body)
        elif behaviour is Behaviour.DELIVER_CHUNKED:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n")
        elif behaviour is Behaviour.DELIVER_WITHOUT_LENGTH:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n{}")
            return False
        elif behaviour is Behaviour.DELIVER_WITH_ODD_HEADERS:
            writer.write(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nconnection:Keep-Alive\r\nX-Empty:\r\n"
                b"Set-Cookie: a=b:c\r\nSet-Cookie: d\r\nCONTENT-LENGTH:2\r\n\r\n{}"
            )
        elif behaviour is Behaviour.DELIVER_AS_HTTP_1_0:
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
            return False
        elif behaviour in (Behaviour.DELIVER_AND_RESET, Behaviour.RESET):
            if behaviour is Behaviour.DELIVER_AND_RESET:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
                await asyncio.sleep(0.01)
            # Lingering for no time makes close() send RST (socket(7)).
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        elif behaviour is Behaviour.DELIVER_AND_DRIP:
            for byte in _answer_head("200 OK", 0):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(DRIP_SECONDS)
        elif behaviour is Behaviour.HANG:
            await reader.read()  # until the client gives up
            return False
        elif behaviour is Behaviour.GARBAGE:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        elif behaviour is Behaviour.NEGATIVE_LENGTH:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")
        elif behaviour is Behaviour.HUGE_HEAD:
            writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-More: x\r\n" * 10_000 + b"\r\n")
        elif behaviour is Behaviour.DELIVER_AND_ANSWER_AGAIN:
            writer.write(_answer_head("200 OK", 0) + _answer_head("410 Gone", 0))
        elif behaviour is Behaviour.DELIVER_AND_HALF_CLOSE:
            writer.write(_answer_head("200 OK", 0))
            if writer.can_write_eof():  # not with TLS
                writer.write_eof()
            await reader.read()
            return False
        elif behaviour is Behaviour.BAD_CHUNKS:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n")
        elif behaviour in (Behaviour.CONTINUE, Behaviour.FLOOD):
            more = b"HTTP/1.1 100 Continue\r\n\r\n"
            if behaviour is Behaviour.FLOOD:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                more = b"x" * 65_536
            while True:  # until the client has had enough
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(0.01)
        elif behaviour is Behaviour.DELIVER_AND_ANNOUNCE_CLOSE:
            writer.write(_answer_head("200 OK", 0, "connection: Close\r\n"))
            return False
        else:
            status_line = "204 No Content" if request.method == "DELETE" else "200 OK"
            writer.write(_answer_head(status_line, 0))
        await writer.drain()
        return behaviour is not Behaviour.DELIVER_AND_CLOSE


def _answer_head(status: str, length: int, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{more}x-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n\r\n"
    ).encode()


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = request_line.split(" ")
    return Request(method, target, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
