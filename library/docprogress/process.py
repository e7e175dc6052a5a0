"""Makes things once in each process: a fork shares sockets and copies locks, and neither works in the child."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Made = TypeVar("_Made")


class PerProcess(Generic[_Made]):
    """A value that is made at its first use, once in each process.

    Args:
        make: called by one thread at a time.
    """

    def __init__(self, make: Callable[[], _Made]) -> None:
        self._make = make
        self._forget()
        _values.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._made: list[_Made] = []

    def __call__(self) -> _Made:
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]


_values: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()


def _forget_all() -> None:
    for value in list(_values):
        value._forget()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget_all)
