"""Workers that fork, spawn or are killed.

Does not prove Lambda's freezing, which no process can do to itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from docprogress.table.states import States
from stall_watchdog import end_stalled
from tests.faults.conftest import Site
from tests.faults.connections_server import Behaviour, deliver_always
from tests.faults.table_proxy import Fault

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
        for result in [pool.apply_async(work, (f"{sys.argv[1]}{number}",)) for number in range(8)]:
            result.get(100)
    work("parents")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_a_worker_that_has_posted_all_reach_their_end(site: Site, tmp_path: Path, method: str) -> None:
    documents = ["parents", *(f"{method}{number}" for number in range(8))]
    for document_id in documents:
        site.subscribe(document_id, f"w-{document_id}=")
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    subprocess.run(
        [sys.executable, str(script), method],
        check=True,
        timeout=200,
        env=worker_environment(site),
    )
    for document_id in documents:
        heard = [json.loads(message) for message in site.gateway.received[f"w-{document_id}="]]
        assert heard[-1]["status"] == "processing_complete", document_id
        assert {message["docId"] for message in heard} == {document_id}, "nobody hears another's"
    assert [message["status"] for message in heard].count("processing_started") == 1


WORKER = """
import sys
import docprogress

with docprogress.connect().track(sys.argv[1]) as tracker:
    tracker.start(total=3)
    for _ in range(3):
        tracker.advance()
"""


@pytest.mark.parametrize(("operation", "number"), [("UpdateItem", 1), ("UpdateItem", 2), ("Query", 0), ("Query", 1)])
def test_a_document_whose_worker_is_killed_at_any_step_reaches_an_end_that_its_watchers_hear(
    site: Site, operation: str, number: int
) -> None:
    """Query 1 may be the one after the last write: then the document has ended, and nobody was told."""
    document_id = f"killed-{operation}-{number}"
    site.subscribe(document_id, "w=")
    before, reached = site.table.operations[operation], threading.Event()

    def plan(asked: str, asked_before: int) -> Fault:
        if asked == operation and asked_before >= before + number:
            reached.set()
            return Fault("fail", delay_seconds=1.0)
        return Fault()

    site.table.plan = plan
    worker = subprocess.Popen([sys.executable, "-c", WORKER, document_id], env=worker_environment(site))
    try:
        assert reached.wait(100)
    finally:
        worker.kill()
        worker.wait()
    site.table.plan = lambda _operation, _number: Fault()

    # Ten minutes later, as the watchdog sees it.
    site.publisher.states = States(site.publisher.table, now=lambda: time.time() + 600)
    assert document_id in end_stalled(site.publisher, 120)
    heard = [json.loads(message) for message in site.gateway.received["w="]]
    assert heard[-1]["status"] in ("processing_complete", "error"), heard
    assert document_id not in end_stalled(site.publisher, 120), "it is told once"


OUTLIVES_MAIN = """
import sys, threading
import docprogress

publisher = docprogress.connect()
publisher.announcer

def work():
    threading.main_thread().join()
    with publisher.track(sys.argv[1]) as tracker:
        tracker.start(total=1)
        tracker.advance()

threading.Thread(target=work).start()
"""


def test_a_thread_that_goes_on_when_the_program_has_ended_still_tells_its_watchers(site: Site) -> None:
    """The interpreter waits for it, and gives the executors of others nothing more to do meanwhile."""
    site.subscribe("outlives-main", "w=", "gone=")
    site.gateway.plan = lambda connection_id, _attempt: (
        Behaviour.GONE if connection_id == "gone=" else Behaviour.DELIVER
    )
    subprocess.run(
        [sys.executable, "-c", OUTLIVES_MAIN, "outlives-main"], check=True, timeout=200, env=worker_environment(site)
    )
    heard = [json.loads(message) for message in site.gateway.received["w="]]
    assert heard[-1]["status"] == "processing_complete"


SUSPENDED = """
import sys
import docprogress

def work():
    with docprogress.connect().track(sys.argv[1]) as tracker:
        tracker.start(total=2)
        while True:
            tracker.advance()
            yield

working = work()
next(working)
"""


def test_a_process_that_ends_within_a_generators_block_ends_and_the_watchdog_tells_of_it(site: Site) -> None:
    """The interpreter ends the generator when it has stopped the threads that would have to be waited for."""
    site.subscribe("suspended", "w=")
    subprocess.run(
        [sys.executable, "-c", SUSPENDED, "suspended"], check=True, timeout=200, env=worker_environment(site)
    )
    site.publisher.states = States(site.publisher.table, now=lambda: time.time() + 600)
    assert "suspended" in end_stalled(site.publisher, 120)
    heard = [json.loads(message) for message in site.gateway.received["w="]]
    assert heard[-1]["errorCode"] == "PROCESSING_STALLED"


@pytest.mark.parametrize("outage", [Behaviour.UNAVAILABLE, Behaviour.HANG, Behaviour.FORBIDDEN])
def test_an_end_that_an_outage_or_a_missing_right_kept_from_everyone_is_told_by_the_watchdog(
    site: Site, outage: Behaviour
) -> None:
    document_id = f"outage-{outage.name}"
    site.subscribe(document_id, "w=")
    site.gateway.plan = lambda _connection_id, _attempt: outage
    subprocess.run([sys.executable, "-c", WORKER, document_id], check=True, timeout=200, env=worker_environment(site))
    assert site.gateway.received["w="] == []

    site.gateway.plan = deliver_always
    site.publisher.states = States(site.publisher.table, now=lambda: time.time() + 600)
    assert document_id in end_stalled(site.publisher, 120)
    (message,) = site.gateway.received["w="]
    assert json.loads(message)["status"] == "processing_complete"
    assert document_id not in end_stalled(site.publisher, 120), "it is told once"


@pytest.mark.parametrize("ahead_seconds", [7_200, -7_200])
def test_a_worker_whose_clock_is_two_hours_off_tells_everyone_and_takes_nobody_for_expired(
    site: Site, ahead_seconds: int
) -> None:
    document_id = f"clock{ahead_seconds}"
    site.subscribe(document_id, "w=")  # for an hour
    clock = f"import time; true = time.time; time.time = lambda: true() + {ahead_seconds}\n"
    subprocess.run(
        [sys.executable, "-c", clock + WORKER, document_id], check=True, timeout=200, env=worker_environment(site)
    )
    heard = [json.loads(message) for message in site.gateway.received["w="]]
    assert heard[-1]["status"] == "processing_complete"
    assert site.watching(document_id) == {"w="}


def worker_environment(site: Site) -> dict[str, str]:
    return {**os.environ, **site.environment, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "library")))}
