"""The whole protocol and the document pipeline, through real clients on the emulator.

Does not prove what the emulator does not do: that replies need route responses, throttling, logs of the
stage, integration roles, S3's permission to invoke. The graph tests own those.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.local.scenarios import (
    PATIENCE_SECONDS,
    as_taken,
    ask,
    eventually,
    pdf,
    put_silent_document,
    receive,
    receive_to_the_end,
    rows,
    send,
    upload,
)

Stack = Any


def test_a_ping_is_answered(stack: Stack) -> None:
    with stack.connect() as connection:
        assert ask(connection, action="ping") == {"status": "pong"}


@pytest.mark.parametrize(
    ("frame", "error_code"),
    [
        ("hello", "INVALID_MESSAGE"),
        ("[]", "INVALID_MESSAGE"),
        ('{"action":"progress"}', "INVALID_MESSAGE"),
        ('{"action":"progress","docId":""}', "INVALID_MESSAGE"),
        ('{"action":"dance"}', "UNKNOWN_ACTION"),
        ('{"action":"$connect"}', "UNKNOWN_ACTION"),
    ],
)
def test_a_message_that_cannot_be_served_gets_an_error_code(stack: Stack, frame: str, error_code: str) -> None:
    with stack.connect() as connection:
        connection.send(frame)
        answer = receive(connection)
    assert (answer["status"], answer["errorCode"]) == ("error", error_code)
    assert "sequence" not in answer, "an answer to a request is no state of a document"


def test_a_document_that_nobody_started_is_pending(stack: Stack) -> None:
    with stack.connect() as connection:
        answer = ask(connection, action="progress", docId="not yet")
    assert answer == {"status": "pending", "docId": "not yet"}


def test_a_watcher_hears_a_document_from_its_start_to_its_end(stack: Stack, tmp_path: Path) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="report")
        upload(stack, "report", pdf(tmp_path, pages=60))
        messages = as_taken(receive_to_the_end(connection))
    first = messages[0]["sequence"]
    assert messages[0] == {"status": "processing_started", "docId": "report", "totalPages": 60, "sequence": first}
    # How many come between depends on the time they take: an update that cannot be posted in time is left out.
    last = messages[-1]["sequence"]
    result = {"key": "results/report.json", "total": 60, "unit": "pages"}
    assert messages[-1] == {"status": "processing_complete", "docId": "report", "result": result, "sequence": last}
    pages = [message["pagesProcessed"] for message in messages[1:-1]]
    assert pages == sorted(pages)


def test_whoever_asks_later_gets_the_state_as_it_is(stack: Stack, tmp_path: Path) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="early")
        upload(stack, "early", pdf(tmp_path))
        last = receive_to_the_end(connection)[-1]
    with stack.connect() as connection:
        assert ask(connection, action="progress", docId="early") == last


def test_the_text_of_each_page_is_in_the_results(stack: Stack, tmp_path: Path) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="folder/Ünï code (1)")
        upload(stack, "folder/Ünï code (1)", pdf(tmp_path))
        receive_to_the_end(connection)
    result = stack.client("s3").get_object(
        Bucket=stack.outputs["documentsBucket"], Key="results/folder/Ünï code (1).json"
    )
    pages = json.load(result["Body"])["pages"]
    assert [page["number"] for page in pages] == [1, 2, 3]
    assert all(page["text"].strip() for page in pages)


@pytest.mark.parametrize("body", [b"this is no PDF", b""], ids=["no PDF", "empty"])
def test_a_file_that_cannot_be_read_ends_in_an_error_once(stack: Stack, body: bytes) -> None:
    document_id = f"bad-{len(body)}"
    with stack.connect() as connection:
        ask(connection, action="progress", docId=document_id)
        upload(stack, document_id, body)
        answer = receive(connection)
        assert (answer["errorCode"], answer["recoverable"]) == ("DOCUMENT_DAMAGED" if body else "DOCUMENT_EMPTY", False)
        with pytest.raises(TimeoutError):
            # Lambda would try again after a second.
            receive(connection, timeout=3)


def test_whoever_ends_a_subscription_hears_no_more(stack: Stack, tmp_path: Path) -> None:
    with stack.connect() as leaving, stack.connect() as staying:
        for connection in (leaving, staying):
            ask(connection, action="progress", docId="left")
        ask(leaving, action="progress", docId="left", subscribe=False)
        upload(stack, "left", pdf(tmp_path))
        receive_to_the_end(staying)
        # Whatever had been posted to this connection would come before the answer to a ping.
        assert ask(leaving, action="ping") == {"status": "pong"}


def test_a_connection_that_closes_leaves_no_row_behind(stack: Stack) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="closing")
        (subscription,) = rows(stack, "DOCUMENT#closing")
        connection_id = subscription["connection_id"]["S"]
        assert rows(stack, f"CONNECTION#{connection_id}")
    assert eventually(lambda: not rows(stack, "DOCUMENT#closing") and not rows(stack, f"CONNECTION#{connection_id}"))


def test_a_stale_connection_is_forgotten_and_the_others_still_hear(stack: Stack, tmp_path: Path) -> None:
    stale = {
        "pk": {"S": "DOCUMENT#stale"},
        "sk": {"S": "CONNECTION#gone="},
        "connection_id": {"S": "gone="},
        "subscribed_at": {"N": "1"},
        "expires_at": {"N": "99999999999"},
    }
    stack.client("dynamodb").put_item(TableName=stack.outputs["tableName"], Item=stale)
    with stack.connect() as connection:
        ask(connection, action="progress", docId="stale")
        upload(stack, "stale", pdf(tmp_path))
        assert receive_to_the_end(connection)[-1]["status"] == "processing_complete"
        sort_keys = [row["sk"]["S"] for row in rows(stack, "DOCUMENT#stale")]
    assert "CONNECTION#gone=" not in sort_keys
    assert len(sort_keys) == 2, "the state and the subscription of the connection that is open"


def test_a_silent_document_is_given_up_by_the_watchdog(stack: Stack) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="abandoned")
        # From here on the stack's own schedule may be the first to find it.
        put_silent_document(stack, "abandoned")
        stack.client("lambda").invoke(FunctionName=stack.outputs["functionNames"]["stall-watchdog"], Payload=b"{}")
        answer = receive(connection)
    assert (answer["errorCode"], answer["recoverable"], answer["sequence"]) == ("PROCESSING_STALLED", False, 8)


def test_a_role_without_the_grant_may_not_post(stack: Stack) -> None:
    # The connection handler answers through its route's reply, so it was never given the grant.
    with (
        _gateway_of(stack, "connection-handler") as refused_gateway,
        _gateway_of(stack, "documents-processor") as granted_gateway,
        stack.connect() as connection,
    ):
        ask(connection, action="progress", docId="grant")
        connection_id = rows(stack, "DOCUMENT#grant")[0]["connection_id"]["S"]
        with pytest.raises(ClientError) as refused:
            refused_gateway.post_to_connection(ConnectionId=connection_id, Data=b"{}")
        assert refused.value.response["Error"]["Code"] in ("AccessDeniedException", "AccessDenied")
        granted_gateway.post_to_connection(ConnectionId=connection_id, Data=b'{"hello":1}')
        assert connection.recv(timeout=PATIENCE_SECONDS) == '{"hello":1}'


def test_a_flood_of_subscriptions_is_stopped(stack: Stack) -> None:
    with stack.connect() as connection:
        for number in range(100):
            send(connection, action="progress", docId=f"flood-{number}")
        for _ in range(100):
            assert receive(connection)["status"] == "pending"
        assert ask(connection, action="progress", docId="one more")["errorCode"] == "TOO_MANY_SUBSCRIPTIONS"
        assert ask(connection, action="progress", docId="flood-7")["status"] == "pending", "it is watched already"
        assert rows(stack, "DOCUMENT#one more") == []


@contextlib.contextmanager
def _gateway_of(stack: Stack, function: str) -> Iterator[Any]:
    """A client of @connections with a session of a function's role, as the root user may assume any."""
    roles = stack.client("iam").list_roles()["Roles"]
    (arn,) = [role["Arn"] for role in roles if f"{function}-role" in role["RoleName"]]
    session = stack.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    client: Any = boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=stack.outputs["callbackUrl"],
        region_name="us-east-1",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )
    with contextlib.closing(client):
        yield client
