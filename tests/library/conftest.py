"""A table on the emulator, and a clock that tests move."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest

from docprogress.table.client import Table
from docprogress.table.connections import Connections
from docprogress.table.items import BY_ACTIVITY, BY_CONNECTION
from docprogress.table.states import States
from local.emulator import CREDENTIALS, REGION, Emulator
from tests.library.table.support import Clock

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


@pytest.fixture(scope="module")
def client() -> Iterator[DynamoDBClient]:
    with Emulator() as emulator, pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        environment.setenv("AWS_ENDPOINT_URL_DYNAMODB", emulator.endpoint_url)
        # Without the package's own time-outs of seconds, which a busy machine may take for an answer.
        client = boto3.Session(region_name=REGION).client("dynamodb")
        yield client
        client.close()


@pytest.fixture(scope="module")
def table_name(client: DynamoDBClient) -> str:
    """A table as infra/progress_table.py declares it."""
    client.create_table(
        TableName="progress",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "connection_id", "AttributeType": "S"},
            {"AttributeName": "active_shard", "AttributeType": "S"},
            {"AttributeName": "updated_at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": BY_CONNECTION,
                "KeySchema": [{"AttributeName": "connection_id", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
            {
                "IndexName": BY_ACTIVITY,
                "KeySchema": [
                    {"AttributeName": "active_shard", "KeyType": "HASH"},
                    {"AttributeName": "updated_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
    )
    return "progress"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(client: DynamoDBClient, table_name: str) -> Table:
    return Table(table_name, lambda: client)


@pytest.fixture
def store(table: Table, clock: Clock) -> States:
    return States(table, document_retention_seconds=3600, now=clock)


@pytest.fixture
def connections(table: Table, clock: Clock) -> Connections:
    return Connections(table, now=clock)


@pytest.fixture
def document_id() -> str:
    return f"document-{uuid.uuid4()}"


@pytest.fixture
def now_store(table: Table) -> States:
    """With the real clock, for workers that are processes of their own."""
    return States(table)
