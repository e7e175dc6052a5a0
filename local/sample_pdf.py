"""Makes the demo's document: many dense pages, so that reading them takes long enough to watch."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

from pypdf import PdfWriter
from pypdf.generic import ArrayObject, DecodedStreamObject, DictionaryObject, NameObject

_FILLER = """
    amount balance branch carried clause contract copy credit date debit delivery draft entry exhibit figure
    freight invoice item ledger letter margin notice number order page party payment period price quarter rate
    receipt record report section settlement signature statement sum supplier table term total volume
"""
_WORDS = _FILLER.split()
_WIDTH, _HEIGHT = 595, 842  # A4 in points
_LINES, _WORDS_A_LINE = 70, 14


# Where build results are kept; named after what makes it, so that a changed maker makes another.
_FOLDER = Path(__file__).resolve().parent.parent / ".build" / "samples"
SAMPLE = _FOLDER / hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16] / "sample.pdf"


def make_sample() -> None:
    """Makes the demo's document unless it is there from an earlier time."""
    if SAMPLE.exists():
        return
    SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    fresh = SAMPLE.with_suffix(f".{os.getpid()}")
    write_sample_pdf(fresh)
    fresh.replace(SAMPLE)


def write_sample_pdf(path: Path, pages: int = 150) -> None:
    """Writes a PDF of `pages` full pages of text; the same arguments give the same bytes."""
    words = random.Random(0)  # noqa: S311 - filler text
    writer = PdfWriter()
    font = writer._add_object(
        DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
    )
    for number in range(1, pages + 1):
        page = writer.add_blank_page(_WIDTH, _HEIGHT)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        content = DecodedStreamObject()
        content.set_data(_text(number, pages, words).encode("ascii"))
        page[NameObject("/Contents")] = ArrayObject([writer._add_object(content.flate_encode())])
    writer.write(path)


def _text(number: int, pages: int, words: random.Random) -> str:
    """A page's content stream; see ISO 32000, 9.4 for its operators."""
    lines = [["Page", str(number), "of", str(pages)]]
    lines += [words.choices(_WORDS, k=_WORDS_A_LINE) for _ in range(_LINES)]
    # A show operator for each word, as typesetters write justified text: that is what takes the reader its time.
    shown = "\n".join("".join(f"({word} ) Tj " for word in line) + "T*" for line in lines)
    return f"BT /F1 8 Tf 11 TL 36 {_HEIGHT - 40} Td\n{shown}\nET"
