"""Updates to 200 watchers, alone and with one more that throttles or hangs: how long each holds its worker up.

`python -m benchmarks.stragglers NAME URL KIND UPDATES` prints the milliseconds of each update as a JSON array.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from statistics import median

from benchmarks.clients import CREDENTIALS, ENGINE, MESSAGE, REGION, Boto3, Watcher, connection_ids
from benchmarks.sink import HANGS, THROTTLES
from benchmarks.speed import ask, child, cores, sink

BOTO3 = "boto3, 16 threads"
KINDS = ("", THROTTLES, HANGS)
_HEALTHY = 200


def measure(*, updates: int, progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """The median milliseconds of an update after the first, by client and kind of bad watcher."""
    server_core, client_core = cores() or (None, None)
    results: dict[str, dict[str, float]] = {}
    with sink(None, server_core) as url:
        for name in (ENGINE, BOTO3):
            for kind in KINDS:
                progress(f"{name} beside a watcher that {kind.lower() or 'does nothing wrong'}")
                with child(["benchmarks.stragglers", name, url, kind, str(updates)], client_core) as process:
                    results.setdefault(name, {})[kind] = median(json.loads(ask(process))[1:])
    return results


def _engine(url: str) -> Callable[[Sequence[str], int], None]:
    from docprogress.posting.fan_out import FanOut

    fan_out = FanOut(url, region=REGION, credentials=lambda: CREDENTIALS)

    def post(ids: Sequence[str], version: int) -> None:
        watchers = [Watcher(connection_id) for connection_id in ids]
        fan_out.post([watchers], MESSAGE, topic="d", version=version, deadline_seconds=10, forget=print)

    return post


def _boto3(url: str) -> Callable[[Sequence[str], int], None]:
    from botocore.exceptions import ClientError, ReadTimeoutError

    client = Boto3(url, None, 16, read_timeout=1)
    pool = ThreadPoolExecutor(16)

    def post_one(connection_id: str) -> None:
        with suppress(ClientError, ReadTimeoutError):
            client.post_one(connection_id)

    def post(ids: Sequence[str], _version: int) -> None:
        list(pool.map(post_one, ids))

    return post


def main(name: str, url: str, kind: str, updates: int) -> None:
    post = _engine(url) if name == ENGINE else _boto3(url)
    ids = [*connection_ids(_HEALTHY), *([f"{kind}1w="] if kind else [])]
    milliseconds = []
    for version in range(updates):
        started = time.perf_counter()
        post(ids, version)
        milliseconds.append((time.perf_counter() - started) * 1_000)
    print(json.dumps(milliseconds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
