"""Peak memory of a process that posts to 100, 10,000 and 100,000 subscribers; a fresh process each.

`python -m benchmarks.memory URL COUNT` prints the peak in MiB.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.clients import ThisEngine
from benchmarks.speed import ask, child, cores, sink

SIZES = (100, 10_000, 100_000)


def measure(*, rounds: int, sizes: tuple[int, ...], progress: Callable[[str], None]) -> dict[int, float]:
    server_core, client_core = cores() or (None, None)
    peaks: dict[int, list[float]] = {size: [] for size in sizes}
    with sink(None, server_core) as url:
        for number in range(rounds):
            for size in sizes:
                progress(f"memory with {size:,} subscribers: round {number + 1} of {rounds}")
                with child(["benchmarks.memory", url, str(size)], client_core) as process:
                    peaks[size].append(float(ask(process)))
    return {size: median(measured) for size, measured in peaks.items()}


def peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start at what the parent had (Linux getrusage(2) across exec)
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1_024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    engine = ThisEngine(sys.argv[1], None)
    engine.post(int(sys.argv[2]))
    engine.close()
    print(peak_mib(), flush=True)
