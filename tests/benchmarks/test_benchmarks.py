"""`make bench` runs. Its figures mean nothing here: a busy machine must not fail a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# It works for half a minute where others keep the machine busy, and a time-out would be a figure too.
@pytest.mark.timeout(600)
def test_the_benchmarks_run_and_compare_with_every_peer() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "http", "memory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for client in ("this engine", "boto3, 64 threads", "awscrt", "aiohttp", "unsigned", "C, epoll and OpenSSL"):
        assert client in run.stdout
