"""Reads one document in a process of its own: `python -m READER PATH FIRST MEMORY_BYTES PAGE_SECONDS SECONDS`.

Prints one JSON value a line: the number of pages, then for each page from FIRST (0 is the first) its text, or null
where it cannot be read. A document that cannot be read ends the lines with {"reason": str, "finding": str}.

A hostile file may take any time and any memory. So this process has neither credentials nor anything else to lose,
limits itself, and dies of what it cannot handle; `reading` makes sense of how it died.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from documents.unreadable import Reason, UnreadableDocument

# A page of a book has some 3,000 characters, and a sheet of figures a hundred times as many.
MAX_PAGE_CHARACTERS = 2_000_000


class Document(Protocol):
    """Its pages, or whatever else it is read by."""

    page_count: int

    def text(self, number: int) -> str | None:
        """0 is the first. None for one that cannot be read. Raises UnreadableDocument."""


def run(open_document: Callable[[str], Document]) -> None:
    """The whole of a reader's process. Opening raises UnreadableDocument."""
    path, first, memory_bytes, page_seconds, seconds = sys.argv[1:]
    if sys.platform == "linux":  # elsewhere the limit is refused or does nothing
        resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _read(open_document, path, int(first), float(page_seconds), float(seconds))
    except UnreadableDocument as unreadable:
        _put({"reason": unreadable.reason, "finding": unreadable.finding})
    except MemoryError:
        # As PDFium ends when it gets no more memory.
        signal.raise_signal(signal.SIGABRT)


def _read(open_document: Callable[[str], Document], path: str, first: int, page_seconds: float, seconds: float) -> None:
    deadline = time.monotonic() + seconds

    def limit_time() -> None:
        # The alarm's default action ends the process, whatever C++ is in the middle of.
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(page_seconds, deadline - time.monotonic())))

    limit_time()
    if Path(path).stat().st_size == 0:
        raise UnreadableDocument(Reason.EMPTY, "The file is empty.")
    document = open_document(path)
    _put(document.page_count)
    for number in range(first, document.page_count):
        limit_time()
        text = document.text(number)
        if text is not None and len(text) > MAX_PAGE_CHARACTERS:
            raise UnreadableDocument(Reason.TOO_LARGE, f"Part {number + 1} has more text than can be read.")
        _put(text)


def _put(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
