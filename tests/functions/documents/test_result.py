"""The JSON that a document becomes, and its bounds."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from documents.result import Result
from documents.unreadable import Reason, UnreadableDocument


def written(*texts: str | None, max_bytes: int = 1_000_000) -> Any:
    target = io.BytesIO()
    result = Result(target, {"docId": "x"}, max_bytes)
    for text in texts:
        result.add(text)
    result.end()
    assert len(target.getvalue()) <= max_bytes
    return json.loads(target.getvalue())


def test_a_result_says_which_pages_are_unreadable_and_which_have_no_text() -> None:
    assert written("a", None, " \n", "ü🎉") == {
        "docId": "x",
        "pages": [
            {"number": 1, "text": "a"},
            {"number": 2, "text": None},
            {"number": 3, "text": " \n"},
            {"number": 4, "text": "ü🎉"},
        ],
        "pagesUnreadable": [2],
        "pagesWithoutText": [3],
    }


def test_a_document_without_any_text_is_no_error() -> None:
    assert written("", "")["pagesWithoutText"] == [1, 2]


def test_a_document_without_a_readable_page_is_one() -> None:
    with pytest.raises(UnreadableDocument, match="None of the document's pages") as refused:
        written(None, None)
    assert refused.value.reason is Reason.DAMAGED


def test_a_result_of_the_largest_size_is_written_and_not_a_byte_more() -> None:
    head = {"docId": "x"}
    size = len(json.dumps(head)[:-1]) + len(', "pages": [') + len('\n{"number": 1, "text": "abc"}')
    target = io.BytesIO()
    Result(target, head, size).add("abc")
    assert len(target.getvalue()) == size
    with pytest.raises(UnreadableDocument, match="more text than can be stored"):
        Result(io.BytesIO(), head, size - 1).add("abc")


def test_the_parts_are_called_what_they_are() -> None:
    target = io.BytesIO()
    result = Result(target, {"docId": "x"}, unit="paragraphs")
    result.add(None)
    with pytest.raises(UnreadableDocument, match="None of the document's paragraphs"):
        result.end()
    result.add("a")
    result.end()
    assert list(json.loads(target.getvalue())) == [
        "docId",
        "paragraphs",
        "paragraphsUnreadable",
        "paragraphsWithoutText",
    ]


@pytest.mark.parametrize("text", ["x" * 10, "\0" * 10, "🎉" * 10, "\ud800" * 10])
def test_a_result_is_never_larger_than_allowed(text: str) -> None:
    with pytest.raises(UnreadableDocument) as refused:
        written(*([text] * 1000), max_bytes=10_000)
    assert refused.value.reason is Reason.TOO_LARGE


def test_a_lone_surrogate_leaves_the_result_readable() -> None:
    assert written("\ud800a")["pages"] == [{"number": 1, "text": "?a"}]
