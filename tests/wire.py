"""Holds what goes over the wire to docs/asyncapi.yaml, more strictly than a client does: it may have no other keys."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry
from referencing.jsonschema import DRAFT7

Message = dict[str, Any]

ASYNCAPI = Path(__file__).parents[1] / "docs" / "asyncapi.yaml"
# API Gateway's longest frame; a longer message comes in several, which no client of ours puts together.
MAX_FRAME_BYTES = 32 * 1024
_URI = "urn:docprogress:asyncapi"


def from_server(message: Message) -> Message:
    """The message itself, if the stack may send it. API Gateway's own errors are not the stack's."""
    return _checked(message, names("send") - {"gatewayError"})


def from_client(message: Message) -> Message:
    """The message itself, if it is one that a client is meant to send."""
    return _checked(message, names("receive"))


def names(action: str) -> set[str]:
    """The messages that the server sends or receives, the replies to what it receives among those it sends."""
    found: set[str] = set()
    for operation in document()["operations"].values():
        if operation["action"] == action:
            found |= _named(operation["messages"])
        if action == "send":
            found |= _named(operation.get("reply", {}).get("messages", []))
    return found


@functools.cache
def document() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))
    return read


@functools.cache
def validator(name: str) -> Draft7Validator:
    """Of one message, with no key but those that its schema names."""
    closed = copy.deepcopy(document())
    for schema in closed["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    registry: Any = Registry().with_resource(_URI, DRAFT7.create_resource(closed))
    bounded: Any = extend(Draft7Validator, {"x-max-bytes": _max_bytes})
    made: Draft7Validator = bounded({"$ref": f"{_URI}#/components/messages/{name}/payload"}, registry=registry)
    return made


def _max_bytes(_: Any, limit: int, value: object, __: object) -> Iterator[ValidationError]:
    size = _size(value)
    if size > limit:
        yield ValidationError(f"it takes {size} bytes as JSON, and may take {limit}")


def _size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def _named(references: list[dict[str, str]]) -> set[str]:
    return {reference["$ref"].rpartition("/")[2] for reference in references}


def _checked(message: Message, allowed: set[str]) -> Message:
    assert _size(message) <= MAX_FRAME_BYTES, f"a frame has at most {MAX_FRAME_BYTES} bytes: {message}"
    found = {name: best_match(validator(name).iter_errors(message)) for name in sorted(allowed)}
    wrong = {name: error for name, error in found.items() if error is not None}
    assert len(wrong) < len(allowed), f"docs/asyncapi.yaml has no such message: {message}\n" + "\n".join(
        f"  not {name}: {error.message} ({error.json_path})" for name, error in wrong.items()
    )
    return message
