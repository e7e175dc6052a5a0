"""How many posts may await an answer at once: the number follows what the gateway takes. No I/O."""

from __future__ import annotations

# With answers after 10 to 20 ms this is 6,000 to 12,000 posts/s, about the account's quota of 10,000.
START = 128
_LEAST = 8
_LEAST_ANSWERS = 20  # fewer in one step tell nothing of the gateway
_THROTTLED_SHARE = 0.2  # more 429s than this are the account's quota, fewer are watchers with full buffers
# Answers that take so many times the quickest wait in a queue, be it ours: more in flight only lengthen it.
_QUEUED = 4
# Where so much of the window waits to be read, its owner is what limits the posts: more would only need connections.
_BEHIND_SHARE = 0.5
# An answer takes 10 to 20 ms. A post is slow when it has waited five times the usual, within these bounds.
_LEAST_SLOW_SECONDS = 0.1
_MOST_SLOW_SECONDS = 0.5


class Window:
    """Grows while answers stay quick and it is full; shrinks where the gateway throttles.

    Attributes:
        size: posts that may await an answer, from 1 to `most`.
        slow_seconds: a post that has waited this long does not hold up others.
        is_full: set by the owner when the size kept a post back.
        waits: how many seconds each answer took that has come since the last step; the owner adds to it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = min(START, most)
        self.slow_seconds = _MOST_SLOW_SECONDS
        self._quickest_seconds = float("inf")
        self._count_anew()

    def throttled(self) -> None:
        """One of the answers was 429."""
        self._throttled += 1

    def slow(self) -> None:
        """A post has become slow."""
        self._slow += 1

    def adapt(self, *, ready_at_once: float = 0.0) -> None:
        """Take a step, some 20 times a second.

        Args:
            ready_at_once: how many answers the owner has found waiting at a time.
        """
        answers = len(self.waits)
        if answers:
            usual = sum(self.waits) / answers
            self._quickest_seconds = min(self._quickest_seconds, min(self.waits))
            self.slow_seconds = min(max(5 * usual, _LEAST_SLOW_SECONDS), _MOST_SLOW_SECONDS)
        if self._slow > answers:
            if self.is_full:
                self._grow(self.size // 2)  # watchers that hang fill it, which costs the gateway nothing
        elif answers < _LEAST_ANSWERS:
            return  # the count goes on
        elif self._throttled > _THROTTLED_SHARE * answers:
            self.size = max(min(_LEAST, self.most), self.size * 7 // 10)
        elif self.is_full and ready_at_once < _BEHIND_SHARE * self.size and usual <= _QUEUED * self._quickest_seconds:
            self._grow(self.size // 8)
        self._count_anew()

    def rest(self) -> None:
        """All is quiet, and the next burst may meet another server: forget the quickest answer."""
        self._quickest_seconds = float("inf")
        self._count_anew()

    def _grow(self, posts: int) -> None:
        self.size = min(self.most, self.size + max(1, posts))

    def _count_anew(self) -> None:
        self.is_full = False
        self.waits: list[float] = []
        self._throttled = self._slow = 0
