"""The example of another kind of document: what its reader makes of files, sound and hostile.

Not proved here: what the processor does around it (test_document_processor), and that a stack serves it
(tests/local/test_document_kinds.py).
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import pytest

from documents.reading import Limits, Reading
from documents.unreadable import Reason, UnreadableDocument

EXAMPLE = Path(__file__).parents[2] / "examples" / "docx"
NAMESPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)
SMALL = Limits(memory_bytes=160 * 1024 * 1024)


def packed(main: bytes, name: str = "word/document.xml") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(name, main)
    return target.getvalue()


def docx(body: str, *, prolog: str = "", name: str = "word/document.xml") -> bytes:
    main = f"<?xml version='1.0'?>{prolog}<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>"
    return packed(main.encode(), name)


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


HELLO = docx(paragraph("hello"))


@pytest.fixture(autouse=True)
def _beside_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLE)])


def texts_of(folder: Path, content: bytes) -> list[str | None]:
    source = folder / "source"
    source.write_bytes(content)
    with Reading(str(source), seconds=300, limits=SMALL, reader="docx_reader", unit="paragraphs") as reading:
        return list(reading)


def test_the_example_stays_small() -> None:
    assert sum(len(file.read_text().splitlines()) for file in EXAMPLE.glob("*.py")) < 60


def test_paragraphs_are_read_in_order_without_the_empty_ones(tmp_path: Path) -> None:
    table = f"<w:tbl><w:tr><w:tc>{paragraph('in a table')}</w:tc></w:tr></w:tbl>"
    assert texts_of(tmp_path, docx(f"{paragraph('one')}<w:p/>{table}{paragraph('ü &amp; 🎉')}")) == [
        "one",
        "in a table",
        "ü & 🎉",
    ]


def test_a_paragraph_is_what_people_see_of_it(tmp_path: Path) -> None:
    runs = (
        "<w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr>"
        "<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/></w:r><w:r><w:t xml:space='preserve'> c</w:t></w:r>"
        "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:r><w:instrText>PAGE</w:instrText></w:r>"
    )
    assert texts_of(tmp_path, docx(f"<w:p>{runs}</w:p>")) == ["a\tb\n c"]


def test_a_text_box_is_read_once(tmp_path: Path) -> None:
    box = f"<w:txbxContent>{paragraph('in the box')}</w:txbxContent>"
    both = f"<mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"
    around = f"<w:p><w:r><w:t>before</w:t></w:r><w:r>{both}</w:r><w:r><w:t> after</w:t></w:r></w:p>"
    assert texts_of(tmp_path, docx(around)) == ["in the box", "before after"]


def test_a_document_of_word_on_the_web_is_read(tmp_path: Path) -> None:
    assert texts_of(tmp_path, docx(paragraph("hello"), name="word/document2.xml")) == ["hello"]


# Ten levels of ten entities each: ten thousand million characters.
LAUGHS = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 11))
ENTITIES = f"<!DOCTYPE w:document [<!ENTITY e0 'laugh'>{LAUGHS}]>"
FILE = "<!DOCTYPE w:document [<!ENTITY file SYSTEM 'file:///etc/hostname'>]>"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY),
        (docx("<w:p/>"), Reason.EMPTY),
        (b"no archive", Reason.DAMAGED),
        # What Word makes of a document with a password.
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096), Reason.DAMAGED),
        (HELLO[: len(HELLO) // 2], Reason.DAMAGED),
        (HELLO.replace(b"PK\x03\x04", b"PK\x03\x05"), Reason.DAMAGED),
        (packed(b"<Types/>", "xl/workbook.xml"), Reason.DAMAGED),
        (packed(b"<w:document><w:p>"), Reason.DAMAGED),
        (packed(b"<?xml version='1.0' encoding='no-such'?><p/>"), Reason.DAMAGED),
        (docx(paragraph("&e10;"), prolog=ENTITIES), Reason.DAMAGED),
        (docx(paragraph("&file;"), prolog=FILE), Reason.DAMAGED),
        (docx(paragraph("x" * 2_000_001)), Reason.TOO_LARGE),
        (docx("".join(f"<w:p><w:r><w:t>{'x' * 1_000_000}</w:t></w:r></w:p>" for _ in range(160))), Reason.TOO_LARGE),
    ],
    ids=[
        *("empty", "no text", "no archive", "password", "cut off", "damaged", "another kind", "broken XML"),
        *("unknown encoding", "entities", "a file of the server", "a paragraph of a book", "a bomb"),
    ],
)
def test_a_hostile_file_costs_itself_alone(tmp_path: Path, content: bytes, reason: Reason) -> None:
    with pytest.raises(UnreadableDocument) as refused:
        texts_of(tmp_path, content)
    assert refused.value.reason is reason


def test_elements_as_deep_as_nobody_nests_them_are_read(tmp_path: Path) -> None:
    deep = docx("<w:r>" * 200_000 + "</w:r>" * 200_000 + paragraph("hello"))
    assert texts_of(tmp_path, deep) == ["hello"]
