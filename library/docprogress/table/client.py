"""The client of the table, and which of its failures pass. The one file that knows botocore's exceptions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING, Any

from docprogress import clients
from docprogress.errors import StoreUnavailable
from docprogress.process import PerProcess, importing
from docprogress.table.items import Item

if TYPE_CHECKING:
    import boto3
    from botocore.session import Session
    from types_boto3_dynamodb import DynamoDBClient

_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
}


_CONNECTIONS = 64
# A batch comes in portions of 16 MB, and in smaller ones while the table is busy.
_BATCHES = 10
# A clock that differs from the table's by more is not believed. What is less may be the way of the answer.
_TOLERATED_SECONDS = 5.0


def dynamodb_client(session: boto3.Session | Session | None = None) -> DynamoDBClient:
    """A client with this package's time-outs: the table is near, so an answer that takes longer will not come."""
    with importing:
        from botocore.config import Config

    # botocore's own pool has ten connections, and throws away each one more.
    config = Config(
        connect_timeout=2,
        read_timeout=3,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=_CONNECTIONS,
    )
    made: DynamoDBClient = clients.client("dynamodb", session or clients.new_session(), config)
    return made


class Table:
    """One table of one process.

    Args:
        connect: makes a DynamoDB client, with retries of its own; called at first use in each process.
        clock: this machine's, in epoch seconds.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], DynamoDBClient] = dynamodb_client,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._clock = clock
        self._ahead_seconds = 0.0
        self._client = PerProcess(connect)

    @property
    def client(self) -> DynamoDBClient:
        return self._client()

    def get(self, key: Any, *attributes: str) -> Item | None:
        """A row, or these attributes of it."""
        projection: Any = {}
        if attributes:
            names = {f"#{name}": name for name in attributes}
            projection = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
        return self.client.get_item(TableName=self.name, Key=key, ConsistentRead=True, **projection).get("Item")

    def get_all(self, keys: Sequence[Any]) -> list[Item]:
        """The rows that there are, of at most 100 keys. Raises StoreUnavailable."""
        rows: list[Item] = []
        for _ in range(_BATCHES):
            if not keys:
                return rows
            with failures():
                answer: Any = self.client.batch_get_item(
                    RequestItems={self.name: {"Keys": keys, "ConsistentRead": True}}
                )
            rows += answer["Responses"].get(self.name, [])
            keys = answer["UnprocessedKeys"].get(self.name, {}).get("Keys", [])
        raise StoreUnavailable(f"{len(keys)} rows are not to be had.")

    def put(self, item: Any, **condition: Any) -> None:
        """Raises ConditionFailed."""
        with failures():
            self.client.put_item(TableName=self.name, Item=item, **condition)

    def update(self, key: Any, **arguments: Any) -> Item:
        """The row as it is after the update. Raises ConditionFailed, StoreUnavailable."""
        with failures(self._learn_time):
            answer = self.client.update_item(
                TableName=self.name,
                Key=key,
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **arguments,
            )
        self._learn_time(answer)
        return answer["Attributes"]

    def now(self) -> float:
        """Epoch seconds by the table's clock, as far as its answers have told: this machine's may be wrong."""
        return self._clock() - self._ahead_seconds

    def _learn_time(self, answer: Mapping[str, Any]) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        told = parsedate_tz(date)
        if told is not None:
            ahead = self._clock() - mktime_tz(told)
            if abs(ahead - self._ahead_seconds) > _TOLERATED_SECONDS:
                self._ahead_seconds = ahead if abs(ahead) > _TOLERATED_SECONDS else 0.0


_places = PerProcess(lambda: threading.BoundedSemaphore(_CONNECTIONS))


class ConditionFailed(Exception):
    """The row is not what the write required it to be. item: the row, where the write asked for it."""

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item


@contextmanager
def failures(answered: Callable[[Mapping[str, Any]], object] = lambda _: None) -> Iterator[None]:
    """Failures that pass, after botocore's own retries, become StoreUnavailable; those of a condition ConditionFailed.

    No more calls are under way at once than there are connections: a thousand trackers would open a thousand.

    Args:
        answered: called with the answer of the table, if it gave one.
    """
    with _places():
        try:
            yield
        except Exception as error:
            # Imported only now: a process that reports nothing needs no botocore.
            from botocore.exceptions import ClientError, ConnectionError, CredentialRetrievalError, HTTPClientError

            if isinstance(error, HTTPClientError | ConnectionError | CredentialRetrievalError):
                raise StoreUnavailable(str(error)) from error
            if not isinstance(error, ClientError):
                raise
            answered(error.response)
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                found: Any = error.response.get("Item", {})
                raise ConditionFailed(found) from error
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500 or code in _THROTTLED:
                raise StoreUnavailable(str(error)) from error
            raise
