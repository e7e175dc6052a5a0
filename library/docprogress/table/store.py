"""The table: connections, subscriptions, and the state of every document. The one file that knows DynamoDB.

| item         | pk                 | sk                | attributes                                               |
|--------------|--------------------|-------------------|----------------------------------------------------------|
| connection   | CONNECTION#{id}    | CONNECTION        | connected_at (ms), principal_id, expires_at              |
| subscription | DOCUMENT#{docId}   | CONNECTION#{id}   | connection_id, principal_id, subscribed_at (ms),         |
|              |                    |                   | expires_at                                               |
| state        | DOCUMENT#{docId}   | STATE             | status, sequence, pages_processed, total_pages, run_id,  |
|              |                    |                   | attempt, write_id (the last write's, to know its echo),  |
|              |                    |                   | tallies (pages by worker, of those at work),             |
|              |                    |                   | published_at (ms), updated_at (ms), owner, error_code,   |
|              |                    |                   | error_message, recoverable, active_shard, expires_at     |

`expires_at` is the table's TTL, in epoch seconds. Expired rows can stay for days, so no reader may take a row for
live by its mere presence.
The index `by_connection` holds what carries `connection_id`: subscriptions. The index `by_activity` holds what
carries `active_shard`: documents that have started and not ended.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError, CredentialRetrievalError, HTTPClientError

from docprogress.document import Connection, DocumentState, ErrorCode, Failure, Status, Subscription, Tally
from docprogress.tracker import AlreadyProcessed, BeingProcessed, StoreUnavailable, Superseded

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

logger = logging.getLogger(__name__)

BY_CONNECTION = "by_connection"
BY_ACTIVITY = "by_activity"
# One partition takes 1,000 writes/s, and every write moves the row in the index, which is two: eight shards take
# 1,000 documents at 4 updates a second.
ACTIVE_SHARDS = 8

_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
}
# BatchWriteItem's own limit.
_BATCH = 25
_BATCH_ATTEMPTS = 6
# boto3's own pool of connections has ten.
_FORGOTTEN_AT_ONCE = 8
# The run of a document that has none yet; no worker may name its own so.
_NO_RUN = "-"
_ACTIVE = "(#status = :started OR #status = :progress)"
_ACTIVE_VALUES = {":started": {"S": Status.STARTED.value}, ":progress": {"S": Status.PROGRESS.value}}

Item = Mapping[str, Mapping[str, Any]]


def dynamodb_client(session: boto3.Session | None = None) -> DynamoDBClient:
    """A client with this package's time-outs: the table is near, so an answer that takes longer will not come."""
    config = Config(connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 4})
    return (session or boto3.Session()).client("dynamodb", config=config)


class SilentDocument(NamedTuple):
    """updated_at: epoch milliseconds of its last write."""

    document_id: str
    updated_at: int


class DocumentExists(Exception):
    """The document is known already."""


class ProgressStore:
    """Reads and writes the table.

    Args:
        client: a boto3 DynamoDB client, with retries of its own.
        document_retention_seconds: how long a state is kept after its last change.
        now: epoch seconds.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        table_name: str,
        *,
        document_retention_seconds: int = 24 * 3600,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table_name = table_name
        self._document_retention_seconds = document_retention_seconds
        self._now = now

    # --- connections ---

    def add_connection(self, connection: Connection, *, connected_at: int) -> None:
        """connected_at: epoch milliseconds."""
        self._client.put_item(
            TableName=self._table_name,
            Item={
                **_connection_key(connection.connection_id),
                **_principal(connection.principal_id),
                "connected_at": {"N": str(connected_at)},
                "expires_at": {"N": str(connection.expires_at)},
            },
        )

    def connection(self, connection_id: str) -> Connection | None:
        """A connection that has not expired."""
        item = self._client.get_item(
            TableName=self._table_name, Key=_connection_key(connection_id), ConsistentRead=True
        ).get("Item")
        if item is None or int(item["expires_at"]["N"]) <= self._now():
            return None
        return Connection(connection_id, int(item["expires_at"]["N"]), _principal_of(item))

    def remove_connection(self, connection_id: str) -> None:
        """Forget a connection and its subscriptions."""
        # The index is eventually consistent: a subscription made in the last moment may stay behind. It is
        # deleted when a message to it meets 410 Gone, or by its TTL.
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table_name,
            IndexName=BY_CONNECTION,
            KeyConditionExpression="connection_id = :id",
            ExpressionAttributeValues={":id": {"S": connection_id}},
        )
        keys = [{"pk": item["pk"], "sk": item["sk"]} for page in pages for item in page["Items"]]
        keys.append(_connection_key(connection_id))
        for first in range(0, len(keys), _BATCH):
            self._delete_batch([{"DeleteRequest": {"Key": key}} for key in keys[first : first + _BATCH]])

    def _delete_batch(self, requests: Any) -> None:
        for attempt in range(_BATCH_ATTEMPTS):
            response = self._client.batch_write_item(RequestItems={self._table_name: requests})
            requests = response.get("UnprocessedItems", {}).get(self._table_name)
            if not requests:
                return
            # What DynamoDB leaves undone is throttled, and boto3 does not try it again.
            time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311
        logger.warning("%d rows of a closed connection are left to their TTL", len(requests))

    # --- subscriptions ---

    def subscribe(self, document_id: str, connection: Connection) -> None:
        self._client.put_item(
            TableName=self._table_name,
            Item={
                **_subscription_key(document_id, connection.connection_id),
                **_principal(connection.principal_id),
                "connection_id": {"S": connection.connection_id},
                "subscribed_at": {"N": str(self._now_ms())},
                "expires_at": {"N": str(connection.expires_at)},
            },
        )

    def may_subscribe(self, document_id: str, connection_id: str, *, limit: int) -> bool:
        """Whether a connection has fewer subscriptions than limit, or this very one already.

        The count is eventually consistent, so a burst may pass the limit by a few.
        """
        count = self._client.query(
            TableName=self._table_name,
            IndexName=BY_CONNECTION,
            KeyConditionExpression="connection_id = :id",
            ExpressionAttributeValues={":id": {"S": connection_id}},
            Select="COUNT",
            Limit=limit,
        )["Count"]
        return count < limit or "Item" in self._client.get_item(
            TableName=self._table_name, Key=_subscription_key(document_id, connection_id)
        )

    def unsubscribe(self, document_id: str, connection_id: str) -> None:
        self._client.delete_item(TableName=self._table_name, Key=_subscription_key(document_id, connection_id))

    def watchers(self, document_id: str) -> Iterator[Sequence[Subscription]]:
        """The subscriptions of a document, a page of the Query (up to 1 MB) at a time.

        Expired ones are among them: their connections may still be open, and are the caller's to close.
        """
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table_name,
            KeyConditionExpression="pk = :document AND begins_with(sk, :connections)",
            ProjectionExpression="connection_id, subscribed_at, expires_at, principal_id",
            ExpressionAttributeValues={
                ":document": {"S": f"DOCUMENT#{document_id}"},
                ":connections": {"S": "CONNECTION#"},
            },
            # A subscriber writes its row and then reads the state; a publisher writes the state and then
            # reads the rows. With consistent reads on both sides one of the two sees the other.
            ConsistentRead=True,
        )
        unread = iter(pages)
        while True:
            with _unavailable():
                page = next(unread, None)
            if page is None:
                return
            yield [
                Subscription(
                    item["connection_id"]["S"],
                    int(item["subscribed_at"]["N"]),
                    int(item["expires_at"]["N"]),
                    _principal_of(item),
                )
                for item in page["Items"]
            ]

    def forget(self, document_id: str, gone: Sequence[Subscription]) -> None:
        """Delete subscriptions whose connections are gone, unless they were written again meanwhile."""
        # A few at a time: a document that lost all its watchers at once must not take its worker minutes.
        with ThreadPoolExecutor(max_workers=_FORGOTTEN_AT_ONCE) as pool:
            for _ in pool.map(lambda subscription: self._forget(document_id, subscription), gone):
                pass

    def _forget(self, document_id: str, subscription: Subscription) -> None:
        try:
            with _unavailable():
                self._client.delete_item(
                    TableName=self._table_name,
                    Key=_subscription_key(document_id, subscription.connection_id),
                    ConditionExpression="subscribed_at = :seen",
                    ExpressionAttributeValues={":seen": {"N": str(subscription.subscribed_at)}},
                )
        except ClientError as error:
            if not _is_condition_failure(error):
                raise
        except StoreUnavailable as error:
            # The next update meets the same 410, and the TTL comes in the end.
            logger.warning("A subscription is not forgotten yet: %s", error)

    # --- states ---

    def read(self, document_id: str) -> DocumentState | None:
        item = self._client.get_item(TableName=self._table_name, Key=_state_key(document_id), ConsistentRead=True).get(
            "Item"
        )
        if item is None or int(item["expires_at"]["N"]) <= self._now():
            return None
        return state_of(item)

    def expect(self, document_id: str, *, owner: str) -> None:
        """Note whose a document will be, so that its owner can watch it before it starts.

        Raises:
            DocumentExists: there is such a document; nothing was written.
        """
        try:
            self._client.put_item(
                TableName=self._table_name,
                Item={
                    **_state_key(document_id),
                    "status": {"S": Status.PENDING.value},
                    "sequence": {"N": "0"},
                    "total_pages": {"N": "0"},
                    "pages_processed": {"N": "0"},
                    "run_id": {"S": _NO_RUN},
                    "owner": {"S": owner},
                    "updated_at": {"N": str(self._now_ms())},
                    "expires_at": {"N": str(int(self._now()) + self._document_retention_seconds)},
                },
                ConditionExpression="attribute_not_exists(pk) OR expires_at <= :now",
                ExpressionAttributeValues={":now": {"N": str(int(self._now()))}},
            )
        except ClientError as error:
            if _is_condition_failure(error):
                raise DocumentExists(document_id) from error
            raise

    def start(
        self,
        document_id: str,
        *,
        run_id: str,
        total_pages: int,
        owner: str | None,
        abandoned_after_seconds: float,
        write_id: str | None = None,
    ) -> DocumentState:
        values: dict[str, Any] = {
            ":run": {"S": run_id},
            ":zero": {"N": "0"},
            ":total": {"N": str(total_pages)},
            ":abandoned": {"N": str(self._now_ms() - int(abandoned_after_seconds * 1000))},
            ":shard": {"S": f"ACTIVE#{_shard(document_id)}"},
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
        except _ConditionFailed as failed:
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
            except _ConditionFailed as failed:
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
            self._update(
                document_id,
                UpdateExpression="SET updated_at = :now_ms",
                ConditionExpression=condition,
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={**values, **_ACTIVE_VALUES, ":now_ms": {"N": str(self._now_ms())}},
            )
        except _ConditionFailed:
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
            except _ConditionFailed as failed:
                missed = _missed(failed.item, tally)
                if tally is None or missed <= 0 or not _is_held(failed.item, run_id, attempt):
                    raise _superseded(document_id, run_id) from None
                pages, tally = max(0, pages - missed), tally._replace(counted=tally.counted + missed)

    def leave(self, document_id: str, *, run_id: str, worker: str) -> None:
        """Forget the tally of a worker that counts no more, so that the row does not grow with all who ever did."""
        with suppress(_ConditionFailed):
            self._update(
                document_id,
                UpdateExpression="REMOVE tallies.#worker",
                ConditionExpression="run_id = :run AND attribute_exists(tallies.#worker)",
                ExpressionAttributeNames={"#worker": worker},
                ExpressionAttributeValues={":run": {"S": run_id}},
            )

    # --- documents whose worker is silent ---

    def silent_documents(self, silent_seconds: float) -> Iterator[SilentDocument]:
        """Documents that have started, not ended, and were not written for so long."""
        for shard in range(ACTIVE_SHARDS):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table_name,
                IndexName=BY_ACTIVITY,
                KeyConditionExpression="active_shard = :shard AND updated_at < :before",
                ExpressionAttributeValues={
                    ":shard": {"S": f"ACTIVE#{shard}"},
                    ":before": {"N": str(self._now_ms() - int(silent_seconds * 1000))},
                },
            )
            for page in pages:
                for item in page["Items"]:
                    yield SilentDocument(item["pk"]["S"].removeprefix("DOCUMENT#"), int(item["updated_at"]["N"]))

    def end_silent(self, silent: SilentDocument, failure: Failure) -> DocumentState | None:
        """End a document's run. None, and nothing written, when it was heard of meanwhile."""
        try:
            return self._end(
                silent.document_id,
                failure,
                condition=f"updated_at = :seen AND {_ACTIVE}",
                values={":seen": {"N": str(silent.updated_at)}},
            )
        except _ConditionFailed:
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
            item = self._update(
                document_id,
                UpdateExpression=expression,
                ConditionExpression=f"({condition}) AND (attribute_not_exists(write_id) OR write_id <> :write)",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except _ConditionFailed as failed:
            # The write was made and its answer was lost on the way: boto3 has repeated it.
            if failed.item.get("write_id") != {"S": write_id}:
                raise
            item = failed.item
        return state_of(item)

    def _update(self, document_id: str, **arguments: Any) -> Item:
        try:
            with _unavailable():
                return self._client.update_item(
                    TableName=self._table_name,
                    Key=_state_key(document_id),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **arguments,
                )["Attributes"]
        except ClientError as error:
            if not _is_condition_failure(error):
                raise
            found: Any = error.response.get("Item", {})
            raise _ConditionFailed(found) from error

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


class _ConditionFailed(Exception):
    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item


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


@contextmanager
def _unavailable() -> Iterator[None]:
    """Failures that pass, after boto3's own retries, become StoreUnavailable."""
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if status >= 500 or error.response["Error"]["Code"] in _THROTTLED:
            raise StoreUnavailable(str(error)) from error
        raise
    except (HTTPClientError, ConnectionError, CredentialRetrievalError) as error:
        raise StoreUnavailable(str(error)) from error


def _is_condition_failure(error: ClientError) -> bool:
    return error.response["Error"]["Code"] == "ConditionalCheckFailedException"


def _connection_key(connection_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"CONNECTION#{connection_id}"}, "sk": {"S": "CONNECTION"}}


def _subscription_key(document_id: str, connection_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": f"CONNECTION#{connection_id}"}}


def _state_key(document_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}}


def _principal(principal_id: str | None) -> dict[str, Any]:
    return {} if principal_id is None else {"principal_id": {"S": principal_id}}


def _principal_of(item: Item) -> str | None:
    return item["principal_id"]["S"] if "principal_id" in item else None


def _shard(document_id: str) -> int:
    # Not hash(): that one differs from process to process.
    return zlib.crc32(document_id.encode()) % ACTIVE_SHARDS


def state_of(item: Item) -> DocumentState:
    """Read a state row, from an answer of the table or from an image in its stream."""
    status = Status(item["status"]["S"])
    failure = None
    if status is Status.ERROR:
        failure = Failure(item["error_message"]["S"], ErrorCode(item["error_code"]["S"]), item["recoverable"]["BOOL"])
    return DocumentState(
        document_id=item["pk"]["S"].removeprefix("DOCUMENT#"),
        status=status,
        sequence=int(item["sequence"]["N"]),
        total_pages=int(item["total_pages"]["N"]),
        pages_processed=int(item["pages_processed"]["N"]),
        run_id=item["run_id"]["S"],
        attempt=int(item["attempt"]["N"]) if "attempt" in item else 0,
        owner=item["owner"]["S"] if "owner" in item else None,
        failure=failure,
    )
