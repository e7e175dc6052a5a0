"""Serves `POST /uploads` of an HTTP API: lets a browser send one document straight to the documents bucket.

    {"fileName": str, "size": int, "correlationId": str}   size in bytes; the last two are optional
becomes a form that S3 takes for five minutes, for this one key, type, owner and range of sizes:
    {"docId": "uploads/report-1a2b3c4d", "url": str, "fields": {str: str}, "expiresAt": int}   epoch seconds
A page posts the fields to the URL as multipart/form-data, with the file as the last one, named `file`.

The form is signed with the function's own role, so it ends earlier if those credentials do, and what it allows
is what the role may put: below `uploads/` and nowhere else. It may be sent again until it expires; the same file again
is not processed again.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote

from aws_lambda_powertools import Logger

from docprogress import clients, settings
from docprogress.document import ErrorCode, is_correlation_id
from docprogress.errors import DocumentExists, TooManyDocuments
from docprogress.table.client import Table, dynamodb_client
from docprogress.table.owners import Owners
from docprogress.table.states import States
from documents.callers import NamelessCaller, principal_of
from documents.names import SUFFIX, UPLOADS, document_id_of
from documents.signing import s3_client
from sandbox import started

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = Logger(use_rfc3339=True)

EXPIRY_SECONDS = 300
MAX_REQUEST_CHARACTERS = 8192
MAX_STEM_CHARACTERS = 80
# S3 takes 2 KB of metadata with an object, names and values together.
MAX_OWNER_BYTES = 1024

# Of this API alone, so not among the codes of the wire protocol.
TOO_MANY_DOCUMENTS = "TOO_MANY_DOCUMENTS"

PDFS: Mapping[str, str] = {SUFFIX: "application/pdf"}
# Of four thousand million suffixes two in a row are hardly taken by chance.
_ATTEMPTS = 5

Event = Mapping[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class UploadSettings:
    """
    Attributes:
        media_types: of the documents that are taken, by suffix: `{".pdf": "application/pdf"}` by default.
        max_upload_bytes: what S3 takes at most; no more than the document processor reads.
        max_unfinished_documents: of one owner at once, from being asked for to their end. 1 to 100.
        callers_are_known: whether the route has an authorizer, so that every document has an owner.
    """

    table_name: str
    documents_bucket: str
    media_types: Mapping[str, str]
    max_upload_bytes: int
    callers_are_known: bool
    max_unfinished_documents: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> UploadSettings:
        return cls(
            table_name=settings.text(environment, "TABLE_NAME"),
            documents_bucket=settings.text(environment, "DOCUMENTS_BUCKET"),
            media_types=json.loads(environment.get("MEDIA_TYPES") or "null") or PDFS,
            max_upload_bytes=settings.positive(environment, "MAX_UPLOAD_BYTES", 100 * 1024 * 1024),
            callers_are_known=settings.callers_are_known(environment),
            max_unfinished_documents=settings.positive(environment, "MAX_UNFINISHED_DOCUMENTS", 50),
        )


class UploadRequest(NamedTuple):
    """size: bytes, or None where the client does not say. correlation_id: what log lines are found by."""

    file_name: str
    size: int | None
    correlation_id: str | None = None


class Upload(NamedTuple):
    """expires_at: epoch seconds."""

    document_id: str
    url: str
    fields: Mapping[str, str]
    expires_at: int


class UploadRefused(Exception):
    """A request that gets no form; the text is for the client."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = str(code)


class ExpectedDocuments(Protocol):
    def expect(self, document_id: str, *, owner: str) -> None:
        """Raises DocumentExists."""


class OwnersDocuments(Protocol):
    def add(self, owner: str, document_id: str) -> None:
        """Raises TooManyDocuments."""


class UploadPresigner:
    """Names a document and signs the form that uploads it.

    Args:
        new_suffix: makes the part of a document's id that no one can guess.
        now: epoch seconds.
    """

    def __init__(
        self,
        s3: S3Client,
        bucket: str,
        *,
        max_upload_bytes: int,
        media_types: Mapping[str, str] = PDFS,
        documents: ExpectedDocuments,
        owners: OwnersDocuments | None = None,
        callers_are_known: bool = False,
        new_suffix: Callable[[], str] = lambda: secrets.token_hex(4),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._max_upload_bytes = max_upload_bytes
        self._media_types = media_types
        self._documents = documents
        self._owners = owners
        self._callers_are_known = callers_are_known
        self._new_suffix = new_suffix
        self._now = now

    def presign(self, request: UploadRequest, owner: str | None) -> Upload:
        """The form for one new document; an owner may watch it from now on.

        Args:
            owner: the principal whose document it will be. None: everyone who may connect may watch it.

        Raises:
            UploadRefused: the file is too large, of no kind that is taken, nobody's where callers are known, or one too
                many of its owner.
        """
        if owner is None and self._callers_are_known:
            raise _nameless()
        if request.size is not None and request.size > self._max_upload_bytes:
            limit = f"{self._max_upload_bytes / 1024 / 1024:g} MB"
            raise UploadRefused(413, ErrorCode.INVALID_MESSAGE, f"The file is larger than {limit}.")
        suffix = self._suffix_of(request.file_name)
        key = self._new_key(stem_of(request.file_name, suffix), suffix, owner)
        fields = {"Content-Type": self._media_types[suffix]}
        if owner is not None:
            fields["x-amz-meta-owner"] = encode_owner(owner)
        if request.correlation_id is not None:
            fields["x-amz-meta-correlation-id"] = request.correlation_id
        # S3 refuses a form with a field that no condition names, so nobody can add an owner of their own.
        conditions: list[Any] = [{name: value} for name, value in fields.items()]
        # Before the policy gets its own expiration: what is promised must not end later than that.
        expires_at = int(self._now()) + EXPIRY_SECONDS
        form = self._s3.generate_presigned_post(
            self._bucket,
            key,
            Fields=fields,
            Conditions=[*conditions, ["content-length-range", 1, self._max_upload_bytes]],
            ExpiresIn=EXPIRY_SECONDS,
        )
        return Upload(self._document_id(key), form["url"], form["fields"], expires_at)

    def _suffix_of(self, file_name: str) -> str:
        name = file_name.lower()
        known = next((suffix for suffix in self._media_types if name.endswith(suffix)), None)
        # A PDF may have any name: its own first bytes say what it is.
        if known is None and SUFFIX not in self._media_types:
            taken = ", ".join(self._media_types)
            raise UploadRefused(415, ErrorCode.INVALID_MESSAGE, f"Such a file is not taken; {taken} is.")
        return known or SUFFIX

    def _document_id(self, key: str) -> str:
        return document_id_of(key, tuple(self._media_types))

    def _new_key(self, stem: str, suffix: str, owner: str | None) -> str:
        for _ in range(_ATTEMPTS):
            key = f"{UPLOADS}{stem}-{self._new_suffix()}{suffix}"
            if owner is None:
                return key
            document_id = self._document_id(key)
            try:
                if self._owners is not None:
                    self._owners.add(owner, document_id)
                self._documents.expect(document_id, owner=owner)
            except TooManyDocuments:
                message = "Too many of your documents are unfinished. Wait until one has ended, then try again."
                raise UploadRefused(429, TOO_MANY_DOCUMENTS, message) from None
            except DocumentExists:
                continue
            return key
        raise DocumentExists(f"{_ATTEMPTS} ids that start with {stem!r}")


def encode_owner(owner: str) -> str:
    """A principal as an S3 metadata value: percent-encoded UTF-8, for `urllib.parse.unquote` to decode.

    Metadata travel as HTTP headers, in which S3 takes nothing but printable US-ASCII as it is.
    """
    return quote(owner, safe="")


def stem_of(file_name: str, suffix: str = SUFFIX) -> str:
    """What a file name tells people, as the start of a document's id.

    1 to 80 letters and digits of any script, `-`, `_` and `.`; without folders and without the suffix.
    """
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", file_name))[-1].strip()
    name = re.sub(re.escape(suffix) + r"\Z", "", name, flags=re.IGNORECASE)
    readable = "".join(ch if ch in "-_." or unicodedata.category(ch)[0] in "LMN" else "-" for ch in name)
    readable = re.sub("-{2,}", "-", readable).strip("-.")[:MAX_STEM_CHARACTERS].rstrip("-.")
    return readable or "document"


def parse_upload_request(event: Event) -> UploadRequest:
    """Read the body of an HTTP API event, payload format 2.0.

    Raises:
        UploadRefused: 400, with a sentence for the client.
    """
    try:
        request = json.loads(_body(event))
    except (ValueError, RecursionError):
        raise _invalid("The request is not JSON.") from None
    file_name = request.get("fileName") if isinstance(request, dict) else None
    if not isinstance(file_name, str) or not file_name:
        raise _invalid('A request is a JSON object with a "fileName", a string that is not empty.')
    size = request.get("size")
    # In Python true is an int; in JSON it is no number.
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise _invalid('"size" is a whole number of bytes from 1 up.')
    correlation_id = request.get("correlationId")
    if correlation_id is not None and not is_correlation_id(correlation_id):
        raise _invalid('"correlationId" is 1 to 128 letters, digits and any of . _ : and -.')
    return UploadRequest(file_name, size, correlation_id)


def owner_of(context: Mapping[str, Any]) -> str | None:
    """Whose the document will be; None where the route has no authorizer. Raises UploadRefused."""
    try:
        owner = principal_of(context)
    except NamelessCaller:
        raise _nameless() from None
    if owner is not None and len(encode_owner(owner)) > MAX_OWNER_BYTES:
        raise _nameless()
    return owner


session = cache(clients.new_session)


@cache
def table() -> Table:
    return Table(UploadSettings.from_environment().table_name, lambda: dynamodb_client(session()))


@cache
def presigner() -> UploadPresigner:
    """One for a sandbox, from the environment that `UploadSettings` reads."""
    settings = UploadSettings.from_environment()
    return UploadPresigner(
        s3_client(session()),
        settings.documents_bucket,
        max_upload_bytes=settings.max_upload_bytes,
        media_types=settings.media_types,
        documents=States(table()),
        owners=Owners(table(), limit=settings.max_unfinished_documents, upload_seconds=EXPIRY_SECONDS + 60),
        callers_are_known=settings.callers_are_known,
    )


def handler(event: Event, _context: object) -> Answer:
    """Errors are answered as {"errorCode": str, "message": str} with the status 400, 403, 413, 415, 429 or 500."""
    try:
        request = parse_upload_request(event)
        upload = presigner().presign(request, owner_of(event["requestContext"]))
    except UploadRefused as refused:
        logger.info("Upload refused", status=refused.status, error_code=refused.code)
        return _answer(refused.status, {"errorCode": refused.code, "message": str(refused)})
    except Exception:
        logger.exception("Upload not presigned")
        message = "The server failed. Try again."
        return _answer(500, {"errorCode": ErrorCode.INTERNAL_ERROR.value, "message": message})
    logger.info(
        "Upload presigned",
        document_id=upload.document_id,
        size=request.size,
        correlation_id=request.correlation_id,
        request_id=event["requestContext"].get("requestId"),
    )
    return _answer(
        200,
        {
            "docId": upload.document_id,
            "url": upload.url,
            "fields": upload.fields,
            "expiresAt": upload.expires_at,
        },
    )


def _body(event: Event) -> str:
    body = event.get("body") or ""
    if len(body) > MAX_REQUEST_CHARACTERS:
        raise _invalid(f"A request has at most {MAX_REQUEST_CHARACTERS} characters.")
    # API Gateway encodes what its Content-Type does not call text.
    return base64.b64decode(body).decode() if event.get("isBase64Encoded") else body


def _nameless() -> UploadRefused:
    return UploadRefused(403, ErrorCode.FORBIDDEN, "The caller has no name that a document could belong to.")


def _invalid(message: str) -> UploadRefused:
    return UploadRefused(400, ErrorCode.INVALID_MESSAGE, message)


def _answer(status: int, body: Mapping[str, Any]) -> Answer:
    # Whoever has the answer may upload, so no cache may keep it.
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}


started(logger, lambda: (presigner(), table().client))
