"""Stand-ins for the table and for those who listen, with the rules of the real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from docprogress.document import Connection, DocumentState, Failure, Status, Subscription, Tally
from docprogress.errors import AlreadyProcessed, BeingProcessed, Superseded
from docprogress.posting.report import DeliveryReport

# Only a test that fails waits so long: on a machine that others use too, any step may take many seconds.
PATIENCE_SECONDS = 60.0


@dataclass
class _Row:
    state: DocumentState
    published_at: float
    updated_at: float
    write_id: str | None = None
    tallies: dict[str, int] = field(default_factory=dict)


class InMemoryStore:
    """The table's rules without a table: each method is one atomic step, as one conditional write is.

    Attributes:
        published: every state that was written and that watchers are to hear of, in the order of writing.
        heartbeats: how many were noted.
        before: called with the method's name before anything is written; what it raises, the method raises.
        after: the same once it is written, as when only the answer is lost.
        connections: those that were added and not removed, by id.
        subscriptions: by document and connection.
        calls: the names of the methods called, in order.
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

    def start(
        self,
        document_id: str,
        *,
        run_id: str,
        total: int,
        owner: str | None,
        abandoned_after_seconds: float,
        write_id: str | None = None,
    ) -> DocumentState:
        self._enter("start")
        with self._lock:
            now = self._now()
            row = self._rows.get(document_id)
            if row is not None and write_id is not None and row.write_id == write_id:
                return row.state
            if row is not None and row.state.run_id == run_id:
                if row.state.is_active:
                    if row.updated_at >= now - abandoned_after_seconds:
                        raise BeingProcessed(document_id)
                elif not (row.state.failure and row.state.failure.recoverable):
                    raise AlreadyProcessed(document_id)
            state = DocumentState(
                document_id=document_id,
                status=Status.STARTED,
                sequence=(row.state.sequence if row else 0) + 1,
                total=total,
                run_id=run_id,
                attempt=(row.state.attempt if row else 0) + 1,
                owner=owner or (row.state.owner if row else None),
            )
            self._rows[document_id] = _Row(state, now, now, write_id)
            self.published.append(state)
        self.after("start")
        return state

    def advance(
        self,
        document_id: str,
        *,
        run_id: str,
        attempt: int | None = None,
        pages: int,
        not_within_seconds: float,
        tally: Tally | None = None,
    ) -> DocumentState | None:
        self._enter("advance")
        with self._lock:
            row = self._active(document_id, run_id, attempt)
            uncounted = self._uncounted(row, pages, tally)
            if uncounted < pages and not uncounted:
                return row.state
            if not_within_seconds and row.published_at > self._now() - not_within_seconds:
                return None
            state = self._publish(row, Status.PROGRESS, uncounted, None)
            if tally and pages:
                row.tallies[tally.worker] = tally.counted + pages
        self.after("advance")
        return state

    def heartbeat(self, document_id: str, *, run_id: str, attempt: int | None = None) -> None:
        self._enter("heartbeat")
        with self._lock:
            self._active(document_id, run_id, attempt).updated_at = self._now()
            self.heartbeats += 1

    def finish(
        self,
        document_id: str,
        *,
        run_id: str,
        attempt: int | None = None,
        pages: int,
        failure: Failure | None,
        tally: Tally | None = None,
        write_id: str | None = None,
    ) -> DocumentState:
        self._enter("finish")
        with self._lock:
            known = self._rows.get(document_id)
            if known is not None and write_id is not None and known.write_id == write_id:
                return known.state
            row = self._active(document_id, run_id, attempt)
            uncounted = self._uncounted(row, pages, tally)
            state = self._publish(row, Status.ERROR if failure else Status.COMPLETE, uncounted, failure)
            row.write_id = write_id
            row.tallies = {}
        self.after("finish")
        return state

    def leave(self, document_id: str, *, run_id: str, worker: str) -> None:
        self._enter("leave")
        with self._lock:
            row = self._rows.get(document_id)
            if row is not None and row.state.run_id == run_id:
                row.tallies.pop(worker, None)

    def tallies(self, document_id: str) -> dict[str, int]:
        return dict(self._rows[document_id].tallies)

    @staticmethod
    def _uncounted(row: _Row, pages: int, tally: Tally | None) -> int:
        if tally is None or not pages:
            return pages
        missed = row.tallies.get(tally.worker, 0) - tally.counted
        if missed < 0:
            raise Superseded("the tally is of an earlier start")
        return max(0, pages - missed)

    def _active(self, document_id: str, run_id: str, attempt: int | None) -> _Row:
        row = self._rows.get(document_id)
        if (
            row is None
            or row.state.run_id != run_id
            or attempt not in (None, row.state.attempt)
            or not row.state.is_active
        ):
            raise Superseded(document_id)
        return row

    def _publish(self, row: _Row, status: Status, pages: int, failure: Failure | None) -> DocumentState:
        row.state = replace(
            row.state,
            status=status,
            sequence=row.state.sequence + 1,
            processed=row.state.processed + pages,
            failure=failure,
        )
        row.published_at = row.updated_at = self._now()
        row.write_id = None
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
