"""What bytes are a response. Does not prove what API Gateway sends, nor how a connection reads it (test_fan_out)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docprogress.posting.http1 import MalformedResponse, Response, parse_response


@pytest.mark.parametrize(
    ("data", "response"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Response(200)),
        (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\nconnection:CLOSE\r\n\r\n", Response(200, keep_alive=False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Response(204)),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Response(304)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", Response(200, "", b"{}", False)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Response(200)),
        (
            b"HTTP/1.1 410 Gone\r\nx-amzn-ErrorType: GoneException:http://x/\r\nContent-Length: 2\r\n\r\n{}",
            Response(410, "GoneException", b"{}"),
        ),
        (
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\n{} \r\n1\r\n \r\n0\r\nT: x\r\n\r\n",
            Response(500, "", b"{}  "),
        ),
        (
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n",
            Response(500, "", b"abcdefghijklmnopqrstuvwxyz"),
        ),
        (
            b'HTTP/1.1 400 No\r\nContent-Length: 21\r\n\r\n{"__type":"a#Broken"}',
            Response(400, "Broken", b'{"__type":"a#Broken"}'),
        ),
        (
            b'HTTP/1.1 403 No\r\nContent-Length: 18\r\n\r\n{"code":"Refused"}',
            Response(403, "Refused", b'{"code":"Refused"}'),
        ),
        (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\n{bad", Response(500, "", b"{bad")),
    ],
)
def test_a_response_is_understood_when_its_last_byte_is_there_and_not_before(data: bytes, response: Response) -> None:
    for end in range(len(data)):
        assert parse_response(data[:end]) is None, data[:end]
        with pytest.raises(MalformedResponse):
            parse_response(data[: max(end, 1)], ended=True)
    assert parse_response(data) == response


def test_bytes_after_a_response_end_the_connection_but_not_the_response() -> None:
    assert parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore") == Response(200, keep_alive=False)


def test_a_few_interim_responses_are_read_over_and_no_more() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert parse_response(interim * 16 + answer) == Response(204)
    with pytest.raises(MalformedResponse):
        parse_response(interim * 17 + answer)


def test_a_body_without_a_length_lasts_until_the_connection_ends() -> None:
    data = b"HTTP/1.1 500 No\r\n\r\nsorry"
    assert parse_response(data) is None
    assert parse_response(data, ended=True) == Response(500, "", b"sorry", keep_alive=False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n",
    ],
)
def test_what_can_never_become_a_response_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(MalformedResponse):
        parse_response(data)


def test_an_error_nested_deeper_than_python_reads_is_an_error_without_a_name() -> None:
    body = b'{"code":' * 5_000
    head = b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert parse_response(head + body) == Response(500, "", body)


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_make_the_parser_fail_otherwise(noise: bytes, ended: bool) -> None:
    for data in (noise, b"HTTP/1.1 " + noise, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + noise):
        try:
            response = parse_response(data, ended=ended)
        except MalformedResponse:
            continue
        assert response is None or 200 <= response.status <= 999


def test_an_empty_200_that_closes_is_not_kept() -> None:
    assert parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") == Response(
        200, keep_alive=False
    )
