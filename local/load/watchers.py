"""The pages: each connects, asks for the document, and notes what it hears and when."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

_PATIENCE_SECONDS = 30.0
Dial = Callable[[], tuple[str, dict[str, Any]]]


@dataclass
class Watcher:
    """
    Attributes:
        refused: Why it could not connect or watch: a status, or what the library says. Empty if it could.
        connect_seconds: Until the handshake was over.
        answer_seconds: Until the snapshot came.
        heard_seconds: By sequence, from the worker's call until the update was here.
        end_seconds: The same for the end; None if it never came.
        out_of_order, repeated: Updates that a client drops, since it has a newer one, or the same.
    """

    refused: str = ""
    connect_seconds: float = 0.0
    answer_seconds: float = 0.0
    heard_seconds: dict[int, float] = field(default_factory=dict)
    end_seconds: float | None = None
    out_of_order: int = 0
    repeated: int = 0

    async def watch(self, dial: Dial, document_id: str, watching: Callable[[], None]) -> None:
        """Until the document has ended, or the connection.

        Args:
            dial: The address and the options of a new connection.
            watching: Called once, when the snapshot is here or will not come.
        """
        try:
            url, options = dial()
            dialled_at = time.monotonic()
            async with connect(url, open_timeout=_PATIENCE_SECONDS, close_timeout=1, **options) as connection:
                self.connect_seconds = time.monotonic() - dialled_at
                asked_at = time.monotonic()
                await connection.send(json.dumps({"action": "progress", "docId": document_id}))
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    answer = json.loads(await connection.recv())
                self.answer_seconds = time.monotonic() - asked_at
                if answer.get("status") != "pending":
                    self.refused = answer.get("errorCode") or f"answered {answer.get('status')}"
                    return
                watching()
                await self._hear(connection)
        except InvalidStatus as error:
            self.refused = str(error.response.status_code)
        except TimeoutError:
            self.refused = f"no answer in {_PATIENCE_SECONDS:g} s"
        except ConnectionClosed as error:
            self.refused = self.refused or ("" if self.answer_seconds else f"closed: {error}")
        except (OSError, WebSocketException, ValueError) as error:
            self.refused = f"{type(error).__name__}: {error}"
        finally:
            watching()

    async def _hear(self, connection: ClientConnection) -> None:
        newest = 0
        async for text in connection:
            here_at = time.monotonic()
            update = json.loads(text)
            sequence = update.get("sequence", 0)
            if sequence <= newest:
                self.repeated += sequence in self.heard_seconds or sequence == newest
                self.out_of_order += sequence not in self.heard_seconds and sequence != newest
                continue
            newest = sequence
            if update["status"] == "progress":
                self.heard_seconds[sequence] = here_at - float(update["message"])
            elif update["status"] in ("processing_complete", "error"):
                self.end_seconds = here_at - float(update.get("result", {}).get("at", "nan"))
                return


async def watch_all(
    watchers: list[Watcher],
    dial: Dial,
    document_id: str,
    *,
    per_second: float,
    connected: Callable[[], None],
    work: Callable[[], None],
) -> None:
    """Connects them one by one, has the document processed when all are there, and waits until each heard its end.

    Args:
        per_second: How many connections a second.
        connected: Called for each that watches, or cannot.
        work: Processes the document; called in a thread, unless nobody watches.
    """
    everyone = asyncio.Semaphore(0)

    async def one(watcher: Watcher) -> None:
        told = False

        def watching() -> None:
            nonlocal told
            if not told:
                told = True
                connected()
                everyone.release()

        await watcher.watch(dial, document_id, watching)

    begun_at = time.monotonic()
    tasks = []
    try:
        for number, watcher in enumerate(watchers):
            await asyncio.sleep(begun_at + number / per_second - time.monotonic())
            tasks.append(asyncio.create_task(one(watcher)))
        for _ in watchers:
            await everyone.acquire()
        if any(not watcher.refused for watcher in watchers):
            await asyncio.to_thread(work)
        await asyncio.wait(tasks, timeout=_PATIENCE_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
