"""What the emulator tests do to a stack: connect, watch, upload, and read what comes."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from websockets.sync.client import ClientConnection

from docprogress.table.client import Table
from docprogress.table.states import States
from local.emulator import REGION
from local.sample_pdf import write_sample_pdf
from tests.wire import Message, from_server

# A cold Lambda on a machine that others use too; a message that has not come by then does not come.
PATIENCE_SECONDS = 60.0
FINAL = ("processing_complete", "error")


def send(connection: ClientConnection, **message: Any) -> None:
    connection.send(json.dumps(message))


def ask(connection: ClientConnection, **message: Any) -> Message:
    send(connection, **message)
    return receive(connection)


def receive(connection: ClientConnection, timeout: float = PATIENCE_SECONDS) -> Message:
    return from_server(json.loads(connection.recv(timeout=timeout)))


def receive_to_the_end(connection: ClientConnection, timeout: float = PATIENCE_SECONDS) -> list[Message]:
    """timeout: for each message."""
    messages = [receive(connection, timeout)]
    while messages[-1]["status"] not in FINAL:
        messages.append(receive(connection, timeout))
    return messages


def as_taken(messages: list[Message]) -> list[Message]:
    """What a client keeps of them: it drops what is not newer, since each state comes at least once."""
    taken: list[Message] = []
    for message in messages:
        if not taken or message["sequence"] > taken[-1]["sequence"]:
            taken.append(message)
    return taken


def signed(url: str, credentials: Credentials) -> str:
    """The WebSocket URL of a stack with AWS_IAM, for whom the credentials belong to; good for a minute."""
    request = AWSRequest("GET", url.replace("ws://", "http://", 1))
    SigV4QueryAuth(credentials, "execute-api", REGION, expires=60).add_auth(request)
    return request.url.replace("http://", "ws://", 1)


def pdf(folder: Path, pages: int = 3) -> bytes:
    path = folder / f"{pages}-pages.pdf"
    write_sample_pdf(path, pages=pages)
    return path.read_bytes()


def upload(stack: Any, document_id: str, body: bytes, **metadata: str) -> None:
    stack.client("s3").put_object(
        Bucket=stack.outputs["documentsBucket"], Key=f"{document_id}.pdf", Body=body, Metadata=metadata
    )


def expect(stack: Any, document_id: str, *, owner: str) -> None:
    States(Table(stack.outputs["tableName"], lambda: stack.client("dynamodb"))).expect(document_id, owner=owner)


def upload_form(
    stack: Any, *, token: str | None, url: str | None = None, file_name: str = "Report.pdf"
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        url or stack.outputs["uploadUrl"], json.dumps({"fileName": file_name}).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        form: dict[str, Any] = json.load(response)
    return form


def result_link(stack: Any, document_id: str, *, token: str | None) -> str:
    url = f"{stack.outputs['resultsUrl']}/{quote(document_id, safe='')}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE_SECONDS) as response:
        return str(json.load(response)["url"])


def rows(stack: Any, partition: str) -> list[Mapping[str, Any]]:
    """What the table holds under a partition key."""
    found: list[Mapping[str, Any]] = stack.client("dynamodb").query(
        TableName=stack.outputs["tableName"],
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": partition}},
        ConsistentRead=True,
    )["Items"]
    return found


def status(stack: Any, document_id: str) -> str | None:
    states = [row["status"]["S"] for row in rows(stack, f"DOCUMENT#{document_id}") if "status" in row]
    return states[0] if states else None


def rows_of_watchers(stack: Any, document_id: str) -> list[Mapping[str, Any]]:
    """The subscriptions of a document, and their connections."""
    subscriptions = [row for row in rows(stack, f"DOCUMENT#{document_id}") if "connection_id" in row]
    connections = [rows(stack, f"CONNECTION#{row['connection_id']['S']}") for row in subscriptions]
    return [*subscriptions, *(row for found in connections for row in found)]


def rows_of_connections(stack: Any) -> list[Mapping[str, Any]]:
    scan = stack.client("dynamodb").scan(TableName=stack.outputs["tableName"], ConsistentRead=True)
    return [row for row in scan["Items"] if row["sk"]["S"] == "CONNECTION"]


def expire(stack: Any, expiring: list[Mapping[str, Any]]) -> None:
    """As if their time had passed: a wait for it would also be one for everything that must come before."""
    for row in expiring:
        stack.client("dynamodb").put_item(TableName=stack.outputs["tableName"], Item={**row, "expires_at": {"N": "1"}})


def eventually(is_so: Any, *, within: float = PATIENCE_SECONDS) -> bool:
    """Whether something becomes so in time."""
    deadline = time.monotonic() + within
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def put_silent_document(stack: Any, document_id: str, *, owner: str | None = None, updated_at: int = 1) -> None:
    """Five of ten pages are done, and its worker was last heard of in 1970, or at an epoch millisecond."""
    stack.client("dynamodb").put_item(
        TableName=stack.outputs["tableName"],
        Item={
            "pk": {"S": f"DOCUMENT#{document_id}"},
            "sk": {"S": "STATE"},
            "status": {"S": "progress"},
            "sequence": {"N": "7"},
            "total_pages": {"N": "10"},
            "pages_processed": {"N": "5"},
            "run_id": {"S": "run"},
            "attempt": {"N": "1"},
            "active_shard": {"S": "ACTIVE#3"},
            "updated_at": {"N": str(updated_at)},
            "expires_at": {"N": "99999999999"},
            **({"owner": {"S": owner}} if owner else {}),
        },
    )
