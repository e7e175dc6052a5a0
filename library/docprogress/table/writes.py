"""What each write of a state sets, and what it requires of the row. No I/O, no clock: the moment is given.

PROTOCOL.md, "Writing states", says the same in words.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from docprogress.document import NO_RUN, Beginning, Run, Status, Tally, Update, retries_left
from docprogress.errors import Cancelled, Superseded
from docprogress.table.items import (
    SAID_BY_A_RUN,
    Item,
    active_shard,
    activity_step,
    state_of,
    state_values,
)
from docprogress.table.update_item import UpdateItem

# A document that was taken up and has not ended. An expected one is pending too, and nobody's run.
AT_WORK = "#status IN (:pending, :started, :progress)"
_STATUSES = {
    "pending": Status.PENDING.value,
    "started": Status.STARTED.value,
    "progress": Status.PROGRESS.value,
    "error": Status.ERROR.value,
}
SILENT = "#heard_at < :silent OR (attribute_not_exists(#heard_at) AND #updated_at < :silent)"
# Published in the future by more than this is the doing of a wrong clock, and holds up nobody.
_AHEAD_MS = 1_000


class Moment(NamedTuple):
    """When a write is made, and for how long the row is kept after it. now_ms: epoch milliseconds."""

    now_ms: int
    retention_seconds: int

    def times(self, document_id: str) -> dict[str, Any]:
        return {
            "heard_at": {"N": str(self.now_ms)},
            "updated_at": {"N": str(activity_step(document_id, self.now_ms))},
            "expires_at": {"N": str(self.now_ms // 1000 + self.retention_seconds)},
        }


def taking_up(run: Run, order: int, beginning: Beginning, moment: Moment, *, retries_before: int | None) -> UpdateItem:
    """retries_before: how many were left to the worker before. None for the first one of a run."""
    write = UpdateItem().set(
        {
            "status": {"S": Status.PENDING.value},
            "run_id": {"S": run.run_id},
            "run_order": {"N": str(order)},
            "pages_processed": {"N": "0"},
            "tallies": {"M": {}},
            "active_shard": active_shard(run.document_id),
            "retries_left": {"N": str(retries_left(beginning.retry_follows, before=retries_before))},
            "write_id": {"S": beginning.write_id},
            **state_values(owner=beginning.owner),
            **moment.times(run.document_id),
        }
    )
    write.compute(attempt="if_not_exists(#attempt, :none) + :one").remove(*SAID_BY_A_RUN)
    return write.given(run=run.run_id, no_run=NO_RUN, order=order, none=0, one=1, **_STATUSES)


def publication(document_id: str, update: Update, moment: Moment) -> UpdateItem:
    """A state that watchers will hear of, under the next sequence."""
    # Epoch milliseconds to begin with: a row that has expired takes its sequence along, and tabs that are open do
    # not forget it. At most some states a second: the sequence never overtakes the clock.
    write = UpdateItem().compute(sequence="if_not_exists(#sequence, :now) + :one")
    write.given(now=moment.now_ms, one=1, **_STATUSES)
    write.set({"status": {"S": update.status.value}, "published_at": {"N": str(moment.now_ms)}})
    write.set(moment.times(document_id))
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
            correlation_id=update.correlation_id,
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


def require_held(write: UpdateItem, run: Run) -> None:
    """The condition under which a worker may write."""
    write.when(f"#run_id = :run AND {AT_WORK}").given(run=run.run_id, **_STATUSES)
    if run.attempt is not None:
        write.when("#attempt = :attempt").given(attempt=run.attempt)


def require_due(write: UpdateItem, not_within_seconds: float, moment: Moment) -> None:
    """That the document was not published within so many seconds, by whichever worker."""
    write.when("attribute_not_exists(#published_at) OR NOT #published_at BETWEEN :due AND :ahead")
    write.given(due=moment.now_ms - int(not_within_seconds * 1000) + 1, ahead=moment.now_ms + _AHEAD_MS)


def is_held(item: Item, run: Run) -> bool:
    if not item:
        return False
    state = state_of(item)
    return not state.has_ended and state.run_id == run.run_id and run.attempt in (None, state.attempt)


def superseded(run: Run, found: Item) -> Superseded:
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


def missed_pages(item: Item, tally: Tally | None) -> int:
    """How many more of a worker's pages the row has than the worker knows; below 0 if a new start has cleared them."""
    if tally is None:
        return 0
    return int(item["tallies"]["M"].get(tally.worker, {"N": 0})["N"]) - tally.counted


def without_pages(update: Update, missed: int) -> Update:
    """What is left to write when so many of its pages are in the table already."""
    tally = update.tally and update.tally._replace(counted=update.tally.counted + missed)
    return update._replace(pages=max(0, update.pages - missed), tally=tally)
