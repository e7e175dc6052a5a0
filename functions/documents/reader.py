"""Reads one PDF, in a process of its own (`isolated`), since PDFium is C++.

PDFium reads first, since it reads most and fastest (docs/pdf-readers.md). pypdf reads what PDFium refuses, and looks at
pages on which PDFium finds nothing, since it takes contents that it cannot decode for an empty page.
"""

from __future__ import annotations

from contextlib import closing
from functools import cache
from typing import Any, NoReturn

import pypdfium2
import pypdfium2.raw as pdfium

from documents.isolated import MAX_PAGE_CHARACTERS, run
from documents.mending import lift_encryption, mend_end
from documents.unreadable import Reason, UnreadableDocument

# Far beyond any page: text may stand outside the page's box, and is read all the same.
_EVERYWHERE = {"left": -1e7, "bottom": -1e7, "right": 1e7, "top": 1e7}
_PAGES_CACHED = 50
# No filter makes more of nothing.
_EMPTY_STREAM_BYTES = 32


class Pdfium:
    """Raises pypdfium2.PdfiumError where it refuses a document."""

    def __init__(self, path: str) -> None:
        self._document = pypdfium2.PdfDocument(path)
        self.page_count = len(self._document)

    def text(self, number: int) -> str | None:
        """None for a page that cannot be read or has nothing on it; text of no character where it has pictures only."""
        try:
            with closing(self._document[number]) as page:
                if pdfium.FPDFPage_CountObjects(page) == 0:
                    return None
                with closing(page.get_textpage()) as text_page:
                    if text_page.count_chars() > MAX_PAGE_CHARACTERS:
                        _refuse_page(number)
                    text: str = text_page.get_text_bounded(**_EVERYWHERE, errors="replace")
                    return text.replace("\r\n", "\n")
        except pypdfium2.PdfiumError:
            return None


class Pypdf:
    """Raises anything where it refuses a document."""

    def __init__(self, path: str) -> None:
        import logging

        from pypdf import PdfReader

        logging.disable()  # it warns once per damaged object
        self._reader = PdfReader(path)
        if self._reader.is_encrypted and not self._reader.decrypt(""):
            raise UnreadableDocument(Reason.ENCRYPTED, "The PDF needs a password.")
        self.page_count = len(self._reader.pages)

    def text(self, number: int) -> str | None:
        """None for a page that cannot be read."""
        if not self.can_decode(number):
            return None
        try:
            text = self._reader.pages[number].extract_text()
        except Exception:  # noqa: BLE001  a damaged page must not cost the others
            return None
        if len(text) > MAX_PAGE_CHARACTERS:
            _refuse_page(number)
        return text

    def can_decode(self, number: int) -> bool:
        if number % _PAGES_CACHED == 0:
            # It keeps every object that it has resolved, fonts and images too.
            self._reader.resolved_objects.clear()
        try:
            page = self._reader.pages[number]
            contents = page.get_contents()
            if contents is None or contents.get_data().strip():
                return True
            encoded: Any = page["/Contents"].get_object()
            streams = [each.get_object() for each in encoded] if isinstance(encoded, list) else [encoded]
            # It takes damaged data for none.
            return sum(len(stream._data) for stream in streams) <= _EMPTY_STREAM_BYTES
        except Exception:  # noqa: BLE001  pypdf raises anything
            return False


def _refuse_page(number: int) -> NoReturn:
    raise UnreadableDocument(Reason.TOO_LARGE, f"Page {number + 1} has more text than can be read.")


class Document:
    """A PDF by the reader that opens it, mended where that helps."""

    def __init__(self, path: str) -> None:
        """Raises UnreadableDocument."""
        self._second = cache(lambda: Pypdf(path))
        try:
            self._first: Pdfium | None = _open_with_pdfium(path)
            self.page_count = self._first.page_count
        except pypdfium2.PdfiumError as refused:
            self._first = None
            self.page_count = self._count_again(refused.err_code)

    def _count_again(self, refusal: int | None) -> int:
        try:
            return self._second().page_count
        except (UnreadableDocument, MemoryError):
            raise
        except Exception:  # noqa: BLE001  pypdf raises anything; its text may quote the document
            if refusal in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
                raise UnreadableDocument(Reason.ENCRYPTED, "The PDF is protected.") from None
            raise UnreadableDocument(Reason.DAMAGED, "The file is not a readable PDF.") from None

    def text(self, number: int) -> str | None:
        """None where neither reader can read the page."""
        text = self._first.text(number) if self._first is not None else None
        if text and not text.isspace():
            return text
        second = self._opened_second()
        if text is None:
            return second.text(number) if second is not None else None
        # Pictures only, or what contents that cannot be decoded happen to look like.
        return text if second is None or second.can_decode(number) else None

    def _opened_second(self) -> Pypdf | None:
        """None where it counts pages differently: then they mean different pages by a number."""
        try:
            return self._second() if self._second().page_count == self.page_count else None
        except Exception:  # noqa: BLE001  as above; what the first reader says stands
            return None


def _open_with_pdfium(path: str) -> Pdfium:
    for mend in (lift_encryption, mend_end):
        try:
            return Pdfium(path)
        except pypdfium2.PdfiumError:
            mend(path)
    return Pdfium(path)


if __name__ == "__main__":
    run(Document)
