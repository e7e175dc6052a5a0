"""The states of documents in the table: what a worker writes, and which documents nobody writes any more."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from docprogress.document import (
    MAX_ORDER,
    NO_RUN,
    RETRY_WITHIN_SECONDS,
    Beginning,
    DocumentState,
    ErrorCode,
    Failure,
    Ownership,
    Run,
    Status,
    Update,
    composed,
)
from docprogress.errors import AlreadyProcessed, BeingProcessed, Cancelled, DocumentExists, StoreUnavailable, Superseded
from docprogress.table.client import ConditionFailed, Table, failures
from docprogress.table.items import (
    ACTIVE_SHARDS,
    BY_ACTIVITY,
    PAST_RUNS,
    Item,
    document_id_of,
    heard_at_of,
    is_past_run,
    ownership_of,
    state_key,
    state_of,
    state_values,
)
from docprogress.table.update_item import UpdateItem
from docprogress.table.writes import (
    AT_WORK,
    SILENT,
    Moment,
    is_held,
    missed_pages,
    publication,
    require_due,
    require_held,
    superseded,
    taking_up,
    without_pages,
)

# A clock that differs from the table's by more is not believed; less is the way to the table and back.
_TOLERATED_MS = 5_000

_STOPPED = "The worker stopped before the document was done."
_RETRY_MINUTES = f"{RETRY_WITHIN_SECONDS / 60:.0f} minutes"
STALLED_AND_TRIED_AGAIN = Failure(
    f"{_STOPPED} It is tried again within {_RETRY_MINUTES}.", ErrorCode.PROCESSING_STALLED, recoverable=True
)
CANCELLED = Failure("The document was cancelled.", ErrorCode.CANCELLED)
STALLED = Failure(f"{_STOPPED} Send the document again.", ErrorCode.PROCESSING_STALLED)


class SilentDocument(NamedTuple):
    """updated_at: epoch milliseconds of its last write, in steps."""

    document_id: str
    updated_at: int


class Settled(NamedTuple):
    """is_new: the state has only now been written. Otherwise it was found, and not everyone was told."""

    state: DocumentState
    is_new: bool


class States:
    """Reads and writes the states of documents. Its writes may raise StoreUnavailable.

    Args:
        document_retention_seconds: how long a state is kept after its last change.
        now: epoch seconds. None: the table's own time.
    """

    def __init__(
        self,
        table: Table,
        *,
        document_retention_seconds: int = 24 * 3600,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._table = table
        self._document_retention_seconds = document_retention_seconds
        self._now = now or table.now

    def read(self, document_id: str) -> DocumentState | None:
        item = self._live(document_id)
        return state_of(item) if item else None

    def ownership(self, document_id: str) -> Ownership | None:
        """Whose a document is, by a read that costs the same whether there is one and whatever is in it."""
        item = self._live(document_id, "status", "owner", "expires_at")
        return ownership_of(item) if item else None

    def _live(self, document_id: str, *attributes: str) -> Item | None:
        item = self._table.get(state_key(document_id), *attributes)
        return None if item is None or int(item["expires_at"]["N"]) <= self._now() else item

    def find(self, document_id: str) -> DocumentState | None:
        """The same with the right to query alone, as those have who tell the watchers."""
        key = state_key(document_id)
        with failures():
            found = self._table.client.query(
                TableName=self._table.name,
                KeyConditionExpression="pk = :pk AND sk = :sk",
                ExpressionAttributeValues={":pk": key["pk"], ":sk": key["sk"]},
                ConsistentRead=True,
            )["Items"]
        return self._current(found[0] if found else None)

    def _current(self, item: Item | None) -> DocumentState | None:
        if item is None or int(item["expires_at"]["N"]) <= self._now():
            return None
        return state_of(item)

    def expect(self, document_id: str, *, owner: str) -> None:
        """Note whose a document will be, so that its owner can watch it before it starts.

        Raises:
            DocumentExists: there is such a document; nothing was written.
        """
        document_id = composed(document_id)
        try:
            self._table.put(
                {
                    **state_key(document_id),
                    "status": {"S": Status.PENDING.value},
                    "run_id": {"S": NO_RUN},
                    "owner": {"S": owner},
                    **self._moment().times(document_id),
                },
                ConditionExpression="attribute_not_exists(pk) OR expires_at <= :now",
                ExpressionAttributeValues={":now": {"N": str(int(self._now()))}},
            )
        except ConditionFailed as failed:
            raise DocumentExists(document_id) from failed

    # --- what a worker writes; see docprogress.store ---

    def begin(self, run: Run, beginning: Beginning) -> DocumentState:
        began_at = self._now_ms()
        order = began_at if beginning.order is None else beginning.order
        while True:
            write = taking_up(run, order, beginning, self._moment(), retries_before=None)
            write.when("attribute_not_exists(#pk) OR #run_id <> :run")
            write.when("attribute_not_exists(#run_order) OR #run_order <= :order")
            for earlier, run_on_row in zip(PAST_RUNS, ("run_id", *PAST_RUNS), strict=False):
                write.compute(**{earlier: f"if_not_exists(#{run_on_row}, :no_run)"})
            if beginning.order is None:
                write.when(f"NOT :run IN ({', '.join(f'#{name}' for name in PAST_RUNS)})")
            # Cancelled before anyone had begun: this is the run that must not be.
            write.when("NOT (#run_id = :no_run AND #status = :error)")
            try:
                state = self._write(run.document_id, write, beginning.write_id)
                break
            except ConditionFailed as failed:
                found = _row_met(failed)
            if found["run_id"]["S"] == NO_RUN:
                self._give_run(run, order)
                raise Cancelled(f"document {run.document_id!r} was cancelled before it began", state_of(found))
            if found["run_id"]["S"] == run.run_id:
                state = self._begin_again(run, found, order, beginning)
                break
            if beginning.order is not None or is_past_run(found, run.run_id):
                raise Superseded(f"a newer run of document {run.document_id!r} than {run.run_id} has begun")
            # It begins only now, so it is the newest, whatever orders or clocks those before it had.
            order = min(int(found["run_order"]["N"]) + 1, MAX_ORDER)
        if abs(self._now_ms() - began_at) > _TOLERATED_MS:
            # The table's answer has put the clock right.
            self.heartbeat(run._replace(attempt=state.attempt))
        return state

    def _give_run(self, run: Run, order: int) -> None:
        """Let a document that was cancelled before it began be of this run, so that the next one may begin."""
        write = UpdateItem().set({"run_id": {"S": run.run_id}, "run_order": {"N": str(order)}})
        write.when("#run_id = :no_run").given(no_run=NO_RUN)
        with suppress(ConditionFailed):
            self._table.update(state_key(run.document_id), **write.arguments())

    def _begin_again(self, run: Run, found: Item, order: int, beginning: Beginning) -> DocumentState:
        """The next attempt at a run, if the one before has failed or is silent."""
        write = taking_up(run, order, beginning, self._moment(), retries_before=state_of(found).retries_left)
        write.compute(run_order="if_not_exists(#run_order, :order)")
        write.when("#run_id = :run")
        write.when(f"(#status = :error AND #recoverable = :true) OR ({AT_WORK} AND ({SILENT}))")
        write.given(true=True, silent=self._now_ms() - int(beginning.abandoned_after_seconds * 1000))
        try:
            return self._write(run.document_id, write, beginning.write_id)
        except ConditionFailed as failed:
            if state_of(_row_met(failed)).has_ended:
                raise AlreadyProcessed(f"run {run.run_id} of document {run.document_id!r} has ended") from None
            raise BeingProcessed(f"another worker is on run {run.run_id} of document {run.document_id!r}") from None

    def write(self, run: Run, update: Update, *, not_within_seconds: float = 0.0) -> DocumentState | None:
        while True:
            write = publication(run.document_id, update, self._moment())
            require_held(write, run)
            if not_within_seconds:
                require_due(write, not_within_seconds, self._moment())
            try:
                return self._write(run.document_id, write, update.write_id)
            except ConditionFailed as failed:
                found = failed.item
            if not is_held(found, run):
                raise superseded(run, found)
            missed = missed_pages(found, update.tally)
            if update.tally is None or missed == 0:
                return None
            if missed < 0:
                # A new attempt has cleared the tallies.
                raise superseded(run, found)
            # An earlier write was made after all, and its answer was lost: the rest is still to be written.
            update = without_pages(update, missed)
            if not update.pages and not update.says_more_than_pages and update.status is Status.PROGRESS:
                return state_of(found)

    def heartbeat(self, run: Run, *, owner: str | None = None) -> int:
        write = UpdateItem().set(self._moment().times(run.document_id)).set(state_values(owner=owner))
        require_held(write, run)
        try:
            return state_of(self._table.update(state_key(run.document_id), **write.arguments())).attempt
        except ConditionFailed as failed:
            raise superseded(run, failed.item) from None

    def leave(self, run: Run, worker: str) -> None:
        write = UpdateItem().remove("tallies.#worker").named(worker=worker).given(run=run.run_id)
        write.when("#run_id = :run AND attribute_exists(tallies.#worker)")
        with suppress(ConditionFailed):
            self._table.update(state_key(run.document_id), **write.arguments())

    # --- what others than a worker write ---

    def cancel(self, document_id: str, *, principal_id: str | None) -> DocumentState | None:
        """End a document's run, or keep it from beginning. The worker that is on it learns of it by its next write.

        Args:
            principal_id: who asks; see `access.may_cancel`.

        Returns:
            The state that it has now: cancelled, or the end that it had reached before. None where there is no such
            document, so that it is not the principal's.
        """
        write = publication(document_id, Update(status=Status.ERROR, failure=CANCELLED), self._moment())
        write.compute(run_id="if_not_exists(#run_id, :no_run)")
        write.when(f"attribute_not_exists(#pk) OR {AT_WORK} OR (#status = :error AND #recoverable = :true)")
        # Looked at before; nobody's document may have become somebody's since.
        write.when("attribute_not_exists(#owner)" if principal_id is None else "#owner = :principal")
        write.given(no_run=NO_RUN, true=True, principal=principal_id or "")
        try:
            return self._write(document_id, write)
        except ConditionFailed as failed:
            return state_of(failed.item) if failed.item else None

    # --- documents that nobody writes any more ---

    def announced(self, state: DocumentState) -> None:
        """Note that all who watch a document were told its end, so that the watchdog need not tell them."""
        write = UpdateItem().when("#sequence = :sequence").given(sequence=state.sequence)
        if state.is_final:
            write.remove("active_shard")
        else:
            write.set({"announced": {"N": str(state.sequence)}})
        with suppress(ConditionFailed):
            self._table.update(state_key(state.document_id), **write.arguments())

    def silent_documents(self, silent_seconds: float) -> Iterator[SilentDocument]:
        """Documents that are active and were not written for so long, or by up to a step less."""
        for number in range(ACTIVE_SHARDS):
            pages = self._table.client.get_paginator("query").paginate(
                TableName=self._table.name,
                IndexName=BY_ACTIVITY,
                KeyConditionExpression="active_shard = :shard AND updated_at < :before",
                ExpressionAttributeValues={
                    ":shard": {"S": f"ACTIVE#{number}"},
                    ":before": {"N": str(self._now_ms() - int(silent_seconds * 1000))},
                },
            )
            unread = iter(pages)
            while True:
                with failures():
                    page = next(unread, None)
                if page is None:
                    break
                for item in page["Items"]:
                    yield SilentDocument(document_id_of(item), int(item["updated_at"]["N"]))

    def settle(self, silent: SilentDocument, silent_seconds: float, *, again: bool = False) -> Settled | None:
        """End the run of a silent document, or find out which end of it not everyone was told.

        Args:
            again: write an end that was not told once more, so that the table's stream gives it again.

        Returns:
            The state to tell. None where there is nothing to tell: it was heard of meanwhile, or is tried again.
        """
        # A first write that needs no read: most of those that are silent were killed, and are tried again.
        stalled = Update(status=Status.ERROR, failure=STALLED_AND_TRIED_AGAIN)
        before = self._now_ms() - int(silent_seconds * 1000)
        write = publication(silent.document_id, stalled, self._moment())
        write.when(f"{AT_WORK} AND attribute_exists(#active_shard) AND #retries_left > :zero").when(SILENT)
        write.given(silent=before, zero=0)
        try:
            return Settled(self._write(silent.document_id, write), is_new=True)
        except ConditionFailed as failed:
            found = failed.item
        if "active_shard" not in found or heard_at_of(found) >= before:
            return None
        state = state_of(found)
        if not state.has_ended:
            return self._settle(found, Update(status=Status.ERROR, failure=STALLED))
        waiting = heard_at_of(found) > self._now_ms() - RETRY_WITHIN_SECONDS * 1000
        if state.failure and state.failure.recoverable and not waiting:
            failure = Failure(f"{state.failure.message} It was not tried again.", state.failure.code)
            return self._settle(found, Update(status=Status.ERROR, failure=failure))
        if "announced" in found and int(found["announced"]["N"]) == state.sequence:
            return None
        if again:
            return self._settle(found, Update(status=state.status))
        return Settled(state, is_new=False)

    def _settle(self, found: Item, update: Update) -> Settled | None:
        """Publish, unless the row has changed since it was found."""
        write = publication(document_id_of(found), update, self._moment())
        write.when("#updated_at = :updated_at AND (attribute_not_exists(#heard_at) OR #heard_at = :heard_at)")
        write.given(updated_at=int(found["updated_at"]["N"]), heard_at=heard_at_of(found))
        try:
            return Settled(self._write(document_id_of(found), write), is_new=True)
        except ConditionFailed:
            return None

    # --- writing ---

    def _write(self, document_id: str, write: UpdateItem, write_id: str | None = None) -> DocumentState:
        """Raises ConditionFailed."""
        write_id = write_id or uuid.uuid4().hex
        write.set({"write_id": {"S": write_id}})
        write.when("attribute_not_exists(#write_id) OR #write_id <> :set_write_id")
        try:
            return state_of(self._table.update(state_key(document_id), **write.arguments()))
        except ConditionFailed as failed:
            # The write was made and its answer was lost on the way: boto3 has repeated it.
            if failed.item.get("write_id") != {"S": write_id}:
                raise
            return state_of(failed.item)

    def _moment(self) -> Moment:
        return Moment(self._now_ms(), self._document_retention_seconds)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _row_met(failed: ConditionFailed) -> Item:
    if not failed.item:  # it was deleted meanwhile, at the end of its time
        raise StoreUnavailable("The row that kept the write from being made is gone.") from failed
    return failed.item
