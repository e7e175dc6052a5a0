"""What a worker may say of a document, checked when it is said. Not proved here: what watchers hear of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docprogress.document import ErrorCode, Failure, readable, result_json, retries_left


@pytest.mark.parametrize("code", ["A", "OCR_FAILED", "E42", "X" * 64, ErrorCode.DOCUMENT_EMPTY])
def test_a_worker_may_have_codes_of_its_own(code: str) -> None:
    assert Failure("No.", code).code == code
    assert type(Failure("No.", code).code) is str


@pytest.mark.parametrize("code", ["", "ocr", "4EYES", "_A", "A-B", "A B", "A\n", "Ä", "X" * 65, None, 7])
def test_a_code_that_no_client_could_rely_on_is_refused_when_the_failure_is_made(code: Any) -> None:
    with pytest.raises(ValueError, match="beginning with a letter"):
        Failure("No.", code)


def test_a_failure_without_words_is_still_a_failure() -> None:
    assert Failure(str(KeyError())).message == ""
    with pytest.raises(ValueError, match="message is KeyError"):
        Failure(KeyError())  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize(
    ("character", "kept"),
    [("x", 499), ("ü", 499), ("🎉", 499), ("e\u0301", 249), ("👩\u200d👩\u200d👧", 99), ("👍🏻", 249), ("👍🏿", 249)],
)
def test_a_long_message_is_cut_at_the_edge_of_a_character(character: str, kept: int) -> None:
    assert readable(character * 600) == character * kept + "…"


@pytest.mark.parametrize("beginning", ["", "e"])
def test_a_message_of_nothing_but_accents_is_cut_where_it_has_to_be(beginning: str) -> None:
    text = beginning + "\u0301" * 600
    assert readable(text) == text[:499] + "…"


def test_a_result_takes_two_kilobytes_as_it_is_sent() -> None:
    assert len(result_json({"ä": "x" * 2039}).encode()) == 2048
    for wrong in ({"ä": "x" * 2040}, {"n": float("nan")}, {"s": {1}}, [1]):
        with pytest.raises(ValueError, match="result "):
            result_json(wrong)  # type: ignore[arg-type]  # what is refused


def test_a_message_of_five_hundred_characters_is_whole() -> None:
    assert readable("x" * 500) == "x" * 500


@given(st.text(st.characters(exclude_categories=()), max_size=2000))
def test_whatever_a_worker_says_can_be_told(text: str) -> None:
    told = readable(text)
    assert len(told) <= 500
    told.encode()


@pytest.mark.parametrize(
    ("retry_follows", "left"), [(False, [0, 0, 0]), (True, [1, 1, 1]), (2, [2, 1, 0]), (1, [1, 0, 0])]
)
def test_attempts_are_counted_down(retry_follows: bool | int, left: list[int]) -> None:
    counted: list[int] = []
    for _ in range(3):
        counted.append(retries_left(retry_follows, before=counted[-1] if counted else None))
    assert counted == left
