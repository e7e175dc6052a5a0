"""Signed @connections requests, compared byte for byte with botocore's signer.

Does not prove that AWS takes them: that botocore signs the way AWS verifies is taken for granted.
"""

from __future__ import annotations

import datetime
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from docprogress.posting.sigv4 import Endpoint, Payload, RequestSigner

NOON = 1_795_435_200.0  # 2026-11-23T12:00:00Z
AWS = "https://abc123.execute-api.eu-west-1.amazonaws.com/prod"
EMULATOR = "http://127.0.0.1:4566/_aws/execute-api/abc123/local"
KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None)


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def take_apart(request: bytes) -> tuple[str, str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    request_line, *lines = head.decode("ascii").split("\r\n")
    method, target, version = request_line.split(" ")
    assert version == "HTTP/1.1"
    return method, target, dict(line.split(": ", 1) for line in lines), body


def botocore_headers(
    method: str, url: str, body: bytes, region: str, credentials: ReadOnlyCredentials, now: float
) -> dict[str, str]:
    request = AWSRequest(method=method, url=url, data=body)
    signer = SigV4Auth(credentials, "execute-api", region)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    # botocore takes no clock, so its own has to be replaced.
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        signer.add_auth(request)
    return dict(request.headers)


def assert_signed_as_by_botocore(
    request: bytes, callback_url: str, body: bytes, region: str, credentials: ReadOnlyCredentials, now: float
) -> None:
    method, target, headers, sent_body = take_apart(request)
    endpoint = Endpoint.from_url(callback_url)
    url = f"{endpoint.scheme}://{endpoint.host_header}{target}"
    expected = botocore_headers(method, url, body, region, credentials, now)
    assert headers.pop("Host") == endpoint.host_header
    assert headers.pop("Content-Length") == str(len(body))
    assert headers == expected
    assert sent_body == body


@settings(max_examples=100)
@given(
    connection_id=st.one_of(
        st.from_regex(r"[A-Za-z0-9_-]{1,24}={0,2}", fullmatch=True),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
        st.sampled_from([".", "..", "a/b", "a//b", "%3D", "=", "a b", "é=", "?x=y", "#", "+", "~", "a.b=", "\ud800"]),
    ),
    method=st.sampled_from(["POST", "DELETE"]),
    callback_url=st.sampled_from(
        [AWS, AWS + "/", EMULATOR, "https://ws.example.com", "https://ws.example.com:443/a%20b//c/",
         "http://example.com:8080/~a.b/c=d", "http://[::1]:4566/x", "https://HOST.example.com:80/@/"]
    ),
    region=st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1"]),
    body=st.binary(max_size=200),
    secret_key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100),
    token=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=1_500),
    moments=st.lists(st.integers(0, 4_102_444_800), min_size=1, max_size=4),
)  # fmt: skip
def test_every_request_is_signed_exactly_as_botocore_signs_it_whatever_the_clock_does(
    connection_id: str,
    method: str,
    callback_url: str,
    region: str,
    body: bytes,
    secret_key: str,
    token: str | None,
    moments: list[int],
) -> None:
    credentials = ReadOnlyCredentials("AKIDEXAMPLE", secret_key, token, None)
    clock = Clock()
    signer = RequestSigner(method, Endpoint.from_url(callback_url), region, credentials, clock)
    for moment in moments:
        clock.now = moment
        request = signer.sign(connection_id, Payload.of(body))
        assert_signed_as_by_botocore(request, callback_url, body, region, credentials, moment)


@pytest.mark.parametrize("seconds", [0.4, 1, 60, 43_200, -43_201, -86_400, 86_400 * 366])
def test_the_clock_may_jump_to_any_second_of_any_day_between_two_requests(seconds: float) -> None:
    clock = Clock()
    signer = RequestSigner("POST", Endpoint.from_url(AWS), "eu-west-1", KEYS, clock)
    signer.sign("before=", Payload.of(b"{}"))
    clock.now += seconds
    request = signer.sign("after=", Payload.of(b"{}"))
    assert_signed_as_by_botocore(request, AWS, b"{}", "eu-west-1", KEYS, clock.now)


def test_the_at_sign_and_the_ids_equals_sign_are_percent_encoded_and_the_path_prefix_is_kept() -> None:
    signer = RequestSigner("POST", Endpoint.from_url(EMULATOR), "eu-west-1", KEYS)
    _, target, headers, _ = take_apart(signer.sign("L0SM9cOFvHcCIhw=", Payload.of(b"{}")))
    assert target == "/_aws/execute-api/abc123/local/%40connections/L0SM9cOFvHcCIhw%3D"
    assert headers["Host"] == "127.0.0.1:4566"


@pytest.mark.parametrize("connection_id", [".", ".."])
def test_an_id_of_dots_cannot_be_resolved_away_by_anyone_on_the_path(connection_id: str) -> None:
    signer = RequestSigner("POST", Endpoint.from_url(AWS), "eu-west-1", KEYS)
    _, target, _, _ = take_apart(signer.sign(connection_id, Payload.of(b"")))
    assert target == "/prod/%40connections/" + "%2E" * len(connection_id)


def test_an_id_cannot_add_a_header_or_a_second_request() -> None:
    signer = RequestSigner("POST", Endpoint.from_url(AWS), "eu-west-1", KEYS)
    request = signer.sign("x HTTP/1.1\r\nHost: evil\r\n\r\n", Payload.of(b""))
    assert request.count(b"\r\n\r\n") == 1
    assert b"Host: evil" not in request


@pytest.mark.parametrize(
    "callback_url",
    ["", "wss://a.example/prod", "a.example/prod", "https:///prod", "https://a.example/prod?x=1",
     "https://user:pw@a.example/prod", "https://exämple.org/prod"],
)  # fmt: skip
def test_a_url_that_cannot_be_posted_through_is_refused_by_its_value(callback_url: str) -> None:
    with pytest.raises(ValueError, match=r"callback_url is .*; expected https://"):
        Endpoint.from_url(callback_url)
