"""TLS against `ssl`'s own server side, without a socket. Not proved here: whom a client trusts (test_trust)."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.certificate import server_context
from docprogress.posting.tls import TlsSession


class Server:
    """The other side of `client`, which has shaken hands with it."""

    def __init__(self, certificate: Path, client: TlsSession) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = server_context(certificate).wrap_bio(self._incoming, self._outgoing, server_side=True)
        to_server, done = client.shake_hands(b"")
        while not done:
            self._incoming.write(to_server)
            self._shake_hands()
            to_server, done = client.shake_hands(self.sends())
        self._incoming.write(to_server)
        self._shake_hands()

    def _shake_hands(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._session.do_handshake()

    def sends(self) -> bytes:
        return self._outgoing.read()

    def said(self, data: bytes) -> bytes:
        self._session.write(data)
        return self.sends()

    def heard(self, received: bytes) -> bytes:
        self._incoming.write(received)
        heard = b""
        while self._incoming.pending:
            heard += self._session.read(65_536)
        return heard

    def goodbye(self) -> bytes:
        with suppress(ssl.SSLWantReadError):
            self._session.unwrap()
        return self.sends()


@pytest.fixture
def client(certificate: Path) -> TlsSession:
    return TlsSession(ssl.create_default_context(cafile=str(certificate)), "127.0.0.1")


@pytest.fixture
def server(certificate: Path, client: TlsSession) -> Server:
    return Server(certificate, client)


def test_both_sides_hear_what_is_said(client: TlsSession, server: Server) -> None:
    assert client.decrypt(server.sends()) == b"", "tickets, which only TLS has a use for"
    for _ in range(2):
        assert server.heard(client.encrypt(b"a request")) == b"a request"
        assert client.decrypt(server.said(b"an answer")) == b"an answer"
    assert not client.ended


def test_a_request_of_many_records_is_sent_whole(client: TlsSession, server: Server) -> None:
    request = bytes(range(256)) * 512  # as large as API Gateway takes
    assert server.heard(client.encrypt(request)) == request


def test_records_that_come_together_are_heard_together_and_one_that_comes_in_parts_once_it_is_whole(
    client: TlsSession, server: Server
) -> None:
    records = server.said(b"head, ") + server.said(b"body, ") + server.said(b"rest")
    assert client.decrypt(records[:-3]) == b"head, body, "
    assert client.decrypt(records[-3:-2]) == b""
    assert client.decrypt(records[-2:]) == b"rest"


def test_a_goodbye_is_noticed_with_the_last_words_before_it(client: TlsSession, server: Server) -> None:
    assert client.decrypt(server.said(b"last words") + server.goodbye()) == b"last words"
    assert client.ended


def test_bytes_that_were_changed_on_their_way_are_refused(client: TlsSession, server: Server) -> None:
    record = bytearray(server.said(b"an answer"))
    record[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        client.decrypt(bytes(record))


def test_a_server_of_another_name_is_refused(certificate: Path) -> None:
    client = TlsSession(ssl.create_default_context(cafile=str(certificate)), "example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        Server(certificate, client)
