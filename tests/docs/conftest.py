"""One stack for all that the pages show, and a folder in which their commands run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.emulator import CREDENTIALS, NO_PROFILE, REGION
from local.sample_pdf import write_sample_pdf
from tests.docs.pages import ROOT
from tests.examples.workers import worker_environment
from tests.local.conftest import DeployedStack, deployed
from tests.local.scenarios import rows

STAND_INS = Path(__file__).parent / "stand_ins"
# Verbs that need minutes, a network or a terminal: make only says what it would run.
DRY = {
    "bench": "minutes; tests/benchmarks runs it small",
    "check": "a job of CI's",
    "demo": "tests/local/test_demo.py",
    "docs": "tests/browser/test_protocol_page.py",
    "emulator": "tests/local/test_up.py",
    "engine": "a job of CI's",
    "format": "it would write into the tree",
    "load": "tests/local/test_load.py",
    "lock": "it asks a package index",
    "logs": "it follows until Ctrl-C; tests/local/test_logs.py",
    "test": "it is what runs this",
}
MAKE = f"""#!/bin/sh
real() {{ exec {shutil.which("make")} --silent -o .venv/.uv -o .venv/.local -o .venv/.dev "$@"; }}
case "$1" in
up) echo "$*" >> made-up; cat "$DOCS_OUTPUTS" ;;
{"|".join(DRY)}|-n) real -n "$@" > /dev/null ;;
*) real "$@" ;;
esac
"""
# A page must neither install anything on this machine nor touch its repository: what there is to install is looked at.
REFUSED = '#!/bin/sh\necho "not in a test: say in ELSEWHERE of tests/docs/test_commands.py what runs it" >&2\nexit 1\n'
HARMLESS = {
    "docker": REFUSED,
    "gh": REFUSED,
    "git": REFUSED,
    "npm": '#!/bin/sh\n[ "$1" = install ] && [ -f "${2:-.}/package.json" ]\n',
    "pip": '#!/bin/sh\n[ "$1" = install ] && [ -f "$2/pyproject.toml" ]\n',
}


@dataclass(frozen=True)
class Shell:
    """A folder like a checkout, with a PATH on which some commands are stand-ins: see `stand_ins` and `DRY`."""

    folder: Path
    environment: dict[str, str]

    def run(self, script: str, *, within: str = ".") -> str:
        """What it says; a command that fails fails the test."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder / within,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="session")
def stack() -> Iterator[DeployedStack]:
    with deployed({}) as stack:
        yield stack


@pytest.fixture(scope="session")
def outputs(stack: DeployedStack) -> dict[str, Any]:
    """What `make up` prints for the stack."""
    return {
        **stack.outputs,
        "awsEndpointUrl": stack.emulator.endpoint_url,
        "awsAccessKeyId": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "awsSecretAccessKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }


@pytest.fixture(scope="session")
def worker(stack: DeployedStack) -> dict[str, str]:
    """The environment of a worker with the rights of `workerPolicy`."""
    return worker_environment(stack, "docs-worker")


@pytest.fixture
def shell(tmp_path: Path, outputs: dict[str, Any]) -> Shell:
    return shell_in(tmp_path, outputs)


def shell_in(folder: Path, outputs: Mapping[str, Any]) -> Shell:
    checkout, programs = folder / "checkout", folder / "bin"
    checkout.mkdir()
    programs.mkdir()
    # A file may be written, such as a stack's settings, and in the examples; what another folder has is only read.
    shutil.copytree(ROOT / "examples", checkout / "examples", ignore=shutil.ignore_patterns("node_modules"))
    for path in ROOT.iterdir():
        if path.is_dir() and path.name not in (".git", ".venv", ".build", "dist", "examples"):
            (checkout / path.name).symlink_to(path)
        elif path.is_file():
            shutil.copy(path, checkout)
    (checkout / ".venv").symlink_to(sys.prefix)
    (folder / "outputs.json").write_text(json.dumps(outputs))
    write_sample_pdf(checkout / "report.pdf", pages=3)
    python = shlex.quote(sys.executable)
    for stand_in in STAND_INS.glob("*.py"):
        _program(programs / stand_in.stem, f'#!/bin/sh\nexec {python} {shlex.quote(str(stand_in))} "$@"\n')
    _program(programs / "python", f'#!/bin/sh\nexec {python} "$@"\n')
    _program(programs / "make", MAKE)
    for name, text in HARMLESS.items():
        _program(programs / name, text)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT / "library"),
        "DOCS_OUTPUTS": str(folder / "outputs.json"),
        "AWS_ENDPOINT_URL": outputs["awsEndpointUrl"],
        "AWS_DEFAULT_REGION": REGION,
        **CREDENTIALS,
        **NO_PROFILE,
    }
    return Shell(checkout, environment)


def forget(stack: DeployedStack, document_id: str) -> None:
    """As if no page before had watched or processed it."""
    for row in rows(stack, f"DOCUMENT#{document_id}"):
        key = {name: row[name] for name in ("pk", "sk")}
        stack.client("dynamodb").delete_item(TableName=stack.outputs["tableName"], Key=key)


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
