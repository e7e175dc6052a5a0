"""Sends a document's state to its watchers. The table says who they are; the fan-out sends."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from docprogress.access import may_watch
from docprogress.document import DocumentState, Subscription, correlated
from docprogress.errors import StoreUnavailable
from docprogress.messages import Message, encode, state_message
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from docprogress.process import aside, jitter
from docprogress.spans import span

logger = logging.getLogger(__name__)

_MAX_EXPIRED = 1000
# An invocation of Lambda's 15 minutes makes 3,600 at four a second; elsewhere nobody may ever take them.
_MAX_TIMES = 10_000
_DISCONNECT_SECONDS = 2.0
# After a last state, how long is waited for expired watchers to be forgotten: in Lambda what is left stands still.
_EXPIRED_SECONDS = 1.0
# After a last state there is no newer one to wait for: once all were tried, those not reached have so much longer.
_SETTLE_SECONDS = 2.0
_MAX_CUT_SHORT = 1_000


class Watchers(Protocol):
    def watchers(self, document_id: str, *, after: str | None = None) -> Iterator[Sequence[Subscription]]: ...

    def forget(self, document_id: str, gone: Sequence[Subscription]) -> None: ...


class Poster(Protocol):
    def post(
        self,
        watchers: Iterable[Sequence[Subscription]],
        message: bytes,
        *,
        topic: Hashable,
        version: int,
        deadline_seconds: float,
        settle_seconds: float,
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
        shared_documents: tell documents without an owner to all principals who watch them.
        now: epoch seconds.
    """

    def __init__(
        self,
        store: Watchers,
        poster: Poster,
        *,
        close_expired: bool = False,
        shared_documents: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._poster = poster
        self._close_expired = close_expired
        self._shared_documents = shared_documents
        self._now = now
        self._lock = threading.Lock()
        self._totals = Totals()
        self._cut_short: dict[str, str] = {}  # by document: the last connection that an update cut short has reached

    def announce(self, state: DocumentState, deadline_seconds: float) -> DeliveryReport:
        """Tell every watcher of the state's document; return when each was tried, or at the deadline.

        Watchers that could not be reached are tried again in the background. For a last state they are waited for
        up to 2 seconds more.

        Returns:
            `untried` is above zero when the deadline came before everyone was tried. The document's next
            announcement then begins where this one ended.

        Raises:
            StoreUnavailable: the table did not say who watches, in spite of retries until the deadline.
            DeliveryRefused: everyone refused the message, and the poster is strict.
        """
        return self._tell(
            state.document_id,
            state,
            encode(state_message(state)),
            topic=state.document_id,
            version=state.sequence,
            deadline_seconds=deadline_seconds,
            settle_seconds=0.0 if state.is_active else _SETTLE_SECONDS,
            said={"sequence": state.sequence, "status": state.status.value, **correlated(state.correlation_id)},
        )

    def post(
        self, document_id: str, known: DocumentState | None, message: Message, deadline_seconds: float
    ) -> DeliveryReport:
        """Tell every watcher something that is no state. The parameters and errors are those of announce.

        Args:
            known: the document's state, whose owner alone may hear. None: nothing is known of it.
        """
        return self._tell(
            document_id,
            known,
            encode(message),
            # One of its own: a newer message takes no place from an older one, as a newer state does.
            topic=(document_id, uuid.uuid4().hex),
            version=0,
            deadline_seconds=deadline_seconds,
            settle_seconds=_SETTLE_SECONDS,
            said={"status": message["status"]},
        )

    def _tell(
        self,
        document_id: str,
        known: DocumentState | None,
        frame: str,
        *,
        topic: Hashable,
        version: int,
        deadline_seconds: float,
        settle_seconds: float,
        said: Mapping[str, Any],
    ) -> DeliveryReport:
        started_at = time.perf_counter()
        reading = _Reading(
            self._store,
            document_id,
            known,
            now=self._now(),
            give_up_at=time.monotonic() + deadline_seconds,
            shared_documents=self._shared_documents,
        )
        try:
            with span("fan_out", document_id=document_id, **said) as traced:
                report = self._poster.post(
                    reading.pages(self._cut_short.get(document_id)),
                    frame.encode(),
                    topic=topic,
                    version=version,
                    deadline_seconds=deadline_seconds,
                    settle_seconds=settle_seconds,
                    forget=lambda gone: self._store.forget(document_id, gone),
                )
                if traced is not None:
                    traced.set_attributes({f"docprogress.{name}": getattr(report, name) for name in report.__slots__})
        except DeliveryRefused as refused:
            self._count(refused.report, started_at)
            raise
        milliseconds = self._count(report, started_at)
        self._note_end(document_id, reading.last_sent(report.untried) if report.untried else None)
        if reading.expired:
            aside.do(
                ("expired", id(self), document_id),
                lambda: self._forget_expired(document_id, reading.expired),
                wait_seconds=_EXPIRED_SECONDS if settle_seconds else 0.0,
            )
        logger.info(
            "Announced",
            extra={
                "document_id": document_id,
                **said,
                **{name: getattr(report, name) for name in report.__slots__},
                "fan_out_milliseconds": round(milliseconds, 1),
            },
        )
        return report

    def _note_end(self, document_id: str, last_sent: str | None) -> None:
        """Keep where an update was cut short, so that it is not always the same who are out of reach."""
        with self._lock:
            if last_sent is None:
                self._cut_short.pop(document_id, None)
                return
            self._cut_short[document_id] = last_sent
            if len(self._cut_short) > _MAX_CUT_SHORT:
                del self._cut_short[next(iter(self._cut_short))]

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


class _Reading:
    """One reading of a document's watchers.

    Attributes:
        expired: those whose time is over. At most 1,000, the rest is left to the next update: a list must not grow
            with the watchers.
    """

    def __init__(
        self,
        store: Watchers,
        document_id: str,
        known: DocumentState | None,
        *,
        now: float,
        give_up_at: float,
        shared_documents: bool,
    ) -> None:
        self._store = store
        self._document_id = document_id
        self._known = known
        self._now = now
        self._give_up_at = give_up_at
        self._shared_documents = shared_documents
        self._read = 0
        # By the number of those before it. The fan-out holds two at most.
        self._pages: deque[tuple[int, Sequence[Subscription]]] = deque(maxlen=3)
        self.expired: list[Subscription] = []

    def pages(self, begin_after: str | None) -> Iterator[Sequence[Subscription]]:
        """The watchers that may hear the state: from `begin_after` to the last, then the first until there."""
        for page in self._tried_again(begin_after):
            yield self._entitled(page)
        if begin_after is None:
            return
        for page in self._tried_again(None):
            before = [watcher for watcher in page if watcher.connection_id <= begin_after]
            yield self._entitled(before)
            if len(before) < len(page):
                return

    def last_sent(self, untried: int) -> str | None:
        """Who was sent to last, when the last `untried` were not."""
        sent = self._read - untried
        for before, page in reversed(self._pages):
            if before < sent:
                return page[min(sent - before, len(page)) - 1].connection_id
        return None

    def _tried_again(self, after: str | None) -> Iterator[Sequence[Subscription]]:
        while True:
            try:
                for page in self._store.watchers(self._document_id, after=after):
                    yield page
                    if page:
                        after = page[-1].connection_id
                return
            except StoreUnavailable as error:
                seconds_left = self._give_up_at - time.monotonic()
                if seconds_left <= 0:
                    raise
                logger.warning("The watchers are read again: %s", error)
                time.sleep(min(seconds_left, jitter(0.02, 0.5)))

    def _entitled(self, page: Sequence[Subscription]) -> Sequence[Subscription]:
        live = [watcher for watcher in page if watcher.expires_at > self._now]
        if len(live) < len(page):
            over = (watcher for watcher in page if watcher.expires_at <= self._now)
            self.expired += [watcher for watcher, _ in zip(over, range(_MAX_EXPIRED - len(self.expired)), strict=False)]
        entitled = [
            watcher for watcher in live if may_watch(watcher.principal_id, self._known, shared=self._shared_documents)
        ]
        self._pages.append((self._read, entitled))
        self._read += len(entitled)
        return entitled
