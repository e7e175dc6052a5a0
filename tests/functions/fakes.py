"""Stand-ins for the table and for those who listen, with the rules of the real ones."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from docprogress.document import (
    NO_RUN,
    Beginning,
    Connection,
    DocumentState,
    Ownership,
    Run,
    Status,
    Subscription,
    Update,
    retries_left,
)
from docprogress.errors import AlreadyProcessed, BeingProcessed, Cancelled, Superseded
from docprogress.posting.report import DeliveryReport
from docprogress.table.items import PAST_RUNS
from docprogress.table.states import CANCELLED

# Only a test that fails waits so long: on a machine that others use too, any step may take many seconds.
PATIENCE_SECONDS = 60.0


@dataclass
class _Row:
    state: DocumentState
    order: int
    heard_at: float
    published_at: float | None = None
    write_id: str | None = None
    tallies: dict[str, int] = field(default_factory=dict)
    announced: bool = False
    past_runs: tuple[str, ...] = ()


class InMemoryStore:
    """The table's rules without a table: each method is one atomic step, as one conditional write is.

    Attributes:
        published: every state that was written and that watchers are to hear of, in the order of writing.
        heartbeats: how many were noted.
        before: called with the method's name before anything is written; what it raises, the method raises.
        after: the same once it is written, as when only the answer is lost.
        connections: those that were added and not removed, by id.
        subscriptions: by document and connection.
        calls: the names of the methods called, in order; a write under the status that it publishes.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self.published: list[DocumentState] = []
        self.heartbeats = 0
        self.before: Callable[[str], None] = lambda method: None
        self.after: Callable[[str], None] = lambda method: None
        self.connections: dict[str, Connection] = {}
        self.connected_at: dict[str, int] = {}
        self.subscriptions: dict[tuple[str, str], Subscription] = {}
        self.calls: list[str] = []

    def _enter(self, method: str) -> None:
        self.calls.append(method)
        self.before(method)

    # --- states ---

    def read(self, document_id: str) -> DocumentState | None:
        self._enter("read")
        row = self._rows.get(document_id)
        return row.state if row else None

    def ownership(self, document_id: str) -> Ownership | None:
        self._enter("ownership")
        row = self._rows.get(document_id)
        return Ownership(row.state.status, row.state.owner) if row else None

    def begin(self, run: Run, beginning: Beginning) -> DocumentState:
        self._enter("begin")
        write_id, abandoned_after_seconds, order, owner, retry_follows = beginning
        with self._lock:
            now = self._now()
            row = self._rows.get(run.document_id)
            if row is not None and row.write_id == write_id:
                return row.state
            before = None
            past_runs = (row.state.run_id, *row.past_runs)[: len(PAST_RUNS)] if row else ()
            number = int(now * 1000) if order is None else order
            if row is not None and row.state.run_id == run.run_id:
                if not row.state.has_ended:
                    if row.heard_at >= now - abandoned_after_seconds:
                        raise BeingProcessed(run.document_id)
                elif row.state.is_final:
                    raise AlreadyProcessed(run.document_id)
                before, number, past_runs = row.state.retries_left, row.order, row.past_runs
            elif row is not None and order is None and run.run_id in row.past_runs:
                raise Superseded(run.document_id)
            elif row is not None and row.order > number:
                if order is not None:
                    raise Superseded(run.document_id)
                number = row.order + 1
            if row is not None and row.state.run_id == NO_RUN and row.state.is_cancelled:
                row.state, row.order = row.state._replace(run_id=run.run_id), number
                raise Cancelled(run.document_id, row.state)
            state = DocumentState(
                document_id=run.document_id,
                status=Status.PENDING,
                sequence=row.state.sequence if row else 0,
                run_id=run.run_id,
                attempt=(row.state.attempt if row else 0) + 1,
                retries_left=retries_left(retry_follows, before=before),
                owner=owner or (row.state.owner if row else None),
            )
            published_at = row.published_at if row else None
            self._rows[run.document_id] = _Row(state, number, now, published_at, write_id, past_runs=past_runs)
        self.after("begin")
        return state

    def write(self, run: Run, update: Update, *, not_within_seconds: float = 0.0) -> DocumentState | None:
        self._enter(update.status.value)
        with self._lock:
            known = self._rows.get(run.document_id)
            if known is not None and update.write_id is not None and known.write_id == update.write_id:
                return known.state
            row = self._held(run)
            pages = self._uncounted(row, update)
            if update.status is Status.PROGRESS and pages == 0 < update.pages and not update.says_more_than_pages:
                return row.state
            if not_within_seconds and self._was_published_within(row, not_within_seconds):
                return None
            state = self._publish(row, update, pages)
            if update.tally and update.pages and not state.has_ended:
                row.tallies[update.tally.worker] = update.tally.counted + update.pages
        self.after(update.status.value)
        return state

    def _was_published_within(self, row: _Row, seconds: float) -> bool:
        now = self._now()
        return row.published_at is not None and now - seconds < row.published_at <= now + 1

    def heartbeat(self, run: Run, *, owner: str | None = None) -> int:
        self._enter("heartbeat")
        with self._lock:
            row = self._held(run)
            row.heard_at = self._now()
            row.state = row.state._replace(owner=owner or row.state.owner)
            self.heartbeats += 1
            return row.state.attempt

    def leave(self, run: Run, worker: str) -> None:
        self._enter("leave")
        with self._lock:
            row = self._rows.get(run.document_id)
            if row is not None and row.state.run_id == run.run_id:
                row.tallies.pop(worker, None)

    def cancel(self, document_id: str, *, principal_id: str | None) -> DocumentState | None:
        self._enter("cancel")
        with self._lock:
            row = self._rows.get(document_id)
            if row is None and principal_id is not None:
                return None
            if row is None:
                nobodys = DocumentState(document_id=document_id, status=Status.PENDING, sequence=0, run_id=NO_RUN)
                row = self._rows[document_id] = _Row(nobodys, 0, self._now())
            if not row.state.is_final and row.state.owner == principal_id:
                self._publish(row, Update(status=Status.ERROR, failure=CANCELLED), 0)
            return row.state

    def announced(self, state: DocumentState) -> None:
        self._enter("announced")
        with self._lock:
            row = self._rows[state.document_id]
            row.announced = row.announced or row.state.sequence == state.sequence

    def remove(self, document_id: str) -> None:
        """As its time to live does."""
        del self._rows[document_id]

    @property
    def untold(self) -> list[str]:
        """Documents that have ended, and nobody has noted that their watchers were told."""
        return [name for name, row in self._rows.items() if row.state.has_ended and not row.announced]

    def tallies(self, document_id: str) -> dict[str, int]:
        return dict(self._rows[document_id].tallies)

    @staticmethod
    def _uncounted(row: _Row, update: Update) -> int:
        if update.tally is None or not update.pages:
            return update.pages
        missed = row.tallies.get(update.tally.worker, 0) - update.tally.counted
        if missed < 0:
            raise Superseded("the tally is of an earlier start")
        return max(0, update.pages - missed)

    def _held(self, run: Run) -> _Row:
        row = self._rows.get(run.document_id)
        if (
            row is None
            or row.state.run_id != run.run_id
            or run.attempt not in (None, row.state.attempt)
            or row.state.has_ended
        ):
            is_cancelled = row is not None and row.state.is_cancelled and row.state.run_id == run.run_id
            raise (Cancelled if is_cancelled else Superseded)(run.document_id, row and row.state)
        return row

    def _publish(self, row: _Row, update: Update, pages: int) -> DocumentState:
        has_ended = update.status in (Status.COMPLETE, Status.ERROR)
        row.state = row.state._replace(
            status=update.status,
            sequence=(row.state.sequence or int(self._now() * 1000)) + 1,
            processed=row.state.processed + pages,
            total=update.total or row.state.total,
            unit=update.unit or row.state.unit,
            owner=update.owner or row.state.owner,
            message=update.message or (None if has_ended else row.state.message),
            phase=None if update.status is Status.COMPLETE else update.phase or row.state.phase,
            failure=update.failure,
            result=update.result,
            pages_unreadable=update.pages_unreadable,
            correlation_id=update.correlation_id or row.state.correlation_id,
        )
        row.published_at = row.heard_at = self._now()
        row.write_id = update.write_id
        if has_ended:
            row.tallies = {}
            row.announced = False
        self.published.append(row.state)
        return row.state

    # --- connections and subscriptions ---

    def add_connection(self, connection: Connection, *, connected_at: int) -> None:
        self._enter("add_connection")
        self.connections[connection.connection_id] = connection
        self.connected_at[connection.connection_id] = connected_at

    def connection(self, connection_id: str) -> Connection | None:
        self._enter("connection")
        found = self.connections.get(connection_id)
        return found if found and found.expires_at > self._now() else None

    def remove_connection(self, connection_id: str) -> None:
        self._enter("remove_connection")
        self.connections.pop(connection_id, None)
        for key in [key for key in self.subscriptions if key[1] == connection_id]:
            del self.subscriptions[key]

    def subscribe(self, document_id: str, connection: Connection) -> None:
        self._enter("subscribe")
        self.subscriptions[document_id, connection.connection_id] = Subscription(
            connection.connection_id, int(self._now() * 1000), connection.expires_at, connection.principal_id
        )

    def may_subscribe(self, document_id: str, connection_id: str, *, limit: int) -> bool:
        self._enter("may_subscribe")
        mine = [document for document, subscriber in self.subscriptions if subscriber == connection_id]
        return len(mine) < limit or document_id in mine

    def unsubscribe(self, document_id: str, connection_id: str) -> None:
        self._enter("unsubscribe")
        self.subscriptions.pop((document_id, connection_id), None)

    def watchers(self, document_id: str, *, after: str | None = None) -> Iterator[Sequence[Subscription]]:
        self._enter("watchers")
        yield [
            subscription
            for (document, connection_id), subscription in sorted(self.subscriptions.items())
            if document == document_id and (after is None or connection_id > after)
        ]

    def forget(self, document_id: str, gone: Sequence[Subscription]) -> None:
        self._enter("forget")
        for subscription in gone:
            if self.subscriptions.get((document_id, subscription.connection_id)) == subscription:
                del self.subscriptions[document_id, subscription.connection_id]


def started(
    store: Any, document_id: str = "d", *, run_id: str = "run-1", total: int | None = 10, owner: str | None = None
) -> DocumentState:
    """A document that a worker has taken up and started, in a table or in memory."""
    begun = store.begin(Run(document_id, run_id), Beginning(uuid.uuid4().hex, 45.0, owner=owner))
    run = Run(document_id, run_id, begun.attempt)
    state: DocumentState = store.write(run, Update(status=Status.STARTED, total=total))
    return state


class Listener:
    """Hears what a tracker delivers, and notes whether two deliveries ever overlapped.

    Attributes:
        heard: the states, in the order in which their deliveries began.
        deadlines: the seconds that each delivery was given.
        during: called with the state while it is delivered; what it raises, the delivery raises.
    """

    def __init__(self) -> None:
        self.heard: list[DocumentState] = []
        self.deadlines: list[float] = []
        self.overlapped = False
        self.during: Callable[[DocumentState], None] = lambda state: None
        self._busy = threading.Lock()
        self._changed = threading.Condition()

    def deliver(self, state: DocumentState, deadline_seconds: float) -> None:
        alone = self._busy.acquire(blocking=False)
        self.overlapped |= not alone
        try:
            with self._changed:
                self.heard.append(state)
                self.deadlines.append(deadline_seconds)
                self._changed.notify_all()
            self.during(state)
        finally:
            if alone:
                self._busy.release()

    def wait_for(self, condition: Callable[[list[DocumentState]], bool]) -> None:
        """Wait until what was heard fulfils the condition; a failed assertion if it never does."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.heard), PATIENCE_SECONDS), f"heard only {self.heard}"


class RecordingPoster:
    """Takes the place of the fan-out: reads the watchers and notes who was sent what.

    Attributes:
        posts: connection id and message, in order.
        stale: connection ids that answer 410 Gone.
        untried: how many, the last to be read, the deadline leaves out.
        refusal: raised at the end of a post, or None.
        disconnected: the connection ids that were closed.
    """

    def __init__(self) -> None:
        self.posts: list[tuple[str, bytes]] = []
        self.deadlines: list[float] = []
        self.settled: list[float] = []
        self.topics: list[tuple[Hashable, int]] = []
        self.stale: set[str] = set()
        self.untried = 0
        self.refusal: Exception | None = None
        self.disconnected: list[str] = []

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
    ) -> DeliveryReport:
        self.deadlines.append(deadline_seconds)
        self.settled.append(settle_seconds)
        self.topics.append((topic, version))
        report = DeliveryReport()
        pages = [list(page) for page in watchers]
        left = sum(map(len, pages)) - self.untried
        for everyone in pages:
            page = everyone[: max(0, left)]
            left -= len(everyone)
            report += DeliveryReport(untried=len(everyone) - len(page))
            gone = [subscription for subscription in page if subscription.connection_id in self.stale]
            reached = [subscription for subscription in page if subscription not in gone]
            self.posts += [(subscription.connection_id, message) for subscription in reached]
            if gone:
                forget(gone)
            report += DeliveryReport(delivered=len(reached), stale=len(gone))
        if self.refusal:
            raise self.refusal
        return report

    def disconnect(self, connection_ids: Iterable[str], *, deadline_seconds: float) -> DeliveryReport:
        self.disconnected += connection_ids
        return DeliveryReport(delivered=len(self.disconnected))


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
