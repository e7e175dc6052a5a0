"""The result of a document: its pages' texts as one JSON object, written page by page and never larger than allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from documents.unreadable import Reason, UnreadableDocument

# As much as a document may have: text takes less room in a PDF than here, but no honest one has so much of it.
MAX_RESULT_BYTES = 100 * 1024 * 1024


class Result:
    """
    Args:
        target: where it is written. At most one page is held in memory.
        head: the object's first members.
        unit: what the document is read by, and the member that holds the texts.

    Attributes:
        unreadable: the numbers of the pages that cannot be read; 1 is the first.
        without_text: the numbers of those that have none, such as scanned ones.
    """

    def __init__(
        self, target: IO[bytes], head: Mapping[str, Any], max_bytes: int = MAX_RESULT_BYTES, unit: str = "pages"
    ) -> None:
        self._target = target
        self._unit = unit
        self._bytes_left = max_bytes
        self.page_count = 0
        self.unreadable: list[int] = []
        self.without_text: list[int] = []
        self._write(f"{json.dumps(head)[:-1]}, {json.dumps(unit)}: [")

    def add(self, text: str | None) -> None:
        """The next page. None for one that cannot be read. Raises UnreadableDocument."""
        comma = "," if self.page_count else ""
        self.page_count += 1
        if text is None:
            self.unreadable.append(self.page_count)
        elif not text.strip():
            self.without_text.append(self.page_count)
        page = json.dumps({"number": self.page_count, "text": text}, ensure_ascii=False)
        self._write(f"{comma}\n{page}")

    def end(self) -> None:
        """Raises UnreadableDocument, also where there is no page that can be read."""
        if len(self.unreadable) == self.page_count:
            raise UnreadableDocument(Reason.DAMAGED, f"None of the document's {self._unit} can be read.")
        pages = {f"{self._unit}Unreadable": self.unreadable, f"{self._unit}WithoutText": self.without_text}
        self._write(f"\n], {json.dumps(pages)[1:]}\n")

    def _write(self, text: str) -> None:
        # A lone surrogate is no character, and no reader of JSON in UTF-8 takes it.
        data = text.encode(errors="replace")
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise UnreadableDocument(Reason.TOO_LARGE, "The document has more text than can be stored.")
        self._target.write(data)
