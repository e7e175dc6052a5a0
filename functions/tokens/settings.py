"""What the authorizer is told by its environment: whose tokens, for whom, and where a client puts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from tokens.fetch import is_https, is_loopback_http
from tokens.signing_keys import is_allowed_key_set_url


class TokenSource(StrEnum):
    """Where the token travels; browsers cannot set any other header of a WebSocket handshake."""

    QUERY_STRING = "querystring"  # wss://…/stage?token=<jwt>
    SUBPROTOCOL = "subprotocol"  # Sec-WebSocket-Protocol: docprogress, <jwt>


@dataclass(frozen=True, kw_only=True)
class AuthorizerSettings:
    issuer: str  # compared exactly with `iss`, a trailing slash included
    audiences: frozenset[str]
    token_source: TokenSource
    jwks_url: str | None = None  # None: from the issuer's discovery document

    def __post_init__(self) -> None:
        if not (is_https(self.issuer) or is_loopback_http(self.issuer)):
            raise ValueError(f"JWT_ISSUER is {self.issuer!r}: give the issuer's https:// URL, as in its tokens' iss.")
        if urlsplit(self.issuer).query or urlsplit(self.issuer).fragment:
            raise ValueError(f"JWT_ISSUER is {self.issuer!r}: an issuer has no query and no fragment.")
        if not self.audiences:
            raise ValueError("JWT_AUDIENCE is empty: name the audiences or app client ids, separated by commas.")
        if self.jwks_url is not None and not is_allowed_key_set_url(self.jwks_url, self.issuer):
            raise ValueError(f"JWKS_URL is {self.jwks_url!r}: give an https:// URL, or leave it out for discovery.")


def settings_from(environ: Mapping[str, str]) -> AuthorizerSettings:
    """Reads JWT_ISSUER, JWT_AUDIENCE (comma-separated), TOKEN_SOURCE and, if there is one, JWKS_URL.

    Raises:
        ValueError: one of them is missing or wrong; the message says what to give.
    """
    source = environ.get("TOKEN_SOURCE", "")
    if source not in list(TokenSource):
        raise ValueError(f"TOKEN_SOURCE is {source!r}: give one of {', '.join(TokenSource)}.")
    audiences = (name.strip() for name in environ.get("JWT_AUDIENCE", "").split(","))
    return AuthorizerSettings(
        issuer=environ.get("JWT_ISSUER", ""),
        audiences=frozenset(name for name in audiences if name),
        token_source=TokenSource(source),
        jwks_url=environ.get("JWKS_URL") or None,
    )
