"""What a value may be. A rule reads the text of a configuration, checks an argument, and says what it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pulumi

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
    """
    Attributes:
        allowed: completes the sentence "it takes …".
        read: gives the value that a text stands for, or raises ValueError.
        accepts: tells whether a value of any type may be used.
        example: a value for a key without a default; of a list, one entry.
    """

    allowed: str
    read: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    example: str = ""

    def parse(self, text: str) -> Any:
        """Raises ValueError for a text that stands for no allowed value."""
        value = self.read(text)
        if not self.accepts(value):
            raise ValueError(text)
        return value

    def check(self, name: str, value: object) -> None:
        """Raises ValueError, with the sentence, for an argument that is not allowed."""
        if not self.accepts(value):
            raise ValueError(f"{name} is {value!r}; it takes {self.allowed}.")


def integer(minimum: int, maximum: int | None = None, why: str = "") -> Rule:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError(text)
        return int(text)

    limits = f"from {minimum} up" if maximum is None else f"from {minimum} to {maximum}"
    return Rule(
        f"a whole number {limits}{why}",
        read,
        lambda value: type(value) is int and minimum <= value <= (value if maximum is None else maximum),
    )


def one_of(choices: Iterable[str] | type[StrEnum]) -> Rule:
    """Of an enum, the text and the member are both taken, and the member is read."""
    names = [str(choice) for choice in choices]
    read = choices if isinstance(choices, type) else str
    return Rule(f"one of {', '.join(names)}", read, lambda value: isinstance(value, str) and value in names)


def boolean() -> Rule:
    words = {"true": True, "false": False}

    def read(text: str) -> bool:
        if text not in words:
            raise ValueError(text)
        return words[text]

    return Rule("true or false", read, lambda value: isinstance(value, bool))


def retention() -> Rule:
    days = integer(1)
    return Rule(
        f"one of {', '.join(map(str, RETENTION_DAYS))} (CloudWatch knows no other)",
        days.read,
        lambda value: days.accepts(value) and value in RETENTION_DAYS,
    )


def matching(allowed: str, pattern: str, example: str) -> Rule:
    """A pattern that the empty text, for nothing, always matches."""
    return Rule(
        allowed,
        str,
        lambda value: isinstance(value, str) and (not value or re.fullmatch(pattern, value) is not None),
        example,
    )


def list_of(each: Rule) -> Rule:
    def read(text: str) -> list[object]:
        items = json.loads(text)
        if not isinstance(items, list):
            raise ValueError(text)
        for index, item in enumerate(items):
            if not accepts_entry(item):
                raise BadEntry(text, index)
        return items

    def accepts_entry(item: object) -> bool:
        return bool(item) and each.accepts(item)

    return Rule(
        f"a JSON list of {each.allowed}, such as {json.dumps([each.example])}",
        read,
        lambda value: isinstance(value, list | tuple) and all(map(accepts_entry, value)),
        each.example,
    )


_WHY_NOT_ZERO = " (0 would refuse every request with 429)"
THROTTLE_RATE = integer(1, why=_WHY_NOT_ZERO)
# API Gateway takes 32 bits, and the provider cuts off what is above: of 2**32 that leaves 0.
THROTTLE_BURST = integer(1, 2**31 - 1, why=_WHY_NOT_ZERO)


def checked(args: Mapping[str, Any], rules: Mapping[str, Rule], defaults: Mapping[str, Any]) -> Any:
    """Fill in the defaults of a component's arguments, and refuse what their rules do not accept.

    Raises:
        ValueError: an argument is not known or not allowed; the message names it and says what it takes.
    """
    given = {name: _as_given(value) for name, value in args.items() if value is not None}
    if unknown := given.keys() - defaults.keys():
        raise ValueError(f"{', '.join(sorted(unknown))}: there is no such argument; there are {', '.join(defaults)}.")
    for name, value in given.items():
        if name in rules and not isinstance(value, pulumi.Output):
            rules[name].check(name, value)
    return {**defaults, **given}


def _as_given(value: object) -> object:
    # From another language every number arrives as a float.
    return int(value) if isinstance(value, float) and value.is_integer() else value
