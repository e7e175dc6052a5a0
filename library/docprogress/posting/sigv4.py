"""Writes signed @connections requests: AWS Signature Version 4, in place, for one endpoint.

Decides what the bytes of a request are. Sending them is `http1`'s part, whom to send to `fanout`'s.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
import string
import time
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

SERVICE = "execute-api"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HMAC_BLOCK_BYTES = 64  # of SHA-256, RFC 2104
# What API Gateway gives out: base64. All others take the slower way through `quote`.
_USUAL = f"{string.ascii_letters}{string.digits}-_=".encode()


class Endpoint(NamedTuple):
    """A callback URL taken apart; `path` has no slash at its end and is percent-encoded as it was given."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def from_url(cls, callback_url: str) -> Endpoint:
        """Raise ValueError unless `callback_url` reads `http[s]://host[:port][/path]`."""
        url = urlsplit(callback_url)
        complete = url.scheme in _DEFAULT_PORTS and url.hostname
        if not complete or url.query or url.fragment or url.username is not None or not callback_url.isascii():
            raise ValueError(
                f"callback_url is {callback_url!r}; expected https://{{apiId}}.execute-api.{{region}}.amazonaws.com/"
                "{stage}: give the stack output callbackUrl"
            )
        # Empty path segments are left out of a signature, so they must not be sent either.
        path = "".join(f"/{segment}" for segment in url.path.split("/") if segment)
        return cls(url.scheme, url.hostname or "", url.port or _DEFAULT_PORTS[url.scheme], path)

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class Payload(NamedTuple):
    """A request body, hashed once however many connections it is posted to."""

    body: bytes
    sha256: bytes
    tail: bytes  # of the request: what follows the signature

    @classmethod
    def of(cls, body: bytes) -> Payload:
        return cls(body, sha256(body).hexdigest().encode(), b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class RequestSigner:
    """Signs requests of one `method` to `{endpoint}/@connections/{connection_id}` for one set of credentials.

    What requests of the same second share is written once a second, and the signing key is derived once a UTC
    day. Not safe for use from several threads.
    """

    def __init__(
        self,
        method: str,
        endpoint: Endpoint,
        region: str,
        credentials: ReadOnlyCredentials,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.credentials = credentials
        self._region = region
        self._clock = clock
        self._host = endpoint.host_header
        # The `@` is encoded in the URL and encoded once more in the canonical request, like any segment.
        self._request_start = f"{method} {endpoint.path}/%40connections/".encode()
        self._canonical_start = f"{method}\n{quote(endpoint.path, safe='/~')}/%2540connections/".encode()
        self._second = -1
        self._day = ""

    def sign(self, connection_id: str, payload: Payload) -> bytes:
        """Return the whole request, head and body, signed for the current second."""
        second = int(self._clock())
        if second != self._second:
            self._turn_to(second)
        segment = connection_id.encode("utf-8", "surrogatepass")
        if not segment.rstrip(_USUAL):
            segment = segment.replace(b"=", b"%3D")
        elif segment in {b".", b".."}:  # a path segment of dots would be resolved away (RFC 3986, 5.2.4)
            segment = segment.replace(b".", b"%2E")
        else:
            segment = quote(segment, safe="").encode()
        canonical = b"".join(
            (
                self._canonical_start,
                segment.replace(b"%", b"%25"),
                self._canonical_headers,
                payload.sha256,
            )
        )
        # HMAC by hand from its two half-done hashes: a third of the time of `hmac.digest`.
        inner = self._inner.copy()
        inner.update(sha256(canonical).hexdigest().encode())
        outer = self._outer.copy()
        outer.update(inner.digest())
        return b"".join(
            (
                self._request_start,
                segment,
                self._request_headers,
                outer.hexdigest().encode(),
                payload.tail,
            )
        )

    def _turn_to(self, second: int) -> None:
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        day, token = timestamp[:8], self.credentials.token
        if day != self._day:
            self._derive_signing_key(day)
        scope = f"{day}/{self._region}/{SERVICE}/aws4_request"
        signed_headers = "host;x-amz-date;x-amz-security-token" if token else "host;x-amz-date"
        token_value = " ".join(token.split()) if token else ""
        canonical_token = f"x-amz-security-token:{token_value}\n" if token else ""
        request_token = f"X-Amz-Security-Token: {token_value}\r\n" if token else ""
        # The empty line after the path stands for the query string, which @connections has none of.
        self._canonical_headers = (
            f"\n\nhost:{self._host}\nx-amz-date:{timestamp}\n{canonical_token}\n{signed_headers}\n"
        ).encode()
        # The string to sign, but for the hash of the canonical request at its end.
        self._inner = self._key.copy()
        self._inner.update(f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n".encode())
        self._request_headers = (
            f" HTTP/1.1\r\nHost: {self._host}\r\nX-Amz-Date: {timestamp}\r\n{request_token}"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{scope}, "
            f"SignedHeaders={signed_headers}, Signature="
        ).encode()
        self._second = second

    def _derive_signing_key(self, day: str) -> None:
        key = f"AWS4{self.credentials.secret_key}".encode()
        for part in (day, self._region, SERVICE, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        block = key.ljust(_HMAC_BLOCK_BYTES, b"\0")
        self._key = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))
        self._day = day
