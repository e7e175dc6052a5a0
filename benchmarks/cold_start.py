"""Cold start of each handler, import and client creation, against a bare boto3 client. A fresh process each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from benchmarks.speed import REPOSITORY, child_environment, cores

BARE = "bare boto3 client"
# What a sandbox does before its first event, by handler: the import, and the wiring that its first event builds.
_PUBLISHER = "{0}.publisher().table.client; {0}.publisher().announcer"
STARTS = {
    BARE: "import boto3; boto3.client('dynamodb')",
    "connection_handler": "import connection_handler; connection_handler.table().client; connection_handler.service()",
    **{
        name: f"import {name}; {_PUBLISHER.format(name)}"
        for name in ("document_processor", "stream_fan_out", "stall_watchdog")
    },
}
STARTS["document_processor"] += "; document_processor._s3()"
# Of the bare client's CPU, at most.
GOALS = {"connection_handler": 1.0, "document_processor": 1.15, "stream_fan_out": 1.05, "stall_watchdog": 1.05}
# What Lambda sets, and what the stack gives the functions.
ENVIRONMENT = {
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE00",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "T" * 900,
    "TABLE_NAME": "progress",
    "CALLBACK_URL": "https://abc123.execute-api.eu-west-1.amazonaws.com/dev",
    "POWERTOOLS_SERVICE_NAME": "docprogress",
    "POWERTOOLS_METRICS_NAMESPACE": "docprogress",
}
# Functions are packaged without awscrt, which botocore loads where it finds it, as here for its own benchmark.
TIMED = (
    "import sys; sys.modules['awscrt'] = None; "
    "import time; started, cpu = time.perf_counter(), time.process_time(); {}; "
    "print(time.perf_counter() - started, time.process_time() - cpu)"
)


class Start(NamedTuple):
    ms: float
    cpu_ms: float


def measure(*, rounds: int, progress: Callable[[str], None]) -> tuple[dict[str, Start], dict[str, str]]:
    """Return the medians in milliseconds, by the clock and of CPU, and why what could not be started was left out."""
    starts: dict[str, list[Start]] = {}
    skipped: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, statement in STARTS.items():
            if name in skipped:
                continue
            progress(f"cold start of {name}: round {number} of {rounds}")
            started = _start(statement)
            if isinstance(started, str):
                skipped[name] = started
            elif number:  # the first one fills the disk's cache and writes bytecode
                starts.setdefault(name, []).append(started)
    medians = {
        name: Start(median(start.ms for start in measured), median(start.cpu_ms for start in measured))
        for name, measured in starts.items()
    }
    return medians, skipped


def _start(statement: str) -> Start | str:
    pinned = cores()
    command = TIMED.format(statement)
    if pinned:
        command = f"import os; os.sched_setaffinity(0, {{{pinned[1]}}}); {command}"
    ended = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=child_environment() | ENVIRONMENT | {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0")},
        timeout=60,
    )
    if ended.returncode:
        return ended.stderr.strip().splitlines()[-1]
    seconds, cpu_seconds = map(float, ended.stdout.split()[-2:])
    return Start(seconds * 1_000, cpu_seconds * 1_000)
