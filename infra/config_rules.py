"""What a configuration value may be: each rule reads a text or refuses it, and says what it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


class BadEntry(ValueError):
    """One entry of a list; index counts from 0."""

    def __init__(self, text: str, index: int) -> None:
        super().__init__(text)
        self.index = index


@dataclass(frozen=True)
class Rule:
    """What a key takes. parse raises ValueError.

    example: a value for a key without a default; of a list, one entry.
    """

    allowed: str
    parse: Callable[[str], object]
    example: str = ""


def integer(minimum: int, maximum: int | None = None, why: str = "") -> Rule:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not minimum <= int(text) <= (maximum or int(text)):
            raise ValueError(text)
        return int(text)

    limits = f"from {minimum} up" if maximum is None else f"from {minimum} to {maximum}"
    return Rule(f"a whole number {limits}{why}", parse)


def one_of(allowed: Iterable[str]) -> Rule:
    choices = tuple(allowed)

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return Rule(f"one of {', '.join(choices)}", parse)


def boolean() -> Rule:
    choices = one_of(("true", "false"))
    return Rule("true or false", lambda text: choices.parse(text) == "true")


def retention() -> Rule:
    choices = one_of(map(str, RETENTION_DAYS))
    return Rule(f"{choices.allowed} (CloudWatch knows no other)", lambda text: int(cast(str, choices.parse(text))))


def matching(allowed: str, pattern: str, example: str) -> Rule:
    """A pattern that the empty text, for nothing, always matches."""

    def parse(text: str) -> str:
        if text and not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return Rule(allowed, parse, example)


def list_of(each: Rule) -> Rule:
    def parse(text: str) -> tuple[object, ...]:
        items = json.loads(text)
        if not isinstance(items, list):
            raise ValueError(text)
        entries = []
        for index, item in enumerate(items):
            try:
                if not isinstance(item, str) or not item:
                    raise ValueError(text)
                entries.append(each.parse(item))
            except ValueError:
                raise BadEntry(text, index) from None
        return tuple(entries)

    return Rule(f"a JSON list of {each.allowed}, such as {json.dumps([each.example])}", parse, each.example)
