"""What the tests of the table share."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from docprogress.document import Beginning, Failure, Run, Status, Update
from docprogress.table.connections import Connections
from docprogress.table.states import States
from tests.functions.fakes import InMemoryStore

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NOW = 1_800_000_000.0
NOW_MS = int(NOW * 1000)
ABANDONED = 45.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def begin(
    store: States | InMemoryStore,
    document_id: str,
    *,
    run_id: str = "run-1",
    write_id: str | None = None,
    **arguments: Any,
) -> Any:
    """The run, as a worker holds it once it has taken the document up."""
    run = Run(document_id, run_id)
    arguments.setdefault("abandoned_after_seconds", ABANDONED)
    state = store.begin(run, Beginning(write_id or uuid.uuid4().hex, **arguments))
    return run._replace(attempt=state.attempt)


def start(store: States | InMemoryStore, document_id: str, *, total: int = 10, **arguments: Any) -> Any:
    """Take up and start; the state."""
    return store.write(begin(store, document_id, **arguments), Update(status=Status.STARTED, total=total))


def advance(
    store: States | InMemoryStore,
    document_id: str,
    pages: int = 1,
    *,
    run_id: str = "run-1",
    attempt: int | None = None,
    not_within_seconds: float = 0.0,
    **said: Any,
) -> Any:
    update = Update(status=Status.PROGRESS, pages=pages, **said)
    return store.write(Run(document_id, run_id, attempt), update, not_within_seconds=not_within_seconds)


def finish(
    store: States | InMemoryStore,
    document_id: str,
    failure: Failure | None = None,
    *,
    run_id: str = "run-1",
    attempt: int | None = None,
    **said: Any,
) -> Any:
    status = Status.ERROR if failure else Status.COMPLETE
    return store.write(Run(document_id, run_id, attempt), Update(status=status, failure=failure, **said))


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
