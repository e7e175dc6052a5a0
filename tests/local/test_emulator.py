"""Not proven here: that MiniStack behaves like AWS, or that anything can be deployed on it (test_engine)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.emulator import CREDENTIALS, REGION, Emulator, EmulatorError

ROOT = Path(__file__).resolve().parents[2]


def child(leftovers: Any, program: str) -> subprocess.Popen[str]:
    """A Python program whose temporary files go where `leftovers` looks."""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(leftovers.folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_started_emulator_answers_and_a_stopped_one_leaves_nothing(leftovers: Any) -> None:
    program = """
from local.emulator import Emulator
emulator = Emulator()
with emulator:
    print(emulator.endpoint_url, flush=True)
    input()
"""
    with child(leftovers, program) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        assert len(leftovers.processes()) == 2, "the program and the emulator"
        assert len(leftovers.files()) == 1, "the emulator's private folder"
        process.communicate("\n", timeout=60)
    leftovers.assert_none()


def test_the_key_of_user_pools_goes_with_its_emulator(leftovers: Any) -> None:
    program = """
import boto3
from local.emulator import CREDENTIALS, Emulator
with Emulator() as emulator:
    endpoint = {"endpoint_url": emulator.endpoint_url, "region_name": "us-east-1"}
    boto3.Session(*CREDENTIALS.values()).client("cognito-idp", **endpoint).create_user_pool(PoolName="users")
    print("created", flush=True)
    input()
"""
    with child(leftovers, program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "created\n"
        assert list(leftovers.folder.rglob("cognito-rsa-key.pem"))
        process.communicate("\n", timeout=60)
    leftovers.assert_none()


def test_an_emulator_ends_with_a_parent_that_was_killed(leftovers: Any) -> None:
    program = """
import time
from local.emulator import Emulator
with Emulator():
    print("ready", flush=True)
    time.sleep(60)
"""
    with child(leftovers, program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert leftovers.processes()
        process.send_signal(signal.SIGKILL)
    leftovers.assert_none()


def test_a_busy_port_is_one_clear_message() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EmulatorError) as raised, Emulator(port):
            pass
    expected = f"port {port} on 127.0.0.1 is busy; choose another with --port N, or a free one with --port 0"
    assert str(raised.value) == expected


def test_the_port_is_free_again_at_once() -> None:
    with Emulator() as first:
        port = first.port
    with Emulator(port) as second:
        assert second.port == port


def test_an_emulator_that_dies_is_told_with_its_last_words() -> None:
    emulator = Emulator()
    emulator.start()
    try:
        emulator.wait_until_ready()
        process = emulator._process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        with pytest.raises(EmulatorError, match="ended by itself with exit code -9"):
            emulator.check(within=60)
    finally:
        emulator.stop()


def test_nothing_of_the_callers_environment_reaches_a_lambda(monkeypatch: pytest.MonkeyPatch, leftovers: Any) -> None:
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "1")
    with Emulator() as emulator:
        process = emulator._process
        assert process is not None
        names = {
            entry.split(b"=")[0].decode() for entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        }
    assert not names & {"AWS_PROFILE", "PYTHONPATH", "SECRET_OF_THE_SHELL"}


def test_iam_is_enforced(emulator: Emulator) -> None:
    session: Any = boto3.Session("AKIAUNKNOWN000000000", "wrong")
    client = session.client("s3", endpoint_url=emulator.endpoint_url, region_name=REGION)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        client.list_buckets()
    client.close()


def test_the_rights_that_a_request_of_the_root_user_takes_are_written_down(tmp_path: Path) -> None:
    actions = tmp_path / "actions"
    with Emulator(actions=actions) as emulator:
        session: Any = boto3.Session(*CREDENTIALS.values(), region_name=REGION)
        queues = session.client("sqs", endpoint_url=emulator.endpoint_url)
        for _ in range(2):
            queues.create_queue(QueueName="jobs")
        queues.close()
    asked = {"action": "sqs:CreateQueue", "resource": f"arn:aws:sqs:{REGION}:000000000000:jobs"}
    # Again and again, since a phase of a deployment begins anywhere in the file.
    assert [json.loads(line) for line in actions.read_text().splitlines()] == [asked, asked]
