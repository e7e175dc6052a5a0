"""From a worker's report to a watcher's WebSocket, through the whole local stack: table, Query, @connections.

`python -m benchmarks.latency DOCUMENTS` prints a JSON array of milliseconds. The emulator stands in for AWS, so
the figures tell what this project's own parts and the emulator take together, not what AWS takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.speed import REPOSITORY, child_environment


def measure(*, documents: int, progress: Callable[[str], None]) -> list[float] | str:
    """Return the latencies in milliseconds, two a document, or why there are none."""
    progress(f"publish to receive on the emulator, {documents} documents")
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.latency", str(documents)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=child_environment(),
        timeout=300,
    )
    if ended.returncode:
        return ended.stderr.strip().splitlines()[-1]
    latencies: list[float] = json.loads(ended.stdout.splitlines()[-1])
    return latencies


def main(documents: int) -> None:
    from local.emulator import CREDENTIALS, REGION
    from local.stack import local_stack

    with local_stack(on_log=lambda _: None) as stack:
        os.environ |= CREDENTIALS | {
            "AWS_ENDPOINT_URL": stack.emulator.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "TABLE_NAME": stack.outputs["tableName"],
            "CALLBACK_URL": stack.outputs["callbackUrl"],
        }
        print(json.dumps(asyncio.run(_watch(documents, stack.outputs["websocketUrl"]))), flush=True)


async def _watch(documents: int, url: str) -> list[float]:
    from websockets.asyncio.client import connect

    from docprogress.publisher import publisher

    latencies = []
    async with connect(url) as connection:

        async def receive(status: str) -> None:
            message = json.loads(await asyncio.wait_for(connection.recv(), 20))
            if message["status"] != status:
                raise RuntimeError(f"expected {status}, not {message}")

        for number in range(documents + 1):
            document_id = f"latency-{number}"
            await connection.send(json.dumps({"action": "progress", "docId": document_id}))
            await receive("pending")
            tracker = publisher().track(document_id)
            for report, status in (
                (lambda: tracker.start(10), "processing_started"),  # noqa: B023  called within this turn
                (tracker.complete, "processing_complete"),
            ):
                started = time.perf_counter()
                reporting = asyncio.create_task(asyncio.to_thread(report))
                await receive(status)
                if number:  # the first document opens connections
                    latencies.append((time.perf_counter() - started) * 1_000)
                await reporting
            # A connection may watch so many documents and no more.
            await connection.send(json.dumps({"action": "progress", "docId": document_id, "subscribe": False}))
            await receive("processing_complete")
    return latencies


if __name__ == "__main__":
    main(int(sys.argv[1]))
