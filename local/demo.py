"""`python -m local demo`: real documents through a fresh stack, each watched by a WebSocket client of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from local.display import deploying, documents_display, summary
from local.emulator import CREDENTIALS, REGION, Emulator
from local.page import page_of
from local.sample_pdf import SAMPLE, make_sample
from local.signals import run_until_signalled
from local.stack import LocalStack, local_stack
from local.watch import Display, WatchedDocument, document_ids, watch_all


class Clients:
    """The boto3 clients that the demo needs. Making them takes a tenth of a second each."""

    def __init__(self, endpoint_url: str) -> None:
        session = boto3.Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
        self.s3 = session.client("s3", endpoint_url=endpoint_url, region_name=REGION)
        # Not in the stubs that are installed: only two calls of it are made here.
        self.lambda_: Any = session.client("lambda", endpoint_url=endpoint_url, region_name=REGION)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read the output has gone, as in `make demo | head`: the demo goes on and says no more."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def demo(files: Sequence[Path], *, started_at: float, with_page: bool = False, by_make: bool = False) -> int:
    """Runs the demo and returns its exit code: 0 only when every document completed.

    Args:
        files: The documents; without any, a sample is made.
        started_at: When the process began, on the `time.monotonic()` clock.
        with_page: Serve the web page too, and stay until Ctrl-C when the documents are done.
        by_make: A bad file of one's own ends in 0 too: after a 1, a line of make's would be the last word.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file may have a name that the terminal cannot show
    console = _Console()
    errors = [error for path in files if (error := _unreadable(path))]
    for error in errors:
        console.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
    told = 0 if by_make and files else 1
    if errors:
        return told
    with contextlib.ExitStack() as cleanup:
        paths = list(files) or [SAMPLE]
        clients: Clients | None = None

        def prepare(endpoint_url: str) -> None:
            nonlocal clients
            clients = Clients(endpoint_url)
            if not files:
                make_sample()

        log: list[str] = []
        try:
            with deploying(console) as on_created:
                stack = cleanup.enter_context(local_stack(on_created=on_created, on_log=log.append, meanwhile=prepare))
        except BaseException:
            for line in log:
                console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
            raise
        assert clients is not None
        if with_page:
            page = cleanup.enter_context(page_of(stack))
            console.print(f"the page: {page.url}", highlight=False)
        documents = [WatchedDocument(*pair) for pair in zip(paths, document_ids(paths), strict=True)]
        with documents_display(console, documents) as display:
            run_until_signalled(_watch_all(documents, stack, clients, display))
        console.print(summary(documents, started_at))
        if with_page:
            console.print("The page stays; Ctrl-C ends it.", highlight=False)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    stack.emulator.check(within=3600)
        if all(document.completed for document in documents):
            return 0
        for line in _errors_logged(stack.emulator):
            console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
        return told


async def _watch_all(
    documents: Sequence[WatchedDocument], stack: LocalStack, clients: Clients, display: Display
) -> None:
    outputs = stack.outputs

    async def upload(document: WatchedDocument) -> None:
        key = f"{document.document_id}.pdf"
        await asyncio.to_thread(clients.s3.upload_file, str(document.path), outputs["documentsBucket"], key)

    async def warm_up() -> None:
        # The processor's cold start, a second of imports, while the clients wait for the connection handler's.
        with contextlib.suppress(BotoCoreError, ClientError):  # a document that fails says more than this could
            name = outputs["documentProcessorName"]
            await asyncio.to_thread(clients.lambda_.invoke, FunctionName=name, Payload=b'{"Records": []}')

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(warm_up())
        tasks.create_task(watch_all(documents, outputs["websocketUrl"], upload, display))


def _errors_logged(emulator: Emulator) -> list[str]:
    """The last errors in the emulator's log: why a function could not run is said nowhere else."""
    return [line for line in emulator.log().splitlines() if " ERROR " in line][-5:]


def _unreadable(path: Path) -> str | None:
    try:
        if path.is_fifo():
            return f"cannot read {path}: a pipe has no end to upload to, so store it in a file first"
        with path.open("rb"):
            return None
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
