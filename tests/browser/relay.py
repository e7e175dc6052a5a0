"""A TCP relay that does what networks do: cuts without a close frame, swallows what is sent, closes half."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Relay:
    """Passes connections to 127.0.0.1:`port` on, until `cut()`; those that come later are passed on again.

    Args:
        name: What pages call this host. It is passed on as localhost: the emulator answers to no other name.
    """

    def __init__(self, port: int, *, name: str) -> None:
        self._target = ("127.0.0.1", port)
        self._name = f"Host: {name}:".encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._silent: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()

    def cut(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):  # it may be over already
                one.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Those that are open stay open, and nothing that is sent over them arrives any more, as after sleep."""
        self._silent |= set(self._sockets)

    def close_half(self) -> None:
        """The server's side of each ends; the client may still send."""
        for one in self._sockets[::2]:
            with suppress(OSError):  # it may be over already
                one.shutdown(socket.SHUT_WR)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)  # at once, so that it is closed whatever comes
                self.accepted += 1
                far = socket.create_connection(self._target)
                self._sockets.append(far)
                self._start(self._pass_on, near, far)
                self._start(self._pass_on, far, near)

    def _start(self, target: object, *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]  # either of the two methods
        self._threads.append(thread)
        thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # cut
            while data := source.recv(1 << 16):
                if source not in self._silent:
                    target.sendall(data.replace(self._name, b"Host: localhost:"))
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
