"""Has a document read by a process of its own (`isolated`), and tells what came of it, however that process ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from documents.unreadable import Reason, UnreadableDocument

logger = logging.getLogger(__name__)

# JSON may need 12 bytes for a character, and a page has at most 2,000,000.
_MAX_LINE_BYTES = 24_000_100
# Each costs only the page that it met. More than a few are the document's fault, and take time.
_MAX_DEATHS = 5
# What PDFium and Python end with when they get no more memory, and what Linux ends a process with when there is none.
_OUT_OF_MEMORY = {-signal.SIGABRT, -signal.SIGKILL}
# Lambda's Python finds its own library by the first.
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX")


class Limits(NamedTuple):
    """
    Attributes:
        memory_bytes: of the reading process's address space.
        page_seconds: for opening the document, and for each of its pages.
    """

    memory_bytes: int = 1024**3
    page_seconds: float = 60.0


_USUAL_LIMITS = Limits()


class Reading:
    """The texts of a document's pages, in order; None for a page that cannot be read. Use it in a `with`.

    Args:
        path: a copy of the document that may be written to: a PDF's lost end is mended in place.
        seconds: for all of it.
        reader: the module that reads it, which calls `documents.isolated.run`.
        unit: what it is read by.

    Raises:
        UnreadableDocument: at entering for a document that cannot be opened, else while its pages are read.
    """

    page_count: int

    def __init__(
        self,
        path: str,
        *,
        seconds: float,
        limits: Limits = _USUAL_LIMITS,
        reader: str = "documents.reader",
        unit: str = "pages",
    ) -> None:
        self._path = path
        self._deadline = time.monotonic() + seconds
        self._limits = limits
        self._reader = reader
        self._unit = unit
        self._deaths = 0

    def __enter__(self) -> Self:
        self._open(0)
        if self.page_count == 0:
            self._stop()
            raise UnreadableDocument(Reason.EMPTY, f"The document has no {self._unit}.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __iter__(self) -> Iterator[str | None]:
        for number in range(self.page_count):
            line = self._line()
            if line:
                yield _value(line)
                continue
            self._bury(number)
            yield None
            if number + 1 < self.page_count:
                self._open(number + 1)

    def _open(self, first: int) -> None:
        """Start a process that reads from a page on; its first line is the number of all pages."""
        seconds = self._deadline - time.monotonic()
        arguments = (self._path, first, self._limits.memory_bytes, self._limits.page_seconds, max(0.001, seconds))
        self._process = subprocess.Popen(  # noqa: S603  our own module, and a path of our own making
            # Of this process it has the modules to import and nothing more, least of all credentials.
            [sys.executable, "-P", "-S", "-m", self._reader, *map(str, arguments)],
            env={
                "PYTHONPATH": os.pathsep.join(sys.path),
                **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        try:
            line = self._line()
            if not line:
                raise self._verdict(self._process.wait(), "The document", "opened")
            self.page_count = _value(line)
        except BaseException:
            self._stop()
            raise

    def _line(self) -> bytes:
        """Empty when the process has died."""
        assert self._process.stdout is not None  # it is a pipe
        line = self._process.stdout.readline(_MAX_LINE_BYTES)
        return line if line.endswith(b"\n") else b""

    def _bury(self, number: int) -> None:
        """Go on behind a page that its process died of, unless the document is to blame."""
        status = self._process.wait()
        self._stop()
        self._deaths += 1
        subject = f"Page {number + 1}" if self._unit == "pages" else f"Number {number + 1} of its {self._unit}"
        verdict = self._verdict(status, subject, "read")
        if (
            verdict.reason is Reason.TOO_LARGE
            or self._deaths > _MAX_DEATHS
            or self._deadline - time.monotonic() < self._limits.page_seconds / 60
        ):
            raise verdict
        logger.warning("%s cannot be read: its process ended with %d", subject, status)

    def _verdict(self, status: int, subject: str, verb: str) -> UnreadableDocument:
        """Raises RuntimeError where the reader itself is at fault, not the document."""
        if status >= 0:
            raise RuntimeError(f"The reader ended with {status} instead of an answer.")
        if status in _OUT_OF_MEMORY:
            return UnreadableDocument(Reason.TOO_LARGE, f"{subject} needs more memory than there is.")
        if status == -signal.SIGALRM:
            return UnreadableDocument(Reason.OUT_OF_TIME, f"{subject} takes too long to be {verb}.")
        return UnreadableDocument(Reason.DAMAGED, f"{subject} cannot be {verb}.")

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _value(line: bytes) -> Any:
    """Raises UnreadableDocument."""
    value = json.loads(line)
    if isinstance(value, dict):
        raise UnreadableDocument(Reason(value["reason"]), value["finding"])
    return value
