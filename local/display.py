"""How the demo looks: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from local.engine import ResourceCreated
from local.watch import Display, WatchedDocument


@contextlib.contextmanager
def deploying(console: Console) -> Iterator[Callable[[ResourceCreated], None]]:
    """Shows which resource was created last, and in the end how many there are."""
    started = time.monotonic()
    number = 0
    with console.status("starting the AWS emulator") as status:

        def on_created(created: ResourceCreated) -> None:
            nonlocal number
            number = created.number
            status.update(f"created {number} resources, last {Text(created.name)}")

        yield on_created
    console.print(f"deployed {number} resources in {time.monotonic() - started:.1f} s", highlight=False)


class _BarOrFailure(ProgressColumn):
    """The bar of pages; a document that failed shows why in its place."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = BarColumn(bar_width=40)

    def render(self, task: Task) -> RenderableType:
        failure = task.fields["failure"]
        return Text(failure, style="red") if failure else self._bar.render(task)


class _Bars:
    """One live progress bar a document."""

    def __init__(self, progress: Progress, documents: Sequence[WatchedDocument]) -> None:
        self._progress = progress
        self._tasks = {
            document.document_id: progress.add_task(Text(document.name).markup, total=None, failure=None, pages="")
            for document in documents
        }

    def update(self, document: WatchedDocument) -> None:
        task = self._tasks[document.document_id]
        pages = "" if document.total_pages is None else f"{document.pages_processed}/{document.total_pages} pages"
        self._progress.update(
            task,
            total=document.total_pages,
            completed=document.pages_processed,
            failure=document.failure,
            pages=pages,
        )
        if document.ended:
            self._progress.stop_task(task)


class _Lines:
    """A line for each state and each tenth of the pages, for output that is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, object] = {}

    def update(self, document: WatchedDocument) -> None:
        if document.failure:
            state: object = document.failure
            text = document.failure
        elif document.completed:
            state = text = "completed"
        elif document.total_pages:
            state = document.pages_processed * 10 // document.total_pages
            text = f"{document.pages_processed} of {document.total_pages} pages"
        else:
            state = text = "waiting"
        if self._shown.get(document.document_id) != state:
            self._shown[document.document_id] = state
            self._console.print(f"{document.name}: {text}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def documents_display(console: Console, documents: Sequence[WatchedDocument]) -> Iterator[Display]:
    if not console.is_terminal:
        yield _Lines(console)
        return
    progress = Progress(
        TextColumn("{task.description}"), _BarOrFailure(), TextColumn("{task.fields[pages]}"), TimeElapsedColumn()
    )
    with Live(progress, console=console, refresh_per_second=20):
        yield _Bars(progress, documents)


def summary(documents: Sequence[WatchedDocument], started_at: float) -> Table:
    table = Table()
    for heading in ("document", "pages", "messages", "first push after start", "outcome"):
        table.add_column(heading, justify="right" if heading in ("pages", "messages") else "left")
    for document in documents:
        pushed = document.first_push_at
        table.add_row(
            Text(document.name),
            str(document.pages_processed),
            str(document.messages_received),
            f"{pushed - started_at:.1f} s" if pushed else "none",
            Text("completed" if document.completed else document.failure or "unknown"),
        )
    return table
