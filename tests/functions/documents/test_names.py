"""Which document a key is."""

from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from documents.names import document_id_of, is_document

ENDS = st.sampled_from([".pdf", ".PDF", ".Pdf"])
KEYS = st.builds("x{}{}".format, st.lists(ENDS | st.sampled_from([".docx", "a", "/"]), max_size=4).map("".join), ENDS)


@given(KEYS, KEYS)
@example("x.PDF", "x.PDF.pdf")
@example("x.PDF.pdf", "x.PDF.pdf.pdf")
@example("x.pdf", "x.pdf.pdf")
def test_two_pdfs_never_share_a_document(one: str, other: str) -> None:
    assert (document_id_of(one) == document_id_of(other)) == (one == other)


@given(st.text(min_size=1).filter(lambda stem: not is_document(stem)))
def test_the_id_of_an_ordinary_upload_is_its_key_without_the_suffix(stem: str) -> None:
    assert document_id_of(stem + ".pdf") == unicodedata.normalize("NFC", stem)


def test_a_name_that_a_mac_has_written_is_the_one_that_people_type() -> None:
    name = "Anträge.pdf"
    assert document_id_of(unicodedata.normalize("NFD", name)) == document_id_of(name) == "Anträge"


ALL = (".pdf", ".docx")


@given(KEYS, KEYS | st.sampled_from(["x.docx", "x.DOCX"]))
@example("x.docx", "x.docx.pdf")
@example("x.DOCX", "x.DOCX.pdf")
def test_two_documents_of_any_kind_in_one_bucket_never_share_an_id(one: str, other: str) -> None:
    assert (document_id_of(one, ALL) == document_id_of(other, ALL)) == (one == other)


def test_a_document_of_another_kind_keeps_its_suffix() -> None:
    assert document_id_of("folder/a.docx", ALL) == "folder/a.docx"
    assert document_id_of("folder/a.docx.pdf", ALL) == "folder/a.docx.pdf", "a PDF beside it is a document of its own"
    assert document_id_of("folder/a.docx.pdf") == "folder/a.docx", "where there are PDFs alone, it is as it always was"
