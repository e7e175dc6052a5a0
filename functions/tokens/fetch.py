"""Fetches a small JSON object from an issuer, with every resource it may use bounded.

It knows HTTP, not keys: what is fetched, how often, and what a failure means is for `signing_keys`.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

MAX_BODY_BYTES = 256 * 1024
_CHUNK_BYTES = 16 * 1024
_DEFAULT_PORTS = {"https": 443, "http": 80}
_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class FetchError(Exception):
    """The document could not be had; `reason` is a code fit for a log line, without any response content."""

    def __init__(self, reason: str, url: str) -> None:
        super().__init__(f"{reason}: {url}")
        self.reason = reason


def is_loopback_http(url: str) -> bool:
    """Whether this is a plain HTTP address of this machine, as a local issuer has."""
    return _scheme_of(url) == "http" and urlsplit(url).hostname in _LOOPBACK_HOSTS


def is_https(url: str) -> bool:
    """Whether this is an HTTPS address with a host and without credentials in it."""
    return _scheme_of(url) == "https"


def _scheme_of(url: str) -> str | None:
    """None for what is no URL of a host, or has credentials in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme if parts.hostname and parts.username is None else None


def fetch_json(url: str, *, timeout_seconds: float = 2.0) -> dict[str, Any]:
    """GETs a JSON object of at most 256 KB.

    Redirects are refused: following one would let the server that answers choose where the keys come from. Proxy
    variables of the environment are not read.

    Args:
        url: checked by the caller with `is_https` or `is_loopback_http`.
        timeout_seconds: for connecting, the TLS handshake and the whole answer together; only the name lookup
            has the C library's own limit.

    Raises:
        FetchError: with reason `unreachable`, `timeout`, `status_<code>`, `too_large` or `not_json`.
    """
    deadline = time.monotonic() + timeout_seconds
    try:
        body = _get(url, deadline)
    except TimeoutError as error:
        raise FetchError("timeout", url) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError("unreachable", url) from error
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FetchError("not_json", url) from error
    if not isinstance(document, dict):
        raise FetchError("not_json", url)
    return document


def _get(url: str, deadline: float) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    with _connect(connection.host, connection.port, deadline, tls=parts.scheme == "https") as sock:
        connection.sock = sock
        # `connection` speaks no TLS, so its own Host would name even the port 443.
        connection.request("GET", path, headers={"Host": parts.netloc, "Accept": "application/json"})
        # Not `getresponse`: a socket's own time-out starts again with every byte that arrives.
        with http.client.HTTPResponse(sock) as response:
            response.fp.close()
            response.fp = io.BufferedReader(_DeadlineReader(sock, deadline))
            response.begin()
            if response.status != http.client.OK:
                raise FetchError(f"status_{response.status}", url)
            return _read_body(response, url)


def _connect(host: str, port: int, deadline: float, *, tls: bool) -> socket.socket:
    addresses = [info[4] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        # One by one: given a name, `create_connection` would grant the time-out to each of its addresses.
        try:
            sock = socket.create_connection((str(address[0]), port), timeout=_seconds_left(deadline))
        except TimeoutError:
            raise
        except OSError:  # such as an IPv6 address where there is no IPv6
            if address is addresses[-1]:
                raise
        else:
            break
    if not tls:
        return sock
    try:
        sock.settimeout(_seconds_left(deadline))
        return ssl.create_default_context().wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _read_body(response: http.client.HTTPResponse, url: str) -> bytes:
    body = bytearray()
    while chunk := response.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise FetchError("too_large", url)
    return bytes(body)


def _seconds_left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


class _DeadlineReader(io.RawIOBase):
    """Bytes of a socket until a deadline on the monotonic clock, however slowly they drip."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_seconds_left(self._deadline))
        return self._sock.recv_into(buffer)
