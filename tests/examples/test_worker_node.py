"""A worker in JavaScript that knows the table alone: held to the vectors that the library is held to, and watched.

It has the rights of `workerPolicy` and no others. Skipped where Node.js or its packages are not to be had.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.examples.workers import worker_environment
from tests.local.conftest import DeployedStack, deployed
from tests.local.scenarios import as_taken, ask, receive_to_the_end
from tests.npm_packages import command, installed
from tests.state_vectors import VECTORS, assert_outcome, put_row

EXAMPLE = Path(__file__).parents[2] / "examples" / "worker-node"
AWS_SDK = ("@aws-sdk/client-dynamodb@3.1169.0", "@aws-sdk/util-dynamodb@3.996.9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with what it imports, beside the test's own module."""
    packages = installed(*AWS_SDK)
    folder = tmp_path_factory.mktemp("worker-node")
    for file in (*EXAMPLE.glob("*.mjs"), Path(__file__).parent / "vectors.mjs"):
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(packages)
    return folder


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[DeployedStack]:
    with deployed({"fanOut": "stream"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def nobody_else_writes(stack: DeployedStack) -> None:
    """So that a row stays as its vector has it: who tells an end notes that, and the watchdog ends what is silent."""
    functions, events = stack.client("lambda"), stack.client("events")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    for rule in events.list_rules()["Rules"]:
        events.disable_rule(Name=rule["Name"])


@pytest.fixture(scope="module")
def those_who_tell(stack: DeployedStack) -> None:
    functions = stack.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)


@pytest.fixture(scope="module")
def environment(stack: DeployedStack) -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"]} | worker_environment(stack, "worker-node")


@pytest.fixture(scope="module")
def player(folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    playing = subprocess.Popen(
        [command("node"), "vectors.mjs"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with playing:
        yield playing


@pytest.mark.emulator
@pytest.mark.usefixtures("nobody_else_writes")
@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_the_worker_writes_what_the_vector_says(
    stack: DeployedStack, player: subprocess.Popen[str], vector: dict[str, Any]
) -> None:
    client, table_name = stack.client("dynamodb"), stack.outputs["tableName"]
    put_row(client, table_name, vector)
    assert player.stdin is not None
    assert player.stdout is not None
    constants = {name: VECTORS[name] for name in ("docId", "nowMs", "retentionSeconds", "worker")}
    player.stdin.write(json.dumps({**constants, "call": vector["call"]}) + "\n")
    player.stdin.flush()
    outcome = player.stdout.readline().strip()
    assert outcome, player.communicate()[1]
    assert_outcome(client, table_name, vector, outcome)


def work(folder: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command("node"), "worker.mjs", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.emulator
@pytest.mark.usefixtures("those_who_tell")
def test_its_watchers_hear_start_pages_and_end(
    stack: DeployedStack, folder: Path, environment: Mapping[str, str]
) -> None:
    with stack.connect() as connection:
        ask(connection, action="progress", docId="invoice-7")
        ended = work(folder, environment, "invoice-7", "40")
        assert ended.returncode == 0, ended.stderr
        messages = as_taken(receive_to_the_end(connection))
    assert messages[0]["totalPages"] == 40
    pages = [message["pagesProcessed"] for message in messages if message["status"] == "progress"]
    assert pages
    assert pages == sorted(pages)
    assert messages[-1]["result"] == {"key": "results/invoice-7.json"}


@pytest.mark.emulator
def test_a_cancelled_document_ends_the_worker(
    stack: DeployedStack, folder: Path, environment: Mapping[str, str]
) -> None:
    with stack.connect() as connection:
        ask(connection, action="cancel", docId="unwanted")
        ended = work(folder, environment, "unwanted", "5")
        assert ended.returncode == 1
        assert "Refused" in ended.stderr
        assert ask(connection, action="progress", docId="unwanted")["errorCode"] == "CANCELLED"
        # That was the run which must not be; the next one is another.
        assert work(folder, environment, "unwanted", "5").returncode == 0
