"""The example in Python: a program with a package `infra` of its own, beside ours as pip installs it.

Does not prove that AWS takes it: the mock engine records what it declares.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uv

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "python"

PROGRAM = """
import json, runpy
import docprogress_infra, infra
from tests.mock_engine import run
graph = run(lambda: runpy.run_path("__main__.py", run_name="__main__"), stack="dev")
print(json.dumps({
    "ours": docprogress_infra.__file__,
    "theirs": infra.__file__,
    "outputs": graph.outputs,
    "policies": {each.name: each.inputs["role"] for each in graph.of("RolePolicy")},
    "environment": graph.one("Function", "invoice-reader-function").inputs["environment"]["variables"],
    "archives": [getattr(each.inputs["code"], "path", None) for each in graph.of("Function")],
}))
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the example declares, in a process of its own."""
    installed = tmp_path_factory.mktemp("site-packages")
    ended = subprocess.run(
        [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    if ended.returncode:
        assert not os.environ.get("CI"), ended.stderr
        pytest.skip(f"no package index: {ended.stderr[-300:]}")
    # As Python has it for a program in the example's folder; the repository's root is there for the mock engine alone.
    path = os.pathsep.join(map(str, (EXAMPLE, installed, ROOT)))
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=EXAMPLE,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result | {"installed": str(installed)}


def test_both_packages_are_there_and_neither_hides_the_other(declared: dict[str, Any]) -> None:
    assert declared["theirs"] == str(EXAMPLE / "infra" / "__init__.py")
    assert declared["ours"].startswith(declared["installed"])


def test_the_program_s_own_worker_may_report_and_knows_where(declared: dict[str, Any]) -> None:
    granted = [name for name, role in declared["policies"].items() if role.startswith("invoice-reader-role")]
    assert sorted(granted) == [
        "invoice-reader-role-find-watchers-in-progress",
        "invoice-reader-role-manage-connections-of-api",
        "invoice-reader-role-use-keys-of-progress",
        "invoice-reader-role-write-states-in-progress",
    ]
    assert {"TABLE_NAME", "CALLBACK_URL"} <= set(declared["environment"])
    assert declared["outputs"]["url"].startswith("wss://")


def test_the_functions_are_packaged_from_what_is_installed(declared: dict[str, Any]) -> None:
    ours = [path for path in declared["archives"] if path]
    assert len(ours) == 2
    for path in ours:
        assert Path(path).is_file(), "the engine stands in another folder than this process perhaps"
        assert path.startswith(declared["installed"])
