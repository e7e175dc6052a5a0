"""What dies on the way: workers killed in mid-document, clients that come and go. On the emulator.

Does not prove Lambda's own time-outs and retries, which the emulator imitates.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from local.emulator import CREDENTIALS, REGION
from tests.local.scenarios import as_taken, ask, eventually, pdf, receive, receive_to_the_end, status, upload

Stack = Any
Message = dict[str, Any]

ROOT = Path(__file__).parents[2]
WORKER = """
import sys, time
from docprogress.publisher import publisher
with publisher().track("killed") as tracker:
    tracker.start(total=100)
    for page in range(99):
        tracker.advance()
        time.sleep(1)
"""

OPENING_WORKER = """
import time
from docprogress.publisher import publisher
with publisher().track("opening") as tracker:
    print("opening", flush=True)
    time.sleep(99)
"""


def test_a_document_whose_worker_is_killed_reaches_a_terminal_state(stack: Stack) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="killed")
        worker = subprocess.Popen([sys.executable, "-c", WORKER], env=_worker_environment(stack))
        try:
            while receive(connection)["status"] != "progress":
                pass
        finally:
            worker.kill()
            worker.wait()

        def given_up() -> bool:
            _age(stack, "killed")  # each time: a last write of the dead may still be on its way
            stack.client("lambda").invoke(FunctionName=stack.outputs["functionNames"]["stall-watchdog"], Payload=b"{}")
            return status(stack, "killed") == "error"

        assert eventually(given_up), "by this call, or by the stack's own schedule"
        answer = receive_to_the_end(connection)[-1]
    assert (answer["errorCode"], answer["recoverable"]) == ("PROCESSING_STALLED", False), "nobody tries it again"


def test_a_document_whose_worker_is_killed_while_it_opens_the_file_reaches_an_end_too(stack: Stack) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="opening")
        opening = OPENING_WORKER
        worker = subprocess.Popen(
            [sys.executable, "-c", opening], env=_worker_environment(stack), stdout=subprocess.PIPE
        )
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"opening\n"
        finally:
            worker.kill()
            worker.communicate()
        assert status(stack, "opening") == "pending"
        _age(stack, "opening")
        stack.client("lambda").invoke(FunctionName=stack.outputs["functionNames"]["stall-watchdog"], Payload=b"{}")
        answer = receive(connection)
    assert (answer["errorCode"], answer["recoverable"]) == ("PROCESSING_STALLED", False)


def test_a_document_whose_processor_is_killed_can_be_uploaded_again(stack: Stack, tmp_path: Path) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="again")
        upload(stack, "again", pdf(tmp_path, pages=1000))
        while receive(connection)["status"] != "progress":
            pass
        _kill_function(stack, "documents-processor")
        upload(stack, "again", pdf(tmp_path, pages=5))
        messages = as_taken(receive_to_the_end(connection))
    assert messages[-1]["status"] == "processing_complete"
    assert messages[-2].get("totalPages") == 5, "the newer upload replaces the run that was cut off"


@pytest.mark.timeout(600)
def test_clients_that_come_and_go_all_end_with_the_true_final_state(stack: Stack, tmp_path: Path) -> None:
    documents = [f"chaos-{number}" for number in range(20)]
    body = pdf(tmp_path, pages=40)
    last: dict[str, Message] = {}

    def watch(number: int, document_id: str) -> None:
        """Reconnects after every few messages, as a browser on a train would."""
        newest: Message = {"sequence": 0}
        while not _has_ended(newest):
            with contextlib.suppress(WebSocketException, OSError), stack.connect() as connection:
                # Waits for the answer, or on a busy machine all that clients did would be to come and go.
                newest = _newer(newest, ask(connection, action="progress", docId=document_id))
                for _ in range(1 + number % 3):
                    if _has_ended(newest):
                        break
                    newest = _newer(newest, receive(connection, timeout=2.0))
                if number % 2:
                    connection.socket.close()
        last[document_id] = newest

    threads = [threading.Thread(target=watch, args=each, daemon=True) for each in enumerate(documents)]
    for thread in threads:
        thread.start()
    for document_id in documents:
        upload(stack, document_id, body)
    deadline = time.monotonic() + 500  # twenty workers that start at once leave little of two cores
    for thread in threads:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))
    assert sorted(last) == sorted(documents), "every client must hear the end"
    assert {message["status"] for message in last.values()} == {"processing_complete"}


def _newer(message: Message, other: Message) -> Message:
    return max(message, other, key=lambda heard: heard.get("sequence", 0))


def _has_ended(message: Message) -> bool:
    """Lambda tries again what failed in a way that may pass."""
    status = message.get("status")
    return status == "processing_complete" or (status == "error" and not message["recoverable"])


def _age(stack: Stack, document_id: str) -> None:
    """As if the document had been silent since 1970."""
    stack.client("dynamodb").update_item(
        TableName=stack.outputs["tableName"],
        Key={"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}},
        UpdateExpression="SET updated_at = :long_ago, heard_at = :long_ago",
        ExpressionAttributeValues={":long_ago": {"N": "1"}},
    )


def _worker_environment(stack: Stack) -> dict[str, str]:
    return {
        **CREDENTIALS,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(ROOT / "functions"), str(ROOT / "library"))),
        "AWS_ENDPOINT_URL": stack.emulator.endpoint_url,
        "AWS_REGION": REGION,
        "TABLE_NAME": stack.outputs["tableName"],
        "CALLBACK_URL": stack.outputs["callbackUrl"],
    }


def _kill_function(stack: Stack, name: str) -> None:
    """Kill -9 a function's process, which is a child of this stack's emulator."""
    endpoint = f"AWS_ENDPOINT_URL={stack.emulator.endpoint_url}".encode()
    function = f"AWS_LAMBDA_FUNCTION_NAME={stack.outputs['functionNames'][name]}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            if endpoint in variables and function in variables:
                os.kill(int(process.name), signal.SIGKILL)
