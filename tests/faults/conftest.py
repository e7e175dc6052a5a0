"""The real table on the emulator, behind a proxy that misbehaves, and watchers that do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

import docprogress
from docprogress.document import Connection
from docprogress.table.connections import Connections
from local.emulator import CREDENTIALS, REGION
from local.stack import local_stack
from tests.faults.connections_server import ConnectionsServer
from tests.faults.table_proxy import TableProxy


@dataclass
class Site:
    """A worker's view of a stack, and what its watchers heard.

    Attributes:
        environment: what a worker in a process of its own needs.
    """

    table: TableProxy
    gateway: ConnectionsServer
    publisher: docprogress.Publisher
    environment: dict[str, str]

    def subscribe(self, document_id: str, *connection_ids: str) -> None:
        connections = Connections(self.publisher.table)
        for connection_id in connection_ids:
            connections.subscribe(document_id, Connection(connection_id, int(time.time()) + 3_600))

    def watching(self, document_id: str) -> set[str]:
        pages = Connections(self.publisher.table).watchers(document_id)
        return {watcher.connection_id for page in pages for watcher in page}


@pytest.fixture(scope="session")
def stack() -> Iterator[Any]:
    with local_stack(on_log=lambda _: None) as stack:
        yield stack


@pytest.fixture
def site(stack: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with (
        TableProxy(stack.emulator.endpoint_url) as table,
        ConnectionsServer() as gateway,
        contextlib.ExitStack() as cleanup,
    ):
        environment = {
            **CREDENTIALS,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_DYNAMODB": table.endpoint_url,
            "TABLE_NAME": stack.outputs["tableName"],
            "CALLBACK_URL": gateway.callback_url,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        publisher = docprogress.connect(session=boto3.Session(region_name=REGION))
        cleanup.callback(publisher.table.client.close)
        yield Site(table, gateway, publisher, environment)
