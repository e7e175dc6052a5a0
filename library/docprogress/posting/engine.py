"""Sockets and their loop: when connections are opened, kept and given up, and how many are used at once.

The loop runs in a thread of its own, does nothing but post, and outlives updates with its connections.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from docprogress.posting.backlog import Backlog, Place
from docprogress.posting.connection import Address, Connection, open_socket
from docprogress.posting.http1 import EMPTY_OK, Response
from docprogress.posting.readers import Readers
from docprogress.posting.report import Recipient
from docprogress.posting.sigv4 import Endpoint, RequestSigner
from docprogress.posting.trust import likely_context, trust_all_of_system
from docprogress.posting.update import Update
from docprogress.posting.verdict import Verdict, classify
from docprogress.posting.window import Window
from docprogress.process import Background, jitter

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

T = TypeVar("T")

# A TLS handshake costs a small Lambda more than many posts: with few being opened at once, those that are
# ready take the work that others would have been opened for.
_MAX_OPENING = 16
# Of the connections: what stragglers may hold, who are tried again in the background.
_LATE_SHARE = 8
# Below what load balancers and NAT gateways keep (60 and 350 s): some drop a connection without a word.
_MAX_IDLE_SECONDS = 50.0
_ADDRESSES_VALID_SECONDS = 30.0  # half of the TTL of AWS's records
# Where older addresses are known, a lookup is waited for no longer, and one that failed is repeated after as long.
_LOOKUP_SECONDS = 1.0
_LONGEST_REOPEN_SECONDS = 1.0
_WATCH_SECONDS = 0.05
# So long a slow post may keep a connection that others need, while it seems that the gateway is slow for everyone.
_PATIENCE_SECONDS = 2.0
# Of the connections: what posts may keep after that, so that it is learnt how slow the gateway is.
_SPARED_SHARE = 8
# A gateway that took so long for one may take this much longer for another.
_PACE_FACTOR = 1.5
# Whoever gave no answer the last time is waited for this much longer each time: the others of that kind wait behind it.
_HUNG_SECONDS = 1.0
# A post may meet several kept connections that end at the moment.
_MAX_RESENT = 3
# Credentials that are refused as expired so soon after they were fetched will not get better.
_RENEWED_FOR_SECONDS = 30.0


class Engine:
    """The loop, its thread, the connections. Other threads use only `begin`, `call`, `stop`, `is_alive`.

    Args:
        most: connections at once, at most.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        region: str,
        credentials: Callable[[], ReadOnlyCredentials],
        most: int,
        request_timeout_seconds: float,
    ) -> None:
        self._endpoint = endpoint
        self._region = region
        self._credentials = credentials
        self._most = most
        self._request_timeout_seconds = request_timeout_seconds
        self._context = likely_context() if endpoint.scheme == "https" else None
        self._trusts_all = False
        self._signers: dict[str, RequestSigner] = {}
        self._renewing: asyncio.Future[ReadOnlyCredentials] | None = None
        self._renewed_at = -_RENEWED_FOR_SECONDS
        self._suspended: list[Place] = []  # until there are new credentials
        self._backlog = Backlog(max(1, most // _LATE_SHARE))
        self._window = Window(most)
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the last used is used first, so that the others can be let go
        self._slow: deque[Connection] = deque()  # those that wait for long, the longest first
        self._delivered_sent_at = 0.0  # when the latest of the posts that were delivered was sent
        self._patience_seconds = _PATIENCE_SECONDS
        self._pace_seconds = 0.0  # within which a slow gateway answers, as far as that is known
        self._spared: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._opening_failures = 0
        self._opening_paused_until = 0.0
        self._addresses: list[Address] = []
        self._addresses_valid_until = 0.0
        self._looking_up: asyncio.Future[list[Any]] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._watching = False  # closely, since posts are under way
        # add_reader is what the connections live on, and not every platform's default loop has it.
        self._loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._readers = Readers(self._loop)
        self._stopped = False
        self._gate = threading.Lock()  # held while `_stopped` is read and acted upon
        self._thread = Background(self._loop.run_forever, "fan-out")
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def later(self) -> Callable[[float, Callable[[], None]], asyncio.TimerHandle]:
        return self._loop.call_later

    def begin(self, update: Update, credentials: ReadOnlyCredentials) -> None:
        self.call(update, self._begin, update, credentials)

    def add_page(self, update: Update, page: Sequence[Recipient]) -> None:
        self.call(update, self._add_page, update, page)

    def call(self, update: Update, step: Callable[..., None], *args: object) -> None:
        """Have the loop take a step for `update`, which is over instead once the loop has stopped."""
        with self._gate:
            if not self._stopped:
                self._loop.call_soon_threadsafe(step, *args)
                return
        self._thread.join()
        update.end()

    def stop(self) -> None:
        with self._gate:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._shut_down)
        self._thread.join()
        self._loop.close()
        self._readers.close()

    def abandon(self) -> None:
        """In a forked child: close its copies of the parent's sockets, and touch nothing that both would feel.

        The loop's selector is shared with the parent, so it is neither used nor closed.
        """
        for connection in self._connections:
            connection.abandon()

    # From here on everything runs on the loop's thread.

    def _begin(self, update: Update, credentials: ReadOnlyCredentials) -> None:
        self._use_credentials(update.method, credentials)
        self._backlog.begin(update, self._loop.time())

    def _add_page(self, update: Update, page: Sequence[Recipient]) -> None:
        self._backlog.add(update, page)
        self._send_or_open()

    def answered(self, connection: Connection, response: Response) -> None:
        place: Place = connection.request
        now = self._loop.time()
        if response is EMPTY_OK and not place.is_tried:  # what becomes of almost every post, in few steps
            if connection.sent_at > self._delivered_sent_at:
                self._delivered_sent_at = connection.sent_at
            self._window.waits.append(now - connection.sent_at)
            self._backlog.delivered_at_once(place)
            self._use(connection, now)
            return
        verdict = classify(response)
        self._backlog.ended(place)
        if verdict is Verdict.DELIVERED and connection.sent_at > self._delivered_sent_at:
            self._delivered_sent_at = connection.sent_at
        if place.is_slow:
            self._spared.discard(connection)
            if not self._is_overtaken(connection):
                place.is_slow = False  # that is the gateway's pace, not the watcher's
                self._wait_longer(now - connection.sent_at)
        if not place.is_late:
            self._window.waits.append(now - connection.sent_at)
            if verdict is Verdict.THROTTLED:
                self._window.throttled()
        if verdict is Verdict.EXPIRED_CREDENTIALS and self._may_renew(place):
            self._wait_for_credentials(place)
        else:
            self._backlog.answered(place, verdict, response, now)
        if not response.keep_alive:
            self._discard(connection)
            self._send_or_open()
            return
        self._use(connection, now)

    def lost(self, connection: Connection, error: OSError) -> None:
        place: Place | None = connection.request
        self._discard(connection)
        if place is None:
            return
        self._backlog.ended(place)
        timed_out = isinstance(error, TimeoutError)
        if connection.answers > 0 and not connection.answer_begun and not timed_out and place.resent < _MAX_RESENT:
            # Most likely closed by the peer while idle, as in a frozen sandbox: nobody is to blame.
            place.resent += 1
            self._backlog.again(place)
        else:
            self._backlog.unanswered(place, type(error).__name__, self._loop.time(), hung=timed_out)
        self._send_or_open()

    def _use(self, connection: Connection, now: float) -> bool:
        """Post on it to whoever is next; False, and it is idle, when there is nobody."""
        place = None
        if self._backlog.in_flight < self._window.size and self._renewing is None:
            place = self._backlog.next(self._window.size, now)
        if place is None:
            if self._backlog.fresh:
                self._window.is_full = True
            self._keep(connection)
            return False
        place.signer = signer = self._signers[place.update.method]
        connection.send(place, signer.sign(place.recipient.connection_id, place.payload), now)
        return True

    def _keep(self, connection: Connection) -> None:
        connection.request = None
        # By the wall clock: the loop's stands still while a sandbox is frozen.
        connection.idle_since = time.time()
        self._idle.append(connection)

    def _send_or_open(self) -> None:
        if self._stopped:
            return
        if not self._watching:
            self._watch_closely()
        while self._idle:
            connection = self._idle.pop()
            if abs(time.time() - connection.idle_since) > _MAX_IDLE_SECONDS or connection.has_ended:
                self._discard(connection)
            elif not self._use(connection, self._loop.time()):
                return
        self._open_more()

    def _open_more(self) -> None:
        paused = self._loop.time() < self._opening_paused_until
        most_opening = 0 if paused else 1 if self._opening_failures else _MAX_OPENING
        opening = len(self._opening)
        wanted = min(
            self._backlog.count() - opening,
            self._window.size - self._backlog.in_flight - opening,
            most_opening - opening,
        )
        for _ in range(wanted):
            if len(self._connections) + len(self._opening) >= self._most and not self._give_way():
                return
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _give_way(self) -> bool:
        """Close the connection that has waited longest, for those who were not tried yet; whether there is one."""
        while self._slow and self._backlog.fresh:
            connection = self._slow[0]
            place = connection.request
            if place is not None and place.is_slow:
                if not self._is_overtaken(connection):
                    if self._loop.time() - connection.sent_at < self._patience_seconds:
                        return False
                    self._patience_seconds = 0.0  # it was in vain: these do not answer at all
                    if len(self._spared) < self._most // _SPARED_SHARE:
                        self._spared.add(self._slow.popleft())  # or do they?
                        continue
                self._discard(connection)
                self._backlog.ended(place)
                self._backlog.unanswered(place, "TimeoutError", self._loop.time(), hung=True)
                return True
            self._slow.popleft()
        return False

    def _is_overtaken(self, connection: Connection) -> bool:
        """Whether a post that was sent so much later was delivered: it is the watcher that is slow, not the gateway."""
        return self._delivered_sent_at - connection.sent_at >= self._window.slow_seconds

    def _wait_longer(self, seconds: float) -> None:
        """The gateway takes so long: give it time, and those another chance that were given up too early."""
        self._pace_seconds = _PACE_FACTOR * seconds
        if not self._patience_seconds:
            self._backlog.forgive()
        self._patience_seconds = max(_PATIENCE_SECONDS, self._pace_seconds)

    async def _open(self) -> None:
        host = self._endpoint.host
        async with asyncio.timeout(self._request_timeout_seconds):
            if self._loop.time() >= self._addresses_valid_until:
                await self._look_up()
            self._addresses = [*self._addresses[1:], self._addresses[0]]  # the next one starts elsewhere
            try:
                opened = await open_socket(self._addresses, host, self._context)
            except ssl.SSLCertVerificationError:
                if self._context is None or self._trusts_all:
                    raise
                self._trusts_all = True
                trust_all_of_system(self._context)
                opened = await open_socket(self._addresses, host, self._context)
        connection = Connection(self._readers, *opened, self)
        self._connections.add(connection)
        self._use(connection, self._loop.time())

    async def _look_up(self) -> None:
        """Find the host's addresses; those found before do while its name cannot be looked up."""
        if self._looking_up is None:
            self._looking_up = _on_a_thread(
                self._loop,
                lambda: socket.getaddrinfo(self._endpoint.host, self._endpoint.port, type=socket.SOCK_STREAM),
            )
            self._looking_up.add_done_callback(self._looked_up)
        looking_up = self._looking_up
        await asyncio.wait([looking_up], timeout=_LOOKUP_SECONDS if self._addresses else None)
        if not self._addresses:
            looking_up.result()

    def _looked_up(self, looking_up: asyncio.Future[list[Any]]) -> None:
        self._looking_up = None
        if looking_up.exception() is None:
            self._addresses = looking_up.result()
            self._addresses_valid_until = self._loop.time() + _ADDRESSES_VALID_SECONDS
        elif self._addresses:
            self._addresses_valid_until = self._loop.time() + _LOOKUP_SECONDS

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._opening_failures = 0
        else:
            # Nobody's post is to blame: all wait.
            self._backlog.unreachable(f"cannot connect: {type(error).__name__} {error}", self._loop.time())
            self._opening_failures += 1
            self._addresses_valid_until = 0.0
            longest = min(_LONGEST_REOPEN_SECONDS, 0.05 * 2 ** min(self._opening_failures, 10))
            delay = jitter(0, longest)
            self._opening_paused_until = self._loop.time() + delay
            self._loop.call_later(delay, self._send_or_open)
        self._send_or_open()

    def _discard(self, connection: Connection) -> None:
        connection.close()
        connection.request = None  # whoever still comes upon it finds nothing to give up a second time
        self._connections.discard(connection)
        self._spared.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _watch(self) -> None:
        """Look for slow and overdue answers now and then; a timer for each post would cost as much as signing it."""
        now = self._loop.time()
        self._window.adapt(ready_at_once=self._readers.mean_at_once())
        busy = False
        for connection in list(self._connections):
            place: Place | None = connection.request
            if place is None:
                continue
            busy = True
            waited_seconds = now - connection.sent_at
            patience = self._request_timeout_seconds
            if place.hung:
                patience = max(_HUNG_SECONDS * place.attempts, self._pace_seconds)
            if waited_seconds >= min(patience, self._request_timeout_seconds):
                self.lost(connection, TimeoutError("no answer in time"))
            elif waited_seconds >= self._window.slow_seconds and not place.is_slow:
                self._backlog.slow(place)
                self._window.slow()
                self._slow.append(connection)
        self._backlog.wake(now)
        self._watching = False
        if busy or self._opening or self._backlog.count() > 0:
            self._send_or_open()
            return
        due_at = self._backlog.next_due
        if due_at is not None:
            self._watchdog = self._loop.call_at(due_at, self._watch)
        self._window.rest()
        self._pace_seconds = 0.0
        self._slow.clear()
        self._spared.clear()
        # Not before all is quiet: how many are slow goes up and down, and those opened for them would with it.
        while len(self._idle) > self._window.size:
            self._discard(self._idle[0])

    def _watch_closely(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watching = True
        self._watchdog = self._loop.call_later(min(_WATCH_SECONDS, self._request_timeout_seconds / 8), self._watch)

    def _use_credentials(self, method: str, credentials: ReadOnlyCredentials) -> None:
        signer = self._signers.get(method)
        if signer is None or signer.credentials != credentials:
            self._signers[method] = RequestSigner(method, self._endpoint, self._region, credentials)

    def _may_renew(self, place: Place) -> bool:
        """Whether an answer that calls the credentials expired is about older ones, or the first about these."""
        if place.signer is not self._signers[place.update.method] or self._renewing is not None:
            return True
        return self._loop.time() - self._renewed_at >= _RENEWED_FOR_SECONDS

    def _wait_for_credentials(self, place: Place) -> None:
        if self._renewing is None and place.signer is not self._signers[place.update.method]:
            self._backlog.again(place)  # it was signed before they were renewed
            return
        self._suspended.append(place)
        if self._renewing is None:
            self._renewing = _on_a_thread(self._loop, self._credentials)
            self._renewing.add_done_callback(self._renewed)

    def _renewed(self, renewing: asyncio.Future[ReadOnlyCredentials]) -> None:
        self._renewing = None
        if renewing.cancelled():
            return
        now, error = self._loop.time(), renewing.exception()
        if error is None:
            self._renewed_at = now
        for place in self._suspended:
            if error is None:
                self._use_credentials(place.update.method, renewing.result())
                self._backlog.again(place)
            else:
                problem = f"no credentials: {type(error).__name__} {error}"
                self._backlog.unanswered(place, problem, now, hung=False)
        self._suspended.clear()
        self._send_or_open()

    def _shut_down(self) -> None:
        self._backlog.end()
        for connection in list(self._connections):
            self._discard(connection)
        for task in self._opening:
            task.cancel()
        ended = asyncio.gather(*self._opening, return_exceptions=True)
        ended.add_done_callback(lambda _: self._loop.stop())


def _on_a_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], T]) -> asyncio.Future[T]:
    """Call what may block, on a thread of its own.

    The interpreter waits for those of the loop's executor when it exits, and gives them nothing more to do then.
    """
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if not future.done():
            set_outcome(outcome)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], object]
        try:
            outcome = future.set_result, call()
        except Exception as error:  # noqa: BLE001  whoever awaits the future gets it
            outcome = future.set_exception, error
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    Background(run, "fan-out-call").start()
    return future
