"""Which document an object in the bucket is: the one place where keys become ids."""

from __future__ import annotations

import unicodedata

SUFFIX = ".pdf"
# Where the uploads of pages go, each under a key that no other form has. Part of the id, as any other folder is.
UPLOADS = "uploads/"
# Where the document processor puts what it has read.
RESULTS = "results/"


def is_pdf(key: str) -> bool:
    return key.lower().endswith(SUFFIX)


def document_id_of(key: str) -> str:
    """The id of the document under a key: `folder/a.pdf` is `folder/a`, and `a.PDF` is `a.PDF`.

    Only `.pdf` is dropped, and only where what is left is not itself the id of another key, so that two keys never
    share a document: `a.PDF.pdf` keeps its suffix, since `a.PDF` is a document of its own. Composed (NFC), since a Mac
    writes file names decomposed and people type them composed; keys that differ in nothing else are one document.
    """
    return _id_of(unicodedata.normalize("NFC", key))


def _id_of(key: str) -> str:
    stem = key.removesuffix(SUFFIX)
    if stem == key or (is_pdf(stem) and _id_of(stem) == stem):
        return key
    return stem
