"""What one call of `post` waits for: its message on the way to everyone who watches. No I/O.

Decides when the call is over, and counts. Everything here runs on the engine's loop, but for what `Update` lets
the caller's thread read.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable

from docprogress.posting.report import DeliveryReport, Recipient
from docprogress.posting.sigv4 import Payload

Later = Callable[[float, Callable[[], None]], object]  # (seconds from now, what to do then)
# Of those found gone after the update, most are found within so long of the first; all are forgotten together.
_GATHERING_SECONDS = 1.0


class Update:
    """Over once everyone was tried, and for `settle_seconds` more while some are not reached; or at the deadline.

    The caller's thread waits for `wake`, and may read `over`, `wants_page`, have another take from `stale` (two threads
    may share a dict's `popitem`) and, once it is over, read everything.

    Args:
        topic: names those who are told, such as a document.
        version: orders the topic's messages; an older one is not sent once a newer one has begun.
        later: has something done on the loop, so many seconds from now.
        left_stale: called on the loop when connections were found gone after the update was over. Must not block.
    """

    def __init__(
        self,
        topic: Hashable,
        method: str,
        version: int,
        payload: Payload,
        *,
        later: Later,
        seconds: float,
        settle_seconds: float,
        left_stale: Callable[[], None],
    ) -> None:
        self.topic = topic
        self.method = method
        self.version = version
        self.payload = payload
        self.settle_seconds = settle_seconds
        self._later = later
        self._left_stale = left_stale
        self._gathering = False
        self._seconds = seconds
        self.wake = threading.Event()
        self.over = False
        self.wants_page = True
        self.stale: dict[str, Recipient] = {}  # the topic's, once it has begun
        self.problems: Counter[str] = Counter()
        self.refusal: tuple[int, str, str] | None = None  # the first: status, connection and what was said
        self._handed = 0  # watchers
        self._sent = 0  # of them, those with a first post on its way, or known to be slow
        self._tried = 0  # of those, how many were answered, or have waited long enough
        self._open = 0  # tried, and not done with
        self._throttled = 0  # of the open, those whose last answer was 429
        self._delivered = self._stale = self._refused = 0
        self._all_read = False
        self._settling = False

    def begin(self) -> None:
        self._later(self._seconds, self._time_out)

    def handed(self, watchers: int) -> None:
        self._handed += watchers

    def ask_for_page(self) -> None:
        self.wants_page = True
        self.wake.set()

    def end_of_pages(self) -> None:
        self._all_read = True
        self.check()

    def sent(self) -> None:
        if not self.over:
            self._sent += 1

    def tried(self) -> None:
        """One that was sent to was answered, or has waited for long enough that the others need not."""
        if not self.over:
            self._tried += 1
            self._open += 1

    def delivered_at_once(self) -> None:
        """Tried and delivered in one: what becomes of almost every post."""
        if not self.over:
            self._tried += 1
            self._delivered += 1
            if self._tried >= self._handed:
                self.check()

    def delivered(self) -> None:
        if not self.over:
            self._open -= 1
            self._delivered += 1
            self.check()

    def gone(self) -> None:
        if not self.over:
            self._open -= 1
            self._stale += 1
            self.check()
        elif not self._gathering:
            self._gathering = True
            self._later(_GATHERING_SECONDS, self._end_gathering)

    def refused(self, status: int, connection_id: str, detail: str) -> None:
        if not self.over:
            self._open -= 1
            self._refused += 1
            self.refusal = self.refusal or (status, connection_id, detail)
            self.check()

    def throttled(self, change: int) -> None:
        if not self.over:
            self._throttled += change

    def check(self) -> None:
        if self.over or not self._all_read or self._tried < self._handed:
            return
        if self._open == 0 or self.settle_seconds <= 0:
            self.end()
        elif not self._settling:
            self._settling = True
            self._later(self.settle_seconds, self.end)

    def end(self) -> None:
        """Be over, whoever is not reached yet."""
        if not self.over:
            self.over = True
            self.wake.set()

    def _time_out(self) -> None:
        if not self.over and self._handed and not self._sent:
            # Nothing else tells of it: no attempt to connect has failed yet.
            self.problems["no connection was ready in time"] += 1
        self.end()

    def _end_gathering(self) -> None:
        self._gathering = False
        self._left_stale()

    def report(self, read: int) -> DeliveryReport:
        """Tell, once it is over, what became of the `read` watchers: whoever is not counted here was not tried.

        So nobody is lost between the caller's thread and the loop, whichever of them ends first.
        """
        done = self._delivered + self._stale + self._refused
        return DeliveryReport(
            delivered=self._delivered,
            stale=self._stale,
            throttled=self._throttled,
            failed=self._sent - done - self._throttled,
            untried=read - self._sent,
            refused=self._refused,
        )
