"""Posts one message to many WebSocket connections through API Gateway's @connections, fast.

Moves work between the caller's thread, which reads watchers and deletes stale ones, and the engine's, which does
nothing but post. The engine's keep-alive connections outlive invocations: a warm Lambda sandbox posts without a
handshake.

boto3 is not imported, and a handler that never posts starts neither thread nor loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from docprogress.posting.delivery import FORGET_BATCH, Delivery
from docprogress.posting.engine import Engine
from docprogress.posting.report import DeliveryRefused, DeliveryReport, Recipient
from docprogress.posting.sigv4 import Endpoint, Payload, RequestSigner

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

__all__ = ["DeliveryRefused", "DeliveryReport", "FanOut"]

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Recipient)
Forget = Callable[[Sequence[Any]], None]

# With answers after 10 to 20 ms this is 6,000 to 12,000 posts/s, about the account's quota of 10,000.
DEFAULT_MAX_IN_FLIGHT = 128
DEFAULT_REQUEST_TIMEOUT_SECONDS = 5.0
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
        self._engine: Engine | None = None
        self._signers: dict[str, RequestSigner] = {}
        self._closed = False

    def post(
        self,
        watchers: Iterable[Sequence[R]],
        message: bytes,
        *,
        deadline_seconds: float,
        forget: Callable[[Sequence[R]], None],
    ) -> DeliveryReport:
        """Post `message` to all `watchers`, page by page; return when each is served or the deadline is past.

        Args:
            watchers: read on the calling thread, a page while the one before is posted; at most two are held. A
                read that blocks is waited for, past the deadline too, as is `forget`.
            message: at most 128 KB.
            deadline_seconds: from now. Past it nobody is tried again and no further page is read; a page that
                was read counts, so that a delivery cut short always has some `failed` or `throttled`.
            forget: called on the calling thread with watchers whose connections are gone, at most 100.
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
        pages = iter(lambda: [_Named(id_) for id_ in islice(ids, _DISCONNECT_PAGE)], [])
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
        pages: Iterable[Sequence[Recipient]],
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
        self, engine: Engine, delivery: Delivery, method: str, forget: Forget, *, until_page_wanted: bool
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

    def _running_engine(self) -> Engine:
        with self._lock:
            if self._closed:
                raise RuntimeError("this FanOut was closed")
            # A thread does not survive a fork, as in a pre-forking task queue: the child starts its own.
            if self._engine is None or not self._engine.is_alive:
                self._engine = Engine(self._endpoint, self._max_in_flight, self._request_timeout_seconds)
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


class _Named(NamedTuple):
    connection_id: str
