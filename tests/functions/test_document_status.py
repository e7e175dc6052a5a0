"""How a document stands, asked over HTTP: who is told what, and what is said of asking again.

Does not prove what API Gateway makes of the path and the headers (tests/local), nor that it authorizes the route.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import document_status
from docprogress.document import DocumentState, ErrorCode, Failure, Ownership, Status
from docprogress.errors import SettingsError
from docprogress.messages import snapshot_message
from document_status import handler
from documents.asking import AskingSettings

RUNNING = DocumentState("report", Status.PROGRESS, sequence=7, total=10, processed=5, run_id="run", attempt=1)
COMPLETE = RUNNING._replace(status=Status.COMPLETE, sequence=12)


class Documents:
    """The table's states, by id, behind the handler."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.states: dict[str, DocumentState] = {}
        self.asked: list[str] = []
        self._patch = patch
        self.authorize(known=False)

    def authorize(self, *, known: bool, shared: bool = False) -> None:
        settings = AskingSettings(table_name="table", callers_are_known=known, shared_documents=shared)
        self._patch.setattr(document_status, "wired", lambda: (self, settings))

    def read(self, document_id: str) -> DocumentState | None:
        self.asked.append(document_id)
        return self.states.get(document_id)

    def ownership(self, document_id: str) -> Ownership | None:
        state = self.states.get(document_id)
        return Ownership(state.status, state.owner) if state else None


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> Documents:
    return Documents(monkeypatch)


def ask(document_id: str, *, sub: str | None = None, raw: bool = False, **headers: str) -> dict[str, Any]:
    """As API Gateway hands a request on: decoded, but for the percent sign."""
    context: dict[str, Any] = {"http": {"method": "GET"}, "routeKey": "GET /documents/{docId+}"}
    if sub is not None:
        context["authorizer"] = {"jwt": {"claims": {"sub": sub}}}
    path = document_id if raw else document_id.replace("%", "%25")
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return handler({"requestContext": context, "pathParameters": {"docId": path}, "headers": sent}, None)


def body(answer: dict[str, Any]) -> Any:
    return json.loads(answer["body"])


@pytest.mark.parametrize(
    ("state", "retry_after"),
    [
        (RUNNING._replace(status=Status.STARTED), "2"),
        (RUNNING, "2"),
        (COMPLETE, None),
        (RUNNING._replace(status=Status.ERROR, failure=Failure("Damaged.", ErrorCode.DOCUMENT_DAMAGED)), None),
        (RUNNING._replace(status=Status.ERROR, failure=Failure("Once more.", recoverable=True)), "2"),
    ],
)
def test_the_answer_is_the_snapshot_and_says_when_to_ask_again(
    documents: Documents, state: DocumentState, retry_after: str | None
) -> None:
    documents.states["report"] = state
    answer = ask("report")
    assert answer["statusCode"] == 200
    assert body(answer) == snapshot_message("report", state)
    headers = answer["headers"]
    assert headers.pop("Retry-After", None) == retry_after
    assert headers == {
        "ETag": f'"{state.sequence}"',
        "Cache-Control": "no-store",
        "Content-Type": "application/json",
    }


@pytest.mark.parametrize("tags", ['"7"', 'W/"7"', '"3", "7"', "*"])
def test_what_the_asker_knows_is_not_told_again(documents: Documents, tags: str) -> None:
    documents.states["report"] = RUNNING
    assert ask("report", if_none_match=tags) == {
        "statusCode": 304,
        "headers": {"ETag": '"7"', "Retry-After": "2", "Cache-Control": "no-store"},
    }


@pytest.mark.parametrize("tags", ['"6"', "7", "", '"77"'])
def test_what_the_asker_does_not_know_is_told(documents: Documents, tags: str) -> None:
    documents.states["report"] = RUNNING
    assert ask("report", if_none_match=tags)["statusCode"] == 200


@pytest.mark.parametrize("state", [None, RUNNING._replace(status=Status.PENDING, sequence=0)])
def test_a_document_that_nobody_has_started_is_not_found_yet(documents: Documents, state: DocumentState | None) -> None:
    if state:
        documents.states["report"] = state
    answer = ask("report", if_none_match="*")
    assert (answer["statusCode"], body(answer)) == (404, {"status": "pending", "docId": "report"})
    assert answer["headers"] == {
        "Retry-After": "2",
        "Cache-Control": "no-store",
        "Content-Type": "application/json",
    }


@pytest.mark.parametrize(
    "document_id", ["uploads/report-1a2b3c4d", "100% done", "a%2Fb", "a%252Fb", "%25", "Übersicht №7", "a b?c#d"]
)
def test_an_id_comes_through_the_path_as_it_is(documents: Documents, document_id: str) -> None:
    documents.states[document_id] = RUNNING._replace(document_id=document_id)
    assert body(ask(document_id))["docId"] == document_id
    assert documents.asked == [document_id]


def test_a_stranger_is_told_the_same_of_a_document_that_is_there_and_of_one_that_is_not(documents: Documents) -> None:
    documents.authorize(known=True)
    documents.states["report"] = RUNNING._replace(owner="alice")
    foreign, unknown = ask("report", sub="bob"), ask("nothing", sub="bob")
    assert foreign["statusCode"] == unknown["statusCode"] == 403
    assert foreign["headers"] == unknown["headers"]
    assert body(foreign) == {**body(unknown), "docId": "report"}
    assert (body(foreign)["errorCode"], body(foreign)["recoverable"]) == ("FORBIDDEN", False)
    assert body(foreign)["message"] == "You may not watch this document."
    assert ask("report", sub="alice")["statusCode"] == 200


def test_where_callers_are_known_one_without_a_name_is_told_nothing(documents: Documents) -> None:
    documents.authorize(known=True)
    documents.states["report"] = RUNNING
    for nameless in (ask("report"), ask("report", sub=" ")):
        assert nameless["statusCode"] == 403
        assert (body(nameless)["errorCode"], body(nameless)["docId"]) == ("FORBIDDEN", "report")
    assert documents.asked == [], "nothing is read for a stranger"


def test_a_document_without_an_owner_is_shown_where_documents_are_shared_alone(documents: Documents) -> None:
    documents.states["report"] = RUNNING
    documents.authorize(known=True)
    assert ask("report", sub="bob")["statusCode"] == 403
    documents.authorize(known=True, shared=True)
    assert ask("report", sub="bob")["statusCode"] == 200


def test_an_id_that_no_document_has_is_refused(documents: Documents) -> None:
    for bad in ("", "a" * 257, "a\nb"):
        answer = ask(bad)
        assert (answer["statusCode"], body(answer)["errorCode"]) == (400, "INVALID_MESSAGE")
        assert "1 to 256 characters" in body(answer)["message"]
    nameless = handler({"requestContext": {}, "pathParameters": None}, None)
    assert (nameless["statusCode"], body(nameless)["errorCode"]) == (400, "INVALID_MESSAGE")
    assert documents.asked == []


def test_a_request_without_headers_is_answered(documents: Documents) -> None:
    documents.states["report"] = RUNNING
    event = {"requestContext": {}, "pathParameters": {"docId": "report"}}
    assert handler(event, None) == handler({**event, "headers": None}, None)
    assert handler(event, None)["statusCode"] == 200


def test_an_answer_is_a_line_that_says_who_asked_about_which_document(
    documents: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    documents.authorize(known=True)
    documents.states["report"] = RUNNING._replace(owner="alice")
    with caplog.at_level("INFO"):
        ask("report", sub="alice")
        ask("report", sub="bob")
    told, refused = caplog.records
    assert (told.document_id, told.principal_id, told.status) == ("report", "alice", "progress")
    assert (refused.message, refused.document_id, refused.error_code) == ("Request refused", "report", "FORBIDDEN")


def test_a_fault_of_the_table_is_told_without_its_words(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_document_id: str) -> DocumentState | None:
        raise RuntimeError("secret")

    monkeypatch.setattr(documents, "read", fail)
    documents.authorize(known=False)
    answer = ask("report")
    assert (answer["statusCode"], body(answer)["errorCode"]) == (500, "INTERNAL_ERROR")
    assert (body(answer)["message"], body(answer)["recoverable"]) == ("The server failed. Try again.", True)
    assert "secret" not in answer["body"]
    (line,) = caplog.records
    assert (line.levelname, str(line.exc_info[1])) == ("ERROR", "secret"), "whoever runs it must see what it was"


def test_the_settings_come_from_the_environment() -> None:
    given = {"TABLE_NAME": "t", "AUTHORIZATION": "JWT", "SHARED_DOCUMENTS": "true"}
    assert AskingSettings.from_environment(given) == AskingSettings("t", True, True)
    assert AskingSettings.from_environment(given | {"AUTHORIZATION": "NONE"}).callers_are_known is False
    with pytest.raises(SettingsError):
        AskingSettings.from_environment({})
