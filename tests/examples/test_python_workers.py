"""The workers in a container and in a pool, run as processes against the emulator, with a role's rights.

Does not prove that the image builds: the container's command runs here on this machine's Python, with the library's
source in place of its wheel.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.examples.workers import worker_environment
from tests.local.conftest import DeployedStack, deployed
from tests.local.scenarios import ask, eventually, receive_to_the_end, status

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "examples" / "worker-container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text().splitlines()


@pytest.fixture(scope="module")
def stack() -> Iterator[DeployedStack]:
    with deployed({}) as stack:
        yield stack


@pytest.fixture(scope="module")
def queue(stack: DeployedStack) -> tuple[str, str]:
    """The URL and the ARN of a queue that gives each message again at once where it is not deleted."""
    sqs = stack.client("sqs")
    url: str = sqs.create_queue(QueueName="documents", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def environment_of(stack: DeployedStack, role_name: str, *statements: Mapping[str, Any]) -> dict[str, str]:
    policy = json.loads(stack.outputs["workerPolicy"])
    policy["Statement"] += statements
    given = worker_environment(stack, role_name, json.dumps(policy))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "library"), **given}


@pytest.fixture
def container(stack: DeployedStack, queue: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The image's command, as a process."""
    (command,) = [json.loads(line.removeprefix("CMD ")) for line in DOCKERFILE if line.startswith("CMD ")]
    assert command[0] == "python"
    url, arn = queue
    receive = {"Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"], "Resource": [arn]}
    environment = environment_of(stack, f"container-{os.urandom(4).hex()}", receive)
    running = subprocess.Popen(
        [sys.executable, *command[1:]],
        cwd=CONTAINER,
        env={**environment, "QUEUE_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        yield running
        running.kill()


@pytest.mark.emulator
def test_the_container_reads_what_is_in_the_queue_and_ends_when_it_is_told(
    stack: DeployedStack, queue: tuple[str, str], container: subprocess.Popen[str]
) -> None:
    sqs = stack.client("sqs")
    with stack.connect() as connection:
        ask(connection, action="progress", docId="queued")
        sqs.send_message(QueueUrl=queue[0], MessageBody=json.dumps({"docId": "queued", "pages": 30}))
        assert receive_to_the_end(connection)[-1]["status"] == "processing_complete"
    container.send_signal(signal.SIGTERM)
    _, log = container.communicate(timeout=60)
    assert container.returncode == 0, log
    left = sqs.get_queue_attributes(QueueUrl=queue[0], AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert left["ApproximateNumberOfMessages"] == "0"


@pytest.mark.emulator
def test_a_document_that_fails_is_tried_again_and_the_last_attempt_says_so(
    stack: DeployedStack, queue: tuple[str, str], container: subprocess.Popen[str]
) -> None:
    sqs = stack.client("sqs")
    with stack.connect() as connection:
        ask(connection, action="progress", docId="hopeless")
        sqs.send_message(QueueUrl=queue[0], MessageBody=json.dumps({"docId": "hopeless", "pages": "many"}))
        told = receive_to_the_end(connection)[-1]
        while told["recoverable"]:
            told = receive_to_the_end(connection)[-1]
    assert told["errorCode"] == "PROCESSING_FAILED"
    sqs.purge_queue(QueueUrl=queue[0])


def test_the_image_runs_as_nobody_in_particular() -> None:
    (user,) = [line.removeprefix("USER ") for line in DOCKERFILE if line.startswith("USER ")]
    assert int(user.split(":")[0]) > 0, "the worker runs as root"


@pytest.mark.emulator
def test_a_pool_reads_several_documents_at_once_and_each_ends(stack: DeployedStack) -> None:
    documents = [f"pooled-{number}" for number in range(6)]
    ended = subprocess.run(
        [sys.executable, "pool.py", *(f"{name}:10" for name in documents)],
        cwd=ROOT / "examples" / "worker-pool",
        env=environment_of(stack, "pool"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.split("\n")[:-1]) == [f"{name} is read" for name in documents]
    for name in documents:
        assert eventually(lambda name=name: status(stack, name) == "processing_complete"), name
