"""The rules of reporting one document: what is written when, and how often its watchers hear.

Decides order (every published state has a higher sequence, terminal states are final), coalescing (the
newest state wins, at most so many a second) and what leaving the `with` block means. Leaves storage and
delivery to the adapters it is given.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from docprogress.document import MAX_DOCUMENT_ID_LENGTH, DocumentState, Failure, Tally, is_document_id
from docprogress.errors import StartRefused, StoreUnavailable, Superseded
from docprogress.sender import Sender

logger = logging.getLogger(__name__)

# A watcher that misses a progress update hears the next one; the last one has no next, so it may take longer.
PROGRESS_DELIVERY_SECONDS = 2.0
FINAL_DELIVERY_SECONDS = 10.0
# Left of a Lambda's time after delivery, to return and to flush its logs.
RESERVED_SECONDS = 0.5
# Silence is how a dead worker is told from a slow page, so a living one writes at least this often.
HEARTBEAT_SECONDS = 20.0
# Two heartbeats missed. Lambda tries an asynchronous event again after a minute, so a retry finds the run free.
ABANDONED_AFTER_SECONDS = 45.0


_Written = TypeVar("_Written")


class StateStore(Protocol):
    """What the rules need of a table. Every method may raise StoreUnavailable.

    attempt: the attempt of the run that `start` began; None to write whatever attempt is on.
    tally: whose pages these are. However often and in whatever portions the worker repeats them, each is
        counted once. None: they are counted with each call.
    write_id: names the write, so that a repeated one is known for what it is. None: a new one.
    """

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
        """Begin a run, or one that was not written for so long. Raises AlreadyProcessed or BeingProcessed."""
        ...

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
        """Add pages. None, and nothing written, when the document was published within so many seconds,
        by whichever worker. Raises Superseded."""
        ...

    def heartbeat(self, document_id: str, *, run_id: str, attempt: int | None = None) -> None:
        """Note that the run is alive. Raises Superseded."""
        ...

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
        """Add pages and end the run. Raises Superseded."""
        ...

    def leave(self, document_id: str, *, run_id: str, worker: str) -> None:
        """Forget the tally of a worker whose every page is known to be counted."""
        ...


# Tells a state to everyone who watches it, within so many seconds.
Deliver = Callable[[DocumentState, float], object]


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

    Leaving the block completes the document; an exception that leaves it fails the document, with a message
    that tells watchers nothing of the exception. Updates are sent by a thread of the tracker's own, so
    `advance` costs the worker no waiting; may be called from several threads.

    Args:
        run_id: names this processing of the document. The same run is never processed twice, a new one
            replaces whatever was there. None: a new one.
        owner: the principal that may watch the document; may be set until it starts. None: whoever it was
            expected for, or, if it was not expected, everyone who may connect.
        joined: count pages of a run that someone else has started (its `run_id` is needed). Leaving the
            block then completes the document only if all its pages are counted.
        max_messages_per_second: progress updates per document, over all its workers; start, end and errors
            are always sent.
        remaining_seconds: how long the worker has left (Lambda's remaining time).
        retry_follows: whether whoever called the worker calls again after an exception, as Lambda does for
            asynchronous events; watchers are then told that the error is recoverable.
    """

    def __init__(
        self,
        document_id: str,
        *,
        store: StateStore,
        deliver: Deliver,
        run_id: str | None = None,
        owner: str | None = None,
        joined: bool = False,
        max_messages_per_second: float = 4.0,
        remaining_seconds: Callable[[], float] = lambda: float("inf"),
        retry_follows: bool = False,
    ) -> None:
        if not is_document_id(document_id):
            raise ValueError(
                f"document_id is {document_id!r}; it is a string of 1 to {MAX_DOCUMENT_ID_LENGTH} characters without"
                " control characters, or nobody could watch it."
            )
        if joined and run_id is None:
            raise ValueError("A joined tracker needs the run_id of the run it counts pages for.")
        self.document_id = document_id
        self.run_id = run_id or uuid.uuid4().hex
        self.owner = owner
        self._store = store
        self._deliver = deliver
        self._joined = joined
        self._interval_seconds = 1.0 / max_messages_per_second
        self._remaining_seconds = remaining_seconds
        self._retry_follows = retry_follows

        self._started = joined
        self._attempt: int | None = None
        self._start_id = uuid.uuid4().hex
        self._tally = Tally("")
        self._ended = False
        self._sender = Sender(self._wait_seconds, self._update)
        self._pending_pages = 0
        self._last_written_at = time.monotonic()
        self._due_at = time.monotonic() + (0.0 if joined else self._interval_seconds)
        self._sender_error: Exception | None = None

    def start(self, total: int) -> None:
        """Begin, with no pages processed.

        Raises:
            AlreadyProcessed: this run has ended: a repeated event.
            BeingProcessed: another worker is on this run; try again later.
            ValueError: total is no whole number from 1 up.
            RuntimeError: it has started; a retry needs a tracker of its own.
        """
        _require_count("total", total, least=1)
        if self._started:
            raise RuntimeError(
                f"start() on document {self.document_id!r}, which has started; a retry has its own tracker."
            )
        state = self._begin(total)
        self._due_at = time.monotonic() + self._interval_seconds
        self._start_sender()
        self._send(state, PROGRESS_DELIVERY_SECONDS)

    def advance(self, pages: int = 1) -> None:
        """Count pages as processed. Returns at once; watchers hear as often as the rate allows.

        Raises:
            Superseded: the document has ended or was started anew elsewhere; stop working on it.
            DeliveryRefused: an earlier update could not be sent for a reason that will not pass.
            ValueError: pages is no whole number from 0 up.
        """
        _require_count("pages", pages, least=0)
        self._require_started("advance")
        with self._sender.changed:
            self._raise_sender_error()
            self._pending_pages += pages
            self._start_sender()
            self._sender.changed.notify()

    def require_current(self) -> None:
        """Before a step that cannot be undone, such as writing the result. Raises Superseded."""
        self._require_started("require_current")
        self._persist(lambda: self._store.heartbeat(self.document_id, run_id=self.run_id, attempt=self._attempt))

    def complete(self) -> None:
        """End well. The last update, with all pages counted, is sent before this returns."""
        self._require_started("complete")
        self._finish(None)

    def fail(self, failure: Failure) -> None:
        """End in an error that watchers are told. Works before `start` too, for a file that cannot be opened."""
        if not self._started:
            self._begin(total=0)
        self._finish(failure)

    def __enter__(self) -> Self:
        if self._joined:
            self._start_sender()  # a first page may take longer than a document may be silent
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if error is None:
            if self._joined:
                self._leave()
            elif self._started:
                self.complete()
        elif isinstance(error, StartRefused | Superseded):
            self._stop_sender()
        else:
            self._fail_after(error)

    def _fail_after(self, error: BaseException) -> None:
        """Fail the document; whatever comes of it, the worker's own exception is the one that goes on."""
        failure = (
            Failure("Processing failed. It may be tried again.", recoverable=True)
            if self._retry_follows
            else Failure("Processing failed.")
        )
        try:
            self.fail(failure)
        except (StartRefused, Superseded) as refused:
            logger.info("Not failing the document: %s", refused, extra=self._ids())
        except Exception:
            logger.exception("The failure %s could not be reported", type(error).__name__, extra=self._ids())

    def _begin(self, total: int) -> DocumentState:
        state = self._store.start(
            self.document_id,
            run_id=self.run_id,
            total=total,
            owner=self.owner,
            abandoned_after_seconds=ABANDONED_AFTER_SECONDS,
            write_id=self._start_id,
        )
        self._started = True
        self._attempt = state.attempt
        return state

    def _finish(self, failure: Failure | None) -> None:
        pages = self._stop_sender()
        state = self._end(pages, failure)
        self._send(state, FINAL_DELIVERY_SECONDS)

    def _end(self, pages: int, failure: Failure | None) -> DocumentState:
        write_id = uuid.uuid4().hex
        return self._persist(
            lambda: self._store.finish(
                self.document_id,
                run_id=self.run_id,
                attempt=self._attempt,
                pages=pages,
                failure=failure,
                tally=self._tally,
                write_id=write_id,
            )
        )

    def _leave(self) -> None:
        """Hand in the last pages of a joined tracker; whoever hands in the last of all completes the run."""
        pages = self._stop_sender()
        try:
            state = self._persist(lambda: self._advance(pages, not_within_seconds=0.0))
            if state and state.processed >= state.total:
                state = self._end(0, None)
        except Superseded:
            # Two workers may both see the last page counted; the other one has completed the document.
            return
        if state:
            self._send(state, FINAL_DELIVERY_SECONDS)
        if state and state.is_active and self._tally.counted:
            self._forget_tally()

    def _forget_tally(self) -> None:
        try:
            self._store.leave(self.document_id, run_id=self.run_id, worker=self._tally.worker)
        except StoreUnavailable as error:
            # A few bytes of the row, until the run ends.
            logger.info("The tally of a worker that left stays behind: %s", error, extra=self._ids())

    def _stop_sender(self) -> int:
        """Wait for the update under way; returns the pages not yet counted in the table."""
        self._ended = True
        self._sender.stop()
        return self._pending_pages

    def _start_sender(self) -> None:
        if not self._sender.is_started:
            self._last_written_at = time.monotonic()
            # A document's row holds one for each worker: 48 bits are enough to tell thousands apart. Made here, so that
            # children forked from one tracker are workers of their own.
            self._tally = Tally(secrets.token_urlsafe(6))
            self._sender.start()

    def _wait_seconds(self) -> float:
        """Until the next update or heartbeat is due."""
        due_at = self._due_at if self._pending_pages else self._last_written_at + HEARTBEAT_SECONDS
        return due_at - time.monotonic()

    def _update(self) -> bool:
        """Write and tell; whether the sender may go on."""
        with self._sender.changed:
            pages, self._pending_pages = self._pending_pages, 0
        try:
            state = self._write(pages)
            self._last_written_at = time.monotonic()
            if state:
                # Set before sending: the rate is of starts, and a slow fan-out must not slow it further.
                self._due_at = self._last_written_at + self._interval_seconds
                self._send(state, PROGRESS_DELIVERY_SECONDS)
        except Exception as error:
            # The worker's next page raises it, but the last page may be behind it.
            if not isinstance(error, Superseded):
                logger.exception("No more updates until the last", extra=self._ids())
            with self._sender.changed:
                self._sender_error = error
            return False
        return True

    def _write(self, pages: int) -> DocumentState | None:
        """Write pages, or a sign of life; what could not be written is pending again."""
        try:
            if not pages:
                self._store.heartbeat(self.document_id, run_id=self.run_id, attempt=self._attempt)
                return None
            state = self._advance(pages, not_within_seconds=self._interval_seconds)
        except StoreUnavailable as error:
            logger.warning("Progress is not recorded, will retry: %s", error, extra=self._ids())
            state = None
        except Exception as error:
            if not isinstance(error, Superseded):  # those are of a run that has ended
                self._put_back(pages)
            raise
        if state is None:
            self._put_back(pages)
        return state

    def _advance(self, pages: int, *, not_within_seconds: float) -> DocumentState | None:
        state = self._store.advance(
            self.document_id,
            run_id=self.run_id,
            attempt=self._attempt,
            pages=pages,
            not_within_seconds=not_within_seconds,
            tally=self._tally,
        )
        if state:
            self._tally = self._tally._replace(counted=self._tally.counted + pages)
        return state

    def _persist(self, write: Callable[[], _Written]) -> _Written:
        """A write that no later one makes up for: tried again for as long as there is time."""
        give_up_at = time.monotonic() + self._bounded(FINAL_DELIVERY_SECONDS)
        while True:
            try:
                return write()
            except StoreUnavailable:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(random.uniform(0.02, 0.5))  # noqa: S311

    def _put_back(self, pages: int) -> None:
        with self._sender.changed:
            self._pending_pages += pages
            # Parallel workers of one document take turns by chance rather than in lockstep.
            self._due_at = time.monotonic() + self._interval_seconds * random.uniform(0.5, 1.5)  # noqa: S311

    def _send(self, state: DocumentState, seconds: float) -> None:
        try:
            self._deliver(state, self._bounded(seconds))
        except StoreUnavailable as error:
            # The state stands in the table: the next update, or whoever asks again, gets it.
            logger.warning("The watchers could not be read: %s", error, extra=self._ids())

    def _bounded(self, seconds: float) -> float:
        return max(0.0, min(seconds, self._remaining_seconds() - RESERVED_SECONDS))

    def _require_started(self, action: str) -> None:
        if not self._started or self._ended:
            state = "has ended" if self._ended else "has not started"
            raise RuntimeError(f"{action}() on document {self.document_id!r}, which {state}.")

    def _raise_sender_error(self) -> None:
        if self._sender_error is not None:
            raise self._sender_error

    def _ids(self) -> dict[str, str]:
        return {"document_id": self.document_id, "run_id": self.run_id}


def _require_count(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; it is a whole number from {least} up.")
