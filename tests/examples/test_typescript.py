"""The example in TypeScript: its types fit the component's.

Needs the Pulumi CLI, which writes the package of a component, and npm; skipped where they are not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "typescript"


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def checked_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with all that it imports."""
    for tool in ("pulumi", "npm"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("typescript")
    for file in EXAMPLE.iterdir():
        shutil.copy(file, folder)
    schema = str(ROOT / "plugin" / "schema.json")
    # A machine without Pulumi's own host for Node may have its generator alone.
    generators = (
        ("pulumi", "package", "gen-sdk", schema, "--language", "nodejs", "--out", str(folder / "sdk")),
        ("pulumi-gen-sdk", "nodejs", schema, str(folder / "sdk" / "nodejs")),
    )
    written = [run(*each, cwd=folder) for each in generators if shutil.which(each[0])]
    if not (folder / "sdk" / "nodejs" / "index.ts").is_file():
        assert not os.environ.get("CI"), written
        pytest.skip(f"no generator of TypeScript packages: {written[0].stderr[-300:]}")
    installed = run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", cwd=folder)
    if installed.returncode:
        assert not os.environ.get("CI"), installed.stderr
        pytest.skip(f"no package index: {installed.stderr[-300:]}")
    shutil.copytree(folder / "sdk" / "nodejs", folder / "node_modules" / "@pulumi" / "docprogress")
    return folder


def compiled(folder: Path) -> str:
    ended = run(str(folder / "node_modules" / ".bin" / "tsc"), "--strict", "-p", ".", cwd=folder)
    return ended.stdout


def test_the_example_compiles_in_strict_mode(checked_out: Path) -> None:
    assert compiled(checked_out) == ""


def test_an_argument_that_the_component_does_not_have_is_an_error(checked_out: Path) -> None:
    program = checked_out / "index.ts"
    right = program.read_text()
    program.write_text(right.replace("allowedOrigins", "origins"))
    try:
        assert "'origins' does not exist in type 'DocumentProgressArgs'" in compiled(checked_out)
    finally:
        program.write_text(right)
