"""One keep-alive HTTP/1.1 connection to one server, on an asyncio loop: a request at a time, no pipelining.

Notices when the connection ends. Time-outs and retries are left to the owner. It reads and writes the socket
itself: asyncio's transports cost as much as the rest of a request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Protocol

from docprogress.posting.http1 import MAX_RESPONSE_BYTES, MalformedResponse, Response, parse_response
from docprogress.posting.readers import Readers
from docprogress.posting.tls import TlsSession

# Room for a record of TLS and its frame, and less than what makes the allocator slow.
_READ_BYTES = 20_480

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
        "_readers",
        "_received",
        "_sock",
        "_tls",
        "answers",
        "idle_since",
        "request",
        "sent_at",
    )

    def __init__(self, readers: Readers, sock: socket.socket, tls: TlsSession | None, owner: Owner) -> None:
        self._readers = readers
        self._loop = readers.loop
        self._sock = sock
        self._tls = tls
        self._owner = owner
        self._received = b""
        self._outgoing = b""
        self.request: Any = None
        self.sent_at = 0.0
        self.idle_since = 0.0
        self.answers = 0
        readers.add(sock.fileno(), self._readable)

    @property
    def answer_begun(self) -> bool:
        return bool(self._received)

    @property
    def has_ended(self) -> bool:
        """Whether the server has closed it while it was idle, and the loop has not come to notice it yet."""
        try:
            # Nothing is taken: an idle server sends nothing but the end.
            self._sock.recv(1, socket.MSG_PEEK)
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
            if self._tls is not None:
                data = self._tls.encrypt(data)
            sent = self._sock.send(data)
        except BlockingIOError:
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
            self._readers.remove(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def abandon(self) -> None:
        """Close a forked child's copy of the socket, and leave the loop alone, which is the parent's too."""
        self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
            ended = not data
            if self._tls is not None and data:
                data = self._tls.decrypt(data)
                ended = self._tls.ended
                if not data and not ended:
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if self._received:
            data = self._received + data
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
        except BlockingIOError:
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
) -> tuple[socket.socket, TlsSession | None]:
    """Connect to the first of `addresses` that answers, with TLS if `context`, or raise the last OSError."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"{server_hostname} has no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            tls = None
            if context is not None:
                tls = TlsSession(context, server_hostname)
                await _shake_hands(loop, sock, tls)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:  # cancelled, by a time-out or the end
            sock.close()
            raise
        else:
            return sock, tls
    raise failure


async def _shake_hands(loop: asyncio.AbstractEventLoop, sock: socket.socket, tls: TlsSession) -> None:
    answer, done = tls.shake_hands(b"")
    while True:
        await loop.sock_sendall(sock, answer)
        if done:
            return
        received = await loop.sock_recv(sock, MAX_RESPONSE_BYTES)
        if not received:
            raise ConnectionResetError("the server ended the connection in the TLS handshake")
        answer, done = tls.shake_hands(received)
