"""What is made once in each process. A fork shares sockets and copies locks, and neither works in the child."""

from __future__ import annotations

import gc
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

_Made = TypeVar("_Made")

# Spreads load and protects no secret. The system's generator has no state, so forked children differ, and background
# threads leave the program's own random numbers alone.
jitter = random.SystemRandom().uniform

# Held while modules are imported late, so that no fork comes meanwhile: a child inherits the lock of a module that
# another thread is importing, and would wait for it for ever.
importing = threading.RLock()

_owners: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def after_fork(owner: _Made, call: Callable[[_Made], None]) -> None:
    """Call it with its owner in each child that is forked, for as long as the owner lives."""
    _owners[owner] = call


def _call_all() -> None:
    importing.release()
    for owner, call in list(_owners.items()):
        call(owner)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=importing.acquire, after_in_parent=importing.release, after_in_child=_call_all)


@contextmanager
def making_what_stays() -> Iterator[None]:
    """Spare the garbage collector what is made in the block, such as boto3's clients, which are many objects.

    Python would look through them again and again, which is a seventh of the CPU of a cold start. Only for a process of
    one's own, such as a Lambda function: what is garbage at the end of the block is kept as well.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class PerProcess(Generic[_Made]):
    """A value that is made at its first use, once in each process.

    Args:
        make: called by one thread at a time.
    """

    def __init__(self, make: Callable[[], _Made]) -> None:
        self._make = make
        self._forget()
        after_fork(self, PerProcess._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._made: list[_Made] = []

    def __call__(self) -> _Made:
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]
