"""Runs the page's own unit tests, one Node test file each, under `node --test`.

Not proven here: anything; the .test.mjs files say for themselves what they do not prove.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
NODE_MAJOR = 18  # the first with a test runner of its own


@pytest.fixture(scope="module")
def node() -> str:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: the client's unit tests need Node.js 18 or later")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < NODE_MAJOR:
        pytest.skip(f"node {version.strip()} has no test runner: the client's unit tests need Node.js 18 or later")
    return node


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.test.mjs")), ids=lambda file: file.name)
def test_the_unit_tests_of_the_page_pass(node: str, file: Path) -> None:
    run = subprocess.run(
        [node, "--test", "--test-reporter=tap", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"^# pass (\d+)$", run.stdout, flags=re.MULTILINE)
    assert passed, f"no summary:\n{run.stdout}"
    assert int(passed[1]) == len(re.findall(r"^test\(", file.read_text(), flags=re.MULTILINE))
