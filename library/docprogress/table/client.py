"""The client of the table, and which of its failures pass. The one file that knows botocore's exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from docprogress.errors import StoreUnavailable
from docprogress.process import PerProcess
from docprogress.table.items import Item

if TYPE_CHECKING:
    import boto3
    from types_boto3_dynamodb import DynamoDBClient

_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
}


def dynamodb_client(session: boto3.Session | None = None) -> DynamoDBClient:
    """A client with this package's time-outs: the table is near, so an answer that takes longer will not come."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 4})
    return (session or boto3.Session()).client("dynamodb", config=config)


class Table:
    """One table of one process.

    Args:
        connect: makes a boto3 DynamoDB client, with retries of its own; called at first use in each process.
    """

    def __init__(self, name: str, connect: Callable[[], DynamoDBClient] = dynamodb_client) -> None:
        self.name = name
        self._client = PerProcess(connect)

    @property
    def client(self) -> DynamoDBClient:
        return self._client()

    def get(self, key: Any) -> Item | None:
        return self.client.get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")

    def put(self, item: Any, **condition: Any) -> None:
        """Raises ConditionFailed."""
        with failures():
            self.client.put_item(TableName=self.name, Item=item, **condition)

    def update(self, key: Any, **arguments: Any) -> Item:
        """The row as it is after the update. Raises ConditionFailed, StoreUnavailable."""
        with failures():
            return self.client.update_item(
                TableName=self.name,
                Key=key,
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **arguments,
            )["Attributes"]


class ConditionFailed(Exception):
    """The row is not what the write required it to be. item: the row, where the write asked for it."""

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item


@contextmanager
def failures() -> Iterator[None]:
    """Failures that pass, after boto3's own retries, become StoreUnavailable; those of a condition ConditionFailed."""
    try:
        yield
    except Exception as error:
        # Imported only now: a process that reports nothing needs no botocore.
        from botocore.exceptions import ClientError, ConnectionError, CredentialRetrievalError, HTTPClientError

        if isinstance(error, HTTPClientError | ConnectionError | CredentialRetrievalError):
            raise StoreUnavailable(str(error)) from error
        if not isinstance(error, ClientError):
            raise
        code = error.response["Error"]["Code"]
        if code == "ConditionalCheckFailedException":
            found: Any = error.response.get("Item", {})
            raise ConditionFailed(found) from error
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500 or code in _THROTTLED:
            raise StoreUnavailable(str(error)) from error
        raise
