"""What dies on the way: workers killed in mid-document, clients that come and go. On the emulator.

Does not prove Lambda's own time-outs and retries, which the emulator imitates.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from local.emulator import CREDENTIALS, REGION
from tests.local.scenarios import FINAL, ask, eventually, pdf, receive, receive_to_the_end, send, upload

Stack = Any

ROOT = Path(__file__).parents[2]
WORKER = """
import sys, time
from progress.aws import publisher
with publisher().tracker("killed") as tracker:
    tracker.start(total_pages=100)
    for page in range(50):
        tracker.advance()
    time.sleep(600)
"""


WATCHDOG = "docprogress-local-stall-watchdog"


@pytest.fixture
def impatient_watchdog(stack: Stack) -> Iterator[None]:
    """Gives documents up after a second; not for long, since the emulator calls it each minute for all tests."""
    functions = stack.client("lambda")
    before = functions.get_function_configuration(FunctionName=WATCHDOG)["Environment"]["Variables"]
    impatient = {**before, "STALL_TIMEOUT_SECONDS": "1"}
    functions.update_function_configuration(FunctionName=WATCHDOG, Environment={"Variables": impatient})
    yield
    functions.update_function_configuration(FunctionName=WATCHDOG, Environment={"Variables": before})


@pytest.mark.usefixtures("impatient_watchdog")
def test_a_document_whose_worker_is_killed_reaches_a_terminal_state(stack: Stack) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="killed")
        worker = subprocess.Popen([sys.executable, "-c", WORKER], env=_worker_environment(stack))
        try:
            while receive(connection).get("pagesProcessed") != 50:
                pass
        finally:
            worker.kill()
            worker.wait()

        def given_up() -> bool:
            answer = stack.client("lambda").invoke(FunctionName=WATCHDOG, Payload=b"{}")
            return "killed" in json.load(answer["Payload"])["stalled"]

        assert eventually(given_up)
        answer = receive(connection)
    assert (answer["errorCode"], answer["recoverable"]) == ("PROCESSING_STALLED", True)


def test_a_document_whose_processor_is_killed_can_be_uploaded_again(stack: Stack, tmp_path: Path) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="again")
        upload(stack, "again", pdf(tmp_path, pages=200))
        while receive(connection)["status"] != "progress":
            pass
        _kill_function(stack, "documents-processor")
        upload(stack, "again", pdf(tmp_path, pages=5))
        messages = receive_to_the_end(connection)
    assert messages[-1]["status"] == "processing_complete"
    assert messages[-2].get("totalPages") == 5, "the newer upload replaces the run that was cut off"
    sequences = [message["sequence"] for message in messages]
    assert sequences == sorted(set(sequences)), "a client drops what is not newer"


@pytest.mark.timeout(300)
def test_clients_that_come_and_go_all_end_with_the_true_final_state(stack: Stack, tmp_path: Path) -> None:
    documents = [f"chaos-{number}" for number in range(20)]
    body = pdf(tmp_path, pages=40)
    last: dict[str, dict[str, Any]] = {}

    def watch(number: int, document_id: str) -> None:
        """Reconnects after every few messages, as a browser on a train would."""
        newest: dict[str, Any] = {"sequence": 0}
        while newest.get("status") not in FINAL:
            # Twenty workers that start at once leave the emulator little of two cores.
            with contextlib.suppress(ConnectionClosed, TimeoutError), stack.connect(open_timeout=30) as connection:
                send(connection, action="progress", docId=document_id)
                for _ in range(2 + number % 3):
                    message = receive(connection, timeout=2.0)
                    newest = max(newest, message, key=lambda heard: heard.get("sequence", 0))
                    if newest.get("status") in FINAL:
                        break
                if number % 2:
                    connection.socket.close()
        last[document_id] = newest

    threads = [threading.Thread(target=watch, args=each, daemon=True) for each in enumerate(documents)]
    for thread in threads:
        thread.start()
    for document_id in documents:
        upload(stack, document_id, body)
    for thread in threads:
        thread.join(timeout=200)
    assert sorted(last) == sorted(documents), "every client must hear the end"
    assert {message["status"] for message in last.values()} == {"processing_complete"}


def _worker_environment(stack: Stack) -> dict[str, str]:
    return {
        **CREDENTIALS,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "functions"),
        "AWS_ENDPOINT_URL": stack.emulator.endpoint_url,
        "AWS_REGION": REGION,
        "TABLE_NAME": stack.outputs["tableName"],
        "CALLBACK_URL": stack.outputs["callbackUrl"],
    }


def _kill_function(stack: Stack, name: str) -> None:
    """Kill -9 a function's process, which is a child of this stack's emulator."""
    endpoint = f"AWS_ENDPOINT_URL={stack.emulator.endpoint_url}".encode()
    function = f"AWS_LAMBDA_FUNCTION_NAME=docprogress-local-{name}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            if endpoint in variables and function in variables:
                os.kill(int(process.name), signal.SIGKILL)
