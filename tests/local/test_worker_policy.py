"""A role with exactly `workerPolicy` does the whole of a worker's work, and nothing else. On the emulator, with IAM.

Does not prove what the emulator does not enforce: customer keys, and that only rows of documents may be written, which
the graph tests of the table hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import docprogress
from local.emulator import REGION
from tests.examples.workers import session_of, worker_environment
from tests.local.conftest import DeployedStack
from tests.local.scenarios import ask, eventually, receive_to_the_end, rows, rows_of_watchers

_numbers = count()
STACKS = ["stack", "stream_stack"]


@pytest.fixture
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[DeployedStack, boto3.Session]:
    """A stack, and a session of a role that has its `workerPolicy` alone."""
    stack: DeployedStack = request.getfixturevalue(request.param)
    environment = worker_environment(stack, f"worker-{next(_numbers)}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.emulator.endpoint_url)
    return stack, session_of(environment)


@pytest.mark.emulator
@pytest.mark.parametrize("worker", STACKS, indirect=True)
def test_the_policy_is_enough_for_a_document_from_its_start_to_its_end(
    worker: tuple[DeployedStack, boto3.Session],
) -> None:
    stack, session = worker
    with stack.connect() as gone:
        ask(gone, action="progress", docId="by-a-role")
        stale = rows_of_watchers(stack, "by-a-role")
    for row in stale:  # as if $disconnect had never come
        stack.client("dynamodb").put_item(TableName=stack.outputs["tableName"], Item=row)
    with stack.connect() as connection:
        ask(connection, action="progress", docId="by-a-role")
        _report(stack, session, "by-a-role")
        assert receive_to_the_end(connection)[-1]["status"] == "processing_complete"
        (forgotten,) = [row for row in stale if "connection_id" in row][:1]
        assert eventually(lambda: forgotten not in rows(stack, "DOCUMENT#by-a-role"))


@pytest.mark.parametrize("worker", ["stack"], indirect=True)
@pytest.mark.emulator
def test_the_policy_is_enough_for_a_message_that_is_no_state(worker: tuple[DeployedStack, boto3.Session]) -> None:
    stack, session = worker
    with stack.connect() as connection:
        ask(connection, action="progress", docId="talked-about")
        report = _publisher(stack, session).post("talked-about", {"status": "chat", "text": "Seen?"})
        assert report.delivered == 1
        told = json.loads(connection.recv(timeout=60))
        assert told == {"status": "chat", "text": "Seen?", "docId": "talked-about"}
        # It is no state, so nobody who asks later hears of it.
        assert ask(connection, action="progress", docId="talked-about") == {
            "status": "pending",
            "docId": "talked-about",
        }


def _publisher(stack: DeployedStack, session: boto3.Session) -> docprogress.Publisher:
    said = stack.outputs["workerEnvironment"]
    return docprogress.connect(
        table_name=said["TABLE_NAME"], callback_url=said.get("CALLBACK_URL", ""), session=session
    )


def _report(stack: DeployedStack, session: boto3.Session, document_id: str) -> None:
    with _publisher(stack, session).track(document_id) as tracker:
        tracker.start(total=2)
        tracker.advance()
        tracker.advance()


STATE = {"pk": {"S": "DOCUMENT#somebodys"}, "sk": {"S": "STATE"}}


# By what they would do; each with a client of DynamoDB and the table's name.
CALLS: dict[str, Callable[[Any, str], object]] = {
    "read a state": lambda client, table: client.get_item(TableName=table, Key=STATE),
    "put a state": lambda client, table: client.put_item(TableName=table, Item=STATE),
    "read everything": lambda client, table: client.scan(TableName=table),
    "list tables": lambda client, table: client.list_tables(),
    "find silent documents": lambda client, table: client.query(
        TableName=table,
        IndexName="by_activity",
        KeyConditionExpression="active_shard = :shard",
        ExpressionAttributeValues={":shard": {"S": "ACTIVE#0"}},
    ),
    "delete the table": lambda client, table: client.delete_table(TableName=table),
}
OF_ANNOUNCERS: dict[str, Callable[[Any, str], object]] = {
    "find watchers": lambda client, table: client.query(
        TableName=table, KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": STATE["pk"]}
    ),
    "forget a watcher": lambda client, table: client.delete_item(TableName=table, Key=STATE),
}


@pytest.mark.emulator
@pytest.mark.parametrize("worker", STACKS, indirect=True)
def test_the_policy_allows_nothing_else(worker: tuple[DeployedStack, boto3.Session]) -> None:
    stack, session = worker
    direct = "CALLBACK_URL" in stack.outputs["workerEnvironment"]
    allowed = []
    client: Any = session.client("dynamodb", region_name=REGION)
    posts: Any = session.client("apigatewaymanagementapi", endpoint_url=stack.outputs["callbackUrl"])
    with stack.connect() as connection:
        ask(connection, action="progress", docId="looked-at")
        (connection_id,) = [
            row["connection_id"]["S"] for row in rows_of_watchers(stack, "looked-at") if "connection_id" in row
        ][:1]
        others = {
            **CALLS,
            **({} if direct else OF_ANNOUNCERS),
            "look at a connection": lambda *_: posts.get_connection(ConnectionId=connection_id),
            "close a connection": lambda *_: posts.delete_connection(ConnectionId=connection_id),
            "invoke a function": lambda *_: session.client("lambda").invoke(
                FunctionName=stack.outputs["connectionHandlerName"], Payload=b"{}"
            ),
            "list buckets": lambda *_: session.client("s3").list_buckets(),
        }
        if not direct:
            others["post"] = lambda *_: posts.post_to_connection(ConnectionId=connection_id, Data=b"{}")
        for name, call in others.items():
            try:
                call(client, stack.outputs["tableName"])
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403) and "Denied" in str(error):
                    continue
                raise AssertionError(f"{name}: {error}") from error
            allowed.append(name)
    client.close()
    posts.close()
    assert allowed == []


@pytest.mark.emulator
@pytest.mark.parametrize("left_out", ["dynamodb:UpdateItem", "dynamodb:Query", "execute-api:ManageConnections"])
def test_without_one_of_its_statements_nobody_hears(
    stack: DeployedStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, left_out: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.emulator.endpoint_url)
    policy = json.loads(stack.outputs["workerPolicy"])
    rest = [each for each in policy["Statement"] if left_out not in each["Action"]]
    assert len(rest) == len(policy["Statement"]) - 1
    number = next(_numbers)
    environment = worker_environment(stack, f"worker-{number}", json.dumps({**policy, "Statement": rest}))
    with stack.connect() as connection:
        ask(connection, action="progress", docId=f"untold-{number}")
        # States that cannot be written are said aloud; of watchers that cannot be told, the log says why.
        writes = left_out == "dynamodb:UpdateItem"
        with pytest.raises(ClientError, match="AccessDenied") if writes else nullcontext():
            _report(stack, session_of(environment), f"untold-{number}")
        # What was posted would be there before the answer.
        assert ask(connection, action="ping") == {"status": "pong"}
    assert writes or left_out in caplog.text
