"""Not proven here: that the document processor reads it (test_demo)."""

from __future__ import annotations

from pathlib import Path

from pypdf import PdfReader

from local.sample_pdf import write_sample_pdf


def test_the_sample_has_all_its_pages_and_each_says_which_it_is(tmp_path: Path) -> None:
    write_sample_pdf(tmp_path / "a.pdf")
    pages = PdfReader(tmp_path / "a.pdf").pages
    assert len(pages) == 150
    text = pages[41].extract_text().splitlines()
    assert text[0].strip() == "Page 42 of 150"
    assert len(text) == 71
    assert all(len(line.split()) == 14 for line in text[1:])


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    write_sample_pdf(tmp_path / "a.pdf", pages=3)
    write_sample_pdf(tmp_path / "b.pdf", pages=3)
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
