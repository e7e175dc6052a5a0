"""Calls those whose sockets can be read, without the handle that asyncio makes of each call."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class Readers:
    """`loop.add_reader` for sockets that are read very often: the loop waits for all of them as for one.

    Where there is no epoll, they are the loop's own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: dict[int, Callable[[], None]] = {}
        self._waits = self._called = 0
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._call, self._epoll)

    def add(self, fd: int, call: Callable[[], None]) -> None:
        if self._epoll is None:
            self.loop.add_reader(fd, call)
        else:
            self._calls[fd] = call
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        if self._epoll is None:
            self.loop.remove_reader(fd)
        else:
            del self._calls[fd]
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Only once the loop is closed."""
        if self._epoll is not None:
            self._epoll.close()

    def mean_at_once(self) -> float:
        """Return how many could read at a time, since this was asked the last time; 0 where it is not known."""
        mean = self._called / max(1, self._waits)
        self._waits = self._called = 0
        return mean

    def _call(self, epoll: select.epoll) -> None:
        ready = epoll.poll(0)
        self._waits += 1
        self._called += len(ready)
        for fd, _ in ready:
            call = self._calls.get(fd)
            if call is not None:  # removed by one before it
                call()
