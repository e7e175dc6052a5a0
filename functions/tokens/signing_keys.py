"""The issuer's public keys: which of them may verify a token, and when they are fetched again.

A key decides the algorithm (RSA is RS256, P-256 is ES256), so a token cannot choose how it is verified
(RFC 8725, 3.1). Whether a token is good, `verification` decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from tokens.fetch import FetchError, fetch_json, is_https, is_loopback_http

MAX_KEYS = 32
_RSA_BITS = range(2048, 8192 + 1)  # below is forgeable (NIST SP 800-131A), above is slow to verify with

MAX_AGE_SECONDS = 3600.0
# Keys that the issuer has not confirmed for a day may long have been withdrawn.
MAX_TRUST_SECONDS = 86_400.0
REFRESH_INTERVAL_SECONDS = 60.0
FIRST_LOAD_RETRY_SECONDS = 5.0


class KeysUnavailable(Exception):
    """Whether a token is good cannot be told, because the issuer's keys cannot be had; `reason` is a code."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the issuer's signing keys are unavailable: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class SigningKey:
    key_id: str | None
    algorithm: str  # "RS256" or "ES256"
    public_key: RSAPublicKey | EllipticCurvePublicKey


class SigningKeys:
    """One sandbox's copy of the issuer's keys.

    Refreshed after an hour, or when a token names an unknown key, but at most once a minute, so that a flood
    of invented key ids costs the issuer nothing. While the issuer is down, the keys already held serve on for a day.
    Not thread-safe: a Lambda sandbox serves one event at a time.
    """

    def __init__(self, load: Callable[[], Sequence[SigningKey]], *, clock: Callable[[], float] = time.time) -> None:
        self._load = load
        # The wall clock: a monotonic one need not count the hours for which a sandbox is frozen.
        self._clock = clock
        self._keys: tuple[SigningKey, ...] = ()
        self._loaded_at = 0.0
        self._attempted_at: float | None = None
        self._failure: str | None = None

    def find(self, key_id: str | None) -> SigningKey | None:
        """The key that a token's `kid` names. A token without one can only mean the single key there is.

        Raises:
            KeysUnavailable: the key is not held and the issuer could not be asked for it.
        """
        if self._is_refresh_wanted(key_id):
            self._refresh()
        if self._failure is not None and self._clock() - self._loaded_at >= MAX_TRUST_SECONDS:
            self._keys = ()
        key = self._select(key_id)
        if key is None and self._failure is not None:
            raise KeysUnavailable(self._failure)
        return key

    def _select(self, key_id: str | None) -> SigningKey | None:
        if key_id is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == key_id), None)

    def _is_refresh_wanted(self, key_id: str | None) -> bool:
        if self._attempted_at is None:
            return True
        now = self._clock()
        interval = REFRESH_INTERVAL_SECONDS if self._keys else FIRST_LOAD_RETRY_SECONDS
        if 0 <= now - self._attempted_at < interval:
            return False
        is_unknown = key_id is not None and self._select(key_id) is None
        return not self._keys or is_unknown or not 0 <= now - self._loaded_at < MAX_AGE_SECONDS

    def _refresh(self) -> None:
        self._attempted_at = self._clock()
        try:
            self._keys = tuple(self._load())
        except KeysUnavailable as error:
            self._failure = error.reason
            # A clock that was set back must not lengthen the day.
            self._loaded_at = min(self._loaded_at, self._attempted_at)
        else:
            self._loaded_at = self._attempted_at
            self._failure = None


def load_issuer_keys(issuer: str, jwks_url: str | None) -> list[SigningKey]:
    """Fetches the issuer's key set (RFC 7517), from `jwks_url` or where its discovery document says.

    The document must name the issuer itself (OpenID Connect Discovery 1.0, 4.3), and its `jwks_uri` be HTTPS;
    plain HTTP on this machine is for an issuer that is there itself.

    Raises:
        KeysUnavailable: a fetch failed, the document is another issuer's, or no key in it can be used.
    """
    try:
        if jwks_url is None:
            jwks_url = _discover(issuer)
        keys = parse_key_set(fetch_json(jwks_url))
    except FetchError as error:
        raise KeysUnavailable(error.reason) from error
    if not keys:
        raise KeysUnavailable("no_usable_key")
    return keys


def _discover(issuer: str) -> str:
    document = fetch_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if document.get("issuer") != issuer:
        raise KeysUnavailable("discovery_of_another_issuer")
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str) or not is_allowed_key_set_url(jwks_uri, issuer):
        raise KeysUnavailable("jwks_uri_not_https")
    return jwks_uri


def is_allowed_key_set_url(url: str, issuer: str) -> bool:
    """HTTPS, or plain HTTP on this machine if the issuer is there too.

    A remote issuer must not point at loopback: a Lambda sandbox serves its runtime API there.
    """
    return is_https(url) or (is_loopback_http(issuer) and is_loopback_http(url))


def parse_key_set(document: Mapping[str, Any]) -> list[SigningKey]:
    """The keys of a JWK Set that can verify RS256 or ES256; those for other purposes are passed over.

    Raises:
        KeysUnavailable: it is not a key set, or has more than 32 entries.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeysUnavailable("not_a_key_set")
    if len(entries) > MAX_KEYS:
        raise KeysUnavailable("too_many_keys")
    return [key for entry in entries if isinstance(entry, dict) and (key := _parse_key(entry)) is not None]


def _parse_key(jwk: dict[str, Any]) -> SigningKey | None:
    key_id = jwk.get("kid")
    key_ops = jwk.get("key_ops", ["verify"])
    if (
        not isinstance(key_id, str | None)
        or jwk.get("use", "sig") != "sig"
        or not (isinstance(key_ops, list) and "verify" in key_ops)
    ):
        return None
    algorithm: str
    public_key: object
    try:
        match jwk.get("kty"), jwk.get("crv"):
            case "RSA", _:
                algorithm, public_key = "RS256", RSAAlgorithm.from_jwk(jwk)
            case "EC", "P-256":
                algorithm, public_key = "ES256", ECAlgorithm.from_jwk(jwk)
            case _:
                return None
    # TypeError: a member that is no text.
    except (InvalidKeyError, TypeError, ValueError):
        return None
    if jwk.get("alg", algorithm) != algorithm:
        return None
    if isinstance(public_key, RSAPublicKey) and public_key.key_size not in _RSA_BITS:
        return None
    # A private key: published, it is everybody's.
    if not isinstance(public_key, RSAPublicKey | EllipticCurvePublicKey):
        return None
    return SigningKey(key_id, algorithm, public_key)
