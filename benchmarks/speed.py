"""Posts per second and CPU per post of every client, against one server, over plain HTTP and over TLS."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import c_client
from benchmarks.certificate import write_certificate
from benchmarks.clients import CALLBACK_LIMIT, CLIENTS

REPOSITORY = Path(__file__).parent.parent
# One round takes about so long, whatever the client's speed.
ROUND_SECONDS = 0.7


@dataclass(frozen=True, slots=True)
class Speed:
    posts_per_second: float
    cpu_us_per_post: float


def child_environment() -> dict[str, str]:
    """No settings or credentials of the machine's user; the handlers' code importable."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "functions", REPOSITORY / "library")))
    }


def cores() -> tuple[int, int] | None:
    """One core for the server and another for the client, or None where processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[-1], usable[0]) if len(usable) > 1 else None


@contextmanager
def child(
    arguments: list[str],
    core: int | None,
    *,
    program: Sequence[str] = (sys.executable, "-m"),
    environment: Mapping[str, str] = {},
) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m ...`, or another program, on `core` until the block ends; it ends when its standard input does."""
    process = subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**child_environment(), **environment},
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def ask(process: subprocess.Popen[str], line: str = "") -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    answer = process.stdout.readline().strip()
    if not answer:
        raise RuntimeError(f"{process.args!r} ended without an answer")
    return answer


@contextmanager
def sink(certificate: Path | None, core: int | None) -> Iterator[str]:
    """Run the server; yield its callback URL."""
    with child(["benchmarks.sink", *([str(certificate)] if certificate else [])], core) as process:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{ask(process)}/prod"


def measure(
    *, tls: bool, rounds: int, round_seconds: float, progress: Callable[[str], None]
) -> tuple[dict[str, Speed], dict[str, str]]:
    """Measure all clients in turn, round by round, so that whatever else the machine does strikes them alike.

    Return what was measured, and why what could not be was left out, by client.
    """
    server_core, client_core = cores() or (None, None)
    left_out: dict[str, str] = {}
    results: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = write_certificate(directory) if tls else None
        url = stack.enter_context(sink(certificate, server_core))
        names = [name for name in CLIENTS if not (tls and name == CALLBACK_LIMIT)]
        clients, counts = {}, {}
        trusted = [str(certificate)] if certificate else []
        for name in names:
            clients[name] = stack.enter_context(child(["benchmarks.clients", name, url, *trusted], client_core))
        progress(f"{c_client.NAME}: compiling")
        try:
            program = c_client.build(directory)
        except c_client.CannotBuild as reason:
            left_out[c_client.NAME] = str(reason)
        else:
            clients[c_client.NAME] = stack.enter_context(
                child(
                    [*c_client.server(url), *trusted],
                    client_core,
                    program=[str(program)],
                    environment=c_client.ENVIRONMENT,
                )
            )
        for name in clients:
            progress(f"{name}: warming up")
            ask(clients[name])
            for warm_up in (300, 300):
                seconds = float(ask(clients[name], str(warm_up)).split()[0])
            counts[name] = max(300, int(300 / seconds * round_seconds))
        for number in range(rounds):
            for name in clients:
                progress(f"{name}: round {number + 1} of {rounds}")
                seconds, cpu_seconds = map(float, ask(clients[name], str(counts[name])).split())
                results.setdefault(name, []).append((counts[name] / seconds, cpu_seconds / counts[name] * 1e6))
    medians = {
        name: Speed(median(rate for rate, _ in measured), median(cpu for _, cpu in measured))
        for name, measured in results.items()
    }
    return medians, left_out
