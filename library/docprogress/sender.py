"""The thread behind a tracker: does what it is handed, and takes a step whenever one is due."""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Callable

from docprogress.process import Background


class Sender:
    """Calls `step` when `wait_seconds` says so, never two things at once.

    The thread keeps the owner of the two methods only for as long as a step takes: a tracker that its worker has
    dropped must not look alive for ever.

    Args:
        wait_seconds: until the next step is due. Called with `changed` held.
        step: takes one step. The thread ends when it returns False.

    Attributes:
        changed: guards what `wait_seconds` looks at. Notify it when that changes.
    """

    def __init__(self, wait_seconds: Callable[[], float], step: Callable[[], bool]) -> None:
        self.changed = threading.Condition()
        self._wait_seconds = weakref.WeakMethod(wait_seconds)
        self._step = weakref.WeakMethod(step)
        self._handed: deque[Callable[[], object]] = deque()
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def is_started(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        # In the context of who starts it: what is traced or logged there belongs to the same request.
        run = contextvars.copy_context().run
        self._thread = Background(lambda: run(self._run), "progress-tracker")
        self._thread.start()

    def hand(self, call: Callable[[], object]) -> None:
        """Call it soon, before any step, and even if its owner is dropped. It must not raise."""
        with self.changed:
            self._handed.append(call)
            self.changed.notify()

    def stop(self) -> None:
        """Returns when the step under way, and what was handed over, is done."""
        with self.changed:
            self._stopped = True
            self.changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self.changed:
                handed = self._handed.popleft() if self._handed else None
                if handed is None:
                    wait_seconds = self._wait_seconds()
                    if wait_seconds is None or self._stopped:
                        return
                    seconds = wait_seconds()
                    del wait_seconds
                    if seconds > 0:
                        self.changed.wait(seconds)
                        continue
            if handed is not None:
                handed()
                del handed
                continue
            step = self._step()
            if step is None or not step():
                return
            del step
