"""Reads PDFs put in the documents bucket and reports each page: a worker as one would write it.

`{docId}.pdf` becomes `results/{docId}.json`:
    {"docId", "source": {"key", "eTag"}, "pages": [{"number", "text"}]}
A page that cannot be read has "text": null. A file that can never be read ends in an `error` message and a
log line; any other failure is tried again by Lambda, and watchers are told that it will be.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import ClientError
from pypdf import PdfReader
from pypdf.errors import EmptyFileError

from docprogress.document import Failure, is_document_id
from docprogress.errors import AlreadyProcessed, BeingProcessed, Superseded
from docprogress.publisher import Publisher, publisher
from docprogress.telemetry import NAMESPACE, add_announcements, flush
from docprogress.tracker import ProgressTracker

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

logger = Logger(use_rfc3339=True)
metrics = Metrics(namespace=NAMESPACE)
# A damaged file makes pypdf warn once per object.
logging.getLogger("pypdf").setLevel(logging.ERROR)
copy_config_to_registered_loggers(logger, include={"docprogress"})

MAX_DOCUMENT_BYTES = 100 * 1024 * 1024
# S3's limit; the result's key is a little longer than the document's.
_MAX_KEY_BYTES = 1024
_CHUNK_BYTES = 1024 * 1024
_PAGES_CACHED = 50


class UnreadableDocument(Exception):
    """No retry will read this file; the text is for the people who watch."""


class SourceReplaced(Superseded):
    """The object is newer than the event; the newer upload has an event of its own."""

    def __init__(self, upload: Upload) -> None:
        super().__init__(f"s3://{upload.bucket}/{upload.key} was replaced")


@dataclass(frozen=True)
class Upload:
    """One version of an object, from an S3 event notification."""

    bucket: str
    key: str
    etag: str
    size: int
    sequencer: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Upload:
        source = record["s3"]
        return cls(
            bucket=source["bucket"]["name"],
            key=unquote_plus(source["object"]["key"]),
            etag=source["object"]["eTag"],
            size=source["object"].get("size", 0),
            sequencer=source["object"].get("sequencer", ""),
        )

    @property
    def document_id(self) -> str:
        return self.key[: -len(".pdf")]

    @property
    def result_key(self) -> str:
        return f"results/{self.document_id}.json"

    @property
    def run_id(self) -> str:
        # S3 may deliver an event twice; the sequencer is that of the upload, not of the delivery.
        return f"{self.etag}-{self.sequencer}"


@cache
def _s3() -> S3Client:
    return publisher().session.client("s3")


def handler(event: Mapping[str, Any], context: Any) -> None:
    # Before anything else: a call without records makes a sandbox warm.
    reporter, s3 = publisher(), _s3()
    # S3 tests a new notification with an event that has none.
    for record in event.get("Records") or []:
        upload = Upload.from_record(record)
        logger.append_keys(document_id=upload.document_id)
        if not is_document_id(upload.document_id):
            logger.error("Not processed: the key names no document", key=upload.key)
            continue
        try:
            _process(upload, context, reporter, s3)
        except (AlreadyProcessed, Superseded) as refused:
            logger.info("Not processed: %s", refused)
        except BeingProcessed as refused:
            # A repeated event, or a retry after a crash: by the next retry the difference shows.
            logger.info("Not processed yet: %s", refused)
            raise
        except Exception:
            metrics.add_metric("DocumentsFailed", MetricUnit.Count, 1)
            raise
        finally:
            if reporter.announcer is not None:
                add_announcements(metrics, reporter.announcer)
            flush(metrics)


def _process(upload: Upload, context: Any, reporter: Publisher, s3: S3Client) -> None:
    def remaining_seconds() -> float:
        return float(context.get_remaining_time_in_millis()) / 1000

    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as result,
        reporter.track(
            upload.document_id,
            run_id=upload.run_id,
            remaining_seconds=remaining_seconds,
            # Lambda tries an asynchronous event twice more.
            retry_follows=True,
        ) as tracker,
    ):
        try:
            found = _find(upload, s3)
            # Before anything can be wrong with the file: the owner alone is told of it.
            tracker.owner = _owner(found)
            _download(upload, found, source)
            reader = _open(source)
            # Opening a large or damaged file takes seconds, in which a better one may have come and been read.
            _require_newest(upload, s3)
            _read(upload, reader, result, tracker)
        except UnreadableDocument as unreadable:
            _require_newest(upload, s3)
            logger.warning("Not a readable document: %s", unreadable)
            metrics.add_metric("DocumentsUnreadable", MetricUnit.Count, 1)
            tracker.fail(Failure(str(unreadable)))
            return
        # A newer upload, and whoever took this one over, writes its own.
        tracker.require_current()
        s3.upload_fileobj(
            result,
            upload.bucket,
            upload.result_key,
            ExtraArgs={"ContentType": "application/json"},
        )
        tracker.complete()
        metrics.add_metric("DocumentsCompleted", MetricUnit.Count, 1)


def _find(upload: Upload, s3: S3Client) -> GetObjectOutputTypeDef:
    if len(upload.result_key.encode()) > _MAX_KEY_BYTES:
        raise UnreadableDocument("The file's name is too long.")
    try:
        return s3.get_object(Bucket=upload.bucket, Key=upload.key, IfMatch=f'"{upload.etag}"')
    except ClientError as error:
        match error.response["Error"]["Code"]:
            case "NoSuchKey":
                raise UnreadableDocument("The file was removed before it was read.") from error
            case "PreconditionFailed":
                raise SourceReplaced(upload) from error
        raise


def _require_newest(upload: Upload, s3: S3Client) -> None:
    """Raises SourceReplaced. An object that was removed meanwhile has no newer one."""
    try:
        s3.head_object(Bucket=upload.bucket, Key=upload.key, IfMatch=f'"{upload.etag}"')
    except ClientError as error:
        # The answer to HEAD has no body, and so no code but its status.
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise SourceReplaced(upload) from error
        if status != HTTPStatus.NOT_FOUND:
            raise


def _owner(found: GetObjectOutputTypeDef) -> str | None:
    """Whose the document is: the object's metadata `owner`, percent-encoded as headers need it."""
    owner = found["Metadata"].get("owner")
    return unquote(owner) if owner else None


def _download(upload: Upload, found: GetObjectOutputTypeDef, target: IO[bytes]) -> None:
    with closing(found["Body"]) as body:
        if upload.size > MAX_DOCUMENT_BYTES:
            raise UnreadableDocument(f"The file is larger than {MAX_DOCUMENT_BYTES // 1024 // 1024} MB.")
        for chunk in body.iter_chunks(_CHUNK_BYTES):
            target.write(chunk)


def _read(upload: Upload, reader: PdfReader, result: IO[bytes], tracker: ProgressTracker) -> None:
    """Write the text of every page to result, as JSON, and report each page. Memory holds one page at a time."""
    tracker.start(total=len(reader.pages))
    head = json.dumps({"docId": upload.document_id, "source": {"key": upload.key, "eTag": upload.etag}})
    result.write(f'{head[:-1]}, "pages": ['.encode())
    for number, text in enumerate(_page_texts(reader), start=1):
        page = json.dumps({"number": number, "text": text})
        result.write(f"{',' if number > 1 else ''}\n{page}".encode())
        tracker.advance()
    result.write(b"\n]}\n")
    result.seek(0)
    metrics.add_metric("PagesProcessed", MetricUnit.Count, len(reader.pages))


def _open(source: IO[bytes]) -> PdfReader:
    try:
        reader = PdfReader(source)
        # Files that only restrict printing or copying open with an empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocument("The PDF needs a password.")
        page_count = len(reader.pages)
    except EmptyFileError:
        raise UnreadableDocument("The file is empty.") from None
    except UnreadableDocument:
        raise
    except Exception as error:
        # Damaged files make pypdf raise anything, beside errors of its own; their text may quote the document.
        logger.info("pypdf cannot open the file: %s", type(error).__name__)
        raise UnreadableDocument("The file is not a readable PDF.") from error
    if page_count == 0:
        raise UnreadableDocument("The PDF has no pages.")
    return reader


def _page_texts(reader: PdfReader) -> Iterator[str | None]:
    for number in range(len(reader.pages)):
        try:
            yield reader.pages[number].extract_text()
        except Exception as error:  # noqa: BLE001  a damaged page raises anything, and must not cost the others
            logger.warning("Page %d cannot be read: %s", number + 1, type(error).__name__)
            yield None
        if number % _PAGES_CACHED == _PAGES_CACHED - 1:
            # pypdf keeps every object that it has resolved, fonts and images too.
            reader.resolved_objects.clear()
