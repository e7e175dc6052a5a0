"""How SIGINT and SIGTERM end a command: as KeyboardInterrupt, once, so that cleaning up is not interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM)


def _ignore_more() -> None:
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """The first SIGINT or SIGTERM in the block raises KeyboardInterrupt; all later ones are ignored."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        _ignore_more()
        raise KeyboardInterrupt

    for each in _ENDING:
        signal.signal(each, interrupt)
    yield


def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run` inside `ended_by_signals`: a signal cancels the work before KeyboardInterrupt is raised.

    Raised in the middle of a task instead, it would leave the other tasks to complain that nobody awaits them.
    """

    async def run() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel(_number: int, _frame: object) -> None:
            _ignore_more()
            loop.call_soon_threadsafe(task.cancel)

        before = {each: signal.signal(each, cancel) for each in _ENDING}
        try:
            await work
        finally:
            if not task.cancelling():
                for each, handler in before.items():
                    signal.signal(each, handler)

    try:
        asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
