"""The wire protocol, request by request and message by message.

Not proved here: that API Gateway routes a frame to the handler, and that replies reach the client.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docprogress.document import DocumentState, ErrorCode, Failure, Phase, Status, is_document_id
from docprogress.messages import (
    MAX_REQUEST_CHARACTERS,
    PONG,
    CancelRequest,
    Ping,
    ProgressRequest,
    RequestRefused,
    encode,
    error_message,
    own_message,
    parse_request,
    snapshot_message,
    state_message,
)
from tests.wire import from_server


def refusal(body: str | None) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        parse_request(body)
    return caught.value


def state(status: Status, **fields: Any) -> DocumentState:
    return DocumentState(**{"document_id": "d", "sequence": 7, "total": 100, "run_id": "r", **fields}, status=status)


# --- what a client may say ---


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ('{"action":"progress","docId":"invoice-7"}', ProgressRequest("invoice-7", subscribe=True)),
        ('{"action":"progress","docId":"invoice-7","subscribe":true}', ProgressRequest("invoice-7", subscribe=True)),
        ('{"action":"progress","docId":"invoice-7","subscribe":false}', ProgressRequest("invoice-7", subscribe=False)),
        ('{"action":"progress","docId":"a/b c.ü%2B#漢字🎉"}', ProgressRequest("a/b c.ü%2B#漢字🎉")),
        ('{"action":"progress","docId":"\\ud83c\\udf89"}', ProgressRequest("🎉")),
        ('{"action":"progress","docId":"u\\u0308ber"}', ProgressRequest("\u00fcber")),
        ('{"action":"cancel","docId":"u\\u0308ber"}', CancelRequest("\u00fcber")),
        (' {"docId" : "x", "more": [1, {}], "action": "progress"}\n', ProgressRequest("x")),
        ('{"action":"ping"}', Ping()),
        ('{"action":"ping","docId":7,"subscribe":"never"}', Ping()),
        ('{"action":"$connect","action":"ping"}', Ping()),
        ('{"action":"progress","docId":"","docId":"last"}', ProgressRequest("last")),
    ],
)
def test_a_wellformed_request_is_read(body: str, request_: Ping | ProgressRequest | CancelRequest) -> None:
    assert parse_request(body) == request_


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        " ",
        "ping",
        "{",
        "null",
        "NaN",
        "7",
        '"progress"',
        "[]",
        '["progress"]',
        "{}",
        '{"docId":"x"}',
        '{"action":null}',
        '{"action":7}',
        '{"action":["progress"]}',
        '{"action":{"progress":1}}',
        '{"Action":"progress"}',
        '{"action":"ping"} trailing',
        '{"action":"ping"' + " " * MAX_REQUEST_CHARACTERS + "}",
        "[" * (MAX_REQUEST_CHARACTERS - 1),
        '{"action":' + "9" * 5000 + "}",
        '{"action":"ping","n":' + "9" * 5000 + "}",
        '{"a":' * 1500 + "1" + "}" * 1500,
    ],
)
def test_what_is_no_message_is_refused_as_invalid(body: str | None) -> None:
    refused = refusal(body)

    assert refused.code is ErrorCode.INVALID_MESSAGE
    assert "message is" in str(refused)
    assert refused.document_id is None


def test_a_message_may_have_so_many_characters_and_none_more() -> None:
    body = '{"action":"ping"' + " " * (MAX_REQUEST_CHARACTERS - 17) + "}"
    assert parse_request(body) == Ping()
    assert refusal(body + " ").code is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_message_is_nested_sixteen_levels_deep_at_most_whatever_python_reads(opening: str, closing: str) -> None:
    def body(depth: int) -> str:  # the message itself is one level
        return '{"action":"ping","more":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}"

    assert parse_request(body(16)) == Ping()
    for depth in (17, 500, 1200):
        assert refusal(body(depth)).code is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("action", ["", "Progress", "subscribe", "$connect", "$default", "\ud800"])
def test_an_action_nobody_serves_is_refused_as_unknown_and_not_echoed(action: str) -> None:
    refused = refusal(json.dumps({"action": action, "docId": "d"}))

    assert refused.code is ErrorCode.UNKNOWN_ACTION
    assert str(refused) == 'The known actions are "progress", "cancel" and "ping".'


@pytest.mark.parametrize(
    "document_id",
    [None, "", 7, 1.5, True, ["d"], {"d": 1}, "x" * 257, "a\nb", "\x00", "a\x7f", "\ud800", "a\udfffb", float("nan")],
)
def test_a_document_id_that_names_no_document_is_refused_as_invalid(document_id: object) -> None:
    refused = refusal(json.dumps({"action": "progress", "docId": document_id}))

    assert refused.code is ErrorCode.INVALID_MESSAGE
    assert "docId" in str(refused)
    assert refused.document_id is None, "an id that is no id must not be sent back"


def test_a_progress_request_without_a_document_is_refused_as_invalid() -> None:
    assert refusal('{"action":"progress"}').code is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize(
    ("request_", "read"),
    [
        ({"action": "ping"}, Ping("c.1:2_3-4")),
        ({"action": "progress", "docId": "d"}, ProgressRequest("d", correlation_id="c.1:2_3-4")),
        ({"action": "cancel", "docId": "d"}, CancelRequest("d", "c.1:2_3-4")),
    ],
)
def test_any_request_may_say_what_its_log_lines_are_found_by(
    request_: dict[str, Any], read: Ping | ProgressRequest | CancelRequest
) -> None:
    assert parse_request(json.dumps(request_ | {"correlationId": "c.1:2_3-4"})) == read
    for wrong in ("", "a b", "x" * 129, "a\n", 7, ["c"]):
        assert '"correlationId" is' in str(refusal(json.dumps(request_ | {"correlationId": wrong})))


@pytest.mark.parametrize("subscribe", [None, 0, 1, "false", [], {}])
def test_subscribe_is_a_boolean_or_absent(subscribe: object) -> None:
    refused = refusal(json.dumps({"action": "progress", "docId": "d", "subscribe": subscribe}))

    assert refused.code is ErrorCode.INVALID_MESSAGE
    assert refused.document_id == "d", "the client must know which of its requests was refused"


def test_the_longest_document_id_fits_into_a_request_however_it_is_escaped() -> None:
    longest = "🎉" * 256

    body = json.dumps({"action": "progress", "docId": longest, "subscribe": False}, ensure_ascii=True)

    assert parse_request(body) == ProgressRequest(longest, subscribe=False)


def test_no_control_character_is_part_of_a_document_id() -> None:
    # Unicode's category Cc: both ranges, C0 with DEL and C1.
    controls = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]

    assert [control for control in controls if is_document_id(f"a{control}b")] == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=8,
)
_almost_requests = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["progress", "ping"]) | _json,
        "docId": st.text(st.characters(), max_size=300) | _json,
        "subscribe": st.booleans() | _json,
    },
).map(json.dumps)


@given(st.text(st.characters()) | _json.map(json.dumps) | _almost_requests)
def test_any_text_is_a_request_or_refused_with_a_message_that_can_be_sent(body: str) -> None:
    try:
        request: Ping | ProgressRequest | RequestRefused = parse_request(body)
    except RequestRefused as refused:
        request = refused

    if isinstance(request, RequestRefused):
        assert request.code in (ErrorCode.INVALID_MESSAGE, ErrorCode.UNKNOWN_ACTION)
        encode(error_message(Failure(str(request), request.code), request.document_id)).encode()
    elif isinstance(request, ProgressRequest):
        assert is_document_id(request.document_id)
        assert isinstance(request.subscribe, bool)
        encode(snapshot_message(request.document_id, None)).encode()
    else:
        assert request == Ping()


def test_the_length_of_a_document_id_is_that_of_its_composed_form() -> None:
    grows, shrinks = "\u0958" * 256, "e\u0301" * 256

    assert refusal(json.dumps({"action": "progress", "docId": grows})).code == "INVALID_MESSAGE"
    assert parse_request(json.dumps({"action": "progress", "docId": shrinks})) == ProgressRequest("\u00e9" * 256)


@given(st.text(st.characters(), max_size=300))
def test_a_document_id_that_is_accepted_can_be_stored_and_sent(text: str) -> None:
    if is_document_id(text):
        assert 1 <= len(text) <= 256
        # DynamoDB's partition keys take 2,048 bytes.
        assert len(f"DOCUMENT#{text}".encode()) <= 2048
        assert json.loads(encode(snapshot_message(text, None)))["docId"] == text


# --- what a client is told ---


def test_a_started_document_tells_its_pages() -> None:
    assert state_message(state(Status.STARTED, sequence=1)) == {
        "status": "processing_started",
        "docId": "d",
        "totalPages": 100,
        "sequence": 1,
    }


def test_a_document_in_progress_tells_how_far_it_is() -> None:
    assert state_message(state(Status.PROGRESS, processed=50)) == {
        "status": "progress",
        "docId": "d",
        "pagesProcessed": 50,
        "totalPages": 100,
        "sequence": 7,
    }


def test_pages_counted_twice_never_show_more_than_there_are() -> None:
    assert state_message(state(Status.PROGRESS, processed=101))["pagesProcessed"] == 100


def test_a_complete_document_tells_just_that() -> None:
    assert state_message(state(Status.COMPLETE, processed=100, sequence=12)) == {
        "status": "processing_complete",
        "docId": "d",
        "sequence": 12,
    }


@pytest.mark.parametrize("recoverable", [True, False])
def test_a_failed_document_tells_why_and_whether_it_may_recover(recoverable: bool) -> None:
    failure = Failure("The PDF needs a password.", ErrorCode.PROCESSING_FAILED, recoverable)

    assert state_message(state(Status.ERROR, failure=failure, sequence=9)) == {
        "status": "error",
        "errorCode": "PROCESSING_FAILED",
        "message": "The PDF needs a password.",
        "docId": "d",
        "recoverable": recoverable,
        "sequence": 9,
    }


def test_the_snapshot_is_the_message_that_watchers_heard() -> None:
    known = state(Status.PROGRESS, processed=50)

    assert snapshot_message("d", known) == state_message(known)


def test_a_document_nobody_has_started_is_pending_and_has_no_sequence() -> None:
    assert snapshot_message("d", None) == {"status": "pending", "docId": "d"}


def test_a_document_that_is_expected_is_pending_like_one_that_nobody_knows() -> None:
    assert snapshot_message("d", state(Status.PENDING, owner="alice")) == {"status": "pending", "docId": "d"}


def test_a_refused_request_is_answered_with_an_error_that_has_no_sequence() -> None:
    assert error_message(Failure("No.", ErrorCode.FORBIDDEN), "d") == {
        "status": "error",
        "errorCode": "FORBIDDEN",
        "message": "No.",
        "recoverable": False,
        "docId": "d",
    }


def test_an_error_about_no_document_names_none() -> None:
    assert "docId" not in error_message(Failure("No.", ErrorCode.INVALID_MESSAGE))


def test_a_ping_is_answered_with_a_pong() -> None:
    assert encode(PONG) == '{"status":"pong"}'


def test_messages_are_compact_json_in_the_scripts_they_were_written_in() -> None:
    assert encode({"docId": "漢字🎉", "sequence": 1}) == '{"docId":"漢字🎉","sequence":1}'


_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=100)
_said = st.text(st.characters(codec="utf-8"), max_size=500)
_phases = st.builds(Phase, name=_names, number=st.integers(1, 9), of=st.none() | st.integers(9, 99))
_states = st.builds(
    DocumentState,
    document_id=st.text(st.characters(), min_size=1, max_size=256).filter(is_document_id),
    status=st.sampled_from(Status),
    sequence=st.integers(1, 2**53 - 1),
    total=st.none() | st.integers(1),
    processed=st.integers(0),
    unit=st.just("pages") | _names,
    run_id=st.just("r"),
    owner=st.none() | st.just("someone"),
    message=st.none() | _said,
    phase=st.none() | _phases,
    failure=st.none()
    | st.builds(Failure, _said, st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True), st.booleans()),
    result=st.none() | st.dictionaries(st.sampled_from("ab"), _said.filter(str.isascii), max_size=2),
    pages_unreadable=st.integers(0),
)


@given(_states)
def test_whatever_a_state_holds_its_message_is_one_of_the_documented(state: DocumentState) -> None:
    from_server(json.loads(encode(state_message(state))))


@given(_said, st.sampled_from(["INVALID_MESSAGE", "FORBIDDEN", "INTERNAL_ERROR"]), st.booleans())
def test_whatever_a_refusal_says_its_message_is_one_of_the_documented(text: str, code: str, recoverable: bool) -> None:
    for document_id in (None, "d"):
        from_server(json.loads(encode(error_message(Failure(text, code, recoverable), document_id))))


def test_the_owner_and_the_run_of_a_document_are_told_to_nobody() -> None:
    secret = state(Status.STARTED, owner="principal-9", run_id="run-9")

    assert "principal-9" not in encode(state_message(secret))
    assert "run-9" not in encode(state_message(secret))


# --- what a worker may say beside pages ---


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (state(Status.STARTED, total=None), {"status": "processing_started"}),
        (
            state(Status.STARTED, total=9, unit="rows"),
            {"status": "processing_started", "total": 9, "unit": "rows"},
        ),
        (state(Status.PROGRESS, total=None, processed=3), {"status": "progress", "pagesProcessed": 3}),
        (
            state(Status.PROGRESS, processed=3, message="Reading", phase=Phase("ocr", 2, 3)),
            {
                "status": "progress",
                "pagesProcessed": 3,
                "totalPages": 100,
                "message": "Reading",
                "phase": {"name": "ocr", "index": 2, "of": 3},
            },
        ),
        (
            state(Status.PROGRESS, total=None, processed=3, unit="bytes", phase=Phase("ocr", 2)),
            {"status": "progress", "processed": 3, "unit": "bytes", "phase": {"name": "ocr", "index": 2}},
        ),
        (
            state(Status.COMPLETE, result={"key": "r"}, pages_unreadable=2, message="old"),
            {"status": "processing_complete", "result": {"key": "r"}, "pagesUnreadable": 2},
        ),
        (
            state(Status.ERROR, failure=Failure("It broke.", "WORN_OUT"), phase=Phase("ocr", 2)),
            {
                "status": "error",
                "errorCode": "WORN_OUT",
                "message": "It broke.",
                "recoverable": False,
                "phase": {"name": "ocr", "index": 2},
            },
        ),
    ],
)
def test_what_there_is_to_say_is_said_and_nothing_else(said: DocumentState, message: dict[str, Any]) -> None:
    assert state_message(said) == {**message, "docId": "d", "sequence": 7}


def test_a_client_that_knows_only_the_first_messages_follows_a_document_that_says_more() -> None:
    shown = []

    def first_client(message: dict[str, Any]) -> None:
        match message:
            case {"status": "processing_started", "totalPages": int(total)}:
                shown.append(f"0 of {total}")
            case {"status": "progress", "pagesProcessed": int(pages), "totalPages": int(total)}:
                shown.append(f"{pages} of {total}")
            case {"status": "processing_complete"}:
                shown.append("done")
            case {"status": "error", "errorCode": str(code), "message": str(text), "recoverable": bool()}:
                shown.append(f"{code}: {text}")

    more: dict[str, Any] = {"message": "Reading", "phase": Phase("ocr", 2, 3), "retries_left": 2}
    for said in (
        state(Status.STARTED, **more),
        state(Status.PROGRESS, processed=50, **more),
        state(Status.ERROR, failure=Failure("Again.", recoverable=True), **more),
        state(Status.COMPLETE, result={"key": "r"}, pages_unreadable=1, **more),
    ):
        first_client(json.loads(encode(state_message(said))))

    assert shown == ["0 of 100", "50 of 100", "PROCESSING_FAILED: Again.", "done"]


def test_the_largest_message_of_a_worker_stays_within_a_frame() -> None:
    said = state(
        Status.COMPLETE,
        document_id="🎉" * 256,
        result={"text": "ü" * 1000},
        pages_unreadable=10**9,
    )
    assert len(encode(state_message(said)).encode()) < 32 * 1024
    failed = state(Status.ERROR, document_id="🎉" * 256, failure=Failure("🎉" * 9000), phase=Phase("🎉" * 100, 1))
    assert len(encode(state_message(failed)).encode()) < 32 * 1024


def test_a_message_of_ones_own_names_its_document() -> None:
    assert own_message("d", {"status": "chat", "text": "é"}) == {"status": "chat", "text": "é", "docId": "d"}


@pytest.mark.parametrize("status", [*(each.value for each in Status), "pong"])
def test_no_state_can_be_forged_by_a_message_of_ones_own(status: str) -> None:
    with pytest.raises(ValueError, match=f"the status '{status}' says how a document is"):
        own_message("d", {"status": status})


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({}, "a status of its own"),
        ({"status": ""}, "a status of its own"),
        ({"status": 7}, "a status of its own"),
        ("chat", "a status of its own"),
        ({"status": "chat", "docId": "other"}, "has a docId or a sequence"),
        ({"status": "chat", "sequence": 2**60}, "has a docId or a sequence"),
        ({"status": "chat", "value": float("nan")}, "no JSON object"),
        ({"status": "chat", "value": b""}, "no JSON object"),
        ({"status": "chat", "text": "\ud800"}, "no JSON object"),
        ({"status": "chat", "text": "é" * 16_384}, "the message has 32807 bytes as JSON; a frame has 32768"),
    ],
)
def test_a_message_that_cannot_be_told_is_refused_with_the_reason(said: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        own_message("d", said)


def test_a_message_fills_a_frame_to_its_last_byte() -> None:
    frame = len(encode(own_message("d", {"status": "chat", "text": ""})))
    assert len(encode(own_message("d", {"status": "chat", "text": "a" * (32_768 - frame)}))) == 32_768
