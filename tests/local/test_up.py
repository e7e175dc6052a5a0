"""Not proven here: what the deployed program does (test_protocol and its like), nor the demo (test_demo)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
from websockets.sync.client import connect

from tests.local.scenarios import PATIENCE_SECONDS, ask

ROOT = Path(__file__).resolve().parents[2]
# A stack without a connection can be gone in half a second, one that waits for its emulator to end well in 26 s.
END_SECONDS = 20.0

pytestmark = pytest.mark.emulator


def up(leftovers: Any, *arguments: str, command: str = "up") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "local", command, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(leftovers.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_up_prints_one_line_of_json_serves_any_client_and_leaves_nothing(leftovers: Any) -> None:
    with up(leftovers, "--port", "0", "-c", "connectionMaxAgeSeconds=3600") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=60)[1]
        outputs = json.loads(line)
        assert set(outputs) == {
            "websocketUrl",
            "callbackUrl",
            "apiId",
            "stageName",
            "tableName",
            "connectionHandlerName",
            "documentsBucket",
            "documentProcessorName",
            "documentMediaTypes",
            "functionNames",
            "workerEnvironment",
            "workerPolicy",
            "dashboardName",
            "awsEndpointUrl",
            "awsAccessKeyId",
            "awsSecretAccessKey",
            "pageUrl",
        }
        with urllib.request.urlopen(outputs["pageUrl"]) as page:
            assert page.status == 200
        with connect(outputs["websocketUrl"], open_timeout=PATIENCE_SECONDS, ping_interval=None) as connection:
            assert ask(connection, action="ping") == {"status": "pong"}
        session: Any = boto3.Session(outputs["awsAccessKeyId"], outputs["awsSecretAccessKey"], region_name="us-east-1")
        client = session.client("lambda", endpoint_url=outputs["awsEndpointUrl"])
        handler = client.get_function_configuration(FunctionName=outputs["connectionHandlerName"])
        client.close()
        assert handler["Environment"]["Variables"]["CONNECTION_MAX_AGE_SECONDS"] == "3600"

        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        rest, log = process.communicate(timeout=60)
        assert time.monotonic() - asked < END_SECONDS
        assert rest == "", "standard output holds one line and no more"
        assert "AWS_ENDPOINT_URL=" + outputs["awsEndpointUrl"] in log
        assert "Traceback" not in log
        assert process.returncode == 0
    leftovers.assert_none()


def test_the_emulator_alone_prints_how_to_reach_it_and_stays_until_it_is_ended(leftovers: Any) -> None:
    with up(leftovers, "--port", "0", command="emulator") as process:
        assert process.stdout is not None
        access = json.loads(process.stdout.readline())
        assert set(access) == {"awsEndpointUrl", "awsAccessKeyId", "awsSecretAccessKey"}
        session: Any = boto3.Session(access["awsAccessKeyId"], access["awsSecretAccessKey"], region_name="us-east-1")
        client = session.client("dynamodb", endpoint_url=access["awsEndpointUrl"])
        assert client.list_tables()["TableNames"] == []
        client.close()
        process.send_signal(signal.SIGINT)
        rest, log = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
    assert f"export AWS_ENDPOINT_URL={access['awsEndpointUrl']} AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=" in log
    assert "Traceback" not in log
    leftovers.assert_none()


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_up_can_be_ended_while_it_deploys(leftovers: Any, signal_number: signal.Signals) -> None:
    with up(leftovers, "--port", "0") as process:
        assert process.stderr is not None
        assert process.stderr.readline(), "the emulator or the engine tells of the first resource"
        process.send_signal(signal_number)
        asked = time.monotonic()
        out, log = process.communicate(timeout=60)
        assert time.monotonic() - asked < END_SECONDS
        assert out == ""
        assert "Traceback" not in log
        assert process.returncode == 130
    leftovers.assert_none()


def test_a_busy_port_ends_up_with_one_message(leftovers: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with up(leftovers, "--port", str(port)) as process:
            out, log = process.communicate(timeout=60)
    expected = f"error: port {port} on 127.0.0.1 is busy; choose another with --port N, or a free one with --port 0\n"
    assert (process.returncode, out, log) == (1, "", expected)
    leftovers.assert_none()


def test_config_that_the_program_refuses_ends_up_with_one_message(leftovers: Any) -> None:
    with up(leftovers, "--port", "0", "-c", "apiThrottleRate=fast") as process:
        out, log = process.communicate(timeout=60)
    message = (
        "error: config key 'docprogress:apiThrottleRate' of stack 'local' must be of type integer, not 'fast'\n"
        "  pulumi config set docprogress:apiThrottleRate 1000 --stack local\n"
    )
    assert (process.returncode, out) == (1, "")
    assert log.endswith(message)
    assert "Traceback" not in log
    leftovers.assert_none()


def test_missing_packages_are_named(leftovers: Any) -> None:
    command = [sys.executable, "-S", "-m", "local", "up"]  # -S: without site-packages
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        "error: missing Python packages: boto3, ministack, pulumi, pulumi_aws, pypdf, rich, websockets, yaml; "
        "`make up` and `make demo` install what they need\n"
    )


@pytest.mark.parametrize("arguments", [["--port", "66000"], ["--port", "x"], ["-c", "novalue"]])
def test_a_wrong_argument_is_told_with_the_usage(leftovers: Any, arguments: list[str]) -> None:
    with up(leftovers, *arguments) as process:
        _, log = process.communicate(timeout=60)
    assert process.returncode == 2
    assert repr(arguments[1]) in log
