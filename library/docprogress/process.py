"""What is made once in each process. A fork shares sockets and copies locks, and neither works in the child."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

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


class Background(threading.Thread):
    """A thread of this package's, which ends with the process."""

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)


def may_wait() -> bool:
    """Whether this thread may wait for others of this package's.

    Not while the interpreter ends, which stops them; and not one of themselves, on which the garbage collector may end
    a generator or a coroutine, and what they have begun.
    """
    return not (sys.is_finalizing() or isinstance(threading.current_thread(), Background))


class Aside:
    """What nobody needs to wait for, on threads of its own. Each key has one call under way at a time."""

    def __init__(self) -> None:
        self._forget()
        after_fork(self, Aside._forget)

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._threads: dict[Hashable, Background] = {}
        self._next: dict[Hashable, Callable[[], object]] = {}

    def do(self, key: Hashable, call: Callable[[], object], *, wait_seconds: float) -> None:
        """Call it; return at its end or after so long. What it raises is logged.

        While a call of this key is under way, only the newest of those after it waits for its turn.
        """
        with self._lock:
            thread = self._threads.get(key)
            if thread is None:
                thread = Background(lambda: self._run(key, call), "docprogress-aside")
                thread.start()
                self._threads[key] = thread
            else:
                self._next[key] = call
        thread.join(wait_seconds)

    def _run(self, key: Hashable, call: Callable[[], object]) -> None:
        following: Callable[[], object] | None = call
        while following is not None:
            try:
                following()
            except Exception:
                logger.exception("What was left to be done aside has failed")
            with self._lock:
                following = self._next.pop(key, None)
                if following is None:
                    del self._threads[key]


aside = Aside()


@contextmanager
def making_what_stays() -> Iterator[None]:
    """Spare the garbage collector what is made in the block, such as botocore's clients, which are many objects.

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
