"""Kinds of documents: what they end in, which handler reads them, and as what they are uploaded.

No `from __future__ import annotations` here: Pulumi reads the annotations of the arguments to make the SDKs of other
languages, and a text is no type to it.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypedDict

from .lambda_package import PackagingError, handler_path
from .rules import Rule, list_of, matching

_SUFFIX = r"\.[a-z0-9]+(\.[a-z0-9]+)*"
_HANDLER = r"[A-Za-z_]\w*|(\S*/)?[A-Za-z_]\w*\.py"
_MEDIA_TYPE = r"[a-z]+/[a-z0-9][a-z0-9.+-]*"
_EXAMPLE = (
    ".docx",
    "examples/docx/docx_processor.py",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
)
# What results are called. Their own kind of document would wake its processor for ever.
_RESULT_SUFFIX = ".json"


class DocumentKind(TypedDict):
    """What the documents of one kind have in common."""

    suffixes: list[str]
    """What their keys end in, in small letters, such as .docx. Capitals are found too."""
    handler_module: str
    """The module in functions/ that reads them, or the path of one elsewhere, which ends in .py."""
    media_type: str
    """As what they are uploaded, such as image/png."""


def _given(rule: Rule) -> Rule:
    return dataclasses.replace(rule, accepts=lambda value: bool(value) and rule.accepts(value))


KIND_RULES: dict[str, Rule] = {
    "suffixes": _given(list_of(matching("suffixes in small letters", _SUFFIX, _EXAMPLE[0]))),
    "handler_module": _given(
        matching("the name of a module in functions/, or a path that ends in .py", _HANDLER, _EXAMPLE[1])
    ),
    "media_type": _given(matching("a media type in small letters", _MEDIA_TYPE, _EXAMPLE[2])),
}
# Of a configuration.
KIND = matching(
    "kinds of documents, each as its suffixes, its handler and its media type",
    rf"{_SUFFIX}(,{_SUFFIX})* ({_HANDLER}) {_MEDIA_TYPE}",
    " ".join(_EXAMPLE),
)
PDF = DocumentKind(suffixes=[".pdf"], handler_module="document_processor", media_type="application/pdf")


def kind_of(text: str) -> DocumentKind:
    """What a text that KIND accepts stands for."""
    suffixes, handler_module, media_type = text.split(" ")
    return DocumentKind(suffixes=suffixes.split(","), handler_module=handler_module, media_type=media_type)


def fault_of(kinds: Sequence[DocumentKind]) -> tuple[str, int] | None:
    """Why these kinds cannot share a bucket, and the number of the kind that is to blame; 0 is the first."""
    earlier: list[str] = []
    for number, kind in enumerate(kinds):
        for suffix in kind["suffixes"]:
            if suffix.endswith(_RESULT_SUFFIX):
                return f"{suffix} would read its own results, which are called {_RESULT_SUFFIX}.", number
            # S3 refuses two notifications that one key would match.
            other = next((each for each in earlier if suffix.endswith(each) or each.endswith(suffix)), None)
            if other:
                return f"{suffix} and {other} end alike, and a document is read by one handler.", number
            earlier.append(suffix)
        try:
            handler_path(kind["handler_module"])
        except PackagingError as error:
            return str(error), number
    return None


def spellings(suffix: str) -> list[str]:
    """As people's files end in it. S3 tells capitals from small letters."""
    return list(dict.fromkeys((suffix, suffix.upper(), f".{suffix[1:].capitalize()}")))


def name_of(kind: DocumentKind) -> str:
    """What a kind's own parts are called: `docx`. No two kinds of a bucket share it."""
    return kind["suffixes"][0][1:].replace(".", "-")


def media_types_of(kinds: Iterable[DocumentKind]) -> dict[str, str]:
    """By suffix."""
    return {suffix: kind["media_type"] for kind in kinds for suffix in kind["suffixes"]}
