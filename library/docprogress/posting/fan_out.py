"""Posts one message to many WebSocket connections through API Gateway's @connections, fast.

Decides when sockets are opened, kept and given up, and moves work between the caller's thread, which reads
watchers and deletes stale ones, and one event loop in a thread of its own, which does nothing but post. The
loop and its keep-alive connections outlive invocations: a warm Lambda sandbox posts without a handshake.

boto3 is not imported, and a handler that never posts starts neither thread nor loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from docprogress.document import Subscription
from docprogress.posting.delivery import FORGET_BATCH, Delivery, DeliveryRefused, DeliveryReport, Post
from docprogress.posting.http1 import Address, Connection, Response, open_socket
from docprogress.posting.sigv4 import Endpoint, Payload, RequestSigner

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

__all__ = ["DeliveryRefused", "DeliveryReport", "FanOut"]

logger = logging.getLogger(__name__)

Forget = Callable[[Sequence[Subscription]], None]

# With answers after 10 to 20 ms this is 6,000 to 12,000 posts/s, about the account's quota of 10,000.
DEFAULT_MAX_IN_FLIGHT = 128
DEFAULT_REQUEST_TIMEOUT_SECONDS = 5.0
# A TLS handshake costs a small Lambda more than many posts: with few being opened at once, those that are
# ready take the work that others would have been opened for.
_MAX_OPENING = 16
# Clients that hang must not hold every place until their time-out: who waits for longer than this gives his to others.
_SLOW_SECONDS = 0.5
_MAX_SLOW = 3  # times `max_in_flight`, since a Lambda sandbox opens 1,024 files at most
# Below what load balancers and NAT gateways keep (60 and 350 s): some drop a connection without a word.
_MAX_IDLE_SECONDS = 50.0
_ADDRESSES_VALID_SECONDS = 30.0  # half of the TTL of AWS's records
_LONGEST_REOPEN_SECONDS = 1.0
_DISCONNECT_PAGE = 1_000


class FanOut:
    """Posts to the connections of one API stage. Safe to use from several threads, which share its sockets.

        credentials = session.get_credentials()
        fan_out = FanOut(callback_url, region=region, credentials=credentials.get_frozen_credentials)
        forget = partial(store.forget, document_id)
        report = fan_out.post(store.watchers(document_id), message, deadline_seconds=10, forget=forget)

    Args:
        callback_url: `https://{apiId}.execute-api.{region}.amazonaws.com/{stage}`, the output `callbackUrl`.
        credentials: returns botocore's frozen credentials. Called once a publish on the caller's thread, and
            once more if API Gateway calls them expired; it may block to refresh them.
        max_in_flight: the most posts awaiting an answer, but for those that have waited for half a second: there
            may be three times as many of them. Each has a connection of its own.
        request_timeout_seconds: for a post, from its first byte sent to its answer's last byte.
    """

    def __init__(
        self,
        callback_url: str,
        *,
        region: str,
        credentials: Callable[[], ReadOnlyCredentials],
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        request_timeout_seconds: float = DEFAULT_REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        if max_in_flight < 1 or request_timeout_seconds <= 0:
            raise ValueError(
                f"max_in_flight is {max_in_flight} and request_timeout_seconds is {request_timeout_seconds}; "
                "both must be above zero"
            )
        self._endpoint = Endpoint.from_url(callback_url)
        self._region = region
        self._credentials = credentials
        self._max_in_flight = max_in_flight
        self._request_timeout_seconds = request_timeout_seconds
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._signers: dict[str, RequestSigner] = {}
        self._closed = False

    def post(
        self,
        watchers: Iterable[Sequence[Subscription]],
        message: bytes,
        *,
        deadline_seconds: float,
        forget: Forget,
    ) -> DeliveryReport:
        """Post `message` to all `watchers`, page by page; return when each is served or the deadline is past.

        Args:
            watchers: read on the calling thread, a page while the one before is posted; at most two are held. A
                read that blocks is waited for, past the deadline too, as is `forget`.
            message: at most 128 KB.
            deadline_seconds: from now. Past it nobody is tried again and no further page is read; a page that
                was read counts, so that a delivery cut short always has some `failed` or `throttled`.
            forget: called on the calling thread with subscriptions whose connections are gone, at most 100.
                Reading on goes before it; past the deadline it is called once more and the rest left to later.

        Raises:
            DeliveryRefused: some were refused with 403 or 413.
            Exception: what `watchers` or `forget` raised, after those already read were served.
        """
        return self._deliver("POST", watchers, Payload.of(message), deadline_seconds, forget)

    def disconnect(self, connection_ids: Iterable[str], *, deadline_seconds: float) -> DeliveryReport:
        """Close connections from the server's side; one that was gone already counts as `delivered` too.

        Raises:
            DeliveryRefused: some were refused with 403: the role also needs the verb DELETE.
        """
        ids = iter(connection_ids)
        pages = iter(lambda: [Subscription(id_, 0, 0) for id_ in islice(ids, _DISCONNECT_PAGE)], [])
        try:
            report = self._deliver("DELETE", pages, Payload.of(b""), deadline_seconds, lambda _: None)
        except DeliveryRefused as refused:
            refused.report = _gone_is_done(refused.report)
            raise
        return _gone_is_done(report)

    def close(self) -> None:
        """End the loop and its connections; a delivery of another thread ends with what it has reached."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        # A forked child that never posted holds the parent's engine without its thread: not its to stop.
        if engine is not None and engine.is_alive:
            engine.stop()

    def _deliver(
        self,
        method: str,
        pages: Iterable[Sequence[Subscription]],
        payload: Payload,
        deadline_seconds: float,
        forget: Forget,
    ) -> DeliveryReport:
        engine = self._running_engine()
        delivery = engine.begin(self._signer(method), payload, deadline_seconds)
        read = 0
        try:
            for page in pages:
                read += len(page)
                self._attend(engine, delivery, method, forget, until_page_wanted=True)
                if not delivery.over:
                    delivery.wants_page = False
                    engine.call(delivery, engine.add_page, delivery, page)
                elif page:
                    break
        finally:
            # Also when a page could not be read: those before it are served.
            engine.call(delivery, delivery.end_of_pages)
            self._attend(engine, delivery, method, forget, until_page_wanted=False)
            _forget_the_rest(delivery, forget)
        report = delivery.report(read)
        if delivery.problems:
            logger.warning("%s @connections: %s of %s", method, dict(delivery.problems), report)
        if delivery.refusal is not None:
            status, connection_id, detail = delivery.refusal
            raise DeliveryRefused(status, report, connection_id, detail)
        return report

    def _attend(
        self, engine: _Engine, delivery: Delivery, method: str, forget: Forget, *, until_page_wanted: bool
    ) -> None:
        """Wait, and meanwhile do for the loop what may block."""
        while not delivery.over and not (until_page_wanted and delivery.wants_page):
            if delivery.wants_credentials and not delivery.renewal_begun:
                delivery.renewal_begun = True
                engine.call(delivery, engine.renew, delivery, self._signer(method))
            elif len(delivery.stale) >= FORGET_BATCH:
                _forget_batch(delivery, forget)  # one, then look again: the living do not wait for the dead
            else:
                delivery.wake.wait()
                delivery.wake.clear()  # before looking at what it woke for, so that nothing is slept through

    def _signer(self, method: str) -> RequestSigner:
        credentials = self._credentials()
        with self._lock:
            signer = self._signers.get(method)
            if signer is None or signer.credentials != credentials:
                signer = self._signers[method] = RequestSigner(method, self._endpoint, self._region, credentials)
            return signer

    def _running_engine(self) -> _Engine:
        with self._lock:
            if self._closed:
                raise RuntimeError("this FanOut was closed")
            # A thread does not survive a fork, as in a pre-forking task queue: the child starts its own.
            if self._engine is None or not self._engine.is_alive:
                self._engine = _Engine(self._endpoint, self._max_in_flight, self._request_timeout_seconds)
            return self._engine


def _gone_is_done(report: DeliveryReport) -> DeliveryReport:
    return DeliveryReport(report.delivered + report.stale, 0, report.throttled, report.failed)


def _forget_batch(delivery: Delivery, forget: Forget) -> None:
    forget([delivery.stale.popleft() for _ in range(min(len(delivery.stale), FORGET_BATCH))])


def _forget_the_rest(delivery: Delivery, forget: Forget) -> None:
    """Forget while there is time, and a batch past it; the others will answer 410 to the next update too."""
    while delivery.stale:
        _forget_batch(delivery, forget)
        if delivery.seconds_left <= 0:
            return


class _Engine:
    """The loop, its thread, the connections. Other threads use only `begin`, `call`, `stop`, `is_alive`."""

    def __init__(self, endpoint: Endpoint, max_in_flight: int, request_timeout_seconds: float) -> None:
        self._endpoint = endpoint
        self._max_in_flight = max_in_flight
        self._request_timeout_seconds = request_timeout_seconds
        self._context = ssl.create_default_context() if endpoint.scheme == "https" else None
        self._deliveries: weakref.WeakSet[Delivery] = weakref.WeakSet()
        self._backlog: deque[Delivery] = deque()  # those with something to send, each once
        self._most_in_flight = max_in_flight  # more while some are slow
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the last used is used first, so that the others can be let go
        self._opening: set[asyncio.Task[None]] = set()
        self._opening_failures = 0
        self._opening_paused_until = 0.0
        self._addresses: list[Address] = []
        self._addresses_valid_until = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        # add_reader is what the connections live on, and not every platform's default loop has it.
        self._loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._stopped = False
        self._gate = threading.Lock()  # held while `_stopped` is read and acted upon
        self._thread = threading.Thread(target=self._loop.run_forever, name="fan-out", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def begin(self, signer: RequestSigner, payload: Payload, deadline_seconds: float) -> Delivery:
        deadline = self._loop.time() + deadline_seconds
        delivery = Delivery(self._loop, signer, payload, deadline, self._has_backlog)
        self.call(delivery, self._follow, delivery)
        return delivery

    def call(self, delivery: Delivery, step: Callable[..., None], *args: object) -> None:
        """Have the loop take a step for `delivery`, which is over instead once the loop has stopped."""
        with self._gate:
            if not self._stopped:
                self._loop.call_soon_threadsafe(step, *args)
                return
        self._thread.join()
        delivery.end()

    def stop(self) -> None:
        with self._gate:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._shut_down)
        self._thread.join()
        self._loop.close()

    # From here on everything runs on the loop's thread.

    def add_page(self, delivery: Delivery, page: Sequence[Subscription]) -> None:
        delivery.add(page)
        self._has_backlog(delivery)

    def renew(self, delivery: Delivery, signer: RequestSigner) -> None:
        delivery.renew(signer)
        self._has_backlog(delivery)

    def answered(self, connection: Connection, response: Response) -> None:
        post: Post = connection.request
        delivery = post.delivery
        if delivery.answered(post, response) and delivery not in self._backlog:
            self._backlog.append(delivery)
        if not response.keep_alive:
            self._discard(connection)
            self._send_or_open()
        elif self._count_busy() <= self._most_in_flight:
            self._use(connection)
        else:
            self._keep(connection)

    def lost(self, connection: Connection, error: OSError) -> None:
        post: Post | None = connection.request
        self._discard(connection)
        if post is not None:
            was_idle = connection.answers > 0 and not connection.answer_begun
            post.delivery.unanswered(post, error, was_idle=was_idle and not isinstance(error, TimeoutError))
            self._has_backlog(post.delivery)

    def _follow(self, delivery: Delivery) -> None:
        self._deliveries.add(delivery)
        delivery.begin()

    def _has_backlog(self, delivery: Delivery) -> None:
        if delivery.backlog and delivery not in self._backlog:
            self._backlog.append(delivery)
        self._send_or_open()

    def _next_post(self) -> Post | None:
        """Take the next post, of each delivery in turn, so that a long one does not hold up a short one."""
        while self._backlog:
            post = self._backlog[0].take()
            if post is not None:
                self._backlog.rotate(-1)
                return post
            self._backlog.popleft()
        return None

    def _use(self, connection: Connection) -> None:
        post = self._next_post()
        if post is None:
            self._keep(connection)
        else:
            connection.send(post, post.signer.sign(post.subscription.connection_id, post.delivery.payload))

    def _keep(self, connection: Connection) -> None:
        connection.request = None
        # By the wall clock: the loop's stands still while a sandbox is frozen.
        connection.idle_since = time.time()
        self._idle.append(connection)

    def _count_busy(self) -> int:
        return len(self._connections) - len(self._idle)

    def _send_or_open(self) -> None:
        while self._idle and self._count_backlog() and self._count_busy() < self._most_in_flight:
            connection = self._idle.pop()
            if abs(time.time() - connection.idle_since) > _MAX_IDLE_SECONDS:
                self._discard(connection)
            else:
                self._use(connection)
        if self._watchdog is None:
            self._watch()
        paused = self._loop.time() < self._opening_paused_until
        most_opening = 0 if paused else 1 if self._opening_failures else _MAX_OPENING
        wanted = min(
            self._count_backlog() - len(self._opening),
            self._most_in_flight - len(self._connections) - len(self._opening),
            most_opening - len(self._opening),
        )
        for _ in range(wanted):
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _count_backlog(self) -> int:
        return sum(delivery.backlog for delivery in self._backlog)

    async def _open(self) -> None:
        host = self._endpoint.host
        async with asyncio.timeout(self._request_timeout_seconds):
            if self._loop.time() >= self._addresses_valid_until:
                found = await self._loop.getaddrinfo(host, self._endpoint.port, type=socket.SOCK_STREAM)
                self._addresses = list(found)
                self._addresses_valid_until = self._loop.time() + _ADDRESSES_VALID_SECONDS
            self._addresses = [*self._addresses[1:], self._addresses[0]]  # the next one starts elsewhere
            sock = await open_socket(self._addresses, host, self._context)
        connection = Connection(self._loop, sock, self)
        self._connections.add(connection)
        self._use(connection)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._opening_failures = 0
        else:
            # Those whose time is over; with connections, sending drops them.
            self._backlog = deque(delivery for delivery in self._backlog if not delivery.over)
            # Nobody's post is to blame: all wait, until the deadline at most.
            for delivery in self._backlog:
                delivery.problems[f"cannot connect: {type(error).__name__} {error}"] += 1
            self._opening_failures += 1
            self._addresses_valid_until = 0.0
            longest = min(_LONGEST_REOPEN_SECONDS, 0.05 * 2**self._opening_failures)
            delay = random.uniform(0, longest)  # noqa: S311  spreads load, protects no secret
            self._opening_paused_until = self._loop.time() + delay
            self._loop.call_later(delay, self._send_or_open)
        self._send_or_open()

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _watch(self) -> None:
        """Look for overdue answers now and then; a timer for each post would cost as much as signing it."""
        now = self._loop.time()
        busy, slow = False, 0
        for connection in list(self._connections):
            if connection.request is None:
                continue
            busy = True
            waited_seconds = now - connection.sent_at
            if waited_seconds >= self._request_timeout_seconds:
                self.lost(connection, TimeoutError("no answer in time"))
            elif waited_seconds >= _SLOW_SECONDS:
                slow += 1
        self._most_in_flight = self._max_in_flight + min(slow, _MAX_SLOW * self._max_in_flight)
        watching = busy or self._opening or self._count_backlog()
        # Not before all is quiet: how many are slow goes up and down, and those opened for them would with it.
        while not watching and len(self._idle) > self._max_in_flight:
            self._discard(self._idle[0])
        interval = min(0.25, self._request_timeout_seconds / 8)
        self._watchdog = self._loop.call_later(interval, self._watch) if watching else None
        if slow:
            self._send_or_open()

    def _shut_down(self) -> None:
        for delivery in list(self._deliveries):
            delivery.end()
        for task in self._opening:
            task.cancel()
        for connection in list(self._connections):
            self._discard(connection)
        # After the cancelled tasks have had their turn.
        self._loop.call_soon(self._loop.call_soon, self._loop.stop)
