"""One keep-alive HTTP/1.1 connection to one server, on an asyncio loop: a request at a time, no pipelining.

Notices when the connection ends. Time-outs and retries are left to the owner. It reads and writes the socket
itself: asyncio's transports cost as much as the rest of a request, and more under TLS, which they run through
memory buffers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from docprogress.posting.http1 import MAX_RESPONSE_BYTES, MalformedResponse, Response, parse_response

Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


class Owner(Protocol):
    """Whom a connection tells what happened, on the loop's thread."""

    def answered(self, connection: Connection, response: Response) -> None:
        """The response to the last `send`; unless `response.keep_alive`, `close` is the owner's next step."""

    def lost(self, connection: Connection, error: OSError) -> None:
        """The connection is closed, whether or not a response was awaited. Never called after `close`."""


class Connection:
    """A connected socket, read for as long as it is open, so that an end is noticed while it is idle too.

    `request` is the owner's: what it awaits the answer to. `sent_at` is the loop's time of the last `send`.
    """

    __slots__ = (
        "_loop",
        "_outgoing",
        "_owner",
        "_received",
        "_sock",
        "answers",
        "idle_since",
        "request",
        "sent_at",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: Owner) -> None:
        self._loop = loop
        self._sock = sock
        self._owner = owner
        self._received = b""
        self._outgoing = b""
        self.request: Any = None
        self.sent_at = 0.0
        self.idle_since = 0.0
        self.answers = 0
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def answer_begun(self) -> bool:
        return bool(self._received)

    @property
    def has_ended(self) -> bool:
        """Whether the server has closed it while it was idle, and the loop has not come to notice it yet."""
        try:
            # Below TLS, and nothing is taken: an idle server sends nothing but the end.
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def send(self, request: Any, data: bytes, now: float) -> None:
        """now: the loop's time."""
        self.request = request
        self.sent_at = now
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError as error:
            # Later, because the owner is in the middle of handing out requests.
            self._loop.call_soon(self._end, error)
            return
        if sent < len(data):
            self._outgoing = data[sent:]
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def abandon(self) -> None:
        """Close a forked child's copy of the socket, and leave the loop alone, which is the parent's too."""
        self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(MAX_RESPONSE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._end(error)
            return
        if self._received:
            data = self._received + data
            ended = len(data) == len(self._received)
        else:
            ended = not data
        if self.request is None or not data:
            self._end(ConnectionResetError("unasked data" if data else "closed by the server"))
            return
        try:
            response = parse_response(data, ended=ended)
            if response is None and (ended or len(data) > MAX_RESPONSE_BYTES):
                raise MalformedResponse(f"a response of {len(data)} bytes has no end")
        except MalformedResponse as error:
            self._received = data
            self._end(error)
            return
        if response is None:
            self._received = data
            return
        self._received = b""
        self.answers += 1
        if self._outgoing:  # answered before all was sent: the rest of the request would be read as the next one
            response = response._replace(keep_alive=False)
        self._owner.answered(self, response)

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._outgoing)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._end(error)
            return
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._loop.remove_writer(self._sock.fileno())

    def _end(self, error: OSError) -> None:
        if self._sock.fileno() >= 0:
            self.close()
            self._owner.lost(self, error)


async def open_socket(
    addresses: Sequence[Address], server_hostname: str, context: ssl.SSLContext | None
) -> socket.socket:
    """Connect to the first of `addresses` that answers, with TLS if `context`, or raise the last OSError."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"{server_hostname} has no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
                await _shake_hands(loop, sock)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:  # cancelled, by a time-out or the end
            sock.close()
            raise
        else:
            return sock
    raise failure


async def _shake_hands(loop: asyncio.AbstractEventLoop, sock: ssl.SSLSocket) -> None:
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await _until_ready(loop.add_reader, loop.remove_reader, sock)
        except ssl.SSLWantWriteError:
            await _until_ready(loop.add_writer, loop.remove_writer, sock)
        else:
            return


async def _until_ready(
    add: Callable[..., None],
    remove: Callable[[int], bool],
    sock: socket.socket,
) -> None:
    ready = asyncio.Event()
    add(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        remove(sock.fileno())
