"""Workers that fork, spawn or are killed.

Does not prove Lambda's freezing, which no process can do to itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Site

ROOT = Path(__file__).parents[2]
POOL = """
import multiprocessing, sys
import docprogress

publisher = docprogress.connect()

def work(document_id):
    with publisher.track(document_id) as tracker:
        tracker.start(total=20)
        for _ in range(20):
            tracker.advance()

if __name__ == "__main__":
    work("parents")  # the parent has clients, sockets, a thread and locks
    with multiprocessing.get_context(sys.argv[1]).Pool(4) as pool:
        for result in [pool.apply_async(work, (f"{sys.argv[1]}{number}",)) for number in range(12)]:
            result.get(100)
    work("parents")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_a_worker_that_has_posted_all_reach_their_end(site: Site, tmp_path: Path, method: str) -> None:
    documents = ["parents", *(f"{method}{number}" for number in range(12))]
    for document_id in documents:
        site.subscribe(document_id, f"w-{document_id}=")
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    subprocess.run(
        [sys.executable, str(script), method],
        check=True,
        timeout=200,
        env={**os.environ, **site.environment, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "library")))},
    )
    for document_id in documents:
        heard = [json.loads(message) for message in site.gateway.received[f"w-{document_id}="]]
        assert heard[-1]["status"] == "processing_complete", document_id
        assert {message["docId"] for message in heard} == {document_id}, "nobody hears another's"
    assert [message["status"] for message in heard].count("processing_started") == 1
