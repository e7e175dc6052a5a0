"""What a response is (RFC 9112). No I/O: bytes come in, a response comes out once it is whole.

What a status means is `delivery`'s part.
"""

from __future__ import annotations

from typing import NamedTuple

# @connections answers are some 300 bytes; whoever sends more than this is not speaking that protocol.
MAX_RESPONSE_BYTES = 65_536
_MAX_INTERIM_RESPONSES = 16  # API Gateway sends none; a server may send a few (RFC 9110, 15.2)


class MalformedResponse(OSError):
    """The server sent what is not an HTTP/1.x response, or one larger than `MAX_RESPONSE_BYTES`."""


class Response(NamedTuple):
    """`error_type` is the error's bare name, from the header or the body; "" where neither has one."""

    status: int
    error_type: str = ""
    body: bytes = b""
    keep_alive: bool = True


EMPTY_OK = Response(200)


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
        return EMPTY_OK
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
