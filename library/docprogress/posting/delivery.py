"""One message on its way to many connections: who is still to be tried, who is done, what an answer means.

Decides what a status does to a recipient and when a delivery is over; sockets and threads are `engine`'s
part. Everything here runs on the fan-out's loop, but for what `Delivery` lets the caller's thread read.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from docprogress.posting.http1 import Response
from docprogress.posting.report import DeliveryReport, Recipient
from docprogress.posting.sigv4 import Payload, RequestSigner

_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 2.0
_LEAST_RETRY_SECONDS = 0.05  # with less left, a retry's answer would come too late: most take 10 to 20 ms
# Retries wait in memory; with this many, no further watchers are read until some are through.
_MAX_WAITING = 4_096
# As many as a page of the table holds. What is beyond is not kept: it will answer 410 to the next update too.
_MAX_STALE = 5_000
# A refusal is about the caller, not about one watcher: after so many in a row the rest would be refused too.
_REFUSALS_IN_A_ROW = 64
FORGET_BATCH = 100


class Verdict(Enum):
    DELIVERED = auto()
    STALE = auto()
    THROTTLED = auto()
    UNAVAILABLE = auto()
    EXPIRED_CREDENTIALS = auto()
    REFUSED = auto()
    FAILED = auto()


_BY_STATUS = {408: Verdict.UNAVAILABLE, 410: Verdict.STALE, 413: Verdict.REFUSED, 429: Verdict.THROTTLED}
_BY_ERROR_TYPE = {
    "GoneException": Verdict.STALE,
    "LimitExceededException": Verdict.THROTTLED,
    "ThrottlingException": Verdict.THROTTLED,
    "TooManyRequestsException": Verdict.THROTTLED,
}


def classify(response: Response) -> Verdict:
    """Tell what an answer means: by its status, which is always there, then by its name, which is not.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html
    """
    status = response.status
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == 403:
        # The only refusal that new credentials cure. Its name is not always there, its sentence is.
        said = f"{response.error_type} {response.body.decode('utf-8', 'replace')}".lower()
        expired = "expiredtoken" in said or "security token included in the request is expired" in said
        return Verdict.EXPIRED_CREDENTIALS if expired else Verdict.REFUSED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return Verdict.UNAVAILABLE
    return _BY_ERROR_TYPE.get(response.error_type, Verdict.FAILED)


class Post:
    """One recipient's turn. `resent`: it was repeated at once because a kept connection had ended."""

    __slots__ = ("attempts", "delivery", "recipient", "resent", "signer", "throttled")

    def __init__(self, delivery: Delivery, recipient: Recipient) -> None:
        self.delivery = delivery
        self.recipient = recipient
        self.signer = delivery.signer
        self.attempts = 0
        self.resent = False
        self.throttled = False


class Delivery:
    """The state of one publish.

    The caller's thread waits for `wake`, and may read `over`, `seconds_left`, `wants_page`, `wants_credentials`,
    take from `stale` (two threads may share a deque) and, once it is over, read everything.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        signer: RequestSigner,
        payload: Payload,
        deadline: float,
        on_backlog: Callable[[Delivery], None],
    ) -> None:
        self._loop = loop
        self._on_backlog = on_backlog  # told when a retry's time has come
        self.signer = signer
        self.payload = payload
        self.deadline = deadline  # in the loop's time
        self.wake = threading.Event()
        self.over = False
        self.wants_page = True
        self.wants_credentials = False
        self.renewal_begun = False  # the caller's thread alone uses it
        self.stale: deque[Recipient] = deque()
        self.problems: Counter[str] = Counter()
        self.delivered = self.stale_count = 0
        self.throttled = 0  # those whose last answer was 429, also while they are tried again
        self.refusal: tuple[int, str, str] | None = None
        self._unsent: deque[Recipient] = deque()
        self._retries: deque[Post] = deque()
        self._waiting: dict[Post, asyncio.TimerHandle] = {}
        self._suspended: list[Post] = []  # until there are new credentials
        self._renewed = False
        self._pending = 0  # handed in and not done with yet
        self._refused_in_a_row = 0
        self._all_read = False
        self._asks_later = False
        self._deadline_timer: asyncio.TimerHandle | None = None

    @property
    def seconds_left(self) -> float:
        return self.deadline - self._loop.time()

    @property
    def backlog(self) -> int:
        """How many could be sent now."""
        return 0 if self.wants_credentials else len(self._unsent) + len(self._retries)

    def begin(self) -> None:
        if not self.over:
            self._deadline_timer = self._loop.call_at(self.deadline, self.end)

    def add(self, page: Sequence[Recipient]) -> None:
        if self.over:  # it ended while the page was on its way
            return
        self._unsent.extend(page)
        self._pending += len(page)
        if not page:
            self._ask_for_more()

    def end_of_pages(self) -> None:
        self._all_read = True
        self._end_if_done()

    def take(self) -> Post | None:
        """Return whom to send to next, or None while there is nobody.

        Retries come last: connections that hang would otherwise take the places of those never tried.
        """
        if self.wants_credentials:
            return None
        if self._unsent:
            post = Post(self, self._unsent.popleft())
            if not self._unsent:
                self._ask_for_more()
        elif self._retries:
            post = self._retries.popleft()
            post.signer = self.signer
            if self._asks_later:
                self._ask_for_more()
        else:
            return None
        return post

    def answered(self, post: Post, response: Response) -> bool:
        """Count the answer; return whether the post is to be sent again at once."""
        if self.over:  # too late: it counts as failed
            return False
        verdict = classify(response)
        if post.throttled:
            self._count_throttled(post, False)
        if verdict is Verdict.DELIVERED:
            self.delivered += 1
            self._refused_in_a_row = 0
            self._count_down()
            return False
        self.problems[f"{response.status} {response.error_type}".rstrip()] += 1
        if verdict is Verdict.STALE:
            self._refused_in_a_row = 0  # being told that a connection is gone takes the permission too
            self.stale_count += 1
            if len(self.stale) < _MAX_STALE:
                self.stale.append(post.recipient)
            if len(self.stale) >= FORGET_BATCH:
                self.wake.set()
            self._count_down()
        elif verdict in (Verdict.THROTTLED, Verdict.UNAVAILABLE):
            if verdict is Verdict.THROTTLED:
                self._count_throttled(post, True)
            self.retry_later(post)
        elif verdict is Verdict.EXPIRED_CREDENTIALS and post.signer is not self.signer:
            self._retries.append(post)  # it was signed before the credentials were renewed
            return True
        elif verdict is Verdict.EXPIRED_CREDENTIALS and not self._renewed:
            self._suspended.append(post)
            self.wants_credentials = True
            self.wake.set()
        elif verdict is Verdict.FAILED:
            self._count_down()
        else:
            detail = response.body.decode("utf-8", "replace")[:300] or response.error_type
            self._refuse(post, response.status, detail)
        return False

    def unanswered(self, post: Post, error: OSError, *, was_idle: bool) -> None:
        """The connection ended; `was_idle`: it was an old one, and it ended before any answer."""
        if self.over:
            return
        if was_idle and not post.resent:
            # Most likely closed by the peer while idle, as in a frozen sandbox: nobody is to blame.
            post.resent = True
            self._retries.append(post)
            return
        self.problems[type(error).__name__] += 1
        if post.throttled:
            self._count_throttled(post, False)
        self.retry_later(post)

    def retry_later(self, post: Post) -> None:
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        seconds_left = self.seconds_left
        if seconds_left < _LEAST_RETRY_SECONDS:
            self._count_down()
            return
        longest = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2**post.attempts, seconds_left)
        delay = random.uniform(0, longest)  # noqa: S311  spreads load, protects no secret
        post.attempts += 1
        self._waiting[post] = self._loop.call_later(delay, self._retry_now, post)

    def renew(self, signer: RequestSigner) -> None:
        """Go on with what the caller has for credentials now; refused again, they count as refused."""
        self._renewed = True
        self.wants_credentials = False
        self.signer = signer
        self._retries.extend(self._suspended)
        self._suspended.clear()

    def end(self) -> None:
        """Be over, whoever is not served yet."""
        if self.over:
            return
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._retries.clear()
        self._unsent.clear()
        self._suspended.clear()
        self._be_over()

    def report(self, read: int) -> DeliveryReport:
        """Tell, once it is over, what became of the `read` watchers: whoever is not counted here has failed.

        So nobody is lost between the caller's thread and the loop, whichever of them ends first.
        """
        counted = self.delivered + self.stale_count + self.throttled
        return DeliveryReport(self.delivered, self.stale_count, self.throttled, read - counted)

    def _count_throttled(self, post: Post, is_throttled: bool) -> None:
        post.throttled = is_throttled
        self.throttled += 1 if is_throttled else -1

    def _retry_now(self, post: Post) -> None:
        del self._waiting[post]
        self._retries.append(post)
        self._on_backlog(self)

    def _refuse(self, post: Post, status: int, detail: str) -> None:
        self.refusal = self.refusal or (status, post.recipient.connection_id, detail)
        self._refused_in_a_row += 1
        self._count_down()
        if self._refused_in_a_row >= _REFUSALS_IN_A_ROW:
            self.end()

    def _ask_for_more(self) -> None:
        self._asks_later = len(self._waiting) + len(self._retries) >= _MAX_WAITING
        if not self._asks_later:
            self.wants_page = True
            self.wake.set()

    def _count_down(self) -> None:
        self._pending -= 1
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._all_read and self._pending == 0 and not self.over:
            self._be_over()

    def _be_over(self) -> None:
        self.over = True
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self.wake.set()
