"""Decides whether a token is good, and for whom. Pure apart from the key look-up it is given.

The rules are those of RFC 7519 and RFC 8725 (best current practices), and what Amazon Cognito adds to them:
https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

import jwt
from jwt.types import Options

from tokens.signing_keys import SigningKey

MAX_TOKEN_LENGTH = 8192
"""Characters. In the query string, the 4,096 that API Gateway allows a URL are the narrower limit."""

LEEWAY_SECONDS = 30
"""How far the issuer's clock may be ahead (`nbf`, `iat`). None for `exp`: a token's end is a connection's."""

_ALGORITHMS = frozenset({"RS256", "ES256"})
# Logout tokens and security events have the same keys and audience, and are no credentials (RFC 8725, 3.11).
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# OpenID Connect Core 2: at most 255 ASCII characters. Without quotes and backslashes, which would end a string of
# the access log's JSON early: API Gateway puts `$context.authorizer.principalId` into the line as it is.
_SUBJECT = re.compile(r"[ !#-\[\]-~]{1,255}")
_MAX_NUMERIC_DATE = 253_402_300_799  # 9999-12-31T23:59:59Z


class Refusal(StrEnum):
    """Why a connection was refused: what the log says, and the client is never told."""

    NOT_CONNECT = auto()
    MISSING_TOKEN = auto()
    OVERSIZED = auto()
    MALFORMED = auto()
    WRONG_TYPE = auto()
    WRONG_ALGORITHM = auto()
    UNKNOWN_KEY = auto()
    BAD_SIGNATURE = auto()
    EXPIRED = auto()
    NOT_YET_VALID = auto()
    WRONG_ISSUER = auto()
    WRONG_AUDIENCE = auto()
    WRONG_TOKEN_USE = auto()
    MISSING_CLAIM = auto()
    INVALID_CLAIM = auto()


class TokenRefused(Exception):
    """The token does not let anybody in. Holds nothing of the token."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Principal:
    principal_id: str  # the token's `sub`
    expires_at: int  # its `exp`, epoch seconds


def verify(
    token: str,
    *,
    issuer: str,
    audiences: frozenset[str],
    find_key: Callable[[str | None], SigningKey | None],
) -> Principal:
    """Verifies a compact JWS and its claims.

    Keys in the token itself (`jwk`, `jku`, `x5u`, `x5c`) are never looked at; the issuer is compared exactly.

    Raises:
        TokenRefused: the token is no good.
        KeysUnavailable: raised by `find_key`; nothing can be said about the token.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise TokenRefused(Refusal.OVERSIZED)
    if not _COMPACT_JWS.fullmatch(token):
        raise TokenRefused(Refusal.MALFORMED)
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise TokenRefused(Refusal.MALFORMED) from None
    return _principal(_verify_signature(token, header, issuer, find_key), audiences)


def _verify_signature(
    token: str, header: Mapping[str, Any], issuer: str, find_key: Callable[[str | None], SigningKey | None]
) -> dict[str, Any]:
    # PyJWT refuses the critical headers it does not know; no issuer has a use here for the one that it does (RFC 7797).
    if "crit" in header:
        raise TokenRefused(Refusal.MALFORMED)
    if str(header.get("typ", "JWT")).lower() not in _TYPES:
        raise TokenRefused(Refusal.WRONG_TYPE)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise TokenRefused(Refusal.WRONG_ALGORITHM)
    key = find_key(header.get("kid"))
    if key is None:
        raise TokenRefused(Refusal.UNKNOWN_KEY)
    # `aud` depends on the token's use and `exp` has no leeway: both are checked below.
    options: Options = {
        "require": ["exp", "iss", "sub"],
        "verify_aud": False,
        "verify_exp": False,
        "enforce_minimum_key_length": True,
    }
    try:
        return jwt.decode(
            token,
            key.public_key,
            algorithms=[key.algorithm],
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options=options,
        )
    except jwt.InvalidTokenError as error:
        raise TokenRefused(_reason(error)) from None


def _reason(error: jwt.InvalidTokenError) -> Refusal:
    match error:
        case jwt.InvalidAlgorithmError():
            return Refusal.WRONG_ALGORITHM
        case jwt.InvalidSignatureError():
            return Refusal.BAD_SIGNATURE
        case jwt.InvalidIssuerError():
            return Refusal.WRONG_ISSUER
        case jwt.ImmatureSignatureError():
            return Refusal.NOT_YET_VALID
        case jwt.MissingRequiredClaimError():
            return Refusal.MISSING_CLAIM
        case _:
            return Refusal.INVALID_CLAIM


def _principal(claims: Mapping[str, Any], audiences: frozenset[str]) -> Principal:
    # A logout token or a security event, whatever its `typ` says: OpenID Connect Back-Channel Logout 1.0, 2.4.
    if "events" in claims:
        raise TokenRefused(Refusal.WRONG_TOKEN_USE)
    expires_at = claims["exp"]
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise TokenRefused(Refusal.INVALID_CLAIM)
    if not 0 <= expires_at <= _MAX_NUMERIC_DATE:
        raise TokenRefused(Refusal.INVALID_CLAIM)
    if int(expires_at) <= time.time():
        raise TokenRefused(Refusal.EXPIRED)
    if audiences.isdisjoint(_audiences_of(claims)):
        raise TokenRefused(Refusal.WRONG_AUDIENCE)
    subject = claims["sub"]
    if not _SUBJECT.fullmatch(subject) or not subject.strip():  # a blank one is nobody
        raise TokenRefused(Refusal.INVALID_CLAIM)
    return Principal(principal_id=subject, expires_at=int(expires_at))


def _audiences_of(claims: Mapping[str, Any]) -> list[str]:
    """Whom the token is for. A Cognito access token without `aud` is for its `client_id`.

    This is what API Gateway's own JWT authorizer does for HTTP APIs:
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
    """
    use = claims.get("token_use", "id")
    if use not in ("id", "access"):
        raise TokenRefused(Refusal.WRONG_TOKEN_USE)
    audience = claims.get("aud")
    if audience is None and use == "access":
        audience = claims.get("client_id")
    if audience is None:
        raise TokenRefused(Refusal.MISSING_CLAIM)
    named = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(name, str) for name in named):
        raise TokenRefused(Refusal.INVALID_CLAIM)
    return named
