"""PDFs read by the real readers in a process of their own: readable, damaged, hostile.

Not proved here: that every PDF in the world can be read (docs/pdf-readers.md has a table of real ones).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from documents.reader import Pypdf
from documents.reading import Limits, Reading
from documents.unreadable import Reason, UnreadableDocument
from tests.functions.documents.pdfs import built, doubling_forms, one_page, page, stream, text

HELLO = built(one_page(text(b"hello")))
SMALL = Limits(memory_bytes=320 * 1024 * 1024)
PATIENCE_SECONDS = 300.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.pdf"


def texts_of(
    source: Path, content: bytes, *, limits: Limits = SMALL, seconds: float = PATIENCE_SECONDS
) -> list[str | None]:
    source.write_bytes(content)
    with Reading(str(source), seconds=seconds, limits=limits) as reading:
        texts = list(reading)
        assert len(texts) == reading.page_count
    return texts


def refusal_of(source: Path, content: bytes, **arguments: object) -> UnreadableDocument:
    with pytest.raises(UnreadableDocument) as refused:
        texts_of(source, content, **arguments)  # type: ignore[arg-type]  # one of the two
    return refused.value


# --- small defects ---


@pytest.mark.parametrize(
    "content",
    [
        HELLO,
        HELLO.replace(b"%%EOF\n", b""),
        HELLO[: HELLO.index(b"startxref")],
        HELLO.replace(b"startxref", b"startxxxx"),
        HELLO[: HELLO.index(b"startxref")] + b"startxref\nnumber\n%%EOF\n",
        HELLO[: HELLO.index(b"startxref")] + b"startxref\n99999999\n%%EOF\n",
        HELLO[: HELLO.index(b"trailer")],
        HELLO[: HELLO.index(b"xref\n")],
        HELLO + b"\0" * 5000,
        b"\0" * 500 + HELLO,
        HELLO.replace(b"\n", b"\r\n"),
    ],
    ids=[
        "sound",
        "no %%EOF",
        "no startxref",
        "startxref misspelt",
        "startxref a word",
        "startxref elsewhere",
        "no trailer",
        "no table",
        "junk behind",
        "junk before",
        "CRLF",
    ],
)
def test_a_file_whose_end_is_lost_is_read(source: Path, content: bytes) -> None:
    assert texts_of(source, content) == ["hello"]


@pytest.mark.parametrize(
    ("kids", "texts"),
    [
        (b"[2 0 R 3 0 R]", {"hello"}),
        (b"[3 0 R 99 0 R null]", {"hello"}),
        (b"[3 0 R 6 0 R]", {"hello"}),
    ],
    ids=["loop", "missing", "loop below"],
)
def test_damage_in_the_page_tree_costs_only_the_pages_behind_it(source: Path, kids: bytes, texts: set[str]) -> None:
    objects = one_page(text(b"hello"), o6=b"<</Type/Pages/Parent 2 0 R/Kids[2 0 R]/Count 1>>")
    objects[2] = b"<</Type/Pages/Kids%s/Count 2>>" % kids

    assert {found for found in texts_of(source, built(objects)) if found is not None} == texts


@pytest.mark.parametrize("count", [b"1000000000", b"-1", b"0", b"/None"])
def test_a_page_count_that_lies_costs_nothing(source: Path, count: bytes) -> None:
    objects = one_page(text(b"hello"))
    objects[2] = b"<</Type/Pages/Kids[3 0 R]/Count %s>>" % count

    assert texts_of(source, built(objects)) == ["hello"]


@pytest.mark.parametrize(
    "filters",
    [
        b"/StmF/Identity/StrF/Identity/EFF/StdCF",
        b"/EFF/StdCF",
        b"/StmF /Identity /StrF /StdCF",
    ],
    ids=["Identity", "by default", "strings too"],
)
@pytest.mark.parametrize("version", [b"/V 5/R 6/Length 256", b"/V 4/R 4/Length 128"], ids=["AES-256", "AES-128"])
def test_where_only_attachments_are_encrypted_no_password_is_needed(
    source: Path, filters: bytes, version: bytes
) -> None:
    method = b"/AESV3" if b"/V 5" in version else b"/AESV2"
    keys = b"/P -4/O<%s>/U<%s>/OE<%s>/UE<%s>/Perms<%s>" % (b"37" * 48, b"2b" * 48, b"ff" * 32, b"5a" * 32, b"a3" * 16)
    encryption = b"<</Filter/Standard%s%s/CF<</StdCF<</CFM%s/AuthEvent/EFOpen>>>>%s>>" % (
        version,
        keys,
        method,
        filters,
    )
    content = built(one_page(text(b"hello"), o6=encryption), trailer=b"/Encrypt 6 0 R/ID[<00><00>]")

    assert texts_of(source, content) == ["hello"]
    assert refusal_of(source, content.replace(filters, b"/StmF/StdCF/StrF/StdCF")).reason is Reason.ENCRYPTED


@pytest.mark.parametrize(
    "damaged",
    [
        stream(zlib.compress(b"BT /F1 12 Tf 20 20 Td (hello) Tj ET"), b"/Filter/NoSuchFilter"),
        stream(b"no deflated data at all" * 9, b"/Filter/FlateDecode"),
        # A rectangle, as it happens, behind a filter that is not known.
        stream(b"1 1 9 9 re f", b"/Filter/NoSuchFilter"),
    ],
    ids=["unknown filter", "not deflated", "looks like a drawing"],
)
def test_contents_that_cannot_be_decoded_are_no_empty_page(source: Path, damaged: bytes) -> None:
    assert texts_of(source, built(one_page(damaged))) == [None]


@pytest.mark.parametrize(
    "contents", [stream(b""), stream(b"", deflated=True), stream(b"q Q"), b"null", stream(b"10 10 50 50 re f")]
)
def test_a_page_without_text_is_empty(source: Path, contents: bytes) -> None:
    assert texts_of(source, built(one_page(contents))) == [""]


def test_text_beside_the_page_is_read_too(source: Path) -> None:
    assert texts_of(source, built(one_page(stream(b"BT /F1 12 Tf 900 -900 Td (hello) Tj ET")))) == ["hello"]


# --- hostile files ---


def test_a_page_that_takes_all_memory_makes_the_document_too_large(source: Path) -> None:
    refused = refusal_of(source, built(doubling_forms(26, b"BT /F1 9 Tf (hi) Tj ET")))

    assert refused.reason is Reason.TOO_LARGE
    assert refused.finding == "Page 1 needs more memory than there is."


def test_a_stream_that_inflates_to_more_than_there_is_memory_makes_the_document_too_large(source: Path) -> None:
    bomb = stream(b"BT /F1 9 Tf 1 0 0 1 10 10 Tm (word) Tj ET\n" * 1_500_000, deflated=True)

    assert refusal_of(source, built(one_page(bomb))).reason is Reason.TOO_LARGE


def test_a_page_with_too_much_text_makes_the_document_too_large(source: Path) -> None:
    # Each line is another one: PDFium takes the same text at nearly the same place for bold print.
    lines = b"".join(b"1 0 0 1 10 %d Tm (%d%s) Tj\n" % (20 * number, number, b"word" * 250) for number in range(2_100))
    refused = refusal_of(source, built(one_page(stream(b"BT /F1 9 Tf " + lines + b" ET"))), limits=Limits())

    assert (refused.reason, refused.finding) == (Reason.TOO_LARGE, "Page 1 has more text than can be read.")


def test_pages_that_were_read_are_not_kept_in_memory(source: Path) -> None:
    pages, blank = range(10, 160), stream(b"q Q" + b" " * 200_000, deflated=True)
    objects = one_page(stream(b""))
    objects[2] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b"".join(b"%d 0 R " % each for each in pages), len(pages))
    objects |= {each: page(each + 1_000) for each in pages} | {each + 1_000: blank for each in pages}
    source.write_bytes(built(objects))
    pypdf = Pypdf(str(source))
    tracemalloc.start()
    try:
        assert all(pypdf.can_decode(number) for number in range(pypdf.page_count))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        logging.disable(logging.NOTSET)
    assert pypdf.page_count == len(pages)
    assert most_bytes < 200_000 * len(pages) / 2


def test_a_page_that_takes_for_ever_costs_itself_and_no_other_one(source: Path) -> None:
    objects = doubling_forms(60, b"")
    objects[2] = b"<</Type/Pages/Kids[7 0 R 3 0 R 7 0 R]/Count 3>>"
    objects |= {7: page(8), 8: text(b"hello")}
    # So short that its memory lasts.
    limits = Limits(page_seconds=1.0)

    assert texts_of(source, built(objects), limits=limits) == ["hello", None, "hello"]


def test_many_pages_that_take_for_ever_end_the_document(source: Path) -> None:
    objects = doubling_forms(60, b"")
    objects[2] = b"<</Type/Pages/Kids[%s]/Count 30>>" % (b"3 0 R " * 30)
    limits = Limits(page_seconds=0.1)

    assert refusal_of(source, built(objects), limits=limits).reason is Reason.OUT_OF_TIME


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_without_time_nothing_is_read(source: Path, seconds: float) -> None:
    assert refusal_of(source, built(doubling_forms(60, b"")), seconds=seconds).reason is Reason.OUT_OF_TIME


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(HELLO)),
    st.lists(st.tuples(st.integers(0, len(HELLO) - 1), st.binary(min_size=1, max_size=6)), max_size=6),
)
def test_a_pdf_that_is_damaged_anywhere_is_read_or_refused(
    source: Path, end: int, changes: list[tuple[int, bytes]]
) -> None:
    damaged = bytearray(HELLO)
    for at, junk in changes:
        damaged[at : at + len(junk)] = junk
    # Anything else that is raised is a fault.
    with suppress(UnreadableDocument):
        texts_of(source, bytes(damaged) if end % 3 else bytes(damaged[:end]))


# --- the process ---


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_that_reads_has_no_credentials(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    source.write_bytes(HELLO)
    # Other tests of the session have processes of their own.
    before = _children()
    with Reading(str(source), seconds=PATIENCE_SECONDS):
        variables = [Path(f"/proc/{child}/environ").read_bytes() for child in _children() - before]

    assert variables
    assert not any(b"AWS_" in each for each in variables)


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_reader_that_cannot_run_is_not_the_document_s_fault(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    source.write_bytes(HELLO)
    with pytest.raises(RuntimeError, match="The reader ended with 1"), Reading(str(source), seconds=PATIENCE_SECONDS):
        pass


@pytest.mark.parametrize(
    ("deadly", "reason", "finding"),
    [
        (signal.SIGSEGV, Reason.DAMAGED, "The document cannot be opened."),
        (signal.SIGALRM, Reason.OUT_OF_TIME, "The document takes too long to be opened."),
        (signal.SIGKILL, Reason.TOO_LARGE, "The document needs more memory than there is."),
    ],
)
def test_what_its_reader_dies_of_is_told_of_the_document(
    source: Path, monkeypatch: pytest.MonkeyPatch, deadly: signal.Signals, reason: Reason, finding: str
) -> None:
    (source.parent / "dying.py").write_text(f"import os\nos.kill(os.getpid(), {deadly:d})\n")
    monkeypatch.syspath_prepend(source.parent)
    with pytest.raises(UnreadableDocument) as unreadable, Reading(str(source), seconds=60.0, reader="dying"):
        pass
    assert (unreadable.value.reason, unreadable.value.finding) == (reason, finding)


# A text for each part of a document; for a signal the process dies of it.
SCRIPTED = """
import json, os, sys
parts, first = {parts}, int(sys.argv[2])
print(len(parts), flush=True)
for part in parts[first:]:
    if isinstance(part, int):
        os.kill(os.getpid(), part)
    print(json.dumps(part), flush=True)
"""


def scripted(
    source: Path, monkeypatch: pytest.MonkeyPatch, *parts: str | int, unit: str = "pages", seconds: float = 60.0
) -> list[str | None]:
    (source.parent / "scripted.py").write_text(
        SCRIPTED.format(parts=[each if isinstance(each, str) else int(each) for each in parts])
    )
    monkeypatch.syspath_prepend(source.parent)
    with Reading(str(source), seconds=seconds, reader="scripted", unit=unit) as reading:
        return list(reading)


@pytest.mark.parametrize(("unit", "second"), [("pages", "Page 2"), ("paragraphs", "Number 2 of its paragraphs")])
def test_a_part_that_its_reader_dies_of_costs_itself_alone_and_is_named(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unit: str, second: str
) -> None:
    texts = scripted(source, monkeypatch, "a", signal.SIGSEGV, "c", signal.SIGSEGV, unit=unit)

    assert texts == ["a", None, "c", None]
    assert caplog.records[0].getMessage() == (f"{second} cannot be read: its process ended with {-signal.SIGSEGV}")


def test_more_than_five_parts_that_readers_die_of_are_the_document_s_fault(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scripted(source, monkeypatch, *[signal.SIGSEGV] * 5, "f") == [None] * 5 + ["f"]
    with pytest.raises(UnreadableDocument) as unreadable:
        scripted(source, monkeypatch, *[signal.SIGSEGV] * 6, "g")
    assert (unreadable.value.reason, unreadable.value.finding) == (Reason.DAMAGED, "Page 6 cannot be read.")


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGABRT])
def test_a_part_that_takes_all_memory_ends_the_document_at_once(
    source: Path, monkeypatch: pytest.MonkeyPatch, deadly: signal.Signals
) -> None:
    with pytest.raises(UnreadableDocument) as unreadable:
        scripted(source, monkeypatch, "a", deadly, "c")
    assert unreadable.value.reason is Reason.TOO_LARGE
    assert unreadable.value.finding == "Page 2 needs more memory than there is."


def test_a_part_that_takes_the_time_of_all_ends_the_document(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableDocument) as unreadable:
        scripted(source, monkeypatch, "a", signal.SIGALRM, "c", seconds=0.5)
    assert unreadable.value.reason is Reason.OUT_OF_TIME
    assert unreadable.value.finding == "Page 2 takes too long to be read."


def test_a_document_without_parts_is_empty(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableDocument) as unreadable:
        scripted(source, monkeypatch, unit="paragraphs")
    assert (unreadable.value.reason, unreadable.value.finding) == (Reason.EMPTY, "The document has no paragraphs.")


def read_by(source: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, content: bytes = b"any") -> list[str | None]:
    """Read two parts by a reader of another kind, whose `text(number)` is this expression."""
    reader = f"""
from documents.isolated import run

class Document:
    page_count = 2

    def __init__(self, path):
        pass

    def text(self, number):
        return {text}

run(Document)
"""
    (source.parent / "another.py").write_text(reader)
    monkeypatch.syspath_prepend(source.parent)
    source.write_bytes(content)
    with Reading(str(source), seconds=60.0, reader="another") as reading:
        return list(reading)


def test_a_reader_of_another_kind_is_held_to_the_same_amount_of_text(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = "x" * 2_000_000
    assert read_by(source, monkeypatch, f"number * {len(longest)} * 'x'") == ["", longest]
    with pytest.raises(UnreadableDocument) as unreadable:
        read_by(source, monkeypatch, f"number * ({len(longest)} + 1) * 'x'")
    assert unreadable.value.reason is Reason.TOO_LARGE
    assert unreadable.value.finding == "Part 2 has more text than can be read."


@pytest.mark.parametrize(
    ("text", "content", "reason", "finding"),
    [
        ("bytearray(2**40)", b"any", Reason.TOO_LARGE, "Page 1 needs more memory than there is."),
        ("'a'", b"", Reason.EMPTY, "The file is empty."),
    ],
    ids=["memory", "empty"],
)
def test_what_a_reader_of_another_kind_cannot_read_is_told_in_the_same_words(
    source: Path, monkeypatch: pytest.MonkeyPatch, text: str, content: bytes, reason: Reason, finding: str
) -> None:
    with pytest.raises(UnreadableDocument) as unreadable:
        read_by(source, monkeypatch, text, content=content)
    assert (unreadable.value.reason, unreadable.value.finding) == (reason, finding)
