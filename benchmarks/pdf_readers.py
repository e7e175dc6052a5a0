"""Which PDF reader the document processor should use: `python -m benchmarks.pdf_readers FOLDER_OR_FILE…`.

Every PDF below the folders is read by every reader, each time in a process of its own with a time and a memory limit.
Prints the table of docs/pdf-readers.md. The readers must be installed: pypdf, pypdfium2 and pikepdf.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

SECONDS_A_FILE = 30
MEMORY_A_FILE = 2 * 1024**3


def pypdf(path: str) -> Iterator[Callable[[], int]]:
    """Yields for each page what reads it and returns how many characters it has."""
    from pypdf import PdfReader

    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise PermissionError("password")
    for number in range(len(reader.pages)):
        yield lambda number=number: len(reader.pages[number].extract_text())  # type: ignore[misc]
        if number % 50 == 49:
            reader.resolved_objects.clear()


def pypdfium2(path: str) -> Iterator[Callable[[], int]]:
    import pypdfium2

    def read(number: int) -> int:
        page = document[number]
        text = page.get_textpage()
        try:
            return len(text.get_text_range())
        finally:
            text.close()
            page.close()

    document = pypdfium2.PdfDocument(path)
    for number in range(len(document)):
        yield lambda number=number: read(number)  # type: ignore[misc]


def pikepdf(path: str) -> Iterator[Callable[[], int]]:
    """It has no text extraction: its operators are counted, each page inflated and parsed."""
    import pikepdf

    with pikepdf.open(path) as document:
        for page in document.pages:
            yield lambda page=page: len(pikepdf.parse_content_stream(page))  # type: ignore[misc]


READERS = {"pypdf": pypdf, "pypdfium2": pypdfium2, "pikepdf": pikepdf}


def read_one(reader: str, path: str) -> dict[str, Any]:
    """In the child: how reading one file by one reader went."""
    signal.alarm(SECONDS_A_FILE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_A_FILE, MEMORY_A_FILE))
    started, bare_kb = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = unreadable = characters = 0
    error = ""
    try:
        for read in READERS[reader](path):
            pages += 1
            try:
                characters += read()
            except Exception:  # noqa: BLE001  readers raise anything; it is counted
                unreadable += 1
    except Exception as refused:  # noqa: BLE001  as above
        error = type(refused).__name__
    if not error and pages == unreadable:
        error = "no page"
    return {
        "error": error,
        "seconds": time.process_time() - started,
        "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - bare_kb) / 1024,
    }


def measured(reader: str, path: Path) -> dict[str, Any]:
    incoming, outgoing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(outgoing, json.dumps(read_one(reader, str(path))).encode())
        os._exit(0)
    os.close(outgoing)
    with os.fdopen(incoming, "rb") as answer:
        outcome = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGALRM:
        return {"error": "time"}
    return json.loads(outcome) if outcome else {"error": f"died ({status})"}


def distinct(paths: list[Path]) -> list[Path]:
    found: dict[str, Path] = {}
    for path in paths:
        for file in sorted(path.rglob("*.[pP][dD][fF]")) if path.is_dir() else [path]:
            if file.is_file():
                found.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), file)
    return list(found.values())


def main(paths: list[Path]) -> None:
    files = distinct(paths)
    for reader in READERS:
        # A fork has it then, and what is measured is the reading.
        import_module(reader)
    outcomes: dict[str, dict[Path, dict[str, Any]]] = {reader: {} for reader in READERS}
    for number, file in enumerate(files):
        print(f"\r{number} of {len(files)}", end="", file=sys.stderr)
        for reader in READERS:
            outcomes[reader][file] = measured(reader, file)
    by_any = {file for found in outcomes.values() for file, outcome in found.items() if not outcome["error"]}
    by_all = [file for file in files if all(not found[file]["error"] for found in outcomes.values())]
    print(f"\r{len(files)} files, {len(by_any)} of them read by at least one reader, {len(by_all)} by all.\n")
    print("| reader | read | refused | of them read by another | killed or out of time", end="")
    print(" | CPU s, all | CPU s, slowest | MB, median | MB, most |\n|---|---|---|---|---|---|---|---|---|")
    for reader, found in outcomes.items():
        refused = [file for file in files if found[file]["error"]]
        ended = [file for file in refused if found[file]["error"].startswith(("died", "time"))]
        seconds = [found[file]["seconds"] for file in by_all]
        megabytes = [found[file]["mb"] for file in by_all]
        cells = (
            reader,
            len(files) - len(refused),
            len(refused),
            len(by_any.intersection(refused)),
            len(ended),
            f"{sum(seconds):.0f}",
            f"{max(seconds):.1f}",
            f"{median(megabytes):.0f}",
            f"{max(megabytes):.0f}",
        )
        print("|", " | ".join(map(str, cells)), "|")
    for reader, found in outcomes.items():
        for file in sorted(by_any):
            if found[file]["error"]:
                print(f"{reader} {found[file]['error']} {file}", file=sys.stderr)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
