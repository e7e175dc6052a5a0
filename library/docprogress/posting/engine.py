"""Sockets and their loop: when connections are opened, kept and given up, and who is posted to next.

The loop runs in a thread of its own, does nothing but post, and outlives deliveries with its connections.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from docprogress.posting.connection import Address, Connection, open_socket
from docprogress.posting.delivery import Delivery, Post
from docprogress.posting.http1 import Response
from docprogress.posting.report import Recipient
from docprogress.posting.sigv4 import Endpoint, Payload, RequestSigner

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


class Engine:
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

    def add_page(self, delivery: Delivery, page: Sequence[Recipient]) -> None:
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
            connection.send(post, post.signer.sign(post.recipient.connection_id, post.delivery.payload))

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
