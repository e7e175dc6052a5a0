"""The document processor with real PDFs, S3 events as AWS documents them, and a bucket and a table in memory.

Not proved here: the function's permissions (graph and emulator tests), S3's and Lambda's own retries, the table's
rules (test_store), the sending of messages (test_fanout), and that every PDF in the world can be read.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any
from urllib.parse import quote_plus

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from pypdf import PdfWriter
from pypdf.generic import (
    ArrayObject,
    DecodedStreamObject,
    DictionaryObject,
    NameObject,
)

from docprogress.announcer import Announcer
from docprogress.document import Connection, DocumentState, ErrorCode, Failure, Run, Status, Update
from docprogress.errors import BeingProcessed
from docprogress.tracker import ProgressTracker
from tests.functions.documents.pdfs import built, doubling_forms
from tests.functions.fakes import InMemoryStore, RecordingPoster, started

EVENTS = Path(__file__).with_name("events")
BUCKET = "documents-bucket-1a2b3c4"
NEVER = 4_000_000_000


# --- a bucket, a sandbox, PDFs ---


def s3_error(status: int, code: str, operation: str = "GetObject") -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)  # type: ignore[typeddict-item]


class _Counted(io.BytesIO):
    """Tells a bucket how much of an object was read."""

    def __init__(self, bucket: Bucket, content: bytes) -> None:
        super().__init__(content)
        self._bucket = bucket

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._bucket.bytes_read += len(data)
        self._bucket.bytes_at_once = max(self._bucket.bytes_at_once, len(data))
        return data


class Bucket:
    """An S3 client's three calls, over a dictionary. An object's ETag is made of its content, as S3's is."""

    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.faults: dict[str, list[Exception]] = {}
        self.before_put: Callable[[], None] = lambda: None
        self.bytes_read = 0
        self.bytes_at_once = 0
        self.bodies: list[_Counted] = []

    def etag(self, key: str) -> str:
        return hashlib.sha256(self.objects[key]).hexdigest()[:32]

    def get_object(self, *, Bucket: str, Key: str, IfMatch: str) -> dict[str, Any]:
        assert Bucket == BUCKET
        self._fault("get_object")
        self._find(Key, IfMatch, codes=("NoSuchKey", "PreconditionFailed"))
        content = self.objects[Key]
        self.bodies.append(_Counted(self, content))
        body = StreamingBody(self.bodies[-1], len(content))
        return {"Body": body, "Metadata": self.metadata.get(Key, {})}

    def head_object(self, *, Bucket: str, Key: str, IfMatch: str | None = None) -> dict[str, Any]:
        assert Bucket == BUCKET
        self._find(Key, IfMatch, codes=("404", "412"))
        return {"ETag": f'"{self.etag(Key)}"', "Metadata": self.metadata.get(Key, {})}

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: IO[bytes],
        ContentType: str,
        Metadata: dict[str, str],
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
    ) -> None:
        assert Bucket == BUCKET
        assert ContentType == "application/json"
        assert bool(IfMatch) != bool(IfNoneMatch), "a result is put under a condition"
        assert IfNoneMatch in (None, "*"), "S3 takes no other value"
        self.before_put()
        self._fault("put_object")
        if IfNoneMatch and Key in self.objects:
            raise s3_error(412, "PreconditionFailed", "PutObject")
        if IfMatch:
            self._find(Key, IfMatch, codes=("NoSuchKey", "PreconditionFailed"))
        self.objects[Key] = Body.read()
        self.metadata[Key] = Metadata

    def _find(self, key: str, if_match: str | None, codes: tuple[str, str]) -> None:
        if key not in self.objects:
            raise s3_error(404, codes[0])
        if if_match not in (None, f'"{self.etag(key)}"'):
            raise s3_error(412, codes[1])

    def _fault(self, operation: str) -> None:
        if self.faults.get(operation):
            raise self.faults[operation].pop(0)


class FakePublisher:
    """docprogress.publisher.Publisher over a table in memory and a poster that records."""

    def __init__(self, store: InMemoryStore, poster: RecordingPoster, bucket: Bucket) -> None:
        self.store = store
        self._clients = {"s3": bucket}
        self.announcer: Announcer | None = Announcer(store, poster)

    def client(self, service: str) -> Bucket:
        return self._clients[service]

    def track(self, document_id: str, **arguments: Any) -> ProgressTracker:
        return ProgressTracker(
            document_id, store=self.store, deliver=self._announce, max_messages_per_second=1000.0, **arguments
        )

    def _announce(self, state: DocumentState, deadline_seconds: float) -> None:
        if self.announcer is not None:
            self.announcer.announce(state, deadline_seconds)


class Context:
    def __init__(self, aws_request_id: str = "request-1", remaining_seconds: float = 900.0) -> None:
        self.aws_request_id = aws_request_id
        self._remaining_seconds = remaining_seconds
        self._started_at = time.monotonic()

    def get_remaining_time_in_millis(self) -> int:
        return int(self._remaining_seconds * 1000)


class Sandbox:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Without it, callers are known, and a document without an owner is nobody's.
        monkeypatch.setenv("AUTHORIZATION", "NONE")
        monkeypatch.delitem(sys.modules, "document_processor", raising=False)
        self._module: ModuleType = importlib.import_module("document_processor")
        self.seconds_later = 0.0
        self.store = InMemoryStore(lambda: time.time() + self.seconds_later)
        self.poster = RecordingPoster()
        self.bucket = Bucket()
        self.publisher = FakePublisher(self.store, self.poster, self.bucket)
        monkeypatch.setattr(self._module, "publisher", lambda: self.publisher)
        self._log = io.StringIO()
        self._log_handler = logging.StreamHandler(self._log)
        self._log_handler.setFormatter(self._module.logger.registered_formatter)
        self._module.logger.addHandler(self._log_handler)

    @property
    def log(self) -> str:
        return self._log.getvalue()

    def close(self) -> None:
        logging.getLogger(self._module.logger.name).removeHandler(self._log_handler)

    def upload(self, content: bytes, key: str = "invoice-7.pdf", **fields: Any) -> dict[str, Any]:
        """Put an object; returns the event that S3 sends of it."""
        self.bucket.objects[key] = content
        return self.event(key, **{"size": len(content), "eTag": self.bucket.etag(key), **fields})

    @staticmethod
    def event(key: str, **fields: Any) -> dict[str, Any]:
        event: dict[str, Any] = json.loads((EVENTS / "object_created.json").read_text())
        event["Records"][0]["s3"]["object"] |= {"key": quote_plus(key, safe="/"), **fields}
        return event

    def invoke(self, event: dict[str, Any], context: Context | None = None) -> None:
        self._module.handler(event, context or Context())

    def process(self, content: bytes, key: str = "invoice-7.pdf", **fields: Any) -> DocumentState:
        """Upload, invoke, and return the document's last state."""
        self.invoke(self.upload(content, key, **fields))
        return self.last

    @property
    def statuses(self) -> list[Status]:
        return [state.status for state in self.store.published]

    @property
    def last(self) -> DocumentState:
        return self.store.published[-1]

    def result(self, document_id: str = "invoice-7") -> Any:
        return json.loads(self.bucket.objects[f"results/{document_id}.json"])

    @property
    def results(self) -> list[str]:
        return [key for key in self.bucket.objects if key.startswith("results/")]


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    sandbox = Sandbox(monkeypatch)
    yield sandbox
    sandbox.close()


def writer_of(*texts: str) -> PdfWriter:
    """A PDF with a page for each text."""
    writer = PdfWriter()
    font = writer._add_object(
        DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
    )
    for text in texts:
        page = writer.add_blank_page(300, 300)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 20 Td ({text}) Tj ET".encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(content)
    return writer


def written(writer: PdfWriter) -> bytes:
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


@cache
def pdf(pages: int = 3) -> bytes:
    return written(writer_of(*(f"Text of page {number}" for number in range(1, pages + 1))))


def encrypted(user_password: str) -> bytes:
    writer = writer_of("Text of page 1")
    writer.encrypt(user_password, "owner's password", algorithm="AES-256")
    return written(writer)


def with_unknown_encryption() -> bytes:
    """A PDF behind a security handler other than the standard one, as rights-management products write."""
    content = encrypted("")
    assert b"/Filter /Standard" in content
    return content.replace(b"/Filter /Standard", b"/Filter /Fancysec")


def with_damaged_pages(*numbers: int) -> bytes:
    writer = writer_of("one", "two", "three")
    content = DecodedStreamObject()
    content.set_data(b"never inflated")
    content[NameObject("/Filter")] = NameObject("/NoSuchFilter")
    for number in numbers:
        writer.pages[number - 1][NameObject("/Contents")] = writer._add_object(content)
    return written(writer)


# --- what is made of a PDF ---


def test_every_page_is_read_in_order_into_one_result(sandbox: Sandbox) -> None:
    sandbox.process(pdf(12))

    assert sandbox.result() == {
        "docId": "invoice-7",
        "source": {"key": "invoice-7.pdf", "eTag": sandbox.bucket.etag("invoice-7.pdf")},
        "pages": [{"number": number, "text": f"Text of page {number}"} for number in range(1, 13)],
        "pagesUnreadable": [],
        "pagesWithoutText": [],
    }


def test_watchers_hear_the_start_and_the_end_and_nothing_out_of_order(sandbox: Sandbox) -> None:
    sandbox.store.subscribe("invoice-7", Connection("c1", NEVER))
    sandbox.process(pdf(40))

    messages = [json.loads(message) for _, message in sandbox.poster.posts]
    first = messages[0]["sequence"]
    assert messages[0] == {"status": "processing_started", "docId": "invoice-7", "totalPages": 40, "sequence": first}
    assert messages[-1]["status"] == "processing_complete"
    sequences = [message["sequence"] for message in messages]
    assert sequences == sorted(set(sequences))
    assert sandbox.last.processed == 40


def test_a_pdf_without_text_gives_empty_pages(sandbox: Sandbox) -> None:
    writer = PdfWriter()
    writer.add_blank_page(10, 10)
    sandbox.process(written(writer))

    assert sandbox.last.status is Status.COMPLETE
    assert sandbox.result()["pages"] == [{"number": 1, "text": ""}]
    assert sandbox.result()["pagesWithoutText"] == [1]


def test_a_pdf_that_restricts_only_printing_opens_with_an_empty_password(sandbox: Sandbox) -> None:
    assert sandbox.process(encrypted("")).status is Status.COMPLETE
    assert sandbox.result()["pages"] == [{"number": 1, "text": "Text of page 1"}]


def test_a_damaged_page_has_no_text_and_costs_the_others_nothing(sandbox: Sandbox) -> None:
    sandbox.store.subscribe("invoice-7", Connection("c1", NEVER))
    state = sandbox.process(with_damaged_pages(2))

    told = json.loads(sandbox.poster.posts[-1][1])
    assert (told["pagesUnreadable"], told["result"]) == (
        1,
        {"key": "results/invoice-7.json", "total": 3, "unit": "pages"},
    )
    assert (state.status, state.processed) == (Status.COMPLETE, 3)
    assert [page["text"] for page in sandbox.result()["pages"]] == ["one", None, "three"]
    assert sandbox.result()["pagesUnreadable"] == [2]


@pytest.mark.parametrize(
    ("key", "document_id"),
    [
        ("a b+ü.pdf", "a b+ü"),
        ("folder/sub folder/c.pdf", "folder/sub folder/c"),
        ("a//b.pdf", "a//b"),
        ("SCAN.PDF", "SCAN.PDF"),
        ("Scan.Pdf", "Scan.Pdf"),
        ("SCAN.PDF.pdf", "SCAN.PDF.pdf"),
        ("Antra\u0308ge.pdf", "Antr\u00e4ge"),
        ("v1.2.pdf", "v1.2"),
        ("a.pdf.pdf", "a.pdf"),
        ("100%25.pdf", "100%25"),
        ("漢字🎉.pdf", "漢字🎉"),
        ("..pdf", "."),
        ("...hidden.pdf", "...hidden"),
        ("a/..pdf", "a/."),
    ],
)
def test_the_key_of_an_upload_names_its_document(sandbox: Sandbox, key: str, document_id: str) -> None:
    state = sandbox.process(pdf(1), key)

    assert (state.document_id, state.status) == (document_id, Status.COMPLETE)
    assert sandbox.results == [f"results/{document_id}.json"]


def test_a_key_is_decoded_as_s3_encodes_it(sandbox: Sandbox) -> None:
    content = pdf(1)
    sandbox.upload(content, "a bü.pdf")
    event = sandbox.event("x", size=len(content), eTag=sandbox.bucket.etag("a bü.pdf"))
    event["Records"][0]["s3"]["object"]["key"] = "a+b%C3%BC.pdf"
    sandbox.invoke(event)

    assert sandbox.last.document_id == "a bü"


@pytest.mark.parametrize("key", [".pdf", "x" * 300 + ".pdf", "line\nbreak.pdf", "letter.docx", "pdf"])
def test_a_key_that_names_no_document_is_logged_and_left(sandbox: Sandbox, key: str) -> None:
    sandbox.invoke(sandbox.upload(pdf(1), key))

    assert sandbox.store.published == []
    (line,) = [line for line in lines_of(sandbox) if "names no document" in line["message"]]
    assert (line["level"], line["key"]) == ("ERROR", key)


def test_the_suffixes_of_a_stack_say_what_is_a_document(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCUMENT_SUFFIXES", ".pdf .scan")

    assert sandbox.process(pdf(1), "a.SCAN").document_id == "a.SCAN"
    assert sandbox.results == ["results/a.SCAN.json"]


def test_the_owner_in_an_objects_metadata_owns_the_document(sandbox: Sandbox) -> None:
    sandbox.bucket.metadata["invoice-7.pdf"] = {"owner": "al%C3%ADce%7C1"}

    assert sandbox.process(pdf(1)).owner == "alíce|1"


@pytest.mark.parametrize("owner", [None, "", "%20"], ids=["none", "empty", "blank"])
def test_where_callers_are_known_a_document_without_an_owner_is_told_to_nobody(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, owner: str | None
) -> None:
    monkeypatch.setenv("AUTHORIZATION", "JWT")
    sandbox.bucket.metadata["invoice-7.pdf"] = {} if owner is None else {"owner": owner}
    sandbox.store.subscribe("invoice-7", Connection("bob's", NEVER, "bob"))

    sandbox.process(pdf(1))

    assert sandbox.poster.posts == []
    assert len(sandbox.results) == (owner is None)
    assert ("names a blank owner" in sandbox.log) == (owner is not None)
    assert sandbox.last.failure == (None if owner is None else Failure("The document has no owner."))


def test_the_same_file_sent_again_by_a_page_s_form_is_not_run_again(sandbox: Sandbox) -> None:
    sandbox.process(pdf(2), "uploads/report-1a2b3c4d.pdf", sequencer="01")
    told = list(sandbox.store.published)
    sandbox.process(pdf(2), "uploads/report-1a2b3c4d.pdf", sequencer="02")

    assert sandbox.store.published == told


@pytest.mark.parametrize("fields", [{}, {"size": 100 * 1024 * 1024 + 1}], ids=["no PDF", "too large"])
def test_the_owner_of_a_file_that_cannot_be_read_alone_hears_of_it(sandbox: Sandbox, fields: dict[str, int]) -> None:
    sandbox.bucket.metadata["invoice-7.pdf"] = {"owner": "alice"}
    sandbox.store.subscribe("invoice-7", Connection("bob's", NEVER, "bob"))

    state = sandbox.process(b"no PDF", **fields)

    assert state.owner == "alice"
    assert sandbox.poster.posts == []


# --- what cannot be read ---


NO_PDF = "The file is not a readable PDF. Open it, print or save it as a new file, and upload that."
EMPTY = "Upload one that has something to read."
PASSWORD = "The PDF needs a password. Remove its protection, and upload it again."


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", ErrorCode.DOCUMENT_EMPTY, f"The file is empty. {EMPTY}"),
        (b"This is no PDF.", ErrorCode.DOCUMENT_DAMAGED, NO_PDF),
        (b"%PDF-1.7\n", ErrorCode.DOCUMENT_DAMAGED, NO_PDF),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), ErrorCode.DOCUMENT_DAMAGED, NO_PDF),
        (bytes(range(256)) * 64, ErrorCode.DOCUMENT_DAMAGED, NO_PDF),
        (written(PdfWriter()), ErrorCode.DOCUMENT_EMPTY, f"The document has no pages. {EMPTY}"),
        (encrypted("secret"), ErrorCode.DOCUMENT_ENCRYPTED, PASSWORD),
        (with_unknown_encryption(), ErrorCode.DOCUMENT_ENCRYPTED, None),
    ],
    ids=["empty", "text", "header", "image", "noise", "no pages", "password", "unknown encryption"],
)
def test_a_file_that_can_never_be_read_ends_in_an_error_and_in_no_retry(
    sandbox: Sandbox, content: bytes, code: ErrorCode, message: str | None
) -> None:
    state = sandbox.process(content)

    assert state.status is Status.ERROR
    assert state.failure is not None
    assert (state.failure.code, state.failure.recoverable) == (code, False)
    assert message is None or state.failure.message == message
    assert sandbox.results == []
    assert "Not a readable document" in sandbox.log


def test_a_file_over_the_limit_is_not_even_downloaded(sandbox: Sandbox) -> None:
    state = sandbox.process(pdf(1), size=100 * 1024 * 1024 + 1)

    assert state.failure == Failure(
        "The file is larger than 100 MB. Split it, or leave out its largest pages, and upload it again.",
        ErrorCode.DOCUMENT_TOO_LARGE,
    )
    assert sandbox.bucket.bytes_read == 0


@pytest.mark.parametrize("fields", [{}, {"size": 100 * 1024 * 1024 + 1}], ids=["read", "too large"])
def test_a_file_leaves_no_connection_open(sandbox: Sandbox, fields: dict[str, int]) -> None:
    sandbox.process(pdf(1), **fields)
    (body,) = sandbox.bucket.bodies

    assert body.closed


def test_a_large_file_is_never_in_memory_as_a_whole(sandbox: Sandbox) -> None:
    assert sandbox.process(pdf(1) + b"\0" * 3_000_000).status is Status.COMPLETE
    assert sandbox.bucket.bytes_at_once <= 1024 * 1024


def test_an_event_that_says_neither_size_nor_order_is_processed(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(1))
    for name in ("size", "sequencer"):
        del event["Records"][0]["s3"]["object"][name]
    sandbox.invoke(event)

    assert sandbox.last.status is Status.COMPLETE


def test_a_file_at_the_limit_is_read(sandbox: Sandbox) -> None:
    assert sandbox.process(pdf(1), size=100 * 1024 * 1024).status is Status.COMPLETE


def test_a_repeated_event_of_a_file_that_cannot_be_read_says_nothing_new(sandbox: Sandbox) -> None:
    event = sandbox.upload(b"no PDF")
    sandbox.invoke(event)
    told = list(sandbox.store.published)
    sandbox.invoke(event, Context("request-2"))

    assert sandbox.store.published == told


@pytest.mark.parametrize(
    "content",
    [
        pdf(2).replace(b"/Count 2", b"/Count 0"),
        pdf(2).replace(b"/Kids", b"/Kits"),
        pdf(2).replace(b"/Pages", b"/Pagan"),
        pdf(2).replace(b"/Type /Page\n", b"/Type /Pig \n"),
        pdf(2).replace(b"/Root", b"/Toor"),
        pdf(2).replace(b"startxref", b"startxxxx"),
        pdf(2)[: len(pdf(2)) // 2],
    ],
    ids=["count", "kids", "pages", "type", "root", "startxref", "half"],
)
def test_a_pdf_whose_structure_is_damaged_ends_in_a_state_and_in_no_retry(sandbox: Sandbox, content: bytes) -> None:
    state = sandbox.process(content)

    assert state.status is Status.COMPLETE or (state.failure and not state.failure.recoverable)


def test_the_log_of_a_damaged_page_holds_nothing_of_the_document(sandbox: Sandbox) -> None:
    writer = writer_of("one")
    font = DictionaryObject({NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1")})
    content = DecodedStreamObject()
    content.set_data(b"BT /F1 12 Tf (Salary of A. Person: 123456) Tj ET")
    content[NameObject("/Filter")] = ArrayObject([NameObject("/SalaryOfAPerson123456")])
    writer.pages[0][NameObject("/Contents")] = writer._add_object(content)
    writer.pages[0][NameObject("/Resources")] = DictionaryObject(
        {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
    )
    sandbox.process(written(writer))

    assert "123456" not in sandbox.log


# --- repeated events and retries ---


def test_an_event_that_comes_twice_is_processed_once(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(2))
    sandbox.invoke(event)
    told = list(sandbox.store.published)
    sandbox.bucket.objects.pop("results/invoice-7.json")
    sandbox.invoke(event, Context("request-2"))

    assert sandbox.store.published == told
    assert sandbox.results == []


def test_an_event_that_comes_twice_at_once_is_processed_once(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(2))
    refused: list[BaseException] = []

    def meanwhile(method: str) -> None:
        if method == "processing_complete" and not refused:
            # Raised, so that Lambda looks again in a minute whether the first worker has come to its end.
            with pytest.raises(BeingProcessed) as caught:
                sandbox.invoke(event, Context("request-2"))
            refused.append(caught.value)

    sandbox.store.before = meanwhile
    sandbox.invoke(event)

    assert len(refused) == 1
    assert sandbox.statuses.count(Status.STARTED) == 1
    assert Status.ERROR not in sandbox.statuses
    assert sandbox.last.status is Status.COMPLETE


def test_the_same_file_uploaded_again_is_processed_again(sandbox: Sandbox) -> None:
    sandbox.process(pdf(2), sequencer="0055AED6DCD90281E5")
    sandbox.process(pdf(2), sequencer="0055AED6DCD90281E6")

    assert sandbox.statuses.count(Status.STARTED) == 2
    assert sandbox.last.status is Status.COMPLETE


def test_an_older_event_of_the_same_file_that_comes_late_is_left_to_the_newer_one(sandbox: Sandbox) -> None:
    sandbox.process(pdf(2), sequencer="0055AED6DCD90281E6")
    told = list(sandbox.store.published)
    sandbox.process(pdf(2), sequencer="0055AED6DCD90281E5")

    assert sandbox.store.published == told


def test_where_uploads_have_no_order_another_file_is_another_run(sandbox: Sandbox) -> None:
    sandbox.process(pdf(1), sequencer="")
    assert sandbox.process(pdf(2), sequencer="").processed == 2


def test_a_retry_by_lambda_takes_the_document_over_from_a_worker_that_was_killed(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(2))
    upload = event["Records"][0]["s3"]["object"]
    run_id = f"{upload['eTag']}-{upload['sequencer']}"
    started(sandbox.store, "invoice-7", run_id=run_id, total=2)
    sandbox.store.write(Run("invoice-7", run_id), Update(status=Status.PROGRESS, pages=1))
    # Lambda tries again after a minute.
    sandbox.seconds_later = 60
    sandbox.invoke(event)

    assert sandbox.last.status is Status.COMPLETE
    assert sandbox.last.processed == 2


@pytest.mark.parametrize("operation", ["get_object", "put_object"])
def test_a_fault_of_s3_is_told_as_recoverable_and_leaves_the_handler(sandbox: Sandbox, operation: str) -> None:
    event = sandbox.upload(pdf(2))
    sandbox.bucket.faults[operation] = [s3_error(503, "SlowDown", operation)]

    with pytest.raises(ClientError, match="SlowDown"):
        sandbox.invoke(event)

    failure = sandbox.last.failure
    assert failure is not None
    assert failure.recoverable
    assert "SlowDown" not in failure.message
    sandbox.invoke(event)
    assert sandbox.last.status is Status.COMPLETE
    assert sandbox.last.processed == 2


def test_a_download_that_breaks_off_is_tried_again(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    event = sandbox.upload(pdf(2))
    whole = sandbox.bucket.get_object

    def cut_short(**request: Any) -> dict[str, Any]:
        response = whole(**request)
        response["Body"] = StreamingBody(io.BytesIO(pdf(2)[:100]), len(pdf(2)))
        return response

    monkeypatch.setattr(sandbox.bucket, "get_object", cut_short)
    with pytest.raises(Exception, match="total bytes expected"):
        sandbox.invoke(event)

    assert sandbox.last.failure is not None
    assert sandbox.last.failure.recoverable, "half a file says nothing of the whole one"


def test_the_event_of_an_object_that_was_replaced_is_left_to_the_newer_event(sandbox: Sandbox) -> None:
    stale = sandbox.upload(pdf(2))
    fresh = sandbox.upload(pdf(5), sequencer="0055AED6DCD90281E6")
    sandbox.invoke(stale)
    assert sandbox.store.published == []
    sandbox.invoke(fresh, Context("request-2"))

    assert sandbox.last.total == 5


@pytest.mark.parametrize("older", [pdf(2), b"no PDF"], ids=["readable", "not readable"])
def test_an_upload_that_is_replaced_while_it_is_opened_undoes_nothing_of_the_newer_one(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, older: bytes
) -> None:
    event = sandbox.upload(older)
    whole = sandbox.bucket.get_object

    def get_object(**request: Any) -> dict[str, Any]:
        response = whole(**request)
        monkeypatch.setattr(sandbox.bucket, "get_object", whole)
        sandbox.process(pdf(5), sequencer="0055AED6DCD90281E6")
        return response

    monkeypatch.setattr(sandbox.bucket, "get_object", get_object)
    sandbox.invoke(event, Context("request-2"))

    assert (sandbox.last.status, sandbox.last.total) == (Status.COMPLETE, 5)
    assert len(sandbox.result()["pages"]) == 5


@pytest.mark.parametrize("older", [pdf(2), b"no PDF"], ids=["readable", "not readable"])
def test_an_upload_that_is_replaced_while_it_is_opened_says_nothing_though_the_newer_ones_event_is_late(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, older: bytes
) -> None:
    event = sandbox.upload(older)
    whole = sandbox.bucket.get_object

    def get_object(**request: Any) -> dict[str, Any]:
        response = whole(**request)
        sandbox.upload(pdf(5), sequencer="0055AED6DCD90281E6")
        return response

    monkeypatch.setattr(sandbox.bucket, "get_object", get_object)
    sandbox.invoke(event)

    assert sandbox.store.published == []


def test_a_name_too_long_for_the_result_is_told_before_the_file_is_read(sandbox: Sandbox) -> None:
    state = sandbox.process(pdf(1), "\N{SLIGHTLY SMILING FACE}" * 254 + ".pdf")

    assert state.failure is not None
    assert "name is too long" in state.failure.message
    assert sandbox.bucket.bytes_read == 0


def test_whoever_waits_for_an_object_that_was_removed_is_told(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(2))
    sandbox.bucket.objects.clear()
    sandbox.invoke(event)

    assert sandbox.last.failure is not None
    assert "removed" in sandbox.last.failure.message


def test_removing_a_document_that_is_done_does_not_undo_it(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(2))
    sandbox.invoke(event)
    sandbox.bucket.objects.clear()
    sandbox.invoke(event, Context("request-2"))

    assert sandbox.last.failure is None


def test_a_retry_that_finds_its_object_removed_ends_what_it_had_started(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(2))
    sandbox.bucket.faults["put_object"] = [s3_error(503, "SlowDown", "PutObject")]
    with pytest.raises(ClientError):
        sandbox.invoke(event)
    sandbox.bucket.objects.clear()
    sandbox.invoke(event)

    assert sandbox.last.failure is not None
    assert not sandbox.last.failure.recoverable, "watchers were promised a retry that will not come"


def test_a_permission_that_is_missing_is_not_taken_for_a_file_that_is(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(2))
    sandbox.bucket.faults["get_object"] = [s3_error(403, "AccessDenied")]

    with pytest.raises(ClientError, match="AccessDenied"):
        sandbox.invoke(event)


def test_the_result_of_a_newer_upload_is_not_written_over(sandbox: Sandbox) -> None:
    older = sandbox.upload(pdf(1))

    def newer_run() -> None:
        # While the older worker is about to put its result, the newer one does all of its work.
        sandbox.bucket.before_put = lambda: None
        sandbox.invoke(sandbox.upload(pdf(5), sequencer="0055AED6DCD90281E6"), Context("request-2"))

    sandbox.bucket.before_put = newer_run
    sandbox.invoke(older)

    assert (sandbox.last.status, sandbox.last.total) == (Status.COMPLETE, 5)
    assert len(sandbox.result()["pages"]) == 5, "the state and the result must be of the same upload"


def test_the_result_of_an_older_upload_is_replaced(sandbox: Sandbox) -> None:
    sandbox.process(pdf(1), sequencer="FF")
    sandbox.process(pdf(2), sequencer="0100")

    assert len(sandbox.result()["pages"]) == 2


def test_a_result_that_was_removed_meanwhile_is_put_anew(sandbox: Sandbox) -> None:
    sandbox.process(pdf(1), sequencer="01")

    def removed() -> None:
        sandbox.bucket.before_put = lambda: None
        del sandbox.bucket.objects["results/invoice-7.json"]

    sandbox.bucket.before_put = removed
    assert sandbox.process(pdf(2), sequencer="02").status is Status.COMPLETE
    assert len(sandbox.result()["pages"]) == 2


def test_keys_that_differ_in_the_case_of_their_suffix_are_documents_of_their_own(sandbox: Sandbox) -> None:
    for pages, key in enumerate(("x.pdf", "x.PDF", "x.Pdf", "x.PDF.pdf"), start=1):
        sandbox.process(pdf(pages), key)

    assert {key: len(json.loads(sandbox.bucket.objects[key])["pages"]) for key in sandbox.results} == {
        "results/x.json": 1,
        "results/x.PDF.json": 2,
        "results/x.Pdf.json": 3,
        "results/x.PDF.pdf.json": 4,
    }


def test_no_readable_page_is_an_error(sandbox: Sandbox) -> None:
    state = sandbox.process(with_damaged_pages(1, 2, 3))

    assert state.failure is not None
    assert (state.failure.code, state.failure.recoverable) == (ErrorCode.DOCUMENT_DAMAGED, False)
    assert "None of the document's pages" in state.failure.message
    assert sandbox.results == []


class Ticking(Context):
    """A sandbox whose time goes by."""

    def get_remaining_time_in_millis(self) -> int:
        return int((self._remaining_seconds - (time.monotonic() - self._started_at)) * 1000)


@pytest.mark.parametrize("sandbox_context", [Context, Ticking])
def test_a_document_that_takes_longer_than_there_is_time_ends_in_time_and_is_not_tried_again(
    sandbox: Sandbox, sandbox_context: type[Context], capsys: pytest.CaptureFixture[str]
) -> None:
    for_ever = built(doubling_forms(60, b""))
    event = sandbox.upload(for_ever)
    sandbox.invoke(event, sandbox_context(remaining_seconds=1.0))

    failure = sandbox.last.failure
    assert failure is not None
    assert (failure.code, failure.recoverable) == (ErrorCode.TIME_LIMIT_EXCEEDED, False)
    assert "plit it" in failure.message
    output = capsys.readouterr().out
    assert (metric(output, "DocumentsUnreadable"), metric(output, "DocumentsFailed")) == (1, 0)
    told = list(sandbox.store.published)
    sandbox.invoke(event, Context("request-2"))
    assert sandbox.store.published == told


@pytest.mark.parametrize(
    ("remaining_seconds", "reading_seconds"),
    [(900.0, 890.0), (30.0, 27.0)],
    ids=["of a quarter of an hour", "of little"],
)
def test_the_reader_is_stopped_in_time_for_the_end_and_has_what_is_left_of_the_memory(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, remaining_seconds: float, reading_seconds: float
) -> None:
    given: list[dict[str, Any]] = []

    def read(path: str, **arguments: Any) -> Any:
        given.append(arguments)
        return reading(path, **arguments)

    reading = sandbox._module.Reading
    monkeypatch.setattr(sandbox._module, "Reading", read)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024")
    sandbox.invoke(sandbox.upload(pdf(1)), Context(remaining_seconds=remaining_seconds))

    assert sandbox.last.status is Status.COMPLETE
    assert [(each["seconds"], each["limits"].memory_bytes) for each in given] == [
        (reading_seconds, (1024 - 192) * 1024 * 1024)
    ]


def test_a_run_begins_before_its_file_is_looked_for(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, begun = sandbox.bucket.get_object, []

    def get_object(**request: Any) -> dict[str, Any]:
        begun.append("begin" in sandbox.store.calls)
        return whole(**request)

    monkeypatch.setattr(sandbox.bucket, "get_object", get_object)
    sandbox.process(pdf(1))

    assert begun == [True], "the watchdog must see a worker that dies while it opens the file"


def test_every_record_of_an_event_is_processed(sandbox: Sandbox) -> None:
    event = sandbox.upload(pdf(1), "a.pdf")
    event["Records"] += sandbox.upload(b"no PDF", "b.pdf")["Records"]
    event["Records"] += sandbox.upload(pdf(2), "no document")["Records"]
    event["Records"] += sandbox.upload(pdf(3), "c.pdf")["Records"]
    sandbox.invoke(event)

    ends = {state.document_id: state.status for state in sandbox.store.published if not state.is_active}
    assert ends == {"a": Status.COMPLETE, "b": Status.ERROR, "c": Status.COMPLETE}


def test_a_delivery_gets_no_more_time_than_the_function_has_left(sandbox: Sandbox) -> None:
    sandbox.invoke(sandbox.upload(pdf(2)), Context(remaining_seconds=3.0))

    assert sandbox.poster.deadlines
    assert all(0 <= deadline < 3.0 for deadline in sandbox.poster.deadlines)


# --- what operators see ---


def emitted(output: str) -> list[dict[str, Any]]:
    """The lines in CloudWatch's embedded metric format."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" in line]


def metric(output: str, name: str) -> float:
    values = [line[name] for line in emitted(output) if name in line]
    return sum(sum(value) if isinstance(value, list) else value for value in values)


def test_a_document_is_counted_with_its_pages_and_messages(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    for connection in ("live", "stale"):
        sandbox.store.subscribe("invoice-7", Connection(connection, NEVER))
    sandbox.poster.stale = {"stale"}
    sandbox.process(pdf(3))
    output = capsys.readouterr().out

    assert metric(output, "DocumentsCompleted") == 1
    assert metric(output, "PagesProcessed") == 3
    assert 0 < metric(output, "DocumentTime") < 300, "seconds, and of this document alone"
    assert metric(output, "MessagesDelivered") == len(sandbox.poster.posts) >= 2
    assert metric(output, "ConnectionsStale") == 1
    definitions = [line["_aws"]["CloudWatchMetrics"][0] for line in emitted(output)]
    assert {each["Namespace"] for each in definitions} == {"docprogress"}
    units = {each["Name"]: each["Unit"] for definition in definitions for each in definition["Metrics"]}
    ours = {name: unit for name, unit in units.items() if name.startswith(("Document", "Pages"))}
    assert ours == {
        "DocumentsStarted": "Count",
        "DocumentsCompleted": "Count",
        "PagesProcessed": "Count",
        "DocumentTime": "Seconds",
    }


def test_documents_that_fail_and_that_cannot_be_read_are_counted_apart(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.process(b"no PDF", "a.pdf")
    event = sandbox.upload(pdf(1), "b.pdf")
    sandbox.bucket.faults["get_object"] = [s3_error(503, "SlowDown")]
    with pytest.raises(ClientError):
        sandbox.invoke(event)
    output = capsys.readouterr().out

    assert (metric(output, "DocumentsUnreadable"), metric(output, "DocumentsFailed")) == (1, 1)
    assert metric(output, "DocumentsCompleted") == 0


def test_a_document_of_very_many_updates_has_all_of_them_measured(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # CloudWatch takes at most 100 values of a metric in a line.
    tracker = sandbox.publisher.track

    def busy(document_id: str, **arguments: Any) -> ProgressTracker:
        state = started(sandbox.store, "busy")
        assert sandbox.publisher.announcer is not None
        for _ in range(250):
            sandbox.publisher.announcer.announce(state, 1.0)
        return tracker(document_id, **arguments)

    monkeypatch.setattr(sandbox.publisher, "track", busy)
    sandbox.process(pdf(1))
    lines = emitted(capsys.readouterr().out)

    values = [line["FanOutTime"] for line in lines if "FanOutTime" in line]
    assert sum(len(value) if isinstance(value, list) else 1 for value in values) >= 252
    assert all(not isinstance(value, list) or len(value) <= 100 for value in values)


def test_a_worker_behind_the_stream_announces_nothing_itself(sandbox: Sandbox) -> None:
    sandbox.publisher.announcer = None
    event = sandbox.upload(pdf(2))
    sandbox.invoke(event)
    sandbox.invoke(event, Context("request-2"))

    assert sandbox.last.status is Status.COMPLETE
    assert sandbox.poster.posts == []


def test_the_log_names_the_document_and_holds_nothing_of_its_text(sandbox: Sandbox) -> None:
    sandbox.process(written(writer_of("Salary of A. Person: 123456")), "a.pdf")
    sandbox.process(b"Salary of A. Person: 123456", "b.pdf")

    assert '"document_id":"b"' in sandbox.log.replace(": ", ":")
    assert "123456" not in sandbox.log


# What its lines and metrics say


def lines_of(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sandbox.log.splitlines()]


def test_lines_about_an_upload_have_its_correlation_id_and_the_next_ones_have_not(sandbox: Sandbox) -> None:
    sandbox.bucket.metadata["invoice-7.pdf"] = {"correlation-id": "page-1"}
    state = sandbox.process(b"no PDF")
    assert state.correlation_id == "page-1"
    assert {line.get("correlation_id") for line in lines_of(sandbox) if line["level"] == "WARNING"} == {"page-1"}
    before = len(lines_of(sandbox))
    sandbox.process(b"no PDF either", "other.pdf")
    assert all("correlation_id" not in line for line in lines_of(sandbox)[before:])


def test_metadata_that_is_no_correlation_id_is_passed_over(sandbox: Sandbox) -> None:
    sandbox.bucket.metadata["invoice-7.pdf"] = {"correlation-id": "a b\u2028c"}
    assert sandbox.process(pdf()).status is Status.COMPLETE
    assert "correlation_id" not in sandbox.log


def test_documents_that_start_and_that_are_cancelled_are_counted(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.process(pdf(1))
    assert metric(capsys.readouterr().out, "DocumentsStarted") == 1

    def cancel_at_the_start(method: str) -> None:
        if method == "processing_started":
            sandbox.store.cancel("cancelled", principal_id=None)

    sandbox.store.before = cancel_at_the_start
    sandbox.process(pdf(1), "cancelled.pdf")
    output = capsys.readouterr().out
    assert (metric(output, "DocumentsCancelled"), metric(output, "DocumentsFailed")) == (1, 0)


def test_however_many_pages_cannot_be_read_there_is_one_line_about_them(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Texts:
        page_count = 1001

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Iterator[str | None]:
            return iter([None] * 1000 + ["text"])

    monkeypatch.setattr(sandbox._module, "Reading", lambda *_, **__: Texts())
    assert sandbox.process(pdf(1)).pages_unreadable == 1000
    (line,) = [line for line in lines_of(sandbox) if line["message"] == "Pages cannot be read"]
    assert (line["count"], len(line["first"])) == (1000, 20)
    assert len(sandbox.log) < 20_000
