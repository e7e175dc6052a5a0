"""What a sandbox does once, as Lambda starts it in each of its ways.

Does not prove that Lambda restores a snapshot. `snapshot_restore_py`, a part of its Python, is a module of two lists.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

import sandbox
from tests.mock_engine import PROJECT_ROOT

HANDLERS = sorted(file.stem for file in (PROJECT_ROOT / "functions").glob("*.py"))
ENVIRONMENT = {
    "PATH": "",
    "PYTHONPATH": f"{PROJECT_ROOT / 'functions'}:{PROJECT_ROOT / 'library'}",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AUTHORIZATION": "JWT",
    "TABLE_NAME": "table",
    "CALLBACK_URL": "https://abc.execute-api.eu-west-1.amazonaws.com/dev",
    "DOCUMENTS_BUCKET": "bucket",
    "JWT_ISSUER": "https://issuer.example.com",
    "JWT_AUDIENCE": "page",
    "TOKEN_SOURCE": "subprotocol",
}


@pytest.fixture
def restores(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What Lambda calls in each sandbox that it restores."""
    registered: list[Callable[[], None]] = []
    module: Any = types.ModuleType("snapshot_restore_py")
    module.register_after_restore = lambda call, *arguments: registered.append(lambda: call(*arguments))
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", module)
    return registered


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    ("initialization", "prepared"),
    [(None, 0), ("on-demand", 1), ("provisioned-concurrency", 1)],
)
def test_what_lambda_starts_is_prepared_before_its_first_call_which_has_less_of_a_processor(
    monkeypatch: pytest.MonkeyPatch, initialization: str | None, prepared: int
) -> None:
    monkeypatch.delenv("AWS_LAMBDA_INITIALIZATION_TYPE", raising=False)
    if initialization:
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", initialization)
    log: Any = Log()
    calls: list[None] = []
    sandbox.started(log, lambda: calls.append(None))
    assert len(calls) == prepared
    assert log.lines == ["Cold start"]


def test_each_restored_sandbox_counts_as_a_cold_start_and_the_one_in_the_snapshot_as_none(
    monkeypatch: pytest.MonkeyPatch, restores: list[Callable[[], None]]
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    log: Any = Log()
    calls: list[None] = []
    sandbox.started(log, lambda: calls.append(None))
    assert (len(calls), log.lines) == (1, [])
    (restored,) = restores
    restored()
    restored()
    assert (len(calls), log.lines) == (1, ["Cold start", "Cold start"])


def test_two_sandboxes_of_one_snapshot_have_random_numbers_of_their_own(
    monkeypatch: pytest.MonkeyPatch, restores: list[Callable[[], None]]
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    log: Any = Log()
    sandbox.started(log, lambda: None)
    snapshot = random.getstate()
    drawn = set()
    for _ in range(2):
        random.setstate(snapshot)
        restores[0]()
        drawn.add(random.random())
    random.setstate(snapshot)
    assert len(drawn) == 2


def test_no_function_has_connected_to_anything_when_its_snapshot_is_taken() -> None:
    program = f"""
import importlib, json, socket, sys, threading, types
calls, restores = [], []
sys.modules["snapshot_restore_py"] = module = types.ModuleType("snapshot_restore_py")
module.register_after_restore = lambda *given: restores.append(given)
def refuse(*given):
    calls.append(str(given))
    raise OSError("no network in a snapshot")
socket.socket.connect = socket.getaddrinfo = refuse
for handler in {HANDLERS}:
    importlib.import_module(handler)
import connection_handler, document_processor
made = [connection_handler.service, document_processor.publisher, document_processor._s3]
ready = [each.cache_info().currsize for each in made]
loaded = [each in sys.modules for each in ("docprogress.posting.engine", "boto3")]
print(json.dumps([calls, len(restores), threading.active_count(), ready, loaded]))
"""
    environment = {**ENVIRONMENT, "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    connected, restores, threads, ready, (is_engine_loaded, is_boto3_loaded) = json.loads(ended.stdout.splitlines()[-1])
    assert connected == [], "every sandbox would begin with a copy of the socket"
    assert (restores, threads) == (len(HANDLERS), 1)
    assert ready == [1, 1, 1], "what takes the time is in the snapshot"
    assert is_engine_loaded, "a first post would import asyncio"
    assert not is_boto3_loaded, "a tenth of a cold start, and botocore alone makes the clients"
