"""One conditional UpdateItem as one value. No I/O.

`#name` in an expression is the attribute of that name, `:name` a value that was given.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self


class UpdateItem:
    """
    ```python
    UpdateItem().set({"status": {"S": "progress"}}).add(pages_processed=2).when("#run_id = :run").given(run="r")
    ```
    """

    def __init__(self) -> None:
        self._sets: dict[str, str] = {}
        self._adds: dict[str, str] = {}
        self._removes: dict[str, None] = {}
        self._conditions: list[str] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def set(self, values: Mapping[str, Any]) -> Self:
        """Attributes and their values, as DynamoDB types them."""
        for name, value in values.items():
            self._sets[name] = f":set_{name}"
            self._values[f"set_{name}"] = value
        return self

    def compute(self, **expressions: str) -> Self:
        self._sets |= expressions
        return self

    def add(self, **numbers: int) -> Self:
        for name, number in numbers.items():
            self._adds[name] = f":add_{name}"
            self._values[f"add_{name}"] = _typed(number)
        return self

    def remove(self, *names: str) -> Self:
        self._removes |= dict.fromkeys(names)
        return self

    def when(self, condition: str) -> Self:
        """All conditions must hold."""
        self._conditions.append(condition)
        return self

    def named(self, **names: str) -> Self:
        """Attributes whose own names cannot stand after a #."""
        self._names |= names
        return self

    def given(self, **values: object) -> Self:
        self._values |= {name: _typed(value) for name, value in values.items()}
        return self

    def arguments(self) -> dict[str, Any]:
        """For boto3's update_item."""
        clauses = (
            ("SET", [f"{_path(name)} = {expression}" for name, expression in self._sets.items()]),
            # What is set in the same write is not removed: DynamoDB refuses two clauses for one attribute.
            ("REMOVE", [_path(name) for name in self._removes if name not in self._sets]),
            ("ADD", [f"{_path(name)} {expression}" for name, expression in self._adds.items()]),
        )
        update = " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts)
        condition = " AND ".join(f"({each})" for each in self._conditions)
        used = f"{update} {condition}"
        # DynamoDB refuses names and values that no expression uses.
        names = dict.fromkeys(re.findall(r"#(\w+)", used))
        values = dict.fromkeys(re.findall(r":(\w+)", used))
        return {
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": self._names.get(name, name) for name in names},
            "ExpressionAttributeValues": {f":{name}": self._values[name] for name in values},
        }


def _path(name: str) -> str:
    return name if "#" in name else f"#{name}"


def _typed(value: object) -> dict[str, Any]:
    match value:
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
    raise TypeError(f"{value!r} is no value of a condition")
