"""The states of documents in the table: what a worker writes, and which documents have fallen silent."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from docprogress.document import DocumentState, Failure, Status, Tally
from docprogress.errors import AlreadyProcessed, BeingProcessed, DocumentExists, Superseded
from docprogress.table.client import ConditionFailed, Table
from docprogress.table.items import ACTIVE_SHARDS, BY_ACTIVITY, NO_RUN, Item, document_id_of, shard, state_key, state_of

_ACTIVE = "(#status = :started OR #status = :progress)"
_ACTIVE_VALUES = {":started": {"S": Status.STARTED.value}, ":progress": {"S": Status.PROGRESS.value}}


class SilentDocument(NamedTuple):
    """updated_at: epoch milliseconds of its last write."""

    document_id: str
    updated_at: int


class States:
    """Reads and writes the states of documents.

    Args:
        document_retention_seconds: how long a state is kept after its last change.
        now: epoch seconds.
    """

    def __init__(
        self,
        table: Table,
        *,
        document_retention_seconds: int = 24 * 3600,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._document_retention_seconds = document_retention_seconds
        self._now = now

    def read(self, document_id: str) -> DocumentState | None:
        item = self._table.get(state_key(document_id))
        if item is None or int(item["expires_at"]["N"]) <= self._now():
            return None
        return state_of(item)

    def expect(self, document_id: str, *, owner: str) -> None:
        """Note whose a document will be, so that its owner can watch it before it starts.

        Raises:
            DocumentExists: there is such a document; nothing was written.
        """
        try:
            self._table.put(
                {
                    **state_key(document_id),
                    "status": {"S": Status.PENDING.value},
                    "sequence": {"N": "0"},
                    "total_pages": {"N": "0"},
                    "pages_processed": {"N": "0"},
                    "run_id": {"S": NO_RUN},
                    "owner": {"S": owner},
                    "updated_at": {"N": str(self._now_ms())},
                    "expires_at": {"N": str(int(self._now()) + self._document_retention_seconds)},
                },
                ConditionExpression="attribute_not_exists(pk) OR expires_at <= :now",
                ExpressionAttributeValues={":now": {"N": str(int(self._now()))}},
            )
        except ConditionFailed as failed:
            raise DocumentExists(document_id) from failed

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
        values: dict[str, Any] = {
            ":run": {"S": run_id},
            ":zero": {"N": "0"},
            ":total": {"N": str(total)},
            ":abandoned": {"N": str(self._now_ms() - int(abandoned_after_seconds * 1000))},
            ":shard": {"S": f"ACTIVE#{shard(document_id)}"},
            ":error": {"S": Status.ERROR.value},
            ":true": {"BOOL": True},
            ":nobody": {"M": {}},
        }
        sets = (
            "total_pages = :total, pages_processed = :zero, run_id = :run, active_shard = :shard, tallies = :nobody,"
            " attempt = if_not_exists(attempt, :zero) + :one"
        )
        removes = ["error_code", "error_message", "recoverable"]
        names = {}
        # None leaves the owner that the document was expected with.
        if owner is not None:
            names["#owner"] = "owner"
            values[":owner"] = {"S": owner}
            sets += ", #owner = :owner"
        try:
            return self._publish(
                document_id,
                Status.STARTED,
                sets=sets,
                removes=removes,
                condition=(
                    "attribute_not_exists(pk) OR run_id <> :run"
                    " OR (#status = :error AND recoverable = :true)"
                    f" OR ({_ACTIVE} AND updated_at < :abandoned)"
                ),
                names=names,
                values=values,
                write_id=write_id,
            )
        except ConditionFailed as failed:
            found = state_of(failed.item)
            if found.is_active:
                raise BeingProcessed(f"another worker is on run {run_id} of document {document_id!r}") from None
            raise AlreadyProcessed(f"run {run_id} of document {document_id!r} has ended") from None

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
        condition, values = _held(run_id, attempt)
        if not_within_seconds:
            condition += " AND published_at <= :due"
            values[":due"] = {"N": str(self._now_ms() - int(not_within_seconds * 1000))}
        while True:
            try:
                return self._publish(
                    document_id, Status.PROGRESS, add_pages=pages, tally=tally, condition=condition, values=values
                )
            except ConditionFailed as failed:
                if not _is_held(failed.item, run_id, attempt):
                    raise _superseded(document_id, run_id) from None
                missed = _missed(failed.item, tally)
                if tally is None or missed == 0:
                    return None
                if missed < 0:
                    raise _superseded(document_id, run_id) from None
                if missed >= pages:
                    return state_of(failed.item)
                # An earlier write was made after all: the rest of the pages are still to be counted.
                pages, tally = pages - missed, tally._replace(counted=tally.counted + missed)

    def heartbeat(self, document_id: str, *, run_id: str, attempt: int | None = None) -> None:
        condition, values = _held(run_id, attempt)
        try:
            self._table.update(
                state_key(document_id),
                UpdateExpression="SET updated_at = :now_ms",
                ConditionExpression=condition,
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={**values, **_ACTIVE_VALUES, ":now_ms": {"N": str(self._now_ms())}},
            )
        except ConditionFailed:
            raise _superseded(document_id, run_id) from None

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
        condition, values = _held(run_id, attempt)
        while True:
            try:
                return self._end(
                    document_id,
                    failure,
                    add_pages=pages,
                    tally=tally,
                    condition=condition,
                    values=values,
                    write_id=write_id,
                )
            except ConditionFailed as failed:
                missed = _missed(failed.item, tally)
                if tally is None or missed <= 0 or not _is_held(failed.item, run_id, attempt):
                    raise _superseded(document_id, run_id) from None
                pages, tally = max(0, pages - missed), tally._replace(counted=tally.counted + missed)

    def leave(self, document_id: str, *, run_id: str, worker: str) -> None:
        """Forget the tally of a worker that counts no more, so that the row does not grow with all who ever did."""
        with suppress(ConditionFailed):
            self._table.update(
                state_key(document_id),
                UpdateExpression="REMOVE tallies.#worker",
                ConditionExpression="run_id = :run AND attribute_exists(tallies.#worker)",
                ExpressionAttributeNames={"#worker": worker},
                ExpressionAttributeValues={":run": {"S": run_id}},
            )

    def silent_documents(self, silent_seconds: float) -> Iterator[SilentDocument]:
        """Documents that have started, not ended, and were not written for so long."""
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
            for page in pages:
                for item in page["Items"]:
                    yield SilentDocument(document_id_of(item), int(item["updated_at"]["N"]))

    def end_silent(self, silent: SilentDocument, failure: Failure) -> DocumentState | None:
        """End a document's run. None, and nothing written, when it was heard of meanwhile."""
        try:
            return self._end(
                silent.document_id,
                failure,
                condition=f"updated_at = :seen AND {_ACTIVE}",
                values={":seen": {"N": str(silent.updated_at)}},
            )
        except ConditionFailed:
            return None

    def _end(
        self,
        document_id: str,
        failure: Failure | None,
        *,
        condition: str,
        values: Mapping[str, Any],
        add_pages: int = 0,
        tally: Tally | None = None,
        write_id: str | None = None,
    ) -> DocumentState:
        sets = ""
        if failure:
            sets = "error_code = :code, error_message = :message, recoverable = :recoverable"
            values = {
                **values,
                ":code": {"S": failure.code.value},
                ":message": {"S": failure.message},
                ":recoverable": {"BOOL": failure.recoverable},
            }
        return self._publish(
            document_id,
            Status.ERROR if failure else Status.COMPLETE,
            add_pages=add_pages,
            tally=tally,
            sets=sets,
            removes=["active_shard", "tallies"],
            condition=condition,
            values=values,
            write_id=write_id,
        )

    def _publish(
        self,
        document_id: str,
        status: Status,
        *,
        condition: str,
        values: Mapping[str, Any],
        sets: str = "",
        add_pages: int = 0,
        tally: Tally | None = None,
        removes: Sequence[str] = (),
        names: Mapping[str, str] | None = None,
        write_id: str | None = None,
    ) -> DocumentState:
        """One conditional write of a state that watchers will hear of, under the next sequence."""
        now_ms = self._now_ms()
        write_id = write_id or uuid.uuid4().hex
        names = {"#status": "status", "#sequence": "sequence", **(names or {})}
        expression = (
            "SET #status = :status, #sequence = if_not_exists(#sequence, :none) + :one,"
            " updated_at = :now_ms, published_at = :now_ms, expires_at = :expires, write_id = :write"
        )
        values = {
            **values,
            ":status": {"S": status.value},
            ":none": {"N": "0"},
            ":one": {"N": "1"},
            ":now_ms": {"N": str(now_ms)},
            ":write": {"S": write_id},
            ":expires": {"N": str(int(self._now()) + self._document_retention_seconds)},
            **_ACTIVE_VALUES,
        }
        if sets:
            expression += f", {sets}"
        if add_pages and tally:
            # boto3 repeats a write whose answer was lost, and write_id is another's if one wrote meanwhile.
            names["#worker"] = tally.worker
            if "tallies" not in removes:
                expression += ", tallies.#worker = :after"
                values[":after"] = {"N": str(tally.counted + add_pages)}
            if tally.counted:
                condition += " AND tallies.#worker = :counted"
                values[":counted"] = {"N": str(tally.counted)}
            else:
                condition += " AND attribute_not_exists(tallies.#worker)"
        if removes:
            expression += f" REMOVE {', '.join(removes)}"
        if add_pages:
            expression += " ADD pages_processed :pages"
            values[":pages"] = {"N": str(add_pages)}
        try:
            item = self._table.update(
                state_key(document_id),
                UpdateExpression=expression,
                ConditionExpression=f"({condition}) AND (attribute_not_exists(write_id) OR write_id <> :write)",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except ConditionFailed as failed:
            # The write was made and its answer was lost on the way: boto3 has repeated it.
            if failed.item.get("write_id") != {"S": write_id}:
                raise
            item = failed.item
        return state_of(item)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _held(run_id: str, attempt: int | None) -> tuple[str, dict[str, Any]]:
    """The condition under which a worker may write, and its values."""
    condition = f"run_id = :run AND {_ACTIVE}"
    values: dict[str, Any] = {":run": {"S": run_id}}
    if attempt is not None:
        condition += " AND attempt = :attempt"
        values[":attempt"] = {"N": str(attempt)}
    return condition, values


def _is_held(item: Item, run_id: str, attempt: int | None) -> bool:
    if not item:
        return False
    state = state_of(item)
    return state.is_active and state.run_id == run_id and attempt in (None, state.attempt)


def _superseded(document_id: str, run_id: str) -> Superseded:
    return Superseded(f"run {run_id} of document {document_id!r} has ended or was replaced")


def _missed(item: Item, tally: Tally | None) -> int:
    """How many more of a worker's pages the row has than the worker knows; below 0 if a new start has cleared them."""
    if tally is None:
        return 0
    return int(item.get("tallies", {}).get("M", {}).get(tally.worker, {"N": 0})["N"]) - tally.counted
