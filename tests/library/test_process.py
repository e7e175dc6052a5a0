"""Workers that are several processes, forked or spawned, on the emulator's table.

Not proved here: the fan-out's sockets after a fork (test_fan_out).
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from docprogress.process import PerProcess, making_what_stays
from docprogress.table.states import States

LIBRARY = Path(__file__).parents[2] / "library"

POOL = """
import multiprocessing, sys
import docprogress

publisher = docprogress.connect(table_name="progress", callback_url="")

def work(arguments):
    run_id, attempt, pages = arguments
    with publisher.track(sys.argv[2], run_id=run_id, attempt=attempt, joined=True) as tracker:
        for page in range(pages):
            tracker.advance()
    return True

if __name__ == "__main__":
    with publisher.track(sys.argv[2]) as tracker:
        tracker.start(total=60)
        publisher.states.read(sys.argv[2])  # the parent's connection is open and in use
        with multiprocessing.get_context(sys.argv[1]).Pool(4) as pool:
            pool.map(work, [(tracker.run_id, tracker.attempt, 5)] * 12, chunksize=1)
"""

INHERITED = """
import os, sys
import docprogress

publisher = docprogress.connect(table_name="progress", callback_url="")
children = []
with publisher.track(sys.argv[1]) as tracker:
    tracker.start(total=60)
    for number in range(4):
        child = os.fork()
        if not child:
            break
        children.append(child)
    if children and child:
        assert all(os.waitpid(child, 0)[1] == 0 for child in children[:3])
        os.waitpid(children[3], 0)
    else:
        tracker.advance(number + 1)
        if number == 3:
            raise SystemExit("one child's exception does not end the document for all")
    if not child:
        children = []
if not child:
    os._exit(0)
"""


FIRST_POST = """
import faulthandler, importlib.abc, os, sys, threading
from botocore.credentials import ReadOnlyCredentials
from docprogress.posting.fan_out import FanOut

begun, forking = threading.Event(), threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "docprogress.posting.engine":
            begun.set()
            forking.wait()

fan_out = FanOut("http://127.0.0.1:9/dev", region="r", credentials=lambda: ReadOnlyCredentials("a", "b", None))

def post():
    fan_out.post([], b"x", deadline_seconds=1, forget=print)

sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=post)
thread.start()
begun.wait()
threading.Timer(0.2, forking.set).start()
child = os.fork()
if child:
    thread.join()
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
faulthandler.dump_traceback_later(10, exit=True)
post()
os._exit(0)
"""


def run(script: str, *arguments: str, path: Path) -> None:
    file = path / "worker.py"
    file.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "AWS_REGION": "us-east-1"}
    ended = subprocess.run(
        [sys.executable, str(file), *arguments], env=environment, capture_output=True, text=True, timeout=250
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.emulator
@pytest.mark.usefixtures("table_name")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_counts_every_page_whichever_way_it_is_made(
    method: str, tmp_path: Path, now_store: States, document_id: str
) -> None:
    run(POOL, method, document_id, path=tmp_path)

    state = now_store.read(document_id)
    assert state is not None
    assert (state.status, state.processed) == ("processing_complete", 60)


@pytest.mark.emulator
@pytest.mark.usefixtures("table_name")
def test_a_child_that_is_forked_inside_the_block_goes_on_as_a_joined_worker(
    tmp_path: Path, now_store: States, document_id: str
) -> None:
    run(INHERITED, document_id, path=tmp_path)

    state = now_store.read(document_id)
    assert state is not None
    assert (state.status, state.processed) == ("processing_complete", 1 + 2 + 3 + 4), "the parent has completed it"


def test_a_child_that_is_forked_while_the_parent_sends_its_first_message_sends_its_own(tmp_path: Path) -> None:
    run(FIRST_POST, path=tmp_path)


def test_a_lock_that_another_thread_held_at_the_fork_does_not_hold_up_the_child() -> None:
    making, made = threading.Event(), threading.Event()

    def make() -> int:
        if os.getpid() == parent:
            making.set()
            made.wait(60)
        return os.getpid()

    parent = os.getpid()
    value = PerProcess(make)
    thread = threading.Thread(target=value)
    thread.start()
    making.wait(60)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(value()).encode())
        os._exit(0)
    made.set()
    thread.join(60)

    assert int(os.read(read, 20)) == child
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert value() == parent


def test_what_stays_is_kept_from_the_garbage_collector_which_goes_on_after_it() -> None:
    frozen_before = gc.get_freeze_count()
    try:
        with making_what_stays():
            made = [[number] for number in range(10_000)]
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() - frozen_before >= len(made)
    finally:
        gc.unfreeze()


def test_the_garbage_collector_goes_on_when_what_was_to_stay_cannot_be_made() -> None:
    def fail() -> None:
        raise ConnectionError

    try:
        with pytest.raises(ConnectionError):
            making_what_stays()(fail)()
        assert gc.isenabled()
    finally:
        gc.unfreeze()
