"""The rules of reporting one document: what is written when, and how often its watchers hear.

Decides order (every published state has a higher sequence, terminal states are final), coalescing (the
newest state wins, at most so many a second) and what leaving the `with` block means. Leaves storage and
delivery to the adapters it is given.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from docprogress.document import (
    MAX_COUNT,
    MAX_DOCUMENT_ID_LENGTH,
    MAX_NAME_CHARACTERS,
    MAX_ORDER,
    NO_RUN,
    PAGES,
    RETRY_WITHIN_SECONDS,
    Beginning,
    DocumentState,
    Failure,
    Phase,
    Run,
    Status,
    Tally,
    Update,
    composed,
    correlated,
    is_correlation_id,
    is_document_id,
    readable,
    result_json,
)
from docprogress.errors import Cancelled, StartRefused, StoreUnavailable, Superseded, TimeLimitExceeded
from docprogress.posting.report import DeliveryRefused
from docprogress.process import after_fork, jitter, may_wait
from docprogress.sender import Sender
from docprogress.spans import span
from docprogress.store import StateStore
from docprogress.time_left import TimeLeft

logger = logging.getLogger(__name__)

# A watcher that misses a progress update hears the next one; the last one has no next, so it may take longer.
PROGRESS_DELIVERY_SECONDS = 2.0
FINAL_DELIVERY_SECONDS = 10.0
# Silence is how a dead worker is told from a slow page, so a living one writes at least this often.
HEARTBEAT_SECONDS = 20.0
# Two heartbeats missed. Lambda tries an asynchronous event again after a minute, so a retry finds the run free.
ABANDONED_AFTER_SECONDS = 45.0


_Written = TypeVar("_Written")

# Tells a state to everyone who watches it, within so many seconds.
Deliver = Callable[[DocumentState, float], object]


class _Unwritten(NamedTuple):
    """What the worker has said and the table does not know yet."""

    pages: int = 0
    message: str | None = None
    phase: Phase | None = None
    total: int | None = None

    def then(self, later: _Unwritten) -> _Unwritten:
        return _Unwritten(
            self.pages + later.pages,
            self.message if later.message is None else later.message,
            later.phase or self.phase,
            later.total or self.total,
        )


_NOTHING = _Unwritten()


class ProgressTracker:
    """Reports the progress of one document from one worker. Use it in a `with`, or end it yourself.

    A tracker that is dropped without an end falls silent, and the watchdog ends its document.

    ```python
    with publisher.track("invoice-7") as tracker:
        tracker.start(total=len(pages))
        for page in pages:
            work_on(page)
            tracker.advance()
    ```

    Entering the block takes the document up: from then on the watchdog sees a worker that dies. Leaving it completes
    the document. An exception that leaves it fails the document, with a message that tells watchers nothing of the
    exception. Updates are sent by a thread of the tracker's own, so only the beginning, the start and the end wait for
    the table, and only the end for watchers. May be called from several threads. A child that is forked inside the
    block goes on as a joined worker.

    Args:
        run_id: names this processing of the document. The same run is never processed twice, a new one
            replaces whatever was there. None: a new one.
        order: a whole number that grows with each run of the document. An older run never begins, counts, ends or
            stores anything once a newer one has begun. None: the time at which the run begins.
        owner: the only principal who may watch. None keeps the owner noted earlier; without one, nobody may watch
            where callers are known, unless the stack shares its documents, and everyone may on a stack without
            authorization. Once the document is taken up, the owner noted earlier stands here. What is assigned
            then is written with the start or with a failure before it.
        joined: count pages of a run that another tracker has begun; its `run_id` is needed. Leaving the block then
            completes the document only if all its pages are counted, and an exception does not end it: the others
            go on, and `fail` says so if they should not.
        attempt: of a joined tracker, the `attempt` of the one that has begun. None: the one that is on.
        correlation_id: what log lines about this run are found by, such as the id of the request that it is for. May be
            assigned until the document is started.
        max_messages_per_second: progress updates per document, over all its workers. Start, end and errors
            are always sent.
        remaining_seconds: how long the worker has left (Lambda's remaining time). Shortly before its time is up, the
            document ends with TIME_LIMIT_EXCEEDED, and the next call raises TimeLimitExceeded.
        retry_follows: how many times at most the caller starts the work again after an exception (Lambda: 2 for an
            asynchronous event), within 15 minutes. True: it always does. Watchers are told that an error is
            recoverable as long as an attempt is left.
    """

    def __init__(
        self,
        document_id: str,
        *,
        store: StateStore,
        deliver: Deliver,
        run_id: str | None = None,
        order: int | None = None,
        owner: str | None = None,
        joined: bool = False,
        attempt: int | None = None,
        correlation_id: str | None = None,
        max_messages_per_second: float = 4.0,
        remaining_seconds: Callable[[], float] = lambda: float("inf"),
        retry_follows: bool | int = False,
    ) -> None:
        if isinstance(document_id, str):
            document_id = composed(document_id)
        if not is_document_id(document_id):
            raise ValueError(
                f"document_id is {document_id!r}; it is a string of 1 to {MAX_DOCUMENT_ID_LENGTH} characters without"
                " control characters, or nobody could watch it."
            )
        if joined and run_id is None:
            raise ValueError("A joined tracker needs the run_id of the run it counts pages for.")
        if order is not None:
            _require_count("order", order, least=0, most=MAX_ORDER)
        if not isinstance(retry_follows, bool):
            _require_count("retry_follows", retry_follows, least=0)
        if run_id is not None and (run_id == NO_RUN or not is_document_id(run_id)):
            raise ValueError(
                f"run_id is {run_id!r}; it is a string of 1 to {MAX_DOCUMENT_ID_LENGTH} characters without control"
                f" characters, and not {NO_RUN!r}."
            )
        self._owner = _require_owner(owner)
        self.correlation_id = correlation_id
        self._run = Run(document_id, run_id or uuid.uuid4().hex, attempt)
        self._order = order
        self._store = store
        self._deliver = deliver
        self._joined = joined
        self._interval_seconds = 1.0 / max_messages_per_second
        self._time = TimeLeft(remaining_seconds)
        self._retry_follows = retry_follows
        self._retries_left = 0

        self._beginning = threading.RLock()
        self._begun = False
        self._started = joined
        self._ended = False
        self._begin_id, self._start_id = uuid.uuid4().hex, uuid.uuid4().hex
        self._sender = Sender(self._wait_seconds, self._update)
        self._sender_error: Exception | None = None
        self._tally = Tally("")
        self._unwritten = _NOTHING
        self._last_written_at = time.monotonic()
        self._due_at = time.monotonic() + (0.0 if joined else self._interval_seconds)
        after_fork(self, ProgressTracker._go_on_in_child)

    @property
    def owner(self) -> str | None:
        """Whose the document is. What is assigned before the start is noted at once, without waiting for the table.

        So even an end by the watchdog is the owner's alone to see.
        """
        return self._owner

    @owner.setter
    def owner(self, owner: str | None) -> None:
        with self._sender.changed:
            self._owner = _require_owner(owner)
            self._last_written_at = time.monotonic() - HEARTBEAT_SECONDS
            self._sender.changed.notify()

    @property
    def correlation_id(self) -> str | None:
        """Raises ValueError on assignment of what is no such id."""
        return self._correlation_id

    @correlation_id.setter
    def correlation_id(self, correlation_id: str | None) -> None:
        if correlation_id is not None and not is_correlation_id(correlation_id):
            raise ValueError(
                f"correlation_id is {correlation_id!r}; it is 1 to 128 letters, digits and any of . _ : -, or None."
            )
        self._correlation_id = correlation_id

    @property
    def document_id(self) -> str:
        return self._run.document_id

    @property
    def run_id(self) -> str:
        return self._run.run_id

    @property
    def attempt(self) -> int | None:
        """For joined trackers: which attempt at the run this is. None before it has begun."""
        return self._run.attempt

    # --- what a worker calls ---

    def start(self, total: int | None = None, *, unit: str = PAGES) -> None:
        """Begin, with nothing processed. Does not wait for watchers.

        A Lambda handler that returns right after it is frozen before they hear; they hear the next worker's update.

        Args:
            total: how many of the unit there are. None: not known, or not yet; see `total`.
            unit: what is counted, such as `bytes` or `rows`.

        Raises:
            AlreadyProcessed: this run has ended: a repeated event.
            BeingProcessed: another worker is on this run; try again later.
            Superseded: a newer run has begun.
            ValueError: total is no whole number from 1 to 2^53 - 1, or unit no short string.
            RuntimeError: it has started; a retry needs a tracker of its own.
        """
        if total is not None:
            _require_count("total", total, least=1)
        _require_name("unit", unit)
        if self._started:
            raise RuntimeError(
                f"start() on document {self.document_id!r}, which has started; a retry has its own tracker."
            )
        self._begin()
        self._raise_sender_error()
        started = Update(
            status=Status.STARTED,
            total=total,
            unit=None if unit == PAGES else unit,
            owner=self.owner,
            correlation_id=self.correlation_id,
            write_id=self._start_id,
        )
        with span("start", **self._ids()):
            state = self._write_certainly(started)
        self._started = True
        self._due_at = time.monotonic() + self._interval_seconds
        self._sender.hand(lambda: self._tell(state))

    def advance(self, count: int = 1, *, message: str | None = None) -> None:
        """Count pages, or whatever the unit is, as processed. Returns at once.

        Args:
            message: what is being done, for people. Cut to 500 characters; the newest one is told.

        Raises:
            Superseded: the document has ended or was started anew elsewhere; stop working on it.
            Cancelled: a Superseded; its owner has cancelled it.
            TimeLimitExceeded: there is no time left; stop working.
            ValueError: count is no whole number from 0 to 2^53 - 1, or message no string.
        """
        _require_count("count", count, least=0)
        self._say("advance", _Unwritten(count, None if message is None else readable(message)))

    def phase(self, name: str, index: int, *, of: int | None = None) -> None:
        """Say which part of the work begins: `phase("ocr", 2, of=3)`. Raises as `advance` does."""
        _require_name("name", name)
        _require_count("index", index, least=1)
        if of is not None:
            _require_count("of", of, least=index)
        self._say("phase", _Unwritten(phase=Phase(name, index, of)))

    def total(self, total: int) -> None:
        """Say how many there are, where `start` did not know, or that there are more. Raises as `advance` does."""
        _require_count("total", total, least=1)
        self._say("total", _Unwritten(total=total))

    def require_current(self) -> None:
        """Before a step that cannot be undone, such as writing the result. Raises Superseded."""
        self._require_started("require_current")
        self._raise_sender_error()
        self._persist(lambda: self._store.heartbeat(self._run))

    def complete(self, result: Mapping[str, Any] | None = None, *, pages_unreadable: int = 0) -> None:
        """End well. The last update, with all pages counted, is sent before this returns.

        Where joined trackers count to a known total, the one that counts the last page has ended the document already.
        A parent that has a result to tell therefore starts without a total.

        Args:
            result: what watchers are told of the result, as JSON, up to 2 KB.
            pages_unreadable: how many of the pages could not be read.

        Raises:
            Superseded: the document has ended or was started anew elsewhere, and watchers do not hear the result.
            ValueError: result is no JSON object or too large; the text says how large. Nothing has ended.
        """
        self._require_started("complete")
        if result is not None:
            result_json(result)
        _require_count("pages_unreadable", pages_unreadable, least=0)
        end = Update(status=Status.COMPLETE, result=result, pages_unreadable=pages_unreadable)
        if result is None and not pages_unreadable:
            self._complete_unless_others_have(end)
        else:
            self._finish(end)

    def fail(self, failure: Failure) -> None:
        """End in an error that watchers are told. Works before `start` too, for a file that cannot be opened."""
        self._begin()
        owner = None if self._started else self.owner
        self._finish(Update(status=Status.ERROR, failure=failure, owner=owner, correlation_id=self.correlation_id))

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if not may_wait():
            # The garbage collector or the interpreter's end has left the block. The tracker falls silent, and the
            # watchdog ends the document. Not even a line is logged: a thread that was stopped may hold any lock.
            self._ended = True
            return
        if isinstance(error, StartRefused | Superseded):
            self._stop_sender()
        elif self._joined:
            if self._begun:
                self._leave(raises=error is None)
        elif error is None:
            self._complete_unless_others_have(Update(status=Status.COMPLETE))
        else:
            self._fail_after(error)

    # --- beginning and ending ---

    def _begin(self) -> None:
        """Take the document up, or learn which attempt at it to join."""
        with self._beginning:
            if self._begun:
                return
            if self._joined:
                if self._run.attempt is None:
                    self._run = self._run._replace(attempt=self._persist(lambda: self._store.heartbeat(self._run)))
            else:
                state = self._persist(self._take_up)
                self._run = self._run._replace(attempt=state.attempt)
                self._retries_left = state.retries_left
                self.owner = self.owner or state.owner
            self._start_sender()
            self._begun = True

    def _take_up(self) -> DocumentState:
        beginning = Beginning(self._begin_id, ABANDONED_AFTER_SECONDS, self._order, self.owner, self._retry_follows)
        return self._store.begin(self._run, beginning)

    def _complete_unless_others_have(self, end: Update) -> None:
        try:
            self._finish(end)
        except Superseded as superseded:
            # The joined worker that has counted the last page has done so.
            found = superseded.state
            if found is None or found.status is not Status.COMPLETE or (found.run_id, found.attempt) != self._run[1:]:
                raise

    def _fail_after(self, error: BaseException) -> None:
        """Fail the document; whatever comes of it, the worker's own exception is the one that goes on."""
        if isinstance(error, TimeLimitExceeded):
            failure = self._time.failure
        elif self._retries_left:
            minutes = f"{RETRY_WITHIN_SECONDS / 60:.0f} minutes"
            failure = Failure(f"Processing failed. It is tried again within {minutes}.", recoverable=True)
        else:
            failure = Failure("Processing failed.")
        try:
            self.fail(failure)
        except (StartRefused, Superseded, TimeLimitExceeded) as refused:
            logger.info("Not failing the document: %s", refused, extra=self._ids())
        except Exception:
            logger.exception("The failure %s could not be reported", type(error).__name__, extra=self._ids())

    def _finish(self, update: Update) -> None:
        unwritten = self._stop_sender()
        if isinstance(self._sender_error, TimeLimitExceeded):
            raise self._sender_error
        with span("end", **self._ids()):
            self._send(self._end(update, unwritten), FINAL_DELIVERY_SECONDS)

    def _end(self, update: Update, unwritten: _Unwritten) -> DocumentState:
        phase = unwritten.phase if update.status is Status.ERROR else None
        return self._write_certainly(
            update._replace(
                pages=unwritten.pages,
                tally=self._tally,
                total=unwritten.total,
                phase=phase,
                write_id=uuid.uuid4().hex,
            )
        )

    def _leave(self, *, raises: bool) -> None:
        """Hand in the last pages of a joined tracker. The one that hands in the last of all completes the run."""
        unwritten = self._stop_sender()
        try:
            state = self._persist(lambda: self._write_unwritten(unwritten, not_within_seconds=0.0))
            if state and state.total is not None and state.processed >= state.total:
                state = self._end(Update(status=Status.COMPLETE), _NOTHING)
            if state:
                self._send(state, FINAL_DELIVERY_SECONDS)
            if state and state.is_active and self._tally.counted:
                self._forget_tally()
        except Superseded:
            # Two workers may both see the last page counted; the other one has completed the document.
            return
        except Exception:
            if raises:
                raise
            logger.exception("The last pages of a worker that failed are not counted", extra=self._ids())

    def _forget_tally(self) -> None:
        try:
            self._store.leave(self._run, self._tally.worker)
        except StoreUnavailable as error:
            # A few bytes of the row, until the run ends.
            logger.info("The tally of a worker that left stays behind: %s", error, extra=self._ids())

    # --- the sender's thread ---

    def _start_sender(self) -> None:
        self._last_written_at = time.monotonic()
        # A document's row holds one for each worker: 48 bits are enough to tell thousands apart.
        self._tally = Tally(secrets.token_urlsafe(6))
        self._sender.start()

    def _stop_sender(self) -> _Unwritten:
        """Wait for the update under way; returns what is not in the table yet."""
        if not may_wait():
            raise RuntimeError("The document cannot be ended here any more: the watchdog ends it.")
        self._ended = True
        self._sender.stop()
        return self._unwritten

    def _go_on_in_child(self) -> None:
        """After a fork: the child has no thread, and what its parent has not written is its parent's to write."""
        self._sender = Sender(self._wait_seconds, self._update)
        self._beginning = threading.RLock()
        self._unwritten = _NOTHING
        if self._begun:
            # Not alive before it counts something: a child of another purpose must not outlive the worker's silence.
            self._joined, self._begun = True, False

    def _say(self, action: str, said: _Unwritten) -> None:
        self._require_started(action)
        self._begin()
        with self._sender.changed:
            self._raise_sender_error()
            if self._time.is_up:
                raise TimeLimitExceeded(self._time.failure.message)
            self._unwritten = self._unwritten.then(said)
            self._sender.changed.notify()

    def _raise_sender_error(self) -> None:
        if self._sender_error is not None:
            raise self._sender_error

    def _wait_seconds(self) -> float:
        """Until the next update or heartbeat is due, or the time is up."""
        due_at = self._last_written_at + HEARTBEAT_SECONDS if self._unwritten == _NOTHING else self._due_at
        seconds = due_at - time.monotonic()
        if not self._joined:
            seconds = min(seconds, self._time.working_seconds)
        return max(0.0, seconds)

    def _update(self) -> bool:
        """Write and tell; whether the sender may go on."""
        with self._sender.changed:
            unwritten, self._unwritten = self._unwritten, _NOTHING
        try:
            if self._time.is_up and not self._joined:
                return self._end_in_time(unwritten)
            if unwritten == _NOTHING:
                self._write_when_due(unwritten)
                return True
            with span("update", **self._ids()):
                state = self._write_when_due(unwritten)
                if state:
                    # Set before sending: the rate is of starts, and a slow fan-out must not slow it further.
                    self._due_at = time.monotonic() + self._interval_seconds
                    self._send(state, PROGRESS_DELIVERY_SECONDS)
        except Exception as error:  # noqa: BLE001  the worker's next call raises it
            self._note_error(error)
            return False
        return True

    def _end_in_time(self, unwritten: _Unwritten) -> bool:
        failure = self._time.failure
        logger.error("%s", failure.message, extra=self._ids())
        state = self._end(Update(status=Status.ERROR, failure=failure), unwritten)
        with self._sender.changed:
            self._sender_error = TimeLimitExceeded(failure.message)
        self._send(state, FINAL_DELIVERY_SECONDS)
        return False

    def _note_error(self, error: Exception) -> None:
        """The worker's next call raises it, but the last one may be behind it."""
        if not isinstance(error, Superseded):
            logger.error("No more updates until the last", exc_info=error, extra=self._ids())
        with self._sender.changed:
            self._sender_error = self._sender_error or error
        if isinstance(error, Cancelled):
            self._tell_of_cancellation(error)

    def _tell_of_cancellation(self, cancelled: Cancelled) -> None:
        """The one who cancels may not post to watchers, so the worker tells them."""
        if cancelled.state is not None:
            try:
                self._send(cancelled.state, FINAL_DELIVERY_SECONDS)
            except Exception:
                logger.exception("The cancellation is not told; the watchdog tells it", extra=self._ids())

    def _tell(self, state: DocumentState) -> None:
        try:
            self._send(state, PROGRESS_DELIVERY_SECONDS)
        except Exception as error:  # noqa: BLE001  the worker's next call raises it
            self._note_error(error)

    # --- writing and sending ---

    def _write_when_due(self, unwritten: _Unwritten) -> DocumentState | None:
        """Write what was said, or a sign of life. What could not be written is unwritten again."""
        state = None
        try:
            if unwritten == _NOTHING:
                self._store.heartbeat(self._run, owner=None if self._started else self._owner)
            else:
                state = self._write_unwritten(unwritten, not_within_seconds=self._interval_seconds)
        except StoreUnavailable as error:
            logger.warning("Progress is not recorded, will retry: %s", error, extra=self._ids())
            if unwritten == _NOTHING:
                # The run is not known to be alive: soon again, but not in a hot loop.
                self._last_written_at = time.monotonic() - HEARTBEAT_SECONDS + self._retry_seconds()
                return None
        except Exception as error:
            if not isinstance(error, Superseded):  # those are of a run that has ended
                self._put_back(unwritten)
            raise
        else:
            self._last_written_at = time.monotonic()
        if state is None and unwritten != _NOTHING:
            self._put_back(unwritten)
        return state

    def _write_unwritten(self, unwritten: _Unwritten, *, not_within_seconds: float) -> DocumentState | None:
        update = Update(
            status=Status.PROGRESS,
            pages=unwritten.pages,
            message=unwritten.message,
            phase=unwritten.phase,
            total=unwritten.total,
            tally=self._tally,
        )
        state = self._store.write(self._run, update, not_within_seconds=not_within_seconds)
        if state:
            self._tally = self._tally._replace(counted=self._tally.counted + unwritten.pages)
        return state

    def _write_certainly(self, update: Update) -> DocumentState:
        state = self._persist(lambda: self._store.write(self._run, update))
        if state is None:
            raise Superseded(f"run {self.run_id} of document {self.document_id!r} has ended or was replaced")
        self._last_written_at = time.monotonic()
        return state

    def _persist(self, write: Callable[[], _Written]) -> _Written:
        """A write that no later one makes up for: tried again for as long as there is time."""
        give_up_at = time.monotonic() + self._time.bounded(FINAL_DELIVERY_SECONDS)
        while True:
            try:
                return write()
            except Cancelled as cancelled:
                self._tell_of_cancellation(cancelled)
                raise
            except StoreUnavailable:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(jitter(0.02, 0.5))

    def _put_back(self, unwritten: _Unwritten) -> None:
        with self._sender.changed:
            self._unwritten = unwritten.then(self._unwritten)
            self._due_at = time.monotonic() + self._retry_seconds()

    def _retry_seconds(self) -> float:
        # Parallel workers of one document take turns by chance rather than in lockstep.
        return self._interval_seconds * jitter(0.5, 1.5)

    def _send(self, state: DocumentState, seconds: float) -> None:
        try:
            self._deliver(state, self._time.bounded(seconds))
        except StoreUnavailable as error:
            # The state stands in the table: the next update, the watchdog, or whoever asks again, gets it.
            logger.warning("The watchers could not be read: %s", error, extra=self._ids())
        except DeliveryRefused:  # only a fan-out that is strict raises it
            raise
        except Exception:
            # No credentials for a moment, no right to read the watchers: that is no reason to stop the work.
            logger.exception("The watchers are not told", extra=self._ids())

    def _require_started(self, action: str) -> None:
        if not self._started or self._ended:
            state = "has ended" if self._ended else "has not started"
            raise RuntimeError(f"{action}() on document {self.document_id!r}, which {state}.")

    def _ids(self) -> dict[str, str]:
        return {"document_id": self.document_id, "run_id": self.run_id, **correlated(self.correlation_id)}


def _require_owner(owner: str | None) -> str | None:
    # A variable of a shell that was not set must not hide a document, and must not show it.
    if owner is not None and not (isinstance(owner, str) and owner.strip()):
        raise ValueError(f"owner is {owner!r}; it is a principal's id, or None.")
    return owner


def _require_count(name: str, value: object, *, least: int, most: int = MAX_COUNT) -> None:
    # True is an int, and no number to the table.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; it is a whole number from {least} to {most}.")


def _require_name(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_CHARACTERS or not value.isprintable():
        raise ValueError(f"{name} is {value!r}; it is a string of 1 to {MAX_NAME_CHARACTERS} printable characters.")
