"""Which document an object in the bucket is: the one place where keys become ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

SUFFIX = ".pdf"
# Where the uploads of pages go, each under a key that no other form has. Part of the id, as any other folder is.
UPLOADS = "uploads/"
# Where the document processor puts what it has read.
RESULTS = "results/"


def suffixes_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What the documents of the bucket end in, in small letters, such as `.docx`."""
    return tuple(environment.get("DOCUMENT_SUFFIXES", SUFFIX).split())


def is_document(key: str, suffixes: Sequence[str] = (SUFFIX,)) -> bool:
    return key.lower().endswith(tuple(suffixes))


def document_id_of(key: str, suffixes: Sequence[str] = (SUFFIX,)) -> str:
    """The id of the document under a key: `folder/a.pdf` is `folder/a`, `a.PDF` is `a.PDF`, and `a.docx` is `a.docx`.

    Only `.pdf` is dropped, and only where what is left is not itself the id of another key, so that two keys never
    share a document: `a.PDF.pdf` keeps its suffix, since `a.PDF` is a document of its own. Composed (NFC), since a Mac
    writes file names decomposed and people type them composed; keys that differ in nothing else are one document.
    """
    return _id_of(unicodedata.normalize("NFC", key), suffixes)


def _id_of(key: str, suffixes: Sequence[str]) -> str:
    stem = key.removesuffix(SUFFIX)
    if stem == key or (is_document(stem, suffixes) and _id_of(stem, suffixes) == stem):
        return key
    return stem
