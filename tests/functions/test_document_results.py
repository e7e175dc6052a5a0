"""Links to results: who gets one, to which object, and what a browser makes of it.

Does not prove that S3 takes the link, nor that the role may read what it leads to (tests/local).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.stub import Stubber

import document_results
from docprogress.document import DocumentState, ErrorCode, Failure, Ownership, Status
from docprogress.errors import SettingsError
from document_results import Results, handler
from documents.asking import AskingSettings
from documents.signing import s3_client

NOW = 1_800_000_000.9
COMPLETE = DocumentState(
    "uploads/a", Status.COMPLETE, 12, run_id="run", owner="alice", result={"key": "results/uploads/a.json"}
)


class Stack:
    """A table of states, and a bucket of which `expect` says what it holds."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.states: dict[str, DocumentState] = {"uploads/a": COMPLETE}
        s3 = s3_client(boto3.Session("AKIDEXAMPLE", "secret", "session-token", region_name="eu-west-1"))
        self.bucket = Stubber(s3)
        self.bucket.activate()
        known = AskingSettings("table", callers_are_known=True)
        results = Results(s3, "documents", now=lambda: NOW)
        patch.setattr(document_results, "wired", lambda: (self, known, results))

    def expect(self, key: str, status: int = 200) -> None:
        asked = {"Bucket": "documents", "Key": key}
        if status == 200:
            self.bucket.add_response("head_object", {}, asked)
        else:
            self.bucket.add_client_error("head_object", str(status), "", status, expected_params=asked)

    def read(self, document_id: str) -> DocumentState | None:
        return self.states.get(document_id)

    def ownership(self, document_id: str) -> Ownership | None:
        state = self.states.get(document_id)
        return Ownership(state.status, state.owner) if state else None


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Stack:
    return Stack(monkeypatch)


def ask(document_id: str = "uploads/a", sub: str = "alice", **more: Any) -> tuple[int, dict[str, Any]]:
    answer = handler(
        {
            "requestContext": {"authorizer": {"jwt": {"claims": {"sub": sub}}}},
            "pathParameters": {"docId": document_id},
            **more,
        },
        None,
    )
    assert answer["headers"]["Cache-Control"] == "no-store", "a link is good for whoever has it"
    return answer["statusCode"], json.loads(answer["body"])


def test_the_owner_gets_a_link_that_is_good_for_a_minute(stack: Stack) -> None:
    stack.expect("results/uploads/a.json")
    status, link = ask()
    assert (status, link["expiresAt"]) == (200, 1_800_000_060)
    url = urlsplit(link["url"])
    assert (url.netloc, url.path) == ("documents.s3.eu-west-1.amazonaws.com", "/results/uploads/a.json")
    assert parse_qs(url.query)["X-Amz-Expires"] == ["60"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("results/folder/Ärger & Co.json", "%C3%84rger%20%26%20Co.json"),
        ('results/a"; filename=b.html\r\nX-Evil: 1', "a%22%3B%20filename%3Db.html%0D%0AX-Evil%3A%201"),
    ],
)
def test_a_browser_saves_the_result_whatever_stands_in_it(stack: Stack, key: str, name: str) -> None:
    stack.states["uploads/a"] = COMPLETE._replace(result={"key": key})
    stack.expect(key)
    said = parse_qs(urlsplit(ask()[1]["url"]).query)
    assert said["response-content-disposition"] == [f"attachment; filename*=UTF-8''{name}"]
    assert said["response-content-type"] == ["application/octet-stream"]
    assert said["response-cache-control"] == ["no-store"]


def test_a_stranger_is_told_the_same_whether_there_is_a_result_or_not(stack: Stack) -> None:
    for sub, document_id in (("bob", "uploads/a"), ("bob", "nobody-s"), (" ", "uploads/a")):
        status, message = ask(document_id, sub)
        assert (status, message["errorCode"]) == (403, "FORBIDDEN")
        assert message["message"] == "You may not watch this document."
    stack.bucket.assert_no_pending_responses()  # and S3 was asked for nothing, which the stub would refuse


def test_nobody_names_the_object_but_the_state(stack: Stack) -> None:
    stack.expect("results/uploads/a.json")
    status, link = ask(queryStringParameters={"key": "uploads/b.pdf"}, headers={"key": "uploads/b.pdf"})
    assert status == 200
    assert urlsplit(link["url"]).path == "/results/uploads/a.json"


@pytest.mark.parametrize(
    "result",
    [
        None,
        {},
        {"pages": 3},
        {"key": None},
        {"key": 7},
        {"key": ["results/a"]},
        *({"key": key} for key in ("", "results/", "uploads/a.pdf", "/results/a.json", "Results/a.json")),
    ],
)
def test_a_state_that_names_nothing_below_results_has_none(stack: Stack, result: Mapping[str, Any] | None) -> None:
    stack.states["uploads/a"] = COMPLETE._replace(result=result)
    status, message = ask()
    assert (status, message["errorCode"], message["recoverable"]) == (404, "RESULT_MISSING", False)


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.COMPLETE])
def test_a_document_that_is_not_complete_has_no_result_yet(stack: Stack, status: Status) -> None:
    failure = Failure("Damaged.", ErrorCode.DOCUMENT_DAMAGED) if status is Status.ERROR else None
    stack.states["uploads/a"] = COMPLETE._replace(status=status, failure=failure)
    assert ask()[0] == 404


@pytest.mark.parametrize("status", [403, 404])
def test_a_result_that_was_removed_is_missing(stack: Stack, status: int, caplog: pytest.LogCaptureFixture) -> None:
    stack.expect("results/uploads/a.json", status)
    assert ask()[1] == {
        "status": "error",
        "errorCode": "RESULT_MISSING",
        "message": "The document has no result.",
        "docId": "uploads/a",
        "recoverable": False,
    }
    (line,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert (line.key, line.status) == ("results/uploads/a.json", status), "a 403 may be a grant that is missing"


def test_a_line_says_who_asked_for_which_result_and_whether_it_was_there(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    stack.expect("results/uploads/a.json")
    stack.expect("results/uploads/a.json", 404)
    with caplog.at_level("INFO"):
        ask()
        ask()
    lines = [each for each in caplog.records if each.levelname == "INFO"]
    assert [(each.document_id, each.principal_id, each.is_there) for each in lines] == [
        ("uploads/a", "alice", True),
        ("uploads/a", "alice", False),
    ]


def test_a_fault_of_the_bucket_is_told_without_its_words(stack: Stack) -> None:
    stack.expect("results/uploads/a.json", 503)
    status, message = ask()
    assert (status, message["errorCode"]) == (500, "INTERNAL_ERROR")
    assert "503" not in message["message"]


def test_the_function_is_wired_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TABLE_NAME": "table", "AUTHORIZATION": "JWT", "AWS_DEFAULT_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DOCUMENTS_BUCKET", raising=False)
    document_results.wired.cache_clear()
    with pytest.raises(SettingsError, match="DOCUMENTS_BUCKET"):
        document_results.wired()
    monkeypatch.setenv("DOCUMENTS_BUCKET", "documents")
    assert document_results.wired()[1] == AskingSettings("table", callers_are_known=True)
    document_results.wired.cache_clear()
