"""Connections and subscriptions in the table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from docprogress.document import Connection, Subscription
from docprogress.errors import StoreUnavailable
from docprogress.process import importing, jitter
from docprogress.table.client import ConditionFailed, Table, failures
from docprogress.table.items import (
    BY_CONNECTION,
    Item,
    connection_key,
    principal,
    principal_of,
    subscription_key,
    subscription_of,
)

logger = logging.getLogger(__name__)

# BatchWriteItem's own limit.
_BATCH = 25
_BATCH_ATTEMPTS = 6
# botocore's own pool of connections has ten.
_FORGOTTEN_AT_ONCE = 8
_WATCHERS_PAGE = 1_000


class Connections:
    """Reads and writes who is connected, and who watches which document.

    Args:
        now: epoch seconds.
    """

    def __init__(self, table: Table, *, now: Callable[[], float] = time.time) -> None:
        self._table = table
        self._now = now

    def add_connection(self, connection: Connection, *, connected_at: int) -> None:
        """connected_at: epoch milliseconds."""
        self._table.put(
            {
                **connection_key(connection.connection_id),
                **principal(connection.principal_id),
                "connected_at": {"N": str(connected_at)},
                "expires_at": {"N": str(connection.expires_at)},
            },
        )

    def connection(self, connection_id: str) -> Connection | None:
        """A connection that has not expired."""
        item = self._table.client.get_item(
            TableName=self._table.name, Key=connection_key(connection_id), ConsistentRead=True
        ).get("Item")
        if item is None or int(item["expires_at"]["N"]) <= self._now():
            return None
        return Connection(connection_id, int(item["expires_at"]["N"]), principal_of(item))

    def remove_connection(self, connection_id: str) -> None:
        """Forget a connection and its subscriptions."""
        # The index is eventually consistent: a subscription made in the last moment may stay behind. It is
        # deleted when a message to it meets 410 Gone, or by its TTL.
        pages = self._table.client.get_paginator("query").paginate(
            TableName=self._table.name,
            IndexName=BY_CONNECTION,
            KeyConditionExpression="connection_id = :id",
            ExpressionAttributeValues={":id": {"S": connection_id}},
        )
        keys = [{"pk": item["pk"], "sk": item["sk"]} for page in pages for item in page["Items"]]
        keys.append(connection_key(connection_id))
        for first in range(0, len(keys), _BATCH):
            self._delete_batch([{"DeleteRequest": {"Key": key}} for key in keys[first : first + _BATCH]])

    def _delete_batch(self, requests: Any) -> None:
        for attempt in range(_BATCH_ATTEMPTS):
            response = self._table.client.batch_write_item(RequestItems={self._table.name: requests})
            requests = response.get("UnprocessedItems", {}).get(self._table.name)
            if not requests:
                return
            # What DynamoDB leaves undone is throttled, and boto3 does not try it again.
            time.sleep(jitter(0, 0.05 * 2**attempt))
        logger.warning("%d rows of a closed connection are left to their TTL", len(requests))

    def subscribe(self, document_id: str, connection: Connection) -> None:
        self._table.put(
            {
                **subscription_key(document_id, connection.connection_id),
                **principal(connection.principal_id),
                "connection_id": {"S": connection.connection_id},
                "subscribed_at": {"N": str(int(self._now() * 1000))},
                "expires_at": {"N": str(connection.expires_at)},
            },
        )

    def may_subscribe(self, document_id: str, connection_id: str, *, limit: int) -> bool:
        """Whether a connection has fewer subscriptions than limit, or this very one already.

        The count is eventually consistent, so a burst may pass the limit by a few.
        """
        count = self._table.client.query(
            TableName=self._table.name,
            IndexName=BY_CONNECTION,
            KeyConditionExpression="connection_id = :id",
            ExpressionAttributeValues={":id": {"S": connection_id}},
            Select="COUNT",
            Limit=limit,
        )["Count"]
        return count < limit or self._is_subscribed(document_id, connection_id)

    def unsubscribe(self, document_id: str, connection_id: str) -> None:
        """Writes nothing where there is no subscription, so that a stranger's asking costs no write."""
        if self._is_subscribed(document_id, connection_id):
            key = subscription_key(document_id, connection_id)
            self._table.client.delete_item(TableName=self._table.name, Key=key)

    def _is_subscribed(self, document_id: str, connection_id: str) -> bool:
        return self._table.get(subscription_key(document_id, connection_id), "pk") is not None

    def watchers(self, document_id: str, *, after: str | None = None) -> Iterator[Sequence[Subscription]]:
        """The subscriptions of a document, a page at a time, in the order of their connection ids.

        Expired ones are among them: their connections may still be open, and are the caller's to close.

        Args:
            after: only the connections whose ids come after this one.
        """
        start: Any = {} if after is None else {"ExclusiveStartKey": subscription_key(document_id, after)}
        pages = self._table.client.get_paginator("query").paginate(
            TableName=self._table.name,
            KeyConditionExpression="pk = :document AND begins_with(sk, :connections)",
            ProjectionExpression="connection_id, subscribed_at, expires_at, principal_id",
            ExpressionAttributeValues={
                ":document": {"S": f"DOCUMENT#{document_id}"},
                ":connections": {"S": "CONNECTION#"},
            },
            # A subscriber writes its row and then reads the state; a publisher writes the state and then
            # reads the rows. With consistent reads on both sides one of the two sees the other.
            ConsistentRead=True,
            # A page of 1 MB would be 5 to 10 MB in memory once boto3 has read it.
            PaginationConfig={"PageSize": _WATCHERS_PAGE},
            **start,
        )
        unread = iter(pages)
        while True:
            with failures():
                page = next(unread, None)
            if page is None:
                return
            yield list(_subscriptions(page["Items"]))

    def forget(self, document_id: str, gone: Sequence[Subscription]) -> None:
        """Delete subscriptions whose connections are gone, unless they were written again meanwhile."""
        # Only few processes come here, and a thread that outlives the main one can no longer import it.
        with importing:
            from concurrent.futures import ThreadPoolExecutor

        # A few at a time: a document that lost all its watchers at once must not take its worker minutes.
        with ThreadPoolExecutor(max_workers=_FORGOTTEN_AT_ONCE) as pool:
            for _ in pool.map(lambda subscription: self._forget(document_id, subscription), gone):
                pass

    def _forget(self, document_id: str, subscription: Subscription) -> None:
        try:
            with suppress(ConditionFailed), failures():
                self._table.client.delete_item(
                    TableName=self._table.name,
                    Key=subscription_key(document_id, subscription.connection_id),
                    ConditionExpression="subscribed_at = :seen",
                    ExpressionAttributeValues={":seen": {"N": str(subscription.subscribed_at)}},
                )
        except StoreUnavailable as error:
            # The next update meets the same 410, and the TTL comes in the end.
            logger.warning("A subscription is not forgotten yet: %s", error)


def _subscriptions(rows: Sequence[Item]) -> Iterator[Subscription]:
    for row in rows:
        try:
            yield subscription_of(row)
        except (KeyError, ValueError):  # a row that nobody of this package has written costs the others nothing
            logger.warning("A subscription that cannot be read is passed over: %s", row)
