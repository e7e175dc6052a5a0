"""One keep-alive HTTP/1.1 connection to one server, on an asyncio loop: a request at a time, no pipelining.

Decides what a response is (RFC 9112) and notices when the connection ends. Time-outs, retries and what a
status means are left to the owner. It reads and writes the socket itself: asyncio's transports cost as
much as the rest of a request, and more under TLS, which they run through memory buffers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

# @connections answers are some 300 bytes; whoever sends more than this is not speaking that protocol.
MAX_RESPONSE_BYTES = 65_536
_MAX_INTERIM_RESPONSES = 16  # API Gateway sends none; a server may send a few (RFC 9110, 15.2)
Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


class MalformedResponse(OSError):
    """The server sent what is not an HTTP/1.x response, or one larger than `MAX_RESPONSE_BYTES`."""


class Response(NamedTuple):
    """`error_type` is the error's bare name, from the header or the body; "" where neither has one."""

    status: int
    error_type: str = ""
    body: bytes = b""
    keep_alive: bool = True


_EMPTY_OK = Response(200)


def parse_response(data: bytes, *, ended: bool = False) -> Response | None:
    """Return the response in `data`, or None while it is incomplete; `ended`: no more bytes will come.

    Raises:
        MalformedResponse: `data` can never become a response.
    """
    end = data.find(b"\r\n\r\n")
    # The usual answer, a 200 without a body as API Gateway writes it, need not be taken apart.
    if (
        end + 4 == len(data)
        and data.startswith(b"HTTP/1.1 200 ")
        and b"\r\nContent-Length: 0\r\n" in data
        and b"\r\nConnection: close" not in data
    ):
        return _EMPTY_OK
    for _ in range(_MAX_INTERIM_RESPONSES + 1):
        head = _read_head(data, ended=ended)
        if head is None:
            return None
        status, status_line, header_lines, data = head
        if status >= 200:
            break
    else:
        raise MalformedResponse(f"more than {_MAX_INTERIM_RESPONSES} interim responses")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in header_lines)}
    framed = _read_body(data, status, headers, ended=ended)
    if framed is None:
        return None
    body, clean = framed
    closes = "close" in headers.get("connection", "").lower() or status_line.startswith("HTTP/1.0")
    return Response(status, _error_type(headers, body), body, clean and not closes)


def _read_head(data: bytes, *, ended: bool) -> tuple[int, str, list[str], bytes] | None:
    """Return the status, its line, the header lines and the bytes behind them, or None while bytes are missing."""
    if not b"HTTP/1.".startswith(data[:7]) and not data.startswith(b"HTTP/1."):
        raise MalformedResponse(f"not an HTTP/1.x response: {data[:40]!r}")
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if ended:
            raise MalformedResponse("the connection ended inside a response head")
        return None
    status_line, *header_lines = data[:end].decode("latin-1").split("\r\n")
    status_text = status_line[9:12]
    if not _is_number(status_text) or int(status_text) < 100:
        raise MalformedResponse(f"no status code in {status_line[:40]!r}")
    return int(status_text), status_line, header_lines, data[end + 4 :]


def _read_body(rest: bytes, status: int, headers: dict[str, str], *, ended: bool) -> tuple[bytes, bool] | None:
    """Return the body and whether the connection stands right behind it, or None while bytes are missing."""
    if status in (204, 304):
        return b"", not rest
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _read_chunks(rest, ended=ended)
    length_text = headers.get("content-length")
    if length_text is None:  # such a body lasts until the connection ends
        return (rest, False) if ended else None
    if not _is_number(length_text):
        raise MalformedResponse(f"Content-Length is {length_text[:40]!r}")
    length = int(length_text)
    if len(rest) < length:
        if ended or length > MAX_RESPONSE_BYTES:
            raise MalformedResponse(f"a body of {length} bytes ended after {len(rest)}")
        return None
    return rest[:length], len(rest) == length


def _read_chunks(rest: bytes, *, ended: bool) -> tuple[bytes, bool] | None:
    body = b""
    while (line_end := rest.find(b"\r\n")) >= 0:
        size_text = rest[:line_end].split(b";")[0].strip()
        try:
            size = int(size_text, 16)
        except ValueError:
            raise MalformedResponse(f"chunk size is {size_text[:40]!r}") from None
        if size < 0 or size > MAX_RESPONSE_BYTES:
            raise MalformedResponse(f"chunk size is {size}")
        if size == 0:  # then trailers, if any, and an empty line
            trailers = rest[line_end:]
            end = trailers.find(b"\r\n\r\n")
            if end >= 0:
                return body, end + 4 == len(trailers)
            break
        chunk_end = line_end + 2 + size
        if len(rest) < chunk_end + 2:
            break
        if rest[chunk_end : chunk_end + 2] != b"\r\n":
            raise MalformedResponse("a chunk is longer than its size says")
        body += rest[line_end + 2 : chunk_end]
        rest = rest[chunk_end + 2 :]
    if ended:
        raise MalformedResponse("the connection ended inside a chunked body")
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _error_type(headers: dict[str, str], body: bytes) -> str:
    """Like botocore: the header, then `__type` or `code` of a JSON body; either may carry `:url` or `ns#`."""
    name = headers.get("x-amzn-errortype", "")
    if not name and body.startswith(b"{"):
        import json  # only failures get here

        try:
            content = json.loads(body)
            name = str(content.get("__type") or content.get("code") or "")
        except (ValueError, RecursionError):  # the latter of one nested a thousand deep
            return ""
    return name.split(":")[0].rpartition("#")[2]


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

    def send(self, request: Any, data: bytes) -> None:
        self.request = request
        self.sent_at = self._loop.time()
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
