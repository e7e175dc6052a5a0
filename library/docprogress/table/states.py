"""The states of documents in the table: what a worker writes, and which documents nobody writes any more."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from docprogress.document import (
    RETRY_WITHIN_SECONDS,
    DocumentState,
    ErrorCode,
    Failure,
    Ownership,
    Run,
    Status,
    Tally,
    Update,
    composed,
    retries_left,
)
from docprogress.errors import AlreadyProcessed, BeingProcessed, Cancelled, DocumentExists, Superseded
from docprogress.table.client import ConditionFailed, Table, failures
from docprogress.table.items import (
    ACTIVE_SHARDS,
    BY_ACTIVITY,
    NO_RUN,
    PAST_RUNS,
    SAID_BY_A_RUN,
    Item,
    active_shard,
    activity_step,
    document_id_of,
    heard_at_of,
    is_past_run,
    ownership_of,
    state_key,
    state_of,
    state_values,
)
from docprogress.table.update_item import UpdateItem

# A document that was taken up and has not ended. An expected one is pending too, and nobody's run.
_AT_WORK = "#status IN (:pending, :started, :progress)"
_STATUSES = {
    "pending": Status.PENDING.value,
    "started": Status.STARTED.value,
    "progress": Status.PROGRESS.value,
    "error": Status.ERROR.value,
}
_SILENT = "#heard_at < :silent OR (attribute_not_exists(#heard_at) AND #updated_at < :silent)"
# A clock that differs from the table's by more is not believed; less is the way to the table and back.
_TOLERATED_MS = 5_000
# Published in the future by more than this is the doing of such a clock, and holds up nobody.
_AHEAD_MS = 1_000

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
                    **self._times(document_id),
                },
                ConditionExpression="attribute_not_exists(pk) OR expires_at <= :now",
                ExpressionAttributeValues={":now": {"N": str(int(self._now()))}},
            )
        except ConditionFailed as failed:
            raise DocumentExists(document_id) from failed

    # --- what a worker writes; see StateStore in docprogress.tracker ---

    def begin(
        self,
        run: Run,
        *,
        order: int | None,
        owner: str | None,
        retry_follows: bool | int,
        abandoned_after_seconds: float,
        write_id: str,
    ) -> DocumentState:
        began_at = self._now_ms()
        number = began_at if order is None else order
        while True:
            write = self._taking_up(run, number, owner, write_id)
            write.set({"retries_left": {"N": str(retries_left(retry_follows, before=None))}})
            write.when("attribute_not_exists(#pk) OR #run_id <> :run")
            write.when("attribute_not_exists(#run_order) OR #run_order <= :order")
            for earlier, run_on_row in zip(PAST_RUNS, ("run_id", *PAST_RUNS), strict=False):
                write.compute(**{earlier: f"if_not_exists(#{run_on_row}, :no_run)"})
            if order is None:
                write.when(f"NOT :run IN ({', '.join(f'#{name}' for name in PAST_RUNS)})")
            # Cancelled before anyone had begun: this is the run that must not be.
            write.when("NOT (#run_id = :no_run AND #status = :error)")
            try:
                state = self._write(run.document_id, write, write_id)
                break
            except ConditionFailed as failed:
                found = failed.item
            if found["run_id"]["S"] == NO_RUN:
                self._give_run(run, number)
                raise Cancelled(f"document {run.document_id!r} was cancelled before it began", state_of(found))
            if found["run_id"]["S"] == run.run_id:
                state = self._begin_again(run, found, number, owner, retry_follows, abandoned_after_seconds, write_id)
                break
            if order is not None or is_past_run(found, run.run_id):
                raise Superseded(f"a newer run of document {run.document_id!r} than {run.run_id} has begun")
            # It begins only now, so it is the newest, whatever orders or clocks those before it had.
            number = int(found["run_order"]["N"]) + 1
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

    def _begin_again(
        self,
        run: Run,
        found: Item,
        order: int,
        owner: str | None,
        retry_follows: bool | int,
        abandoned_after_seconds: float,
        write_id: str,
    ) -> DocumentState:
        """The next attempt at a run, if the one before has failed or is silent."""
        write = self._taking_up(run, order, owner, write_id)
        write.compute(run_order="if_not_exists(#run_order, :order)")
        left = retries_left(retry_follows, before=state_of(found).retries_left)
        write.set({"retries_left": {"N": str(left)}})
        write.when("#run_id = :run")
        write.when(f"(#status = :error AND #recoverable = :true) OR ({_AT_WORK} AND ({_SILENT}))")
        write.given(true=True, silent=self._now_ms() - int(abandoned_after_seconds * 1000))
        try:
            return self._write(run.document_id, write, write_id)
        except ConditionFailed as failed:
            if state_of(failed.item).has_ended:
                raise AlreadyProcessed(f"run {run.run_id} of document {run.document_id!r} has ended") from None
            raise BeingProcessed(f"another worker is on run {run.run_id} of document {run.document_id!r}") from None

    def _taking_up(self, run: Run, order: int, owner: str | None, write_id: str) -> UpdateItem:
        write = UpdateItem().set(
            {
                "status": {"S": Status.PENDING.value},
                "run_id": {"S": run.run_id},
                "run_order": {"N": str(order)},
                "pages_processed": {"N": "0"},
                "tallies": {"M": {}},
                "active_shard": active_shard(run.document_id),
                "write_id": {"S": write_id},
                **state_values(owner=owner),
                **self._times(run.document_id),
            }
        )
        write.compute(attempt="if_not_exists(#attempt, :none) + :one").remove(*SAID_BY_A_RUN)
        return write.given(run=run.run_id, no_run=NO_RUN, order=order, none=0, one=1, **_STATUSES)

    def write(self, run: Run, update: Update, *, not_within_seconds: float = 0.0) -> DocumentState | None:
        while True:
            write = self._publication(run.document_id, update)
            _require_held(write, run)
            if not_within_seconds:
                now = self._now_ms()
                write.when("attribute_not_exists(#published_at) OR NOT #published_at BETWEEN :due AND :ahead")
                write.given(due=now - int(not_within_seconds * 1000) + 1, ahead=now + _AHEAD_MS)
            try:
                return self._write(run.document_id, write, update.write_id)
            except ConditionFailed as failed:
                found = failed.item
            if not _is_held(found, run):
                raise _superseded(run, found)
            missed = _missed(found, update.tally)
            if update.tally is None or missed == 0:
                return None
            if missed < 0:
                # A new attempt has cleared the tallies.
                raise _superseded(run, found)
            # An earlier write was made after all, and its answer was lost: the rest is still to be written.
            update = _without(update, missed)
            if not update.pages and not update.says_more_than_pages and update.status is Status.PROGRESS:
                return state_of(found)

    def heartbeat(self, run: Run, *, owner: str | None = None) -> int:
        write = UpdateItem().set(self._times(run.document_id)).set(state_values(owner=owner)).given(**_STATUSES)
        _require_held(write, run)
        try:
            return state_of(self._table.update(state_key(run.document_id), **write.arguments())).attempt
        except ConditionFailed as failed:
            raise _superseded(run, failed.item) from None

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
        write = self._publication(document_id, Update(status=Status.ERROR, failure=CANCELLED))
        write.compute(run_id="if_not_exists(#run_id, :no_run)")
        write.when(f"attribute_not_exists(#pk) OR {_AT_WORK} OR (#status = :error AND #recoverable = :true)")
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

    def settle(self, silent: SilentDocument, silent_seconds: float, *, again: bool = False) -> DocumentState | None:
        """End the run of a silent document, or find out which end of it not everyone was told.

        Args:
            again: write an end that was not told once more, so that the table's stream gives it again.

        Returns:
            The state to tell. None where there is nothing to tell: it was heard of meanwhile, or is tried again.
        """
        # A first write that needs no read: most of those that are silent were killed, and are tried again.
        stalled = Update(status=Status.ERROR, failure=STALLED_AND_TRIED_AGAIN)
        before = self._now_ms() - int(silent_seconds * 1000)
        write = self._publication(silent.document_id, stalled)
        write.when(f"{_AT_WORK} AND attribute_exists(#active_shard) AND #retries_left > :zero").when(_SILENT)
        write.given(silent=before, zero=0)
        try:
            return self._write(silent.document_id, write)
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
            return self._settle(found, Update(status=state.status, failure=state.failure))
        return state

    def _settle(self, found: Item, update: Update) -> DocumentState | None:
        """Publish, unless the row has changed since it was found."""
        write = self._publication(document_id_of(found), update)
        write.when("#updated_at = :updated_at AND (attribute_not_exists(#heard_at) OR #heard_at = :heard_at)")
        write.when("#status = :found")
        write.given(updated_at=int(found["updated_at"]["N"]), heard_at=heard_at_of(found), found=found["status"]["S"])
        try:
            return self._write(document_id_of(found), write)
        except ConditionFailed:
            return None

    # --- writing ---

    def _publication(self, document_id: str, update: Update) -> UpdateItem:
        """A state that watchers will hear of, under the next sequence."""
        # Epoch milliseconds to begin with: a row that has expired takes its sequence along, and tabs that are open do
        # not forget it. At most some states a second: the sequence never overtakes the clock.
        write = UpdateItem().compute(sequence="if_not_exists(#sequence, :now) + :one")
        write.given(now=self._now_ms(), one=1, **_STATUSES)
        write.set({"status": {"S": update.status.value}, "published_at": {"N": str(self._now_ms())}})
        write.set(self._times(document_id))
        write.set(
            state_values(
                total=update.total,
                unit=update.unit,
                owner=update.owner,
                message=update.message,
                phase=update.phase,
                failure=update.failure,
                result=update.result,
                pages_unreadable=update.pages_unreadable,
            )
        )
        if update.status in (Status.COMPLETE, Status.ERROR):
            write.remove("tallies", "message").set({"active_shard": active_shard(document_id)})
        if update.status is Status.COMPLETE:
            write.remove("phase")
        if update.pages:
            write.add(pages_processed=update.pages)
        if update.pages and update.tally:
            _count(write, update.tally, update.pages, is_last=update.status in (Status.COMPLETE, Status.ERROR))
        return write

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

    def _times(self, document_id: str) -> dict[str, Any]:
        now = self._now_ms()
        return {
            "heard_at": {"N": str(now)},
            "updated_at": {"N": str(activity_step(document_id, now))},
            "expires_at": {"N": str(now // 1000 + self._document_retention_seconds)},
        }

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _require_held(write: UpdateItem, run: Run) -> None:
    """The condition under which a worker may write."""
    write.when(f"#run_id = :run AND {_AT_WORK}").given(run=run.run_id)
    if run.attempt is not None:
        write.when("#attempt = :attempt").given(attempt=run.attempt)


def _is_held(item: Item, run: Run) -> bool:
    if not item:
        return False
    state = state_of(item)
    return not state.has_ended and state.run_id == run.run_id and run.attempt in (None, state.attempt)


def _superseded(run: Run, found: Item) -> Superseded:
    state = state_of(found) if found else None
    if state and state.is_cancelled and state.run_id == run.run_id:
        return Cancelled(f"document {run.document_id!r} was cancelled", state)
    return Superseded(f"run {run.run_id} of document {run.document_id!r} has ended or was replaced", state)


def _count(write: UpdateItem, tally: Tally, pages: int, *, is_last: bool) -> None:
    """boto3 repeats a write whose answer was lost, and write_id is another's if one wrote meanwhile."""
    write.named(worker=tally.worker).given(counted=tally.counted, after=tally.counted + pages)
    if not is_last:
        write.compute(**{"tallies.#worker": ":after"})
    write.when("tallies.#worker = :counted" if tally.counted else "attribute_not_exists(tallies.#worker)")


def _missed(item: Item, tally: Tally | None) -> int:
    """How many more of a worker's pages the row has than the worker knows; below 0 if a new start has cleared them."""
    if tally is None:
        return 0
    return int(item.get("tallies", {}).get("M", {}).get(tally.worker, {"N": 0})["N"]) - tally.counted


def _without(update: Update, missed: int) -> Update:
    """What is left to write when so many of its pages are in the table already."""
    tally = update.tally and update.tally._replace(counted=update.tally.counted + missed)
    return update._replace(pages=max(0, update.pages - missed), tally=tally)
