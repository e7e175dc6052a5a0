"""The emulator's own process: serves MiniStack on a socket that the parent has already bound.

Started by `local.emulator` as a script in isolated mode. File descriptors come as arguments: the listening
socket, and the read end of a pipe whose other end only the parent holds. When that pipe closes, on purpose or
because the parent was killed, the whole process group ends and its temporary directory goes with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

GRACE_SECONDS = 0.3  # for WebSocket close frames; a graceful shutdown alone can wait 26 s for idle clients


def end_with_parent(lifeline: int, ending: threading.Event) -> None:
    while os.read(lifeline, 1):
        pass
    ending.set()
    os.killpg(0, signal.SIGTERM)  # Lambda workers end at once, the server starts to close its connections
    time.sleep(GRACE_SECONDS)
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def main(listener: int, lifeline: int, actions: str = "") -> None:
    # Until the server handles it: ended by its own signal, this process would leave its temporary directory behind.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ending = threading.Event()
    watchdog = threading.Thread(target=end_with_parent, args=(lifeline, ending), daemon=True)
    watchdog.start()
    # One descriptor per WebSocket client: the usual soft limit of 1024 is reached by a modest load test.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    # Imported under the lifeline: a parent that gives up early must not wait for it.
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    # In isolated mode the project is not on the path, and it must not stay there: Lambda workers inherit it.
    sys.path.append(str(Path(__file__).parents[1]))
    from local.emulator_gaps import mend
    from local.guard import Guard

    mend()
    if actions:
        from local.recorded_actions import record_actions

        record_actions(Path(actions))
    sys.path.pop()

    config = Config()
    config.bind = [f"fd://{listener}"]
    # Longer than the 90 s of Go's clients: a request that comes as the server closes is done, and its answer is lost.
    config.keep_alive_timeout = 100
    config.loglevel = "WARNING"
    logging.getLogger("ministack").setLevel(logging.WARNING)  # its banner

    asyncio.run(serve(Guard(), config))  # type: ignore[arg-type]  # a narrower ASGI than hypercorn's
    if ending.is_set():
        watchdog.join()  # it clears up and ends the group; without a wait it would end with this thread


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
