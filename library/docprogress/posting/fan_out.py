"""Posts messages to many WebSocket connections through API Gateway's @connections, fast.

Moves work between the caller's thread, which reads watchers, one that deletes stale ones, and the engine's, which does
nothing but post. The engine's keep-alive connections outlive invocations: a warm Lambda sandbox posts without a
handshake.

botocore is not imported, and a handler that never posts starts neither thread nor loop.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from docprogress.posting.report import DeliveryRefused, DeliveryReport, Recipient
from docprogress.posting.sigv4 import Endpoint, Payload
from docprogress.posting.update import Update
from docprogress.process import aside, importing

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

    from docprogress.posting.engine import Engine

__all__ = ["DeliveryRefused", "DeliveryReport", "FanOut"]

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Recipient)
Forget = Callable[[Sequence[Any]], None]

# A Lambda sandbox opens 1,024 files at most, and its other clients need some.
DEFAULT_MAX_CONNECTIONS = 900
DEFAULT_REQUEST_TIMEOUT_SECONDS = 5.0
_FORGET_BATCH = 100
# How long is waited for rows to be deleted: in Lambda what is left stands still until the next invocation.
_FORGET_SECONDS = 0.2
_LAST_FORGET_SECONDS = 1.0  # after a message that none follows
_DISCONNECT_PAGE = 1_000


def load_engine() -> type[Engine]:
    """Import what posts, for which a first post takes some 12 ms of CPU: call it where there is time before that."""
    with importing:
        from docprogress.posting.engine import Engine

        return Engine


class FanOut:
    """Posts to the connections of one API stage. Safe to use from several threads, which share its sockets.

        credentials = session.get_credentials()
        fan_out = FanOut(callback_url, region=region, credentials=credentials.get_frozen_credentials)
        forget = partial(store.forget, document_id)
        report = fan_out.post(
            store.watchers(document_id), message, topic=document_id, version=7, deadline_seconds=2, forget=forget
        )

    A watcher that cannot be reached (429, 5xx, no answer, a reset) holds up nobody: it is tried again in the
    background, with the topic's newest message, on a small share of the connections.

    Args:
        callback_url: `https://{apiId}.execute-api.{region}.amazonaws.com/{stage}`, the output `callbackUrl`.
        credentials: returns botocore's frozen credentials. Called for each message, and when API Gateway calls them
            expired; it may block to refresh them.
        max_connections: the most sockets at once. How many are used follows what the gateway takes.
        request_timeout_seconds: for a post, from its first byte sent to its answer's last byte.
        strict: raise DeliveryRefused when a message is refused by all. Otherwise it is logged as an error.
    """

    def __init__(
        self,
        callback_url: str,
        *,
        region: str,
        credentials: Callable[[], ReadOnlyCredentials],
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        request_timeout_seconds: float = DEFAULT_REQUEST_TIMEOUT_SECONDS,
        strict: bool = False,
    ) -> None:
        if max_connections < 1 or request_timeout_seconds <= 0:
            raise ValueError(
                f"max_connections is {max_connections} and request_timeout_seconds is {request_timeout_seconds}; "
                "both must be above zero"
            )
        self._endpoint = Endpoint.from_url(callback_url)
        self._region = region
        self._credentials = credentials
        self._max_connections = max_connections
        self._request_timeout_seconds = request_timeout_seconds
        self._strict = strict
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._closed = False
        _of_this_process.add(self)

    def post(
        self,
        watchers: Iterable[Sequence[R]],
        message: bytes,
        *,
        topic: Hashable = None,
        version: int = 0,
        deadline_seconds: float,
        settle_seconds: float = 0.0,
        forget: Callable[[Sequence[R]], None],
    ) -> DeliveryReport:
        """Post `message` to all `watchers`, page by page; return when each was tried or the deadline is past.

        Who was not reached by then is tried again in the background for a minute, or until a newer message of the
        topic takes the place of this one.

        Args:
            watchers: read on the calling thread, a page while the one before is posted; at most two are held. A
                read that blocks is waited for, past the deadline too.
            message: at most 128 KB.
            topic: what the watchers watch. Topics share the connections fairly. None: one of its own.
            version: grows with the messages of a topic. One that is older than another's is not sent any more.
            deadline_seconds: from now. Past it no further page is read.
            settle_seconds: once everyone was tried, wait so much longer for those that were not reached.
            forget: called with watchers whose connections are gone, at most 100, on a thread of its own. It is waited
                for a second at most. What it raises is logged, and the rest left to the topic's next message.

        Raises:
            DeliveryRefused: all refused the message, and this fan-out is strict.
            Exception: what `watchers` raised, after those already read were served.
        """
        return self._deliver("POST", watchers, message, topic, version, deadline_seconds, settle_seconds, forget)

    def disconnect(self, connection_ids: Iterable[str], *, deadline_seconds: float) -> DeliveryReport:
        """Close connections from the server's side; one that was gone already counts as `delivered` too."""
        ids = iter(connection_ids)
        pages = iter(lambda: [_Named(id_) for id_ in islice(ids, _DISCONNECT_PAGE)], [])
        report = self._deliver("DELETE", pages, b"", None, 0, deadline_seconds, deadline_seconds, lambda _: None)
        return DeliveryReport(
            report.delivered + report.stale, 0, report.throttled, report.failed, report.untried, report.refused
        )

    def close(self) -> None:
        """End the loop and its connections; an update of another thread ends with what it has reached."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()

    def _deliver(
        self,
        method: str,
        pages: Iterable[Sequence[Recipient]],
        message: bytes,
        topic: Hashable,
        version: int,
        deadline_seconds: float,
        settle_seconds: float,
        forget: Forget,
    ) -> DeliveryReport:
        engine = self._running_engine()
        update = Update(
            object() if topic is None else topic,
            method,
            version,
            Payload.of(message),
            later=engine.later,
            seconds=deadline_seconds,
            settle_seconds=settle_seconds,
            left_stale=lambda: _forget_aside(update, forget, wait_seconds=0),
        )
        engine.begin(update, self._credentials())
        read = 0
        try:
            for page in pages:
                read += len(page)
                _attend(update, forget, until_page_wanted=True)
                if not update.over:
                    update.wants_page = False
                    engine.add_page(update, page)
                elif page:
                    break
        finally:
            # Also when a page could not be read: those before it are served.
            engine.call(update, update.end_of_pages)
            _attend(update, forget, until_page_wanted=False)
            if update.stale:
                _forget_aside(update, forget, wait_seconds=_LAST_FORGET_SECONDS if settle_seconds else _FORGET_SECONDS)
        report = update.report(read)
        self._log(method, update, report)
        return report

    def _log(self, method: str, update: Update, report: DeliveryReport) -> None:
        if update.refusal is not None and report.is_refused_by_all:
            status, connection_id, detail = update.refusal
            refused = DeliveryRefused(status, report, connection_id, detail)
            if self._strict:
                raise refused
            logger.error("%s @connections, refused by all: %s", method, refused)
        elif update.problems:
            # Nobody could be sent to: the address does not answer, or its certificate does not verify.
            level = logging.ERROR if report == DeliveryReport(untried=report.untried) else logging.WARNING
            logger.log(level, "%s @connections: %s of %s", method, dict(update.problems), report)

    def _running_engine(self) -> Engine:
        with self._lock:
            if self._closed:
                raise RuntimeError("this FanOut was closed")
            if self._engine is None:
                self._engine = load_engine()(
                    self._endpoint,
                    self._region,
                    self._credentials,
                    min(self._max_connections, _files()),
                    self._request_timeout_seconds,
                )
            return self._engine

    def _after_fork(self) -> None:
        """In the child: another's lock may be held for ever, and the engine's thread and sockets are the parent's."""
        self._lock = threading.Lock()
        if self._engine is not None:
            self._engine.abandon()
            _of_the_parent.append(self._engine)
            self._engine = None


_of_this_process: weakref.WeakSet[FanOut] = weakref.WeakSet()
# Kept, since the end of a loop would reach into the selector that it shares with the parent's.
_of_the_parent: list[Engine] = []


def _after_fork() -> None:
    for fan_out in list(_of_this_process):
        fan_out._after_fork()


if hasattr(os, "register_at_fork"):  # where there is a fork
    os.register_at_fork(after_in_child=_after_fork)


def _files() -> int:
    """How many sockets this process may open, with an eighth of its files left to others."""
    try:
        import resource
    except ImportError:  # Windows
        return DEFAULT_MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return DEFAULT_MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, soft * 7 // 8)


def _attend(update: Update, forget: Forget, *, until_page_wanted: bool) -> None:
    """Wait for the engine."""
    while not update.over and not (until_page_wanted and update.wants_page):
        if len(update.stale) >= _FORGET_BATCH:
            _forget_aside(update, forget, wait_seconds=0)
        update.wake.wait()
        update.wake.clear()  # before looking at what it woke for, so that nothing is slept through


def _forget_aside(update: Update, forget: Forget, *, wait_seconds: float) -> None:
    """Neither the engine nor those who are to hear wait for that. What is left, the topic's next update forgets."""

    def forget_all() -> None:
        while batch := list(_taken(update.stale, _FORGET_BATCH)):
            forget(batch)

    aside.do(("gone", id(update.stale)), forget_all, wait_seconds=wait_seconds)


def _taken(stale: dict[str, Recipient], most: int) -> Iterator[Recipient]:
    for _ in range(min(most, len(stale))):
        yield stale.popitem()[1]


class _Named(NamedTuple):
    connection_id: str
