"""What the tests of the table share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from docprogress.document import Failure
from docprogress.table.connections import Connections
from docprogress.table.states import States
from tests.functions.fakes import InMemoryStore

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NOW = 1_800_000_000.0
ABANDONED = 45.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def start(store: States | InMemoryStore, document_id: str, **arguments: Any) -> Any:
    defaults = {"run_id": "run-1", "total": 10, "owner": None, "abandoned_after_seconds": ABANDONED}
    return store.start(document_id, **{**defaults, **arguments})


def advance(store: States | InMemoryStore, document_id: str, pages: int = 1, **arguments: Any) -> Any:
    return store.advance(document_id, **{"run_id": "run-1", "pages": pages, "not_within_seconds": 0.0, **arguments})


def finish(store: States | InMemoryStore, document_id: str, failure: Failure | None = None, **arguments: Any) -> Any:
    return store.finish(document_id, **{"run_id": "run-1", "pages": 0, "failure": failure, **arguments})


def live(connections: Connections, document_id: str) -> list[str]:
    return [subscription.connection_id for page in connections.watchers(document_id) for subscription in page]


def raw(client: DynamoDBClient, table_name: str, document_id: str) -> Any:
    key = {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}}
    return client.get_item(TableName=table_name, Key=key, ConsistentRead=True).get("Item")


def offline_client(endpoint_url: str | None = None) -> DynamoDBClient:
    return boto3.client(
        "dynamodb",
        region_name="eu-west-1",
        endpoint_url=endpoint_url,
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(connect_timeout=1, retries={"mode": "standard", "total_max_attempts": 1}),
    )
