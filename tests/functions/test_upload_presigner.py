"""The form that `POST /uploads` hands out: whose, for what, for how long, and what S3 makes of it.

Does not prove that API Gateway authorizes the route, nor that the real S3 enforces a policy as the emulator does.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import upload_presigner
from docprogress.document import Status, is_document_id
from docprogress.errors import DocumentExists, SettingsError, TooManyDocuments
from docprogress.table.client import Table
from docprogress.table.states import States
from documents.signing import s3_client
from local.emulator import CREDENTIALS, REGION, Emulator
from upload_presigner import (
    EXPIRY_SECONDS,
    MAX_OWNER_BYTES,
    MAX_REQUEST_CHARACTERS,
    UploadPresigner,
    UploadRefused,
    UploadRequest,
    UploadSettings,
    encode_owner,
    handler,
    stem_of,
)

BUCKET = "documents"
MAX_BYTES = 100 * 1024 * 1024
NOW = 1_800_000_000.75
ROLE_ARN = "arn:aws:sts::123456789012:assumed-role/uploader/session"


class ExpectedDocuments:
    """Notes who expects what; ids that are taken exist already."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.taken: set[str] = set()
        self.failure: Exception | None = None

    def expect(self, document_id: str, *, owner: str) -> None:
        if self.failure:
            raise self.failure
        if document_id in self.taken:
            raise DocumentExists(document_id)
        self.owners[document_id] = owner


class Service:
    """The handler with a real signer, a fake table, suffixes that count up, and its log."""

    def __init__(self, documents: ExpectedDocuments, log: io.StringIO) -> None:
        self.documents = documents
        self.log = log
        self.suffixes = [f"{number:08x}" for number in range(9, 0, -1)]
        self.presigner = UploadPresigner(
            signing_client(),
            BUCKET,
            max_upload_bytes=MAX_BYTES,
            documents=documents,
            new_suffix=self.suffixes.pop,
            now=lambda: NOW,
        )

    def answer(self, body: object = None, **event: Any) -> dict[str, Any]:
        return handler(upload_event(body, **event), None)

    def upload(self, body: object = None, **event: Any) -> dict[str, Any]:
        """The body of an answer that must be a form."""
        answer = self.answer(body, **event)
        assert answer["statusCode"] == 200, answer
        parsed: dict[str, Any] = json.loads(answer["body"])
        return parsed

    def refusal(self, body: object = None, **event: Any) -> tuple[int, dict[str, Any]]:
        answer = self.answer(body, **event)
        return answer["statusCode"], json.loads(answer["body"])

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@cache
def signing_client() -> Any:
    """One for all tests: signing needs no network, and making a client takes a while."""
    return s3_client(boto3.Session("AKIDEXAMPLE", "secret", "session-token", region_name="eu-west-1"))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    log = io.StringIO()
    stdout = upload_presigner.logger.registered_handler.setStream(log)  # type: ignore[attr-defined] # a Handler
    service = Service(ExpectedDocuments(), log)
    monkeypatch.setattr(upload_presigner, "presigner", lambda: service.presigner)
    yield service
    upload_presigner.logger.registered_handler.setStream(stdout)  # type: ignore[attr-defined] # a Handler


def upload_event(
    body: object = None, *, raw_body: str | None = None, authorizer: object = None, **fields: Any
) -> dict[str, Any]:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html"""
    context: dict[str, Any] = {
        "accountId": "123456789012",
        "apiId": "a1b2c3d4e5",
        "domainName": "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com",
        "domainPrefix": "a1b2c3d4e5",
        "http": {
            "method": "POST",
            "path": "/uploads",
            "protocol": "HTTP/1.1",
            "sourceIp": "192.0.2.1",
            "userAgent": "Mozilla/5.0",
        },
        "requestId": "JKJaXmPLvHcESHA=",
        "routeKey": "POST /uploads",
        "stage": "$default",
        "time": "15/Jan/2027:08:00:00 +0000",
        "timeEpoch": 1800000000750,
    }
    if authorizer is not None:
        context["authorizer"] = authorizer
    return {
        "version": "2.0",
        "routeKey": "POST /uploads",
        "rawPath": "/uploads",
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "origin": "https://app.example.com"},
        "requestContext": context,
        "body": json.dumps({"fileName": "report.pdf"} if body is None else body) if raw_body is None else raw_body,
        "isBase64Encoded": False,
        **fields,
    }


def tokens(subject: object) -> dict[str, Any]:
    claims = {"sub": subject, "iss": "https://issuer.example.com/", "client_id": "web", "exp": "1800000300"}
    return {"jwt": {"claims": claims, "scopes": None}}


def iam_authorizer(user_arn: object, cognito_identity: object = None) -> dict[str, Any]:
    return {
        "iam": {
            "accessKey": "ASIAEXAMPLE",
            "accountId": "123456789012",
            "callerId": "AROAEXAMPLE:session",
            "cognitoIdentity": cognito_identity,
            "principalOrgId": "o-example",
            "userArn": user_arn,
            "userId": "AROAEXAMPLE:session",
        }
    }


def policy_of(upload: Mapping[str, Any]) -> dict[str, Any]:
    policy: dict[str, Any] = json.loads(base64.b64decode(upload["fields"]["policy"]))
    return policy


def identity(identity_id: object) -> dict[str, Any]:
    return {"amr": ["authenticated"], "identityId": identity_id, "identityPoolId": "eu-west-1:4a8c"}


# The form


def test_a_form_takes_one_pdf_under_one_key(service: Service) -> None:
    upload = service.upload()
    fields = upload["fields"]
    signature = {name: fields[name] for name in fields if name.startswith("x-amz-")}
    assert policy_of(upload)["conditions"] == [
        {"Content-Type": "application/pdf"},
        ["content-length-range", 1, MAX_BYTES],
        {"bucket": BUCKET},
        {"key": "uploads/report-00000001.pdf"},
        {"x-amz-algorithm": "AWS4-HMAC-SHA256"},
        {"x-amz-credential": signature["x-amz-credential"]},
        {"x-amz-date": signature["x-amz-date"]},
        {"x-amz-security-token": "session-token"},
    ]
    assert fields == {
        "key": "uploads/report-00000001.pdf",
        "Content-Type": "application/pdf",
        "policy": fields["policy"],
        **signature,
    }
    assert set(signature) == {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-security-token",
        "x-amz-signature",
    }
    assert signature["x-amz-credential"].endswith("/eu-west-1/s3/aws4_request")


def test_a_form_with_an_owner_takes_no_other_owner(service: Service) -> None:
    upload = service.upload(authorizer=tokens("alice"))
    assert upload["fields"]["x-amz-meta-owner"] == "alice"
    conditions = policy_of(upload)["conditions"]
    assert [each for each in conditions if "owner" in str(each)] == [{"x-amz-meta-owner": "alice"}]


def test_a_form_ends_after_five_minutes_and_not_before_it_is_said_to() -> None:
    presigner = UploadPresigner(signing_client(), BUCKET, max_upload_bytes=MAX_BYTES, documents=ExpectedDocuments())
    earliest = int(time.time())
    upload = presigner.presign(UploadRequest("report.pdf", None), None)
    latest = time.time()
    policy = json.loads(base64.b64decode(upload.fields["policy"]))
    ends_at = datetime.fromisoformat(policy["expiration"]).timestamp()
    signed_at = datetime.strptime(upload.fields["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
    assert EXPIRY_SECONDS == 300
    assert earliest + 300 <= upload.expires_at <= ends_at <= latest + 300
    assert earliest <= signed_at <= latest


def test_an_answer_has_the_document_and_its_form_and_is_kept_by_no_cache(service: Service) -> None:
    answer = service.answer({"fileName": "Annual report.pdf", "size": 1_000})
    assert answer["headers"] == {"Content-Type": "application/json", "Cache-Control": "no-store"}
    body = json.loads(answer["body"])
    assert list(body) == ["docId", "url", "fields", "expiresAt"]
    assert body["docId"] == "uploads/Annual-report-00000001"
    assert body["fields"]["key"] == "uploads/Annual-report-00000001.pdf"
    assert body["url"] == "https://documents.s3.eu-west-1.amazonaws.com/"
    assert body["expiresAt"] == 1_800_000_300


def test_ids_are_not_to_be_guessed() -> None:
    presigner = UploadPresigner(signing_client(), BUCKET, max_upload_bytes=1, documents=ExpectedDocuments())
    request = UploadRequest("report.pdf", None)
    ids = {presigner.presign(request, None).document_id for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"uploads/report-[0-9a-f]{8}", each) for each in ids)


# The document's id


FILE_NAMES = {
    "report.pdf": "report",
    "FAX.pdf": "FAX",
    "Annual report (final).PDF": "Annual-report-final",
    "Jahresübersicht.pdf": "Jahresübersicht",
    unicodedata.normalize("NFD", "Jahresübersicht.pdf"): "Jahresübersicht",
    "年次報告書.pdf": "年次報告書",
    "वार्षिक.pdf": "वार्षिक",
    "v1.2_draft.pdf": "v1.2_draft",
    "archive.tar.gz": "archive.tar.gz",
    "C:\\fakepath\\report.pdf": "report",
    "2026/march/report.pdf": "report",
    "../../etc/passwd": "passwd",
    " report.pdf \n": "report",
    "a" * 300 + ".pdf": "a" * 80,
    "a" * 79 + "- b.pdf": "a" * 79,
    "--help.pdf": "help",
    ".hidden.pdf": "hidden",
    "$(rm -rf).pdf": "rm-rf",
    "report\r\nx-amz-acl: public-read.pdf": "report-x-amz-acl-public-read",
    "\u202egnp.pdf": "gnp",
    "\ud800.pdf": "document",
    "📄.pdf": "document",
    "..": "document",
    ".pdf": "document",
    "/": "document",
}


@pytest.mark.parametrize(("file_name", "stem"), FILE_NAMES.items(), ids=map(ascii, FILE_NAMES))
def test_a_document_is_named_after_its_file(file_name: str, stem: str) -> None:
    assert stem_of(file_name) == stem


@given(st.text(st.characters(exclude_categories=())))
@example("\u0301.pdf")
@example("e\u200d\u0301.pdf")
def test_every_file_name_gives_a_plain_id(file_name: str) -> None:
    stem = stem_of(file_name)
    assert 1 <= len(stem) <= 80
    assert all(ch in "-_." or unicodedata.category(ch)[0] in "LMN" for ch in stem)
    assert stem.strip("-.") == stem, "no hidden file, no option, nothing that looks cut off"
    assert ".." not in stem or ".." in unicodedata.normalize("NFC", file_name)
    document_id = f"{stem}-0123abcd"
    assert is_document_id(document_id)
    assert unicodedata.is_normalized("NFC", document_id), "or the same name would be two keys"
    assert len(f"{document_id}.pdf".encode()) <= 1024, "S3's limit for a key"


# Whose it is


@pytest.mark.parametrize(
    ("authorizer", "owner"),
    [
        (tokens("248289761001"), "248289761001"),
        (tokens("auth0|6507f1f77bcf86cd799439011"), "auth0|6507f1f77bcf86cd799439011"),
        (iam_authorizer(ROLE_ARN), ROLE_ARN),
        (iam_authorizer(ROLE_ARN, identity("eu-west-1:7d1f")), "eu-west-1:7d1f"),
        (iam_authorizer(ROLE_ARN, identity(None)), ROLE_ARN),
    ],
    ids=["JWT", "JWT with a bar", "AWS_IAM", "identity pool", "AWS_IAM without an identity"],
)
def test_a_document_is_expected_by_the_caller(service: Service, authorizer: object, owner: str) -> None:
    upload = service.upload(authorizer=authorizer)
    assert service.documents.owners == {upload["docId"]: owner}
    assert unquote(upload["fields"]["x-amz-meta-owner"]) == owner


def test_where_nobody_is_known_a_document_has_no_owner(service: Service) -> None:
    upload = service.upload()
    assert service.documents.owners == {}
    assert "x-amz-meta-owner" not in upload["fields"]


@pytest.mark.parametrize(
    "authorizer",
    [
        {},
        {"jwt": {"claims": {}, "scopes": None}},
        {"jwt": {"claims": None}},
        tokens(""),
        tokens(17),
        tokens("a" * (MAX_OWNER_BYTES + 1)),
        tokens("ü" * (MAX_OWNER_BYTES // 6 + 1)),
        tokens("a" * 2_000),  # with the names and a correlation id more than the 2 KB of S3
        iam_authorizer(None),
        iam_authorizer(""),
        iam_authorizer(" \t"),
        iam_authorizer(ROLE_ARN, identity("")),
        iam_authorizer(ROLE_ARN, identity(7)),
        {"lambda": {"principalId": "alice"}},
    ],
)
def test_a_caller_without_a_name_gets_no_document_that_would_be_everybody_s(
    service: Service, authorizer: object
) -> None:
    status, body = service.refusal(authorizer=authorizer)
    assert (status, body["errorCode"]) == (403, "FORBIDDEN")
    assert "no name" in body["message"]
    assert service.documents.owners == {}


def test_a_document_counts_among_those_of_its_owner_before_it_is_expected(service: Service) -> None:
    counted: list[tuple[str, str, bool]] = []

    class Owners:
        def add(self, owner: str, document_id: str) -> None:
            counted.append((owner, document_id, document_id in service.documents.owners))

    service.presigner = UploadPresigner(
        signing_client(), BUCKET, max_upload_bytes=1, documents=service.documents, owners=Owners()
    )
    upload = service.upload(authorizer=tokens("alice"))
    assert counted == [("alice", upload["docId"], False)]


def test_an_owner_with_too_many_unfinished_documents_is_told_so(service: Service) -> None:
    class Full:
        def add(self, owner: str, document_id: str) -> None:
            raise TooManyDocuments

    service.presigner = UploadPresigner(
        signing_client(), BUCKET, max_upload_bytes=1, documents=service.documents, owners=Full()
    )
    status, body = service.refusal(authorizer=tokens("alice"))
    assert (status, body["errorCode"]) == (429, "TOO_MANY_DOCUMENTS")
    assert "Wait until one has ended" in body["message"]
    assert service.documents.owners == {}


def test_where_callers_are_known_one_without_an_authorizer_gets_no_form() -> None:
    presigner = UploadPresigner(
        signing_client(), BUCKET, max_upload_bytes=1, documents=ExpectedDocuments(), callers_are_known=True
    )
    with pytest.raises(UploadRefused) as refused:
        presigner.presign(UploadRequest("report.pdf", None), None)
    assert (refused.value.status, refused.value.code) == (403, "FORBIDDEN")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example('a"b\\c\r\nx-amz-acl: public-read')
@example("100%41")
def test_an_owner_is_safe_in_a_header_and_comes_back_the_same(owner: str) -> None:
    encoded = encode_owner(owner)
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", encoded)
    assert unquote(encoded) == owner


def test_the_owner_may_watch_before_the_form_is_handed_out() -> None:
    documents = ExpectedDocuments()
    seen: list[dict[str, str]] = []

    class Signer:
        def generate_presigned_post(self, *_arguments: object, **_options: object) -> dict[str, Any]:
            seen.append(dict(documents.owners))
            return {"url": "https://documents.s3.eu-west-1.amazonaws.com/", "fields": {}}

    signer: Any = Signer()
    presigner = UploadPresigner(signer, BUCKET, max_upload_bytes=1, documents=documents, new_suffix=lambda: "0123abcd")
    presigner.presign(UploadRequest("report.pdf", None), "alice")
    assert seen == [{"uploads/report-0123abcd": "alice"}]


def test_a_document_that_exists_is_left_alone(service: Service) -> None:
    service.documents.taken = {"uploads/report-00000001", "uploads/report-00000002"}
    upload = service.upload(authorizer=tokens("alice"))
    assert upload["docId"] == "uploads/report-00000003"
    assert upload["fields"]["key"] == "uploads/report-00000003.pdf"
    assert service.documents.owners == {"uploads/report-00000003": "alice"}


def test_somebody_who_never_finds_a_free_id_is_told_to_try_again(service: Service) -> None:
    service.documents.taken = {f"uploads/report-{number:08x}" for number in range(10)}
    assert service.refusal(authorizer=tokens("alice"))[0] == 500
    assert len(service.suffixes) == 4, "five were tried"


# Requests that get no form


@pytest.mark.parametrize(
    "raw_body",
    [
        "",
        "report.pdf",
        "null",
        "[]",
        '"report.pdf"',
        "{}",
        '{"fileName": null}',
        '{"fileName": ""}',
        '{"fileName": 17}',
        '{"fileName": ["report.pdf"]}',
        '{"fileName": "report.pdf", "correlationId": "a b"}',
        '{"fileName": "report.pdf", "correlationId": 7}',
        '{"fileName": "report.pdf", "correlationId": ""}',
        '{"fileName": "report.pdf", "size": 0}',
        '{"fileName": "report.pdf", "size": -1}',
        '{"fileName": "report.pdf", "size": 1.5}',
        '{"fileName": "report.pdf", "size": NaN}',
        '{"fileName": "report.pdf", "size": true}',
        '{"fileName": "report.pdf", "size": "1000"}',
        '{"fileName": "report.pdf", "size": ' + "9" * 5000 + "}",
        '{"fileName": "' + "a" * 8192 + '"}',
        "[" * 8000,
    ],
    ids=lambda body: str(body)[:40] or "empty",
)
def test_what_is_no_request_is_refused_with_a_sentence(service: Service, raw_body: str) -> None:
    status, body = service.refusal(raw_body=raw_body, authorizer=tokens("alice"))
    assert status == 400
    assert body == {"errorCode": "INVALID_MESSAGE", "message": body["message"]}
    assert body["message"].endswith(".")
    assert service.documents.owners == {}


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps), st.booleans())
def test_whatever_else_is_sent_is_refused(body: str, encoded: bool) -> None:
    with pytest.raises(upload_presigner.UploadRefused) as caught:
        upload_presigner.parse_upload_request(upload_event(raw_body=body, isBase64Encoded=encoded))
    assert caught.value.status == 400


def test_a_request_without_a_body_is_refused(service: Service) -> None:
    event = upload_event()
    del event["body"]
    assert handler(event, None)["statusCode"] == 400


def test_a_body_that_api_gateway_takes_for_binary_is_read_too(service: Service) -> None:
    body = base64.b64encode(json.dumps({"fileName": "übersicht.pdf"}).encode()).decode()
    assert service.upload(raw_body=body, isBase64Encoded=True)["docId"] == "uploads/übersicht-00000001"


@pytest.mark.parametrize("raw_body", ["not base64", "//79"])
def test_a_body_that_is_no_text_is_refused(service: Service, raw_body: str) -> None:
    assert service.refusal(raw_body=raw_body, isBase64Encoded=True)[0] == 400


@pytest.mark.parametrize("size", [1, MAX_BYTES])
def test_a_file_of_the_least_and_of_the_largest_size_is_taken(service: Service, size: int) -> None:
    service.upload({"fileName": "report.pdf", "size": size})


def test_the_longest_request_of_the_longest_name_is_taken(service: Service) -> None:
    body = json.dumps({"fileName": "report.pdf"}).ljust(MAX_REQUEST_CHARACTERS)
    upload = service.upload(raw_body=body, authorizer=tokens("a" * MAX_OWNER_BYTES))
    assert upload["fields"]["x-amz-meta-owner"] == "a" * MAX_OWNER_BYTES
    assert service.refusal(raw_body=body + " ")[1]["message"] == "A request has at most 8192 characters."


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(service: Service) -> None:
    body = {"fileName": "report.pdf", "size": MAX_BYTES + 1}
    assert service.refusal(body, authorizer=tokens("alice")) == (
        413,
        {"errorCode": "INVALID_MESSAGE", "message": "The file is larger than 100 MB."},
    )
    assert service.documents.owners == {}


def test_a_failure_is_answered_without_its_reason(service: Service) -> None:
    service.documents.failure = RuntimeError("AccessDenied for arn:aws:iam::123456789012:role/secret")
    answer = service.answer(authorizer=tokens("alice"))
    assert answer == {
        "statusCode": 500,
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store"},
        "body": '{"errorCode": "INTERNAL_ERROR", "message": "The server failed. Try again."}',
    }
    [line] = service.log_lines()
    assert line["level"] == "ERROR"
    assert "role/secret" in line["exception"], "whoever runs it must see what it was"


def test_the_log_names_the_document_and_nothing_that_would_let_anybody_upload(service: Service) -> None:
    upload = service.upload({"fileName": "report.pdf", "size": 1_000}, authorizer=tokens("alice"))
    [line] = service.log_lines()
    assert (line["message"], line["document_id"], line["size"]) == ("Upload presigned", upload["docId"], 1_000)
    assert line["request_id"] == "JKJaXmPLvHcESHA=", "by it the line in the access log is found"
    for name in ("policy", "x-amz-signature", "x-amz-credential", "x-amz-security-token"):
        assert upload["fields"][name] not in service.log.getvalue()


def test_a_refusal_is_logged_with_its_code(service: Service) -> None:
    service.refusal(raw_body="{}")
    [line] = service.log_lines()
    assert (line["level"], line["status"], line["error_code"]) == ("INFO", 400, "INVALID_MESSAGE")


# Other kinds of documents

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def presigner_of(media_types: dict[str, str]) -> UploadPresigner:
    return UploadPresigner(
        signing_client(),
        BUCKET,
        max_upload_bytes=MAX_BYTES,
        media_types=media_types,
        documents=ExpectedDocuments(),
        new_suffix=lambda: "1a2b3c4d",
    )


@pytest.mark.parametrize(
    ("file_name", "document_id", "key", "media_type"),
    [
        ("report.docx", "report-1a2b3c4d.docx", "report-1a2b3c4d.docx", DOCX),
        ("REPORT.DOCX", "REPORT-1a2b3c4d.docx", "REPORT-1a2b3c4d.docx", DOCX),
        ("report.pdf", "report-1a2b3c4d", "report-1a2b3c4d.pdf", "application/pdf"),
        ("report.docx.pdf", "report.docx-1a2b3c4d", "report.docx-1a2b3c4d.pdf", "application/pdf"),
        ("scan", "scan-1a2b3c4d", "scan-1a2b3c4d.pdf", "application/pdf"),
    ],
)
def test_a_form_is_for_the_kind_that_the_file_name_says(
    file_name: str, document_id: str, key: str, media_type: str
) -> None:
    upload = presigner_of({".pdf": "application/pdf", ".docx": DOCX}).presign(UploadRequest(file_name, None), None)
    assert upload.document_id == f"uploads/{document_id}"
    assert (upload.fields["key"], upload.fields["Content-Type"]) == (f"uploads/{key}", media_type)


def test_where_pdfs_are_not_taken_a_file_of_no_kind_gets_no_form() -> None:
    with pytest.raises(UploadRefused, match=r"\.docx is") as refused:
        presigner_of({".docx": DOCX}).presign(UploadRequest("report.pdf", None), None)
    assert (refused.value.status, refused.value.code) == (415, "INVALID_MESSAGE")


# Settings and wiring


def test_the_environment_says_where_documents_go() -> None:
    environment = {"TABLE_NAME": "table", "DOCUMENTS_BUCKET": "documents"}
    assert UploadSettings.from_environment(environment) == UploadSettings(
        table_name="table",
        documents_bucket="documents",
        media_types={".pdf": "application/pdf"},
        max_upload_bytes=MAX_BYTES,
        callers_are_known=True,
        max_unfinished_documents=50,
    )
    assert not UploadSettings.from_environment(environment | {"AUTHORIZATION": "NONE"}).callers_are_known
    assert UploadSettings.from_environment(environment | {"AUTHORIZATION": "JWT"}).callers_are_known
    assert UploadSettings.from_environment(environment | {"MAX_UPLOAD_BYTES": "5"}).max_upload_bytes == 5
    assert (
        UploadSettings.from_environment(environment | {"MAX_UNFINISHED_DOCUMENTS": "3"}).max_unfinished_documents == 3
    )
    texts = environment | {"MEDIA_TYPES": '{".txt": "text/plain"}'}
    assert UploadSettings.from_environment(texts).media_types == {".txt": "text/plain"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TABLE_NAME", ""),
        ("DOCUMENTS_BUCKET", ""),
        ("MAX_UPLOAD_BYTES", "0"),
        ("MAX_UPLOAD_BYTES", "-1"),
        ("MAX_UPLOAD_BYTES", ""),
        ("MAX_UPLOAD_BYTES", "100 MB"),
        ("MAX_UNFINISHED_DOCUMENTS", "0"),
    ],
)
def test_a_wrong_environment_is_named(name: str, value: str) -> None:
    environment = {"TABLE_NAME": "table", "DOCUMENTS_BUCKET": "documents", name: value}
    with pytest.raises(SettingsError, match=f"The environment variable {name} is"):
        UploadSettings.from_environment(environment)


def test_the_function_signs_with_its_own_role_for_its_own_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AUTHORIZATION": "NONE",
        "TABLE_NAME": "table",
        "DOCUMENTS_BUCKET": "documents",
        "MAX_UPLOAD_BYTES": "2048",
        "AWS_DEFAULT_REGION": "ap-southeast-2",
        "AWS_ACCESS_KEY_ID": "ASIAROLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "role-session",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    upload_presigner.presigner.cache_clear()
    try:
        answer = handler(upload_event(), None)
        assert upload_presigner.presigner() is upload_presigner.presigner()
    finally:
        upload_presigner.presigner.cache_clear()
    upload = json.loads(answer["body"])
    assert upload["url"] == "https://documents.s3.ap-southeast-2.amazonaws.com/"
    assert upload["fields"]["x-amz-credential"].startswith("ASIAROLE/")
    assert upload["fields"]["x-amz-security-token"] == "role-session"
    assert ["content-length-range", 1, 2048] in policy_of(upload)["conditions"]


# On the emulator, which enforces the policy of a form and the rights of whoever signed it


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


class Aws:
    """The emulator with a bucket and a table, and roles that may do what they are given."""

    def __init__(self, emulator: Emulator, cleanup: contextlib.ExitStack) -> None:
        self._endpoint_url = emulator.endpoint_url
        self._cleanup = cleanup
        self.s3 = self._client(self._root(), "s3")
        self.dynamodb = self._client(self._root(), "dynamodb")
        self.s3.create_bucket(Bucket=BUCKET)
        self.dynamodb.create_table(
            TableName="table",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        )

    def presigner(self, role: str, *statements: Mapping[str, Any]) -> UploadPresigner:
        """Signs as a role with these statements, for files of up to 1,000 bytes."""
        iam = self._client(self._root(), "iam")
        trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        role_arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=_document(trust))["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=role, PolicyName="grants", PolicyDocument=_document(*statements))
        sts = self._client(self._root(), "sts")
        credentials = sts.assume_role(RoleArn=role_arn, RoleSessionName="session")["Credentials"]
        session = boto3.Session(
            credentials["AccessKeyId"],
            credentials["SecretAccessKey"],
            credentials["SessionToken"],
            region_name=REGION,
        )
        # Without the package's own time-outs of seconds, which a busy machine may take for an answer.
        s3, dynamodb = s3_client(session), session.client("dynamodb")
        self._cleanup.callback(s3.close)
        self._cleanup.callback(dynamodb.close)
        return UploadPresigner(s3, BUCKET, max_upload_bytes=1_000, documents=States(Table("table", lambda: dynamodb)))

    def _root(self) -> boto3.Session:
        return boto3.Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)

    def _client(self, session: Any, service: str) -> Any:
        client = session.client(service, endpoint_url=self._endpoint_url)
        self._cleanup.callback(client.close)
        return client


@pytest.fixture(scope="module")
def aws(emulator: Emulator) -> Iterator[Aws]:
    with contextlib.ExitStack() as cleanup, pytest.MonkeyPatch.context() as patch:
        # The clients of the code under test are told by the environment, as they are in the emulator's functions.
        patch.setenv("AWS_ENDPOINT_URL", emulator.endpoint_url)
        yield Aws(emulator, cleanup)


@pytest.fixture(scope="module")
def granted(aws: Aws) -> UploadPresigner:
    """Signs as a role with what `infra/document_uploads.py` grants, and nothing else."""
    return aws.presigner("presigner", PUT_DOCUMENTS, EXPECT_DOCUMENTS)


def _document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


PUT_DOCUMENTS = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{BUCKET}/uploads/*.pdf"}
EXPECT_DOCUMENTS = {
    "Effect": "Allow",
    "Action": "dynamodb:PutItem",
    "Resource": f"arn:aws:dynamodb:{REGION}:000000000000:table/table",
}


def post(url: str, fields: Mapping[str, str], content: bytes) -> tuple[int, str]:
    """Sends a form as a browser does (RFC 7578); returns S3's status and error code."""
    boundary = "0123456789abcdef"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="any.pdf"\r\n\r\n'
    body = b"".join(parts) + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        with error:
            code = re.search(r"<Code>(\w+)</Code>", error.read().decode())
            return error.code, code[1] if code else ""


@pytest.mark.emulator
def test_a_form_puts_its_document_and_the_owner_may_watch_it(aws: Aws, granted: UploadPresigner) -> None:
    upload = granted.presign(UploadRequest("Jahresübersicht.pdf", 8), "auth0|Ünal")
    assert post(upload.url, upload.fields, b"%PDF-1.7") == (204, "")
    stored = aws.s3.get_object(Bucket=BUCKET, Key=f"{upload.document_id}.pdf")
    with stored["Body"] as body:
        assert body.read() == b"%PDF-1.7"
    assert stored["ContentType"] == "application/pdf"
    assert unquote(stored["Metadata"]["owner"]) == "auth0|Ünal"
    state = States(Table("table", lambda: aws.dynamodb)).read(upload.document_id)
    assert state is not None
    assert (state.status, state.owner) == (Status.PENDING, "auth0|Ünal")


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("change", "content", "refusal"),
    [
        (lambda fields: fields | {"key": "other.pdf"}, b"%PDF-1.7", (403, "AccessDenied")),
        (lambda fields: fields | {"Content-Type": "text/html"}, b"%PDF-1.7", (403, "AccessDenied")),
        (lambda fields: fields | {"x-amz-meta-owner": "mallory"}, b"%PDF-1.7", (403, "AccessDenied")),
        (lambda fields: fields | {"x-amz-meta-role": "admin"}, b"%PDF-1.7", (403, "AccessDenied")),
        (lambda fields: fields | {"acl": "public-read"}, b"%PDF-1.7", (403, "AccessDenied")),
        (lambda fields: fields | {"x-amz-signature": "0" * 64}, b"%PDF-1.7", (403, "SignatureDoesNotMatch")),
        (lambda fields: fields, b"%" * 1_001, (400, "EntityTooLarge")),
        (lambda fields: fields, b"", (400, "EntityTooSmall")),
    ],
    ids=["key", "type", "owner", "metadata", "acl", "signature", "large", "empty"],
)
def test_a_form_that_was_changed_puts_nothing(
    aws: Aws,
    granted: UploadPresigner,
    change: Callable[[dict[str, str]], dict[str, str]],
    content: bytes,
    refusal: tuple[int, str],
) -> None:
    upload = granted.presign(UploadRequest("report.pdf", None), "alice")
    before = aws.s3.list_objects_v2(Bucket=BUCKET)["KeyCount"]
    assert post(upload.url, change(dict(upload.fields)), content) == refusal
    assert aws.s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == before


@pytest.mark.emulator
def test_a_form_without_an_owner_takes_none(granted: UploadPresigner) -> None:
    upload = granted.presign(UploadRequest("report.pdf", None), None)
    fields = {**upload.fields, "x-amz-meta-owner": "alice"}
    assert post(upload.url, fields, b"%PDF-1.7") == (403, "AccessDenied")
    assert post(upload.url, upload.fields, b"%PDF-1.7") == (204, "")


@pytest.mark.emulator
def test_a_form_allows_no_more_than_its_signer_may(aws: Aws) -> None:
    presigner = aws.presigner("without-put", EXPECT_DOCUMENTS)
    upload = presigner.presign(UploadRequest("report.pdf", None), "alice")
    assert post(upload.url, upload.fields, b"%PDF-1.7") == (403, "AccessDenied")


@pytest.mark.emulator
def test_without_the_right_to_expect_documents_no_form_is_signed(aws: Aws) -> None:
    presigner = aws.presigner("without-expect", PUT_DOCUMENTS)
    with pytest.raises(Exception, match="AccessDenied"):
        presigner.presign(UploadRequest("report.pdf", None), "alice")


def test_a_correlation_id_goes_along_with_the_object(service: Service) -> None:
    upload = service.upload({"fileName": "report.pdf", "correlationId": "page-1"})
    assert upload["fields"]["x-amz-meta-correlation-id"] == "page-1"
    assert json.loads(service.log.getvalue().splitlines()[-1])["correlation_id"] == "page-1"
    assert "x-amz-meta-correlation-id" not in service.upload({"fileName": "report.pdf"})["fields"]
