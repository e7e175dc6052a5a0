"""Who is called when sockets can be read, where there is epoll and where there is none. It proves nothing of speed."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator

import pytest

from docprogress.posting.readers import Readers


@pytest.fixture(params=["epoll", "none"])
def readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Readers]:
    if request.param == "none":
        monkeypatch.delattr(select, "epoll", raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("no epoll here")
    loop = asyncio.SelectorEventLoop()
    readers = Readers(loop)
    yield readers
    loop.close()
    readers.close()


class Pair:
    """A socket that is read, until one is told to stop, and the one that it hears."""

    def __init__(self, readers: Readers) -> None:
        self.here, self.there = socket.socketpair()
        self.heard = b""
        self._readers = readers
        readers.add(self.here.fileno(), self._read)

    def _read(self) -> None:
        self.heard += self.here.recv(1)

    def stop(self) -> None:
        self._readers.remove(self.here.fileno())

    def close(self) -> None:
        self.here.close()
        self.there.close()


def turn(readers: Readers) -> None:
    """Let the loop call those that can be read, once."""
    readers.loop.call_soon(readers.loop.stop)
    readers.loop.run_forever()


def test_each_is_called_while_it_can_be_read_and_is_added(readers: Readers) -> None:
    pairs = [Pair(readers) for _ in range(3)]
    pairs[0].there.send(b"ab")
    pairs[2].there.send(b"c")
    for _ in range(3):
        turn(readers)
    assert [pair.heard for pair in pairs] == [b"ab", b"", b"c"]
    pairs[0].stop()
    pairs[0].there.send(b"d")
    turn(readers)
    assert pairs[0].heard == b"ab"
    for pair in pairs:
        pair.close()


def test_one_that_another_has_ended_meanwhile_is_not_called(readers: Readers) -> None:
    pairs = [Pair(readers) for _ in range(2)]
    called: list[int] = []

    def end(this: int) -> None:
        called.append(this)
        for pair in pairs:
            pair.stop()
            pair.close()

    for number, pair in enumerate(pairs):
        pair.stop()
        readers.add(pair.here.fileno(), lambda number=number: end(number))  # type: ignore[misc]
        pair.there.send(b"a")
    turn(readers)
    turn(readers)
    assert len(called) == 1


def test_how_many_can_be_read_at_a_time_is_counted_anew_each_time(readers: Readers) -> None:
    pairs = [Pair(readers) for _ in range(4)]
    for pair in pairs:
        pair.there.send(b"a")
    turn(readers)
    assert readers.mean_at_once() == (4 if hasattr(select, "epoll") else 0)
    assert readers.mean_at_once() == 0
    for pair in pairs:
        pair.close()
