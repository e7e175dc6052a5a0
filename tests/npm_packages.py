"""Packages of npm that only tests use, by name and version; they are kept in .build and are no part of the product."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".build" / "npm"

TYPESCRIPT = "typescript@7.0.2"
ESBUILD = "esbuild@0.28.2"
PUPPETEER = "puppeteer-core@25.16.0"
VUE = "vue@3.5.45"
SVELTE = "svelte@5.57.3"
WSCAT = "wscat@6.1.0"
AXE = "axe-core@4.14.1"
REACT = ("react@19.3.1", "react-dom@19.3.1", "@types/react@19.3.3")


def command(name: str) -> str:
    """The path of `node` or `npm`; without it, the test is skipped, or fails where tests must run."""
    found = shutil.which(name)
    if found is None:
        skip_or_fail(f"no {name}: install Node.js 20 or later")
    assert found is not None
    return found


def installed(*packages: str) -> Path:
    """The folder `node_modules` with these packages, each `name@version`."""
    npm = command("npm")
    folder = CACHE / hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:16]
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=CACHE))
        # No scripts: nothing of these packages runs before a test asks for it.
        options = ["--ignore-scripts", "--no-save", "--no-package-lock", "--no-audit", "--no-fund"]
        install = [npm, "install", "--prefix", str(fresh), *options, *packages]
        run = subprocess.run(install, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            shutil.rmtree(fresh)
            skip_or_fail(f"npm could not install {' '.join(packages)}: {run.stderr.strip()[-300:]}")
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(fresh)  # another run was faster
    return folder / "node_modules"


def skip_or_fail(reason: str) -> None:
    # Where the tests must run, such as in CI, a skip would look like success.
    if os.environ.get("DOCPROGRESS_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


def bundled(entry: Path, *packages: str, options: Sequence[str] = ()) -> str:
    """The JavaScript of an ES module with all that it imports; `docprogress` is the client of this repository."""
    modules = installed(ESBUILD, *packages)
    client = ROOT / "web" / "client"
    command_line = [
        command("node"),
        str(modules / "esbuild" / "bin" / "esbuild"),
        str(entry),
        "--bundle",
        "--format=esm",
        f"--alias:docprogress/react={client / 'react.js'}",
        f"--alias:docprogress={client / 'index.js'}",
        *options,
    ]
    # The client lies outside of any node_modules, yet imports a peer such as React.
    environment = {**os.environ, "NODE_PATH": str(modules)}
    run = subprocess.run(command_line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout
