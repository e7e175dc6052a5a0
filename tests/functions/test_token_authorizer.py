"""The $connect authorizer against a real issuer on this machine, with real keys and forged tokens.

Not proved here: that API Gateway turns "Unauthorized" into 401 and enforces the policy (AWS documents both),
that $connect is declared with this authorizer (graph tests), that a real issuer's tokens look like these.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import jwt
import pytest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

import token_authorizer
from tests.oidc_server import (
    AUDIENCE,
    DISCOVERY_PATH,
    JWKS_PATH,
    Failure,
    IssuerKey,
    OidcServer,
    ec_key,
    rsa_key,
)
from tokens.fetch import MAX_BODY_BYTES, FetchError, fetch_json, is_loopback_http
from tokens.settings import settings_from
from tokens.signing_keys import KeysUnavailable, SigningKeys, load_issuer_keys, parse_key_set

ROOT = Path(__file__).parents[2]
# The two seconds that an issuer has may pass here before its thread has had a turn.
PATIENCE_SECONDS = 60.0
CONNECT_ARN = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/prod/$connect"
CONNECTION_ID = "Xk3dQcTtjoECJ5w="


# Harness: a gateway that sends events as API Gateway does, and reads the log that the authorizer writes.


class Gateway:
    def __init__(self, log: io.StringIO) -> None:
        self._log = log

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    def connect(self, token: str) -> dict[str, Any]:
        return self.send(connect_event(queryStringParameters={"token": token}))

    def send(self, event: dict[str, Any]) -> dict[str, Any]:
        return token_authorizer.handler(event, None)

    def refusal_of(self, token: str) -> str:
        return self.refusal(connect_event(queryStringParameters={"token": token}))

    def refusal(self, event: dict[str, Any]) -> str:
        """Sends an event that must be refused in API Gateway's word for it; answers the logged reason."""
        lines_before = len(self.log_lines())
        with pytest.raises(Exception, match=r"^Unauthorized$") as caught:
            self.send(event)
        assert caught.type is Exception
        assert caught.value.__cause__ is caught.value.__context__ is None, "a cause would be logged with it"
        [line] = self.log_lines()[lines_before:]
        # The saved query of those who are refused looks for these words.
        assert (line["message"], line["level"], line["connection_id"]) == (
            "connection refused",
            "WARNING",
            CONNECTION_ID,
        )
        return str(line["reason"])


def connect_event(**fields: Any) -> dict[str, Any]:
    return {
        "type": "REQUEST",
        "methodArn": CONNECT_ARN,
        "headers": {"Host": "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"},
        "queryStringParameters": None,
        "requestContext": {
            "routeKey": "$connect",
            "eventType": "CONNECT",
            "connectionId": CONNECTION_ID,
        },
        **fields,
    }


def configure(monkeypatch: pytest.MonkeyPatch, issuer: OidcServer, **variables: str) -> None:
    for name in ("JWT_ISSUER", "JWT_AUDIENCE", "TOKEN_SOURCE", "JWKS_URL"):
        monkeypatch.delenv(name, raising=False)
    defaults = {"JWT_ISSUER": issuer.issuer, "JWT_AUDIENCE": AUDIENCE, "TOKEN_SOURCE": "querystring"}
    for name, value in {**defaults, **variables}.items():
        monkeypatch.setenv(name, value)
    token_authorizer.authorizer.cache_clear()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokens.signing_keys.fetch_json", partial(fetch_json, timeout_seconds=PATIENCE_SECONDS))


@pytest.fixture
def issuer() -> Iterator[OidcServer]:
    with OidcServer() as server:
        yield server


@pytest.fixture
def gateway(issuer: OidcServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    configure(monkeypatch, issuer)
    log = io.StringIO()
    stdout = token_authorizer.logger.registered_handler.setStream(log)  # type: ignore[attr-defined] # a Handler
    yield Gateway(log)
    token_authorizer.logger.registered_handler.setStream(stdout)  # type: ignore[attr-defined] # a Handler
    token_authorizer.authorizer.cache_clear()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


def resigned(token: str, header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """The same claims under another header and signature."""
    signing_input = f"{segment(header)}.{token.split('.')[1]}"
    return f"{signing_input}.{segment(sign(signing_input.encode()))}"


# Who is let in


@pytest.mark.parametrize("key", [rsa_key("rsa-1"), ec_key("ec-1")], ids=["RS256", "ES256"])
def test_a_good_token_allows_exactly_this_connect_and_carries_who_and_until_when(
    gateway: Gateway, issuer: OidcServer, key: IssuerKey
) -> None:
    expires_at = int(time.time()) + 600

    answer = gateway.connect(issuer.token(key, sub="auth0|alice", exp=expires_at))

    assert answer == {
        "principalId": "auth0|alice",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": CONNECT_ARN}],
        },
        "context": {"principal_id": "auth0|alice", "expires_at": str(expires_at)},
    }
    [line] = gateway.log_lines()
    assert (line["message"], line["connection_id"]) == ("connection authorized", CONNECTION_ID)
    assert line["expires_at"] == expires_at, "with it a connection that ends early is told from one that broke"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": None, "client_id": AUDIENCE, "token_use": "access"}, None),
        ({"aud": AUDIENCE, "client_id": "other", "token_use": "access"}, None),
        ({"aud": AUDIENCE, "token_use": "id"}, None),
        ({"aud": ["other", AUDIENCE]}, None),
        ({"aud": None, "client_id": "other", "token_use": "access"}, "wrong_audience"),
        ({"aud": "other", "client_id": AUDIENCE, "token_use": "access"}, "wrong_audience"),
        ({"aud": "other", "client_id": AUDIENCE, "token_use": "id"}, "wrong_audience"),
        ({"aud": None, "client_id": AUDIENCE, "token_use": "id"}, "missing_claim"),
        ({"aud": None, "client_id": AUDIENCE}, "missing_claim"),
        ({"token_use": "refresh"}, "wrong_token_use"),
        ({"token_use": ["access"]}, "wrong_token_use"),
    ],
)
def test_a_cognito_access_token_is_for_its_client_and_any_other_for_its_audience(
    gateway: Gateway, issuer: OidcServer, claims: dict[str, Any], reason: str | None
) -> None:
    token = issuer.token(**claims)
    if reason is None:
        assert gateway.connect(token)["principalId"] == "alice"
    else:
        assert gateway.refusal_of(token) == reason


def test_any_of_several_audiences_will_do(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, issuer, JWT_AUDIENCE=f"mobile, {AUDIENCE},")
    assert gateway.connect(issuer.token(aud="mobile"))["principalId"] == "alice"
    assert gateway.connect(issuer.token())["principalId"] == "alice"
    assert gateway.refusal_of(issuer.token(aud="")) == "wrong_audience"


# Where the token is


@pytest.mark.parametrize("name", ["Sec-WebSocket-Protocol", "sec-websocket-protocol", "SEC-WEBSOCKET-PROTOCOL"])
@pytest.mark.parametrize("offer", ["docprogress, {}", "docprogress,{}", " docprogress ,\t{} "])
def test_the_token_is_the_second_subprotocol_whatever_the_case_of_the_header(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch, name: str, offer: str
) -> None:
    configure(monkeypatch, issuer, TOKEN_SOURCE="subprotocol")
    event = connect_event(headers={"Host": "example.com", name: offer.format(issuer.token())})
    assert gateway.send(event)["principalId"] == "alice"


@pytest.mark.parametrize("offer", ["{}", "docprogress", "{}, docprogress", "docprogress, {}, x", "other, {}", ""])
def test_any_other_offer_of_subprotocols_brings_no_token(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch, offer: str
) -> None:
    configure(monkeypatch, issuer, TOKEN_SOURCE="subprotocol")
    event = connect_event(headers={"Sec-WebSocket-Protocol": offer.format(issuer.token())})
    assert gateway.refusal(event) == "missing_token"


def test_a_token_is_taken_from_the_configured_place_only(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_query = connect_event(queryStringParameters={"token": issuer.token()})
    in_header = connect_event(headers={"Sec-WebSocket-Protocol": f"docprogress, {issuer.token()}"})
    assert gateway.refusal(in_header) == "missing_token"
    configure(monkeypatch, issuer, TOKEN_SOURCE="subprotocol")
    assert gateway.refusal(in_query) == "missing_token"


@pytest.mark.parametrize("query", [None, {}, {"token": ""}, {"Token": "x"}, {"token": None}])
def test_without_a_token_nobody_is_asked(gateway: Gateway, issuer: OidcServer, query: Any) -> None:
    assert gateway.refusal(connect_event(queryStringParameters=query)) == "missing_token"
    assert not issuer.requests


@pytest.mark.parametrize(
    "arn",
    [
        None,
        "*",
        CONNECT_ARN.replace("$connect", "*"),
        CONNECT_ARN.replace("$connect", "$default"),
        CONNECT_ARN.replace("a1b2c3d4e5", "*"),
        CONNECT_ARN.replace("prod", "*"),
        CONNECT_ARN + "/*",
    ],
)
def test_nothing_but_one_connect_route_is_ever_allowed(gateway: Gateway, issuer: OidcServer, arn: Any) -> None:
    event = connect_event(methodArn=arn, queryStringParameters={"token": issuer.token()})
    assert gateway.refusal(event) == "not_connect"


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_every_partition_has_its_policy(gateway: Gateway, issuer: OidcServer, partition: str) -> None:
    arn = CONNECT_ARN.replace("arn:aws:", f"arn:{partition}:").replace("prod", "v1.0-blue_green")
    answer = gateway.send(connect_event(methodArn=arn, queryStringParameters={"token": issuer.token()}))
    assert answer["policyDocument"]["Statement"][0]["Resource"] == arn


# Forged and stale tokens


def test_an_unsigned_token_is_refused_however_it_spells_none(gateway: Gateway, issuer: OidcServer) -> None:
    payload = issuer.token().split(".")[1]
    for algorithm in ("none", "None", "NONE"):
        header = segment({"alg": algorithm, "kid": "rsa-1"})
        assert gateway.refusal_of(f"{header}.{payload}.") == "malformed"
        assert gateway.refusal_of(f"{header}.{payload}.AAAA") == "wrong_algorithm"


@pytest.mark.parametrize("secret", ["pem", "modulus"])
def test_a_token_signed_with_the_public_key_as_secret_is_refused(
    gateway: Gateway, issuer: OidcServer, secret: str
) -> None:
    key = rsa_key("rsa-1")
    public = key.public_pem() if secret == "pem" else key.public_jwk()["n"].encode()
    token = resigned(issuer.token(), {"alg": "HS256", "kid": "rsa-1"}, lambda data: hmac.digest(public, data, "sha256"))
    assert gateway.refusal_of(token) == "wrong_algorithm"
    assert not issuer.requests, "a refused algorithm costs the issuer nothing"


def test_the_key_decides_the_algorithm_and_not_the_token(gateway: Gateway, issuer: OidcServer) -> None:
    claiming_rsa = IssuerKey("rsa-1", ec_key("ec-1").private_key)
    claiming_ec = IssuerKey("ec-1", rsa_key("rsa-1").private_key)
    assert gateway.refusal_of(issuer.token(claiming_rsa)) == "wrong_algorithm"
    assert gateway.refusal_of(issuer.token(claiming_ec)) == "wrong_algorithm"


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "ES384", "EdDSA", "rs256", ["RS256"], None, 1])
def test_only_rs256_and_es256_are_allowed(gateway: Gateway, issuer: OidcServer, algorithm: Any) -> None:
    token = resigned(issuer.token(), {"alg": algorithm, "kid": "rsa-1"}, lambda _: b"signature")
    assert gateway.refusal_of(token) == "wrong_algorithm"


@pytest.mark.parametrize("make_key", [rsa_key, ec_key])
def test_another_key_under_a_known_id_is_refused(
    gateway: Gateway, issuer: OidcServer, make_key: Callable[[str], IssuerKey]
) -> None:
    known = issuer.keys[0] if make_key is rsa_key else issuer.keys[1]
    forger = IssuerKey(known.key_id, make_key("forger").private_key)
    assert gateway.refusal_of(issuer.token(forger)) == "bad_signature"


def test_claims_and_header_cannot_be_exchanged_under_a_signature(gateway: Gateway, issuer: OidcServer) -> None:
    header, payload, signature = issuer.token().split(".")
    claims = claims_of(f".{payload}.")
    as_admin = segment({**claims, "sub": "admin"})
    assert gateway.refusal_of(f"{header}.{as_admin}.{signature}") == "bad_signature"
    assert gateway.refusal_of(f"{segment({'alg': 'RS256', 'kid': 'rsa-1'})}.{payload}.{signature}") == "bad_signature"


def test_a_key_inside_the_token_is_not_even_looked_at(gateway: Gateway, issuer: OidcServer) -> None:
    forger = rsa_key("forger")
    with OidcServer(forger) as theirs:
        headers = {
            "jwk": forger.public_jwk(),
            "jku": theirs.jwks_url,
            "x5u": f"{theirs.issuer}/certificate",
            "x5c": [base64.b64encode(forger.public_pem()).decode()],
        }
        assert gateway.refusal_of(issuer.token(forger, headers)) == "unknown_key"
        assert gateway.refusal_of(issuer.token(IssuerKey("rsa-1", forger.private_key), headers)) == "bad_signature"
        assert not theirs.requests
    assert gateway.connect(issuer.token(headers=headers))["principalId"] == "alice"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"crit": ["exp"], "exp": 1}, "malformed"),
        ({"crit": []}, "malformed"),
        ({"b64": False}, "malformed"),
        ({"typ": "logout+jwt"}, "wrong_type"),
        ({"typ": "secevent+jwt"}, "wrong_type"),
        ({"typ": 1}, "wrong_type"),
        ({"typ": "at+jwt"}, None),
        ({"typ": None}, None),
    ],
)
def test_headers_that_change_the_meaning_of_a_token_are_refused(
    gateway: Gateway, issuer: OidcServer, headers: dict[str, Any], reason: str | None
) -> None:
    token = issuer.token(headers=headers)
    if reason is None:
        assert gateway.connect(token)["principalId"] == "alice"
    else:
        assert gateway.refusal_of(token) == reason


def test_the_one_critical_header_that_the_library_knows_is_refused_too(gateway: Gateway, issuer: OidcServer) -> None:
    rs256 = jwt.get_algorithm_by_name("RS256")
    header = {"alg": "RS256", "kid": "rsa-1", "crit": ["b64"], "b64": True}
    token = resigned(issuer.token(), header, lambda data: rs256.sign(data, issuer.keys[0].private_key))
    assert gateway.refusal_of(token) == "malformed"


NOW = int(time.time())
# A suite may take many minutes from here to its last test.
FAR = NOW + 86_400


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://issuer.example"}, "wrong_issuer"),
        ({"iss": None}, "missing_claim"),
        ({"iss": ["x"]}, "wrong_issuer"),
        ({"aud": "other"}, "wrong_audience"),
        ({"aud": AUDIENCE.upper()}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": {"x": 1}}, "invalid_claim"),
        ({"aud": [AUDIENCE, 7]}, "invalid_claim"),
        ({"aud": None}, "missing_claim"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": None}, "missing_claim"),
        ({"exp": str(FAR)}, "invalid_claim"),
        ({"exp": True}, "invalid_claim"),
        ({"exp": 10**400}, "invalid_claim"),
        ({"exp": float("inf")}, "invalid_claim"),
        ({"exp": float("nan")}, "invalid_claim"),
        ({"nbf": FAR}, "not_yet_valid"),
        ({"iat": FAR}, "not_yet_valid"),
        ({"nbf": "soon"}, "invalid_claim"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "wrong_token_use"),
        ({"sub": None}, "missing_claim"),
        ({"sub": ""}, "invalid_claim"),
        ({"sub": 7}, "invalid_claim"),
        ({"sub": "a" * 256}, "invalid_claim"),
        ({"sub": 'alice","status":"200'}, "invalid_claim"),
        ({"sub": "alice\nbob"}, "invalid_claim"),
        ({"sub": "alicе"}, "invalid_claim"),  # noqa: RUF001 - a Cyrillic letter, on purpose
    ],
)
def test_a_signed_token_with_a_wrong_claim_is_refused(
    gateway: Gateway, issuer: OidcServer, claims: dict[str, Any], reason: str
) -> None:
    assert gateway.refusal_of(issuer.token(**claims)) == reason


def test_an_issuer_is_compared_to_the_letter(gateway: Gateway, issuer: OidcServer) -> None:
    for almost in (
        f"{issuer.issuer}/",
        issuer.issuer.upper(),
        issuer.issuer.replace("127.0.0.1", "localhost"),
    ):
        assert gateway.refusal_of(issuer.token(iss=almost)) == "wrong_issuer"


def test_the_issuers_clock_may_be_half_a_minute_ahead_but_no_token_outlives_its_exp(
    gateway: Gateway, issuer: OidcServer
) -> None:
    now = int(time.time())
    assert gateway.connect(issuer.token(nbf=now + 20, iat=now + 20))["principalId"] == "alice"
    assert gateway.refusal_of(issuer.token(exp=now)) == "expired"


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_is_refused_beyond_half_a_minute(
    gateway: Gateway, issuer: OidcServer, claim: str
) -> None:
    assert gateway.refusal_of(issuer.token(**{claim: int(time.time()) + 90})) == "not_yet_valid"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "\ud800.a.b",
        "%00.%00.%00",
        "e30.e30.e30=",
        "é.é.é",
        f"{segment([])}.{segment({})}.AAAA",
        f"{segment(b'[' * 2000)}.{segment({})}.AAAA",
        f"{segment({'alg': 'RS256', 'kid': 7})}.{segment({})}.AAAA",
    ],
)
def test_garbage_is_refused_without_asking_anybody(gateway: Gateway, issuer: OidcServer, token: str) -> None:
    assert gateway.refusal_of(token) == "malformed"
    assert not issuer.requests


@pytest.mark.parametrize("payload", [b"[]", b"1", b" ", b"{", b"\xff", b'{"exp":' + b"9" * 5000 + b"}", b"[" * 3000])
def test_a_signed_payload_that_is_no_claims_set_is_refused(
    gateway: Gateway, issuer: OidcServer, payload: bytes
) -> None:
    token = jwt.PyJWS().encode(payload, issuer.keys[0].private_key, "RS256", {"kid": "rsa-1"})
    assert gateway.refusal_of(token) == "invalid_claim"


def test_an_oversized_token_is_refused_even_if_it_is_good(gateway: Gateway, issuer: OidcServer) -> None:
    assert gateway.refusal_of(issuer.token(groups="x" * 8000)) == "oversized"
    assert gateway.refusal_of("a.b.".ljust(8192, "c")) == "malformed", "looked at, and no token"
    assert gateway.refusal_of("a.b.".ljust(8193, "c")) == "oversized"
    assert not issuer.requests
    assert gateway.connect(issuer.token(groups="x" * 5000))["principalId"] == "alice"


# The issuer's keys


def test_a_token_without_key_id_can_only_mean_the_single_key_there_is(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnamed = IssuerKey(None, rsa_key("rsa-1").private_key)
    assert gateway.refusal_of(issuer.token(unnamed)) == "unknown_key"
    issuer.keys = [rsa_key("rsa-1")]
    token_authorizer.authorizer.cache_clear()
    assert gateway.connect(issuer.token(unnamed))["principalId"] == "alice"


def test_keys_are_fetched_once_for_many_connections(gateway: Gateway, issuer: OidcServer) -> None:
    for _ in range(20):
        gateway.connect(issuer.token())
    assert issuer.requests == {DISCOVERY_PATH: 1, JWKS_PATH: 1}


def test_a_flood_of_invented_key_ids_asks_the_issuer_once(gateway: Gateway, issuer: OidcServer) -> None:
    good = issuer.token()
    for number in range(50):
        token = resigned(good, {"alg": "RS256", "kid": f"invented-{number}"}, lambda _: b"x" * 256)
        assert gateway.refusal_of(token) == "unknown_key"
    assert issuer.requests == {DISCOVERY_PATH: 1, JWKS_PATH: 1}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(issuer: OidcServer, clock: Clock) -> SigningKeys:
    return SigningKeys(partial(load_issuer_keys, issuer.issuer, None), clock=clock)


def is_known(keys: SigningKeys, key_id: str) -> bool:
    return keys.find(key_id) is not None


def test_a_rotated_key_is_picked_up_and_the_old_one_serves_until_it_is_withdrawn(
    keys: SigningKeys, issuer: OidcServer, clock: Clock
) -> None:
    assert is_known(keys, "rsa-1")
    issuer.keys.append(rsa_key("rsa-2"))
    clock.now += 59
    assert not is_known(keys, "rsa-2"), "at most one refresh a minute"
    clock.now += 1
    assert is_known(keys, "rsa-2")
    assert is_known(keys, "rsa-1")
    assert issuer.requests[JWKS_PATH] == 2

    issuer.keys.remove(rsa_key("rsa-1"))
    clock.now += 3599
    assert is_known(keys, "rsa-1")
    clock.now += 1
    assert not is_known(keys, "rsa-1"), "a withdrawn key is forgotten within the hour"
    assert issuer.requests[JWKS_PATH] == 3


def test_unknown_key_ids_cause_one_refresh_a_minute_however_many_come(
    keys: SigningKeys, issuer: OidcServer, clock: Clock
) -> None:
    for number in range(180):  # one a second
        assert not is_known(keys, f"invented-{number}")
        clock.now += 1
    assert issuer.requests[JWKS_PATH] == 3


def test_a_clock_set_back_does_not_make_keys_last_for_ever(keys: SigningKeys, issuer: OidcServer, clock: Clock) -> None:
    assert is_known(keys, "rsa-1")
    clock.now -= 86_400
    assert is_known(keys, "rsa-1")
    assert issuer.requests[JWKS_PATH] == 2


def test_while_the_issuer_is_down_the_keys_held_serve_on_and_unknown_ones_cannot_be_told(
    keys: SigningKeys, issuer: OidcServer, clock: Clock
) -> None:
    assert is_known(keys, "rsa-1")
    issuer.failure = Failure.UNAVAILABLE
    clock.now += 86_399
    for _ in range(5):
        assert is_known(keys, "rsa-1")
        with pytest.raises(KeysUnavailable, match="status_503"):
            keys.find("rsa-2")
    assert issuer.requests[JWKS_PATH] == 2, "a failed refresh is not repeated within the minute"

    issuer.failure = None
    clock.now += 60
    assert not is_known(keys, "rsa-2"), "the issuer answers again, and does not know it"


@pytest.mark.parametrize("set_back_seconds", [0, 10 * 86_400])
def test_keys_that_the_issuer_has_not_confirmed_for_a_day_let_nobody_in(
    keys: SigningKeys, issuer: OidcServer, clock: Clock, set_back_seconds: int
) -> None:
    assert is_known(keys, "rsa-1")
    issuer.failure = Failure.UNAVAILABLE
    clock.now -= set_back_seconds
    assert is_known(keys, "rsa-1")
    clock.now += 86_400
    with pytest.raises(KeysUnavailable, match="status_503"):
        keys.find("rsa-1")

    issuer.failure = None
    clock.now += 5
    assert is_known(keys, "rsa-1")


def test_a_first_load_that_failed_is_tried_again_after_seconds(
    keys: SigningKeys, issuer: OidcServer, clock: Clock
) -> None:
    issuer.failure = Failure.UNAVAILABLE
    for _ in range(5):
        with pytest.raises(KeysUnavailable):
            keys.find("rsa-1")
    assert issuer.requests[JWKS_PATH] == 1
    issuer.failure = None
    clock.now += 5
    assert is_known(keys, "rsa-1")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Failure.UNAVAILABLE, "status_503"),
        (Failure.HUGE, "too_large"),
        (Failure.ANNOUNCED_HUGE, "too_large"),
        (Failure.REDIRECT, "status_302"),
        (Failure.NOT_JSON, "not_json"),
        (Failure.NOT_AN_OBJECT, "not_json"),
        (Failure.NO_KEYS, "no_usable_key"),
        (Failure.TOO_MANY_KEYS, "too_many_keys"),
    ],
)
def test_without_keys_a_connection_fails_as_the_servers_fault_and_is_not_called_unauthorized(
    gateway: Gateway, issuer: OidcServer, failure: Failure, reason: str
) -> None:
    issuer.failure = failure
    with pytest.raises(KeysUnavailable, match=f"unavailable: {reason}$"):
        gateway.connect(issuer.token())
    [line] = gateway.log_lines()
    assert (line["level"], line["reason"], line["connection_id"]) == ("ERROR", reason, CONNECTION_ID)
    assert line["message"] == "cannot authorize", "docs/monitoring.md says what it means"
    assert JWKS_PATH + "?moved" not in issuer.requests


def test_keys_that_come_for_ever_end_a_connection_with_the_issuers_time(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.failure = Failure.SLOW
    configure(monkeypatch, issuer, JWKS_URL=issuer.jwks_url)
    monkeypatch.setattr("tokens.signing_keys.fetch_json", fetch_json)  # with its own time-out
    with pytest.raises(KeysUnavailable, match=r"unavailable: timeout$"):
        gateway.connect(issuer.token())
    [line] = gateway.log_lines()
    assert (line["level"], line["reason"]) == ("ERROR", "timeout")


def test_an_issuer_that_is_gone_is_the_servers_fault_too(gateway: Gateway, issuer: OidcServer) -> None:
    issuer.stop()
    with pytest.raises(KeysUnavailable, match=r"unavailable: unreachable$"):
        gateway.connect(issuer.token())


def test_an_answer_that_drips_ends_with_its_time_and_not_with_its_bytes() -> None:
    with OidcServer(latency_seconds=0.02) as issuer:
        issuer.failure = Failure.SLOW
        started = time.monotonic()
        with pytest.raises(FetchError, match="timeout"):
            fetch_json(issuer.jwks_url, timeout_seconds=0.2)  # or it would read on for as long as the issuer drips
        assert time.monotonic() - started > 0.15


@pytest.mark.parametrize(
    ("discovery", "reason"),
    [
        ({"issuer": "https://issuer.example"}, "discovery_of_another_issuer"),
        ({"jwks_uri": None}, "jwks_uri_not_https"),
        ({"jwks_uri": "http://issuer.example/jwks"}, "jwks_uri_not_https"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri_not_https"),
        ({"jwks_uri": "https://["}, "jwks_uri_not_https"),
        ({"jwks_uri": "https:///jwks"}, "jwks_uri_not_https"),
        ({"jwks_uri": "https://user:password@issuer.example/"}, "jwks_uri_not_https"),
    ],
)
def test_a_discovery_document_must_be_the_issuers_own_and_point_to_https(
    issuer: OidcServer, discovery: dict[str, Any], reason: str
) -> None:
    issuer.discovery = discovery
    with pytest.raises(KeysUnavailable, match=f"unavailable: {reason}$"):
        load_issuer_keys(issuer.issuer, None)


def test_the_discovery_document_of_an_issuer_that_ends_in_a_slash_is_found(issuer: OidcServer) -> None:
    issuer.discovery = {"issuer": f"{issuer.issuer}/"}
    assert load_issuer_keys(f"{issuer.issuer}/", None)
    assert issuer.requests == {DISCOVERY_PATH: 1, JWKS_PATH: 1}


def test_a_given_jwks_url_spares_discovery(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, issuer, JWKS_URL=issuer.jwks_url)
    gateway.connect(issuer.token())
    assert issuer.requests == {JWKS_PATH: 1}


def test_every_address_of_a_host_is_tried(issuer: OidcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    unreachable = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("255.255.255.255", 443))
    found = [unreachable, *resolve("127.0.0.1", 0)]

    def by_name(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        return found if host == "issuer.example" else list(resolve(host, *args, **kwargs))

    monkeypatch.setattr(socket, "getaddrinfo", by_name)
    url = issuer.jwks_url.replace("127.0.0.1", "issuer.example")
    assert fetch_json(url, timeout_seconds=PATIENCE_SECONDS)["keys"]
    found = [unreachable]
    with pytest.raises(FetchError, match=re.escape(f"unreachable: {url}")):
        fetch_json(url, timeout_seconds=PATIENCE_SECONDS)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Accepts one connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        server.settimeout(PATIENCE_SECONDS)
        yield server


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_never_answers_ends_with_its_time(silent: socket.socket, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/jwks.json"
    with pytest.raises(FetchError, match=re.escape(f"timeout: {url}")):
        fetch_json(url, timeout_seconds=0.05)


def test_a_host_that_takes_no_connection_ends_with_its_time(silent: socket.socket) -> None:
    with socket.create_connection(silent.getsockname()), pytest.raises(FetchError, match="timeout"):
        fetch_json(f"http://127.0.0.1:{silent.getsockname()[1]}/jwks.json", timeout_seconds=0.05)


@pytest.mark.parametrize(("rest", "asked_for"), [("", "/"), ("?v=1", "/?v=1"), ("/keys?v=1", "/keys?v=1")])
def test_a_url_is_asked_for_as_it_is_and_for_json(silent: socket.socket, rest: str, asked_for: str) -> None:
    host = f"127.0.0.1:{silent.getsockname()[1]}"
    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(fetch_json, f"http://{host}{rest}", timeout_seconds=PATIENCE_SECONDS)
        connection, _ = silent.accept()
        with connection, connection.makefile("rb") as request:
            lines = [line.decode().strip() for line in iter(request.readline, b"\r\n")]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            assert fetched.result(PATIENCE_SECONDS) == {}
    assert lines[0] == f"GET {asked_for} HTTP/1.1"
    assert {f"Host: {host}", "Accept: application/json"} <= set(lines)


def test_an_answer_that_is_too_large_is_not_read_to_its_end(silent: socket.socket) -> None:
    with ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        fetched = pool.submit(fetch_json, url, timeout_seconds=PATIENCE_SECONDS)
        connection, _ = silent.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_BODY_BYTES + 16 * 1024))
            with pytest.raises(FetchError, match=re.escape(f"too_large: {url}")):
                fetched.result(PATIENCE_SECONDS / 2)


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://127.0.0.1:8080/", True),
        ("http://[::1]/", True),
        ("http://localhost/", True),
        ("http://169.254.169.254/latest/meta-data/", False),
        ("http://127.0.0.1.example.com/", False),
        ("http://localhost@example.com/", False),
        ("https://127.0.0.1/", False),
    ],
)
def test_only_loopback_counts_as_this_machine(url: str, is_here: bool) -> None:
    assert is_loopback_http(url) is is_here


def test_https_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    with OidcServer(ec_key("ec-1"), tls=True) as issuer:
        with pytest.raises(KeysUnavailable, match="unreachable"):
            load_issuer_keys(issuer.issuer, None)
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.certificate))
        assert [key.key_id for key in load_issuer_keys(issuer.issuer, None)] == ["ec-1"]
        wrong_host = issuer.jwks_url.replace("127.0.0.1", "localhost")
        with pytest.raises(FetchError, match="unreachable"):
            fetch_json(wrong_host, timeout_seconds=PATIENCE_SECONDS)


def test_a_host_is_not_asked_for_by_a_port_that_goes_without_saying(monkeypatch: pytest.MonkeyPatch) -> None:
    with OidcServer(ec_key("ec-1"), tls=True) as issuer:
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.certificate))
        connect, port = socket.create_connection, urlsplit(issuer.issuer).port
        monkeypatch.setattr(socket, "create_connection", lambda to, timeout: connect((to[0], port), timeout))
        assert fetch_json(f"https://127.0.0.1{JWKS_PATH}", timeout_seconds=PATIENCE_SECONDS)["keys"]
    assert issuer.hosts == {"127.0.0.1": 1}


RSA_JWK = rsa_key("rsa-1").public_jwk()
EC_JWK = ec_key("ec-1").public_jwk()


@pytest.mark.parametrize(
    "jwk",
    [
        {**RSA_JWK, "use": "enc"},
        {**RSA_JWK, "key_ops": ["encrypt"]},
        {**RSA_JWK, "alg": "RS512"},
        {**RSA_JWK, "alg": "ES256"},
        ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True),
        {**RSA_JWK, "kid": 7},
        {**RSA_JWK, "n": None},
        {**RSA_JWK, "n": "AA"},
        {**RSA_JWK, "e": "AA"},
        {**RSA_JWK, "d": None},
        {**EC_JWK, "crv": "P-384"},
        ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True),
        {**EC_JWK, "x": EC_JWK["y"]},
        {**EC_JWK, "x": 7},
        {**EC_JWK, "kty": "RSA"},
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": ["RSA"]},
        rsa_key("short", 1024).public_jwk(),
        {**RSA_JWK, "n": segment(bytes([0x80, *1022 * [0], 1, 1]) * 2)},  # 16,368 bits: slow to verify with
        "not a key",
        None,
    ],
)
def test_a_key_for_another_purpose_is_passed_over_and_the_others_serve(jwk: Any) -> None:
    assert [key.key_id for key in parse_key_set({"keys": [jwk, EC_JWK]})] == ["ec-1"]


@pytest.mark.parametrize("jwk", [RSA_JWK, EC_JWK])
def test_a_key_need_not_say_what_it_is_for(jwk: dict[str, Any]) -> None:
    silent = {name: value for name, value in jwk.items() if name not in ("use", "alg", "key_ops")}
    assert parse_key_set({"keys": [silent]}) == parse_key_set({"keys": [jwk]}) != []


def test_a_key_set_has_at_most_32_entries() -> None:
    assert len(parse_key_set({"keys": [EC_JWK] * 32})) == 32
    with pytest.raises(KeysUnavailable, match="too_many_keys"):
        parse_key_set({"keys": [EC_JWK] * 33})


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {"kid": "rsa-1"}}])
def test_what_is_no_key_set_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(KeysUnavailable, match=r"unavailable: not_a_key_set$"):
        parse_key_set(document)


# Settings


GOOD_SETTINGS = {"JWT_ISSUER": "https://issuer.example", "JWT_AUDIENCE": "web", "TOKEN_SOURCE": "querystring"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"JWT_ISSUER": ""}, "give the issuer's https:// URL"),
        ({"JWT_ISSUER": "http://issuer.example"}, "give the issuer's https:// URL"),
        ({"JWT_ISSUER": "issuer.example"}, "give the issuer's https:// URL"),
        ({"JWT_ISSUER": "https://issuer.example?x=1"}, "no query"),
        ({"JWT_ISSUER": "https://issuer.example#x"}, "no query and no fragment"),
        ({"JWT_AUDIENCE": " , "}, "name the audiences"),
        ({"TOKEN_SOURCE": "cookie"}, "give one of querystring, subprotocol"),
        ({"JWKS_URL": "http://issuer.example/jwks"}, "give an https:// URL"),
        ({"JWKS_URL": "http://127.0.0.1:9001/2018-06-01/runtime"}, "give an https:// URL"),
    ],
)
def test_wrong_settings_say_what_to_give(wrong: dict[str, str], says: str) -> None:
    assert settings_from({**GOOD_SETTINGS, "JWKS_URL": ""}).jwks_url is None
    with pytest.raises(ValueError, match=re.escape(says)):
        settings_from({**GOOD_SETTINGS, **wrong})


@pytest.mark.parametrize("name", GOOD_SETTINGS)
def test_a_setting_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is"):
        settings_from({each: value for each, value in GOOD_SETTINGS.items() if each != name})


def run_python(code: str, stdin: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join((str(ROOT / "functions"), str(ROOT / "library"))),
        **environ,
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        input=stdin,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )


def test_importing_the_handler_needs_no_environment_and_no_boto3() -> None:
    code = "import token_authorizer, sys; print({'boto3', 'botocore.session'} & sys.modules.keys())"
    assert run_python(code, "").stdout.endswith("\nset()\n"), "after the line of the cold start"


# What nobody may ever see

LAMBDA_RUNTIME = """
import functools, json, logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
import token_authorizer
from tokens import signing_keys
signing_keys.fetch_json = functools.partial(signing_keys.fetch_json, timeout_seconds=60)
for event in json.load(sys.stdin):
    try:
        token_authorizer.handler(event, None)
    except Exception:
        traceback.print_exc()
"""


def test_no_part_of_a_token_is_ever_written_anywhere(issuer: OidcServer) -> None:
    def forged(header: dict[str, Any]) -> str:
        return resigned(issuer.token(), header, lambda _: b"signature of a forger" * 4)

    tokens = [
        issuer.token(),
        issuer.token(sub="alice\nin the log"),
        issuer.token(sub="   "),
        issuer.token(iss="https://issuer.example"),
        issuer.token(aud="somebody else"),
        issuer.token(exp=1),
        issuer.token(headers={"typ": "logout+jwt"}),
        issuer.token(headers={"crit": ["x-unknown"]}),
        issuer.token(groups="x" * 9000),
        forged({"alg": "none", "kid": "rsa-1"}),
        forged({"alg": "RS256", "kid": "rsa-1"}),
        forged({"alg": "RS256", "kid": "kid-of-the-forger"}),
        segment(b"not json at all") + ".bm90IGpzb24.AAAAAAAA",
        "one-opaque-token",
    ]
    events = [connect_event(queryStringParameters={"token": token}) for token in tokens]

    ran = run_python(
        LAMBDA_RUNTIME,
        json.dumps(events),
        JWT_ISSUER=issuer.issuer,
        JWT_AUDIENCE=AUDIENCE,
        TOKEN_SOURCE="querystring",
        POWERTOOLS_LOGGER_LOG_EVENT="true",
        POWERTOOLS_LOG_LEVEL="DEBUG",
    )

    written = ran.stdout + ran.stderr
    assert written.count(f'"connection_id":"{CONNECTION_ID}"') == len(tokens), "one line a decision"
    assert ran.stderr.count("Exception: Unauthorized") == len(tokens) - 1
    secrets = {part for token in tokens for part in token.split(".") if len(part) > 4}
    secrets |= {"alice", "somebody else", "issuer.example", "kid-of-the-forger", "x-unknown", "forger"}
    assert [secret for secret in secrets if secret in written] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def is_policy_or_unauthorized(event: dict[str, Any]) -> bool:
    try:
        answer = token_authorizer.handler(event, None)
    except Exception as error:
        if type(error) is not Exception or error.args != ("Unauthorized",):
            raise
        return False
    assert answer["policyDocument"]["Statement"][0]["Resource"] == event["methodArn"]
    json.dumps(answer)
    return True


@pytest.mark.parametrize("source", ["querystring", "subprotocol"])
def test_whatever_the_event_the_answer_is_a_policy_or_unauthorized(
    gateway: Gateway, issuer: OidcServer, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    configure(monkeypatch, issuer, TOKEN_SOURCE=source)
    token = issuer.token()
    offered = st.sampled_from([token, token[:-1], f"docprogress, {token}", f"docprogress,{token},", ""]) | JSON
    names = st.sampled_from(["Sec-WebSocket-Protocol", "sec-websocket-protocol", "token", "TOKEN"]) | st.text()
    fields = st.dictionaries(names, offered, max_size=3) | JSON
    events = st.fixed_dictionaries(
        {},
        optional={
            "type": JSON,
            "methodArn": st.just(CONNECT_ARN) | JSON,
            "headers": fields,
            "queryStringParameters": fields,
            "requestContext": st.dictionaries(st.just("connectionId"), JSON) | JSON,
        },
    )

    @settings(max_examples=150)
    @given(events)
    def fuzz(event: dict[str, Any]) -> None:
        is_policy_or_unauthorized(event)

    fuzz()


def test_whatever_the_issuer_signs_the_answer_is_a_policy_or_unauthorized(gateway: Gateway, issuer: OidcServer) -> None:
    numbers = st.integers() | st.floats() | st.just(FAR)
    claims = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("exp", "nbf", "iat"), numbers | JSON),
            **dict.fromkeys(("iss", "sub", "jti", "token_use", "client_id"), JSON),
            "aud": st.lists(JSON, max_size=3) | JSON,
        },
    )

    @settings(max_examples=150)
    @given(claims)
    def fuzz(claims: dict[str, Any]) -> None:
        is_policy_or_unauthorized(connect_event(queryStringParameters={"token": issuer.token(**claims)}))

    fuzz()


def test_a_token_with_any_character_changed_is_refused(gateway: Gateway, issuer: OidcServer) -> None:
    token = issuer.token(ec_key("ec-1"))

    @settings(max_examples=150)
    @given(st.integers(0, len(token) - 1), st.sampled_from("AZaz09-_.=+ é\x00"))
    def fuzz(position: int, character: str) -> None:
        changed = token[:position] + character + token[position + 1 :]
        event = connect_event(queryStringParameters={"token": changed})
        assert is_policy_or_unauthorized(event) == (changed == token)

    fuzz()


# The documented example for AWS_IAM


@pytest.mark.parametrize("session_token", [None, "FwoGZXIvYXdzEBYaD//+=="])
def test_the_documented_example_signs_a_connect_url_as_signature_version_4_wants_it(
    session_token: str | None,
) -> None:
    text = (ROOT / "docs/authentication.md").read_text()
    [example] = re.findall(r"```python\n(.*?def presign_websocket_url.*?)```", text, flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(example, "docs/authentication.md", "exec"), namespace)  # noqa: S102 - it is our own document
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", session_token)

    url = namespace["presign_websocket_url"](
        "wss://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/prod",
        "eu-west-1",
        credentials,
        expires_seconds=60,
    )

    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, strict_parsing=True))
    assert (parts.scheme, parts.netloc, parts.path) == (
        "wss",
        "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com",
        "/prod",
    )
    assert query["X-Amz-Expires"] == "60"
    assert query.get("X-Amz-Security-Token") == session_token
    assert query.pop("X-Amz-Signature") == signature_version_4(
        credentials.secret_key, "eu-west-1", parts.netloc, parts.path, query
    )


def signature_version_4(secret: str, region: str, host: str, path: str, query: dict[str, str]) -> str:
    """By the book, without botocore:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    canonical_query = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items()))
    empty = hashlib.sha256(b"").hexdigest()
    canonical = f"GET\n{path}\n{canonical_query}\nhost:{host}\n\nhost\n{empty}"
    time_stamp = query["X-Amz-Date"]
    scope = f"{time_stamp[:8]}/{region}/execute-api/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{time_stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for step in (time_stamp[:8], region, "execute-api", "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()
