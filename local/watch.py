"""A client of the wire protocol, as the demo needs one: subscribe, upload, follow to the end.

How it looks is up to a `Display`; how a document gets into the bucket, to the caller.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

SILENCE_SECONDS = 60.0  # a document of which nothing is heard for so long has failed
# One page can take minutes, of which nothing is told. If its worker dies, the watchdog says so; this is Lambda's
# longest and the watchdog's next look.
WORKING_SECONDS = 1020.0
# The emulator serves one connection at a time, beside the workers of those that are connected: the last of many
# would wait too long for its answer.
WATCHED_AT_ONCE = 8
_DOCUMENT_ID_LENGTH = 200  # the protocol allows 256 characters; an S3 key, where one may take 4 bytes, 1,024 bytes


@dataclass
class WatchedDocument:
    """One document's progress, as its client has heard it.

    Attributes:
        failure: Why the document did not complete; None until that is known.
        first_push_at: When the first message came that was not the answer to the subscription, on the
            `time.monotonic()` clock.
    """

    path: Path
    document_id: str
    total_pages: int | None = None
    pages_processed: int = 0
    messages_received: int = 0
    first_push_at: float | None = None
    completed: bool = False
    failure: str | None = None
    sequence: int = 0
    is_worked_on: bool = False

    def receive(self, message: dict[str, Any]) -> None:
        """Takes one server message; one that is not newer than the last changes nothing but the count."""
        self.messages_received += 1
        sequence = message.get("sequence")
        if sequence is not None:
            if sequence <= self.sequence:
                return
            self.sequence = sequence
        self.total_pages = message.get("totalPages", self.total_pages)
        self.pages_processed = message.get("pagesProcessed", self.pages_processed)
        self.is_worked_on = message["status"] in ("processing_started", "progress")
        match message["status"]:
            case "processing_complete":
                self.completed = True
                self.pages_processed = self.total_pages or self.pages_processed
            case "error" if not message.get("recoverable"):
                self.failure = f"{message['errorCode']}: {message['message']}"

    @property
    def name(self) -> str:
        """The file's name, as text even where it is not valid UTF-8."""
        return _text(self.path.name)

    @property
    def ended(self) -> bool:
        return self.completed or self.failure is not None


class Display(Protocol):
    """Shows the documents while they are processed."""

    def update(self, document: WatchedDocument) -> None: ...


async def watch_all(
    documents: Sequence[WatchedDocument],
    url: str,
    upload: Callable[[WatchedDocument], Awaitable[None]],
    display: Display,
) -> None:
    """Watches every document over a connection of its own, `WATCHED_AT_ONCE` of them at a time."""
    places = asyncio.Semaphore(WATCHED_AT_ONCE)

    async def in_turn(document: WatchedDocument) -> None:
        async with places:
            await watch(document, url, upload, display)

    async with asyncio.TaskGroup() as tasks:
        for document in documents:
            tasks.create_task(in_turn(document))


async def watch(
    document: WatchedDocument,
    url: str,
    upload: Callable[[WatchedDocument], Awaitable[None]],
    display: Display,
    *,
    silence_seconds: float = SILENCE_SECONDS,
) -> None:
    """Subscribes to a document, uploads it and follows it to its end; every failure ends up in `document.failure`."""

    def patience_seconds() -> float:
        return WORKING_SECONDS if document.is_worked_on else silence_seconds

    async def receive(connection: ClientConnection) -> None:
        document.receive(json.loads(await asyncio.wait_for(connection.recv(), patience_seconds())))
        display.update(document)

    try:
        async with connect(url, open_timeout=silence_seconds, close_timeout=1) as connection:
            await connection.send(json.dumps({"action": "progress", "docId": document.document_id}))
            # The answer says that the subscription stands; what is uploaded before could be missed.
            await receive(connection)
            if not document.ended:
                await upload(document)
            while not document.ended:
                await receive(connection)
                document.first_push_at = document.first_push_at or time.monotonic()
    except TimeoutError:
        document.failure = f"nothing was heard of it for {patience_seconds():g} s"
    except ConnectionClosed as error:
        document.failure = f"the connection was closed: {error}"
    except (OSError, WebSocketException, Boto3Error, BotoCoreError, ClientError) as error:
        document.failure = str(error)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        document.failure = f"a message does not follow the protocol: {error!r}"
    display.update(document)


def document_ids(paths: Sequence[Path]) -> list[str]:
    """A document id for each file: its name without the suffix, numbered where two files share one."""
    ids: list[str] = []
    for path in paths:
        # Control characters are no part of a document id.
        stem = re.sub(r"[\x00-\x1f\x7f-\x9f]", "_", _text(path.stem))[:_DOCUMENT_ID_LENGTH]
        number, document_id = 1, stem
        while document_id in ids:
            number += 1
            document_id = f"{stem}-{number}"
        ids.append(document_id)
    return ids


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")
