"""Mends a copy of a PDF in place, where a reader refuses what is only a small defect. Plain bytes, no reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path

_CATALOG = re.compile(rb"/Type\s*/Catalog\b")
_OBJECT = re.compile(rb"(\d{1,10})\s+(\d{1,5})\s+obj\b")
# How far before its type the object of a catalog may begin.
_CATALOG_HEAD_BYTES = 8192
_ENCRYPT = re.compile(rb"/Encrypt(?=\s*(?:<<|(\d{1,10})\s+(\d{1,5})\s+R\b))")
_ENCRYPTION_BYTES = 8192


@contextmanager
def _bytes_of(path: str) -> Iterator[mmap]:
    with Path(path).open("r+b") as file, mmap(file.fileno(), 0) as content:
        yield content


def mend_end(path: str) -> bool:
    """Give a file that lost its trailer a new one; whether that could be done.

    PDFium finds every object by itself then, but not which of them is the root.
    """
    with _bytes_of(path) as content:
        # The last one: later versions of a PDF are appended.
        at = max((found.start() for found in _CATALOG.finditer(content)), default=0)
        objects = _OBJECT.findall(content[max(0, at - _CATALOG_HEAD_BYTES) : at])
    if not objects:
        return False
    with Path(path).open("ab") as file:
        file.write(b"\ntrailer\n<</Root %s %s R>>\nstartxref\n0\n%%%%EOF\n" % objects[-1])
    return True


def lift_encryption(path: str) -> bool:
    """Take away an encryption that leaves the pages alone, as one of attachments only does; whether there was one.

    Streams have the filter that `StmF` names, and Identity where it names none (ISO 32000-2, 7.6.6).
    """
    with _bytes_of(path) as content:
        found = list(_ENCRYPT.finditer(content))
        if not found or not _leaves_streams_alone(_dictionary_of(content, found[-1])):
            return False
        for name in found:
            content[name.start() : name.end()] = b"/Decrypt"
    return True


def _dictionary_of(content: mmap, name: re.Match[bytes]) -> bytes:
    at = name.end()
    if name[1]:
        definition = re.compile(rb"\b%s\s+%s\s+obj\b" % (name[1], name[2]))
        at = max((found.end() for found in definition.finditer(content)), default=len(content))
    return content[at : at + _ENCRYPTION_BYTES].partition(b"endobj")[0]


def _leaves_streams_alone(encryption: bytes) -> bool:
    version = re.search(rb"/V\s+([45])\b", encryption)
    stream_filter = re.search(rb"/StmF\s*/(\w+)", encryption)
    if version is None:
        return False  # older ones know no filters: all is encrypted
    return stream_filter is None or stream_filter[1] == b"Identity"
