"""docs/asyncapi.yaml itself: it holds together, says what the code says, and takes no more than the protocol allows.

Not proved here: that it is what the stack sends. Tests that receive a message hold it to the document (tests/wire.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docprogress.document import MAX_DOCUMENT_ID_LENGTH, ErrorCode
from tests.wire import document, from_client, from_server, names, validator

CLIENT_TYPES = Path(__file__).parents[1] / "web" / "client" / "index.d.ts"
MESSAGES = document()["components"]["messages"]
SCHEMAS = document()["components"]["schemas"]

STARTED = {"status": "processing_started", "docId": "d", "sequence": 1}
PROGRESS = {"status": "progress", "docId": "d", "sequence": 2}
COMPLETE = {"status": "processing_complete", "docId": "d", "sequence": 3}
FAILED = {
    "status": "error",
    "errorCode": "PROCESSING_FAILED",
    "message": "It failed.",
    "docId": "d",
    "recoverable": False,
    "sequence": 4,
}
REFUSED = {"status": "error", "errorCode": "INVALID_MESSAGE", "message": "No.", "recoverable": False}


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def found(reference: str) -> Any:
    value: Any = document()
    for part in reference.removeprefix("#/").split("/"):
        value = value[part]
    return value


# --- the document ---


def test_every_reference_leads_to_something() -> None:
    everything = set(references(document()))
    assert all(found(reference) for reference in everything)


def test_every_schema_and_message_is_used() -> None:
    used = {reference.rpartition("/")[2] for reference in references(document()) if "/components/" in reference}
    assert set(SCHEMAS) | set(MESSAGES) <= used
    assert names("send") | names("receive") == set(document()["channels"]["socket"]["messages"]) == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_examples_of_a_message_are_such_messages(name: str) -> None:
    payloads = [example["payload"] for example in MESSAGES[name]["examples"]]
    assert payloads
    for payload in payloads:
        validator(name).validate(payload)


def test_it_names_every_error_code_of_the_library() -> None:
    of_requests = set(SCHEMAS["RequestErrorCode"]["enum"])
    of_documents = set(SCHEMAS["DocumentErrorCode"]["examples"])
    assert {code.value for code in ErrorCode} <= of_requests | of_documents
    assert not of_requests & of_documents


def test_the_longest_id_is_the_one_that_the_library_takes() -> None:
    assert SCHEMAS["DocumentId"]["maxLength"] == MAX_DOCUMENT_ID_LENGTH


# --- what the server may say ---


@pytest.mark.parametrize(
    "message",
    [
        {"status": "pong"},
        {"status": "pending", "docId": "漢字🎉 a/b"},
        STARTED,
        {**STARTED, "totalPages": 100},
        {**STARTED, "totalPages": 0},
        {**STARTED, "unit": "rows"},
        {**STARTED, "unit": "rows", "total": 5},
        {**PROGRESS, "pagesProcessed": 0},
        {**PROGRESS, "pagesProcessed": 50, "totalPages": 100},
        {**PROGRESS, "processed": 3, "unit": "rows"},
        {**PROGRESS, "processed": 3, "total": 5, "unit": "rows", "message": "m", "phase": {"name": "ocr", "index": 2}},
        COMPLETE,
        {**COMPLETE, "result": {"key": "k"}, "pagesUnreadable": 1},
        {**COMPLETE, "result": {"k": "x" * 2040}},
        FAILED,
        {**FAILED, "errorCode": "MY_OWN_1"},
        {**FAILED, "message": "x" * 500},
        REFUSED,
        {**REFUSED, "docId": "d"},
    ],
)
def test_what_the_protocol_allows_is_taken(message: dict[str, Any]) -> None:
    assert from_server(message) == message


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({}, "'status' is a required property"),
        ({"status": "done"}, "was expected"),
        ({"status": "pong", "docId": "d"}, "not pong: Additional properties are not allowed"),
        ({"status": "pending", "docId": "d", "sequence": 1}, "not pending: Additional properties are not allowed"),
        ({"status": "pending", "docId": ""}, "not pending"),
        ({"status": "pending", "docId": "x" * 257}, "not pending: "),
        ({"status": "pending", "docId": "a\n"}, "not pending: "),
        ({"status": "pending", "docId": "a\x9f"}, "not pending: "),
        ({**STARTED, "sequence": 0}, "not started: 0 is less than the minimum"),
        ({**STARTED, "sequence": 2**53}, "not started: "),
        ({**STARTED, "sequence": True}, "not started: True is not of type 'integer'"),
        ({**STARTED, "totalPages": None}, "not started: None is not of type 'integer'"),
        ({**STARTED, "totalPages": 5, "unit": "rows"}, "not started: "),
        ({**STARTED, "total": 5}, "not started: 'unit' is a dependency of 'total'"),
        ({**STARTED, "unit": "pages"}, "not started: "),
        ({**STARTED, "run": "r"}, "not started: Additional properties are not allowed ('run' was unexpected)"),
        (PROGRESS, "not progress: "),
        ({**PROGRESS, "processed": 5}, "not progress: "),
        ({**PROGRESS, "pagesProcessed": -1}, "not progress: -1 is less than the minimum"),
        ({**PROGRESS, "pagesProcessed": 5, "total": 9, "unit": "rows"}, "not progress: "),
        ({**PROGRESS, "pagesProcessed": 1, "processed": 1, "unit": "rows"}, "not progress: "),
        ({**PROGRESS, "processed": 5, "unit": "rows", "totalPages": 9}, "not progress: "),
        ({**PROGRESS, "pagesProcessed": 5, "phase": {"index": 1}}, "not progress: 'name' is a required property"),
        ({**PROGRESS, "pagesProcessed": 5, "phase": {"name": "ocr", "index": 0}}, "not progress: 0 is less than"),
        ({**PROGRESS, "pagesProcessed": 5, "phase": {"name": "a", "index": 1, "part": 1}}, "not progress: Additional"),
        ({**COMPLETE, "result": "text"}, "not complete: "),
        ({**COMPLETE, "result": {"k": "é" * 1030}}, "not complete: it takes 2068 bytes as JSON, and may take 2048"),
        ({**COMPLETE, "pagesUnreadable": 0}, "not complete: "),
        ({**FAILED, "errorCode": "lower"}, "not failed: "),
        ({**FAILED, "errorCode": "A\n"}, "not failed: "),
        ({**FAILED, "errorCode": "1ST"}, "not failed: "),
        ({**FAILED, "errorCode": "A" * 65}, "not failed: "),
        ({**FAILED, "message": "x" * 501}, "not failed: "),
        ({**FAILED, "recoverable": 0}, "not failed: 0 is not of type 'boolean'"),
        ({**REFUSED, "errorCode": "PROCESSING_FAILED"}, "not refused: 'PROCESSING_FAILED' is not one of"),
        ({"message": "Internal server error", "connectionId": "c=", "requestId": "r="}, "has no such message"),
    ],
)
def test_what_the_protocol_does_not_allow_is_refused_and_says_why(message: dict[str, Any], says: str) -> None:
    with pytest.raises(AssertionError) as refused:
        from_server(message)
    assert says in str(refused.value)


def test_a_message_that_no_frame_holds_is_refused() -> None:
    with pytest.raises(AssertionError, match="a frame has at most"):
        from_server({"status": "pending", "docId": "d", "more": "x" * 32_768})


# --- what a client may say ---


@pytest.mark.parametrize(
    "message",
    [
        {"action": "ping"},
        {"action": "progress", "docId": "d"},
        {"action": "progress", "docId": "d", "subscribe": False},
        {"action": "cancel", "docId": "d"},
    ],
)
def test_a_clients_message_is_taken(message: dict[str, Any]) -> None:
    assert from_client(message) == message


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"action": "dance"},
        {"action": "progress"},
        {"action": "progress", "docId": 7},
        {"action": "progress", "docId": "d", "subscribe": "no"},
        {"action": "cancel"},
        {"status": "pong"},
    ],
)
def test_what_no_client_is_meant_to_say_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="has no such message"):
        from_client(message)


# --- the types of the browser client ---


@pytest.mark.parametrize("name", ["pending", "started", "progress", "complete", "failed"])
def test_the_types_of_the_browser_client_know_every_key_and_promise_no_more(name: str) -> None:
    schema = found(MESSAGES[name]["payload"]["$ref"])
    members = _typescript(schema["properties"]["status"]["const"])
    assert set(schema["properties"]) <= set(members), "a page could not read what is sent"
    promised = {key for key, optional in members.items() if not optional}
    assert promised <= set(schema["required"]), "a page would read what may be left out"


def _typescript(status: str) -> dict[str, bool]:
    """The members of the update with this status, and whether each is optional."""
    interfaces = {
        match["name"]: match
        for match in re.finditer(
            r"^export interface (?P<name>\w+)(?: extends (?P<of>[\w, ]+))? \{\n(?P<body>.*?)^\}",
            CLIENT_TYPES.read_text(encoding="utf-8"),
            re.MULTILINE | re.DOTALL,
        )
    }

    def members(name: str) -> dict[str, bool]:
        inherited = [each.strip() for each in (interfaces[name]["of"] or "").split(",") if each.strip()]
        own = re.findall(r"^  (?:readonly )?(\w+)(\??):", interfaces[name]["body"], re.MULTILINE)
        return {
            key: optional
            for part in (*map(members, inherited), {key: mark == "?" for key, mark in own})
            for key, optional in part.items()
        }

    (update,) = [name for name, match in interfaces.items() if f'  status: "{status}";' in match["body"]]
    return members(update)
