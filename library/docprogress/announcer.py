"""Tells a document's state to all who watch it: who they are comes from the store, the sending is the fan-out's."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from docprogress.access import may_watch
from docprogress.document import DocumentState, Subscription
from docprogress.messages import encode, state_message
from docprogress.posting.report import DeliveryRefused, DeliveryReport

logger = logging.getLogger(__name__)

_MAX_EXPIRED = 1000
# An invocation of Lambda's 15 minutes makes 3,600 at four a second; elsewhere nobody may ever take them.
_MAX_TIMES = 10_000
_DISCONNECT_SECONDS = 2.0


class Watchers(Protocol):
    def watchers(self, document_id: str) -> Iterator[Sequence[Subscription]]: ...

    def forget(self, document_id: str, gone: Sequence[Subscription]) -> None: ...


class Poster(Protocol):
    def post(
        self,
        watchers: Iterable[Sequence[Subscription]],
        message: bytes,
        *,
        deadline_seconds: float,
        forget: Callable[[Sequence[Subscription]], None],
    ) -> DeliveryReport: ...

    def disconnect(self, connection_ids: Iterable[str], *, deadline_seconds: float) -> DeliveryReport: ...


@dataclass
class Totals:
    """What was delivered since the last look, for metrics.

    fan_out_milliseconds: one figure per announced state, of the newest 10,000.
    """

    report: DeliveryReport = field(default_factory=DeliveryReport)
    fan_out_milliseconds: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_TIMES))


class Announcer:
    """Announces states; may be called from several threads at once.

    Args:
        close_expired: disconnect watchers whose connection has expired. API Gateway checks a token only when the
            connection is made, so nobody else does.
        now: epoch seconds.
    """

    def __init__(
        self,
        store: Watchers,
        poster: Poster,
        *,
        close_expired: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._poster = poster
        self._close_expired = close_expired
        self._now = now
        self._lock = threading.Lock()
        self._totals = Totals()

    def announce(self, state: DocumentState, deadline_seconds: float) -> DeliveryReport:
        """Tell every watcher of the state's document.

        Raises:
            DeliveryRefused: for a reason that no retry cures, after all others were served.
        """
        started_at = time.perf_counter()
        expired: list[Subscription] = []
        try:
            report = self._poster.post(
                self._entitled(state, expired),
                encode(state_message(state)).encode(),
                deadline_seconds=deadline_seconds,
                forget=lambda gone: self._store.forget(state.document_id, gone),
            )
        except DeliveryRefused as refused:
            self._count(refused.report, started_at)
            raise
        milliseconds = self._count(report, started_at)
        if expired:
            self._forget_expired(state.document_id, expired)
        logger.info(
            "Announced",
            extra={
                "document_id": state.document_id,
                "sequence": state.sequence,
                "status": state.status.value,
                "delivered": report.delivered,
                "stale": report.stale,
                "throttled": report.throttled,
                "failed": report.failed,
                "fan_out_milliseconds": round(milliseconds, 1),
            },
        )
        return report

    def _entitled(self, state: DocumentState, expired: list[Subscription]) -> Iterator[Sequence[Subscription]]:
        """The watchers that may hear the state; those whose time is over go to expired."""
        now = self._now()
        for page in self._store.watchers(state.document_id):
            # The rest waits for the next update: a list must not grow with the watchers.
            expired += [watcher for watcher in page if watcher.expires_at <= now][: _MAX_EXPIRED - len(expired)]
            yield [watcher for watcher in page if watcher.expires_at > now and may_watch(watcher.principal_id, state)]

    def _forget_expired(self, document_id: str, expired: Sequence[Subscription]) -> None:
        self._store.forget(document_id, expired)
        if self._close_expired:
            self._poster.disconnect(
                [watcher.connection_id for watcher in expired], deadline_seconds=_DISCONNECT_SECONDS
            )

    def _count(self, report: DeliveryReport, started_at: float) -> float:
        milliseconds = (time.perf_counter() - started_at) * 1000
        with self._lock:
            self._totals.report += report
            self._totals.fan_out_milliseconds.append(milliseconds)
        return milliseconds

    def take_totals(self) -> Totals:
        with self._lock:
            totals, self._totals = self._totals, Totals()
        return totals
