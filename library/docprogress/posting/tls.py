"""TLS between what is said and what goes over a socket. No I/O.

`ssl`'s own sockets read a record with two system calls, its length first; so it can be read with one.
"""

from __future__ import annotations

import ssl

_RECORD_BYTES = 16_384


class TlsSession:
    """The client's side of one connection.

    Attributes:
        ended: the server has said that no more will come.
    """

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self.ended = False

    def shake_hands(self, received: bytes) -> tuple[bytes, bool]:
        """Take what the server sent, at first nothing; return what to send it, and whether that was all.

        Raises:
            ssl.SSLError: the server cannot be trusted, or understood.
        """
        self._incoming.write(received)
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read(), False
        return self._outgoing.read(), True

    def encrypt(self, data: bytes) -> bytes:
        written = self._session.write(data)
        records = self._outgoing.read()
        while written < len(data):  # it is longer than one record
            written += self._session.write(data[written : written + _RECORD_BYTES])
            records += self._outgoing.read()  # one by one: it keeps the memory of the most that it has held
        return records

    def decrypt(self, received: bytes) -> bytes:
        """Return what the records that are whole by now say; a record may say nothing."""
        self._incoming.write(received)
        said = b""
        try:
            said = part = self._session.read(_RECORD_BYTES)
            while part and self._incoming.pending:
                part = self._session.read(_RECORD_BYTES)
                said += part
        except ssl.SSLWantReadError:  # for the rest of a record
            return said
        self.ended = not part
        return said
