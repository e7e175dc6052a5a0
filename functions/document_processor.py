"""Reads documents put in the documents bucket and reports each page: a worker as one would write it. Its own are PDFs.

`{docId}.pdf` becomes `results/{docId}.json` (`documents.names` says what the id of any other key is):
    {"docId", "source": {"key", "eTag"}, "pages": [{"number", "text"}], "pagesUnreadable": [3], "pagesWithoutText": [5]}
A page that cannot be read has "text": null, and one without text, such as a scanned one, has "". A document that can
never be read ends in an `error` message with a code of its own and in a log line. Any other failure is tried again by
Lambda, and watchers are told that it will be.

Another kind of document is another reader, and a handler of two lines; examples/docx has one:

    handler = DocumentProcessor("docx_reader", unit="paragraphs")
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_plus

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import MetricUnit

from docprogress.document import ErrorCode, Failure, is_correlation_id, is_document_id
from docprogress.errors import AlreadyProcessed, BeingProcessed, Cancelled, Superseded, TimeLimitExceeded
from docprogress.posting.fan_out import load_engine
from docprogress.process import making_what_stays
from docprogress.publisher import Publisher, publisher
from docprogress.telemetry import NAMESPACE, add_announcements, flush
from docprogress.tracker import ProgressTracker
from documents.names import RESULTS, UPLOADS, document_id_of, is_document, suffixes_of
from documents.owners import NOBODY, BlankOwner, owner_of
from documents.reading import Limits, Reading
from documents.result import Result
from documents.unreadable import Reason, UnreadableDocument
from sandbox import started

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

logger = Logger(use_rfc3339=True)
metrics = Metrics(namespace=NAMESPACE)
copy_config_to_registered_loggers(logger, include={"docprogress", "documents"})

MAX_DOCUMENT_BYTES = 100 * 1024 * 1024
# Of those that cannot be read.
_PAGES_LOGGED = 20
# S3's limit; the result's key is a little longer than the document's.
_MAX_KEY_BYTES = 1024
_CHUNK_BYTES = 1024 * 1024
# What this process needs for itself, beside the one that reads.
_OWN_MEMORY_BYTES = 192 * 1024 * 1024
# Kept of Lambda's time for the end.
_CLOSING_SECONDS = 10.0
# The upload's metadata key for what log lines are found by, from the page on.
_CORRELATION_ID = "correlation-id"
# The result's metadata key for what S3 orders the uploads of a key by.
_ORDER = "source-sequencer"
_SEQUENCER = re.compile("[0-9A-Fa-f]+")
# Another run may store the result between the look and the put, but hardly every time.
_STORE_ATTEMPTS = 5
# Changed since it was looked at, being changed right now, or removed by the lifecycle.
_RESULT_CHANGED = {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}


class SourceReplaced(Superseded):
    """The object is newer than the event; the newer upload has an event of its own."""

    def __init__(self, upload: Upload) -> None:
        super().__init__(f"s3://{upload.bucket}/{upload.key} was replaced")


class Upload(NamedTuple):
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
        return document_id_of(self.key, suffixes_of(os.environ))

    @property
    def result_key(self) -> str:
        return f"{RESULTS}{self.document_id}.json"

    @property
    def order(self) -> int | None:
        """S3 orders the events of one key by their sequencer, a hexadecimal number."""
        return int(self.sequencer, 16) if self.sequencer else None

    @property
    def run_id(self) -> str:
        # S3 may deliver an event twice; the sequencer is that of the upload, not of the delivery. A page's form can be
        # sent again and again, and the same file under the same form is the same upload.
        return self.etag if self.key.startswith(UPLOADS) else f"{self.etag}-{self.sequencer}"


@cache
def _s3() -> S3Client:
    with making_what_stays():
        made: S3Client = publisher().client("s3")
    return made


class DocumentProcessor:
    """The handler of one kind of document.

    Args:
        reader: the module that reads it, in a process of its own; see `documents.isolated`.
        unit: what it is read by. The result has the texts under this name.
    """

    def __init__(self, reader: str, *, unit: str = "pages") -> None:
        self._reader = reader
        self._unit = unit

    def __call__(self, event: Mapping[str, Any], context: Any) -> None:
        # Before anything else: a call without records makes a sandbox warm.
        reporter, s3 = publisher(), _s3()
        # S3 tests a new notification with an event that has none.
        for record in event.get("Records") or []:
            upload = Upload.from_record(record)
            logger.append_keys(document_id=upload.document_id, correlation_id=None)
            if not (is_document(upload.key, suffixes_of(os.environ)) and is_document_id(upload.document_id)):
                logger.error("Not processed: the key names no document", key=upload.key)
                continue
            try:
                self._process(upload, context, reporter, s3)
            except Cancelled as cancelled:
                logger.info("Not processed to its end: %s", cancelled)
                metrics.add_metric("DocumentsCancelled", MetricUnit.Count, 1)
            except (AlreadyProcessed, Superseded) as refused:
                logger.info("Not processed: %s", refused)
            except TimeLimitExceeded as exceeded:
                # Told by the tracker, and final: another quarter of an hour would end in the same way.
                logger.warning("Not processed to its end: %s", exceeded)
                metrics.add_metric("DocumentsUnreadable", MetricUnit.Count, 1)
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

    def _process(self, upload: Upload, context: Any, reporter: Publisher, s3: S3Client) -> None:
        began_at = time.monotonic()

        def remaining_seconds() -> float:
            return float(context.get_remaining_time_in_millis()) / 1000

        with (
            tempfile.NamedTemporaryFile() as source,
            tempfile.TemporaryFile() as target,
            reporter.track(
                upload.document_id,
                run_id=upload.run_id,
                order=upload.order,
                remaining_seconds=remaining_seconds,
                # Lambda tries an asynchronous event twice more.
                retry_follows=2,
            ) as tracker,
        ):
            try:
                found = _find(upload, s3)
                _correlate(found["Metadata"], tracker)
                # Before anything can be wrong with the file: the owner alone is told of it.
                tracker.owner = owner_of(found["Metadata"], os.environ, noted=tracker.owner)
                _download(upload, found, source)
                with Reading(
                    source.name,
                    seconds=_reading_seconds(remaining_seconds()),
                    limits=_limits(),
                    reader=self._reader,
                    unit=self._unit,
                ) as reading:
                    # Opening a large or damaged file takes seconds, in which a better one may have come and been read.
                    _require_newest(upload, s3)
                    result = self._read(upload, reading, target, tracker)
            except BlankOwner:
                logger.error("Not processed: its metadata names a blank owner")
                tracker.owner = NOBODY
                tracker.fail(Failure("The document has no owner."))
                return
            except UnreadableDocument as unreadable:
                _require_newest(upload, s3)
                logger.warning("Not a readable document: %s", unreadable)
                tracker.fail(Failure(str(unreadable), ErrorCode(unreadable.reason)))
                # Not before: where the tracker has said that the time is up, it raises, and counts there.
                metrics.add_metric("DocumentsUnreadable", MetricUnit.Count, 1)
                return
            # A newer upload writes its own, and so does the worker that took this one over.
            tracker.require_current()
            _store(upload, target, s3)
            # A watcher that comes late is not told how many there were in any other way.
            said = {"key": upload.result_key, "total": result.page_count, "unit": self._unit}
            tracker.complete(said, pages_unreadable=len(result.unreadable))
            metrics.add_metric("DocumentsCompleted", MetricUnit.Count, 1)
            metrics.add_metric("DocumentTime", MetricUnit.Seconds, time.monotonic() - began_at)

    def _read(self, upload: Upload, reading: Reading, target: IO[bytes], tracker: ProgressTracker) -> Result:
        """Write the text of every page to target, as JSON, and report each page."""
        tracker.start(total=reading.page_count, unit=self._unit)
        metrics.add_metric("DocumentsStarted", MetricUnit.Count, 1)
        head = {"docId": upload.document_id, "source": {"key": upload.key, "eTag": upload.etag}}
        result = Result(target, head, unit=self._unit)
        for text in reading:
            result.add(text)
            tracker.advance()
        result.end()
        # Whatever the unit is called: one graph shows how much is read.
        metrics.add_metric("PagesProcessed", MetricUnit.Count, result.page_count)
        if result.unreadable:
            # One line, however many there are.
            some = result.unreadable[:_PAGES_LOGGED]
            logger.warning("Pages cannot be read", count=len(result.unreadable), first=some)
        return result


handler = DocumentProcessor("documents.reader")


def _reading_seconds(remaining_seconds: float) -> float:
    """Longer than the tracker's own limit, at which it says that the time is up: what reads on then is stopped."""
    return remaining_seconds - min(_CLOSING_SECONDS, remaining_seconds / 10)


def _limits() -> Limits:
    """What the reading process may have of the function's memory."""
    megabytes = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    return Limits(memory_bytes=int(megabytes) * 1024 * 1024 - _OWN_MEMORY_BYTES) if megabytes else Limits()


def _find(upload: Upload, s3: S3Client) -> GetObjectOutputTypeDef:
    if len(upload.result_key.encode()) > _MAX_KEY_BYTES:
        raise UnreadableDocument(Reason.TOO_LARGE, "The file's name is too long.")
    try:
        return s3.get_object(Bucket=upload.bucket, Key=upload.key, IfMatch=f'"{upload.etag}"')
    except s3.exceptions.ClientError as error:
        match error.response["Error"]["Code"]:
            case "NoSuchKey":
                raise UnreadableDocument(Reason.MISSING, "The file was removed before it was read.") from error
            case "PreconditionFailed":
                raise SourceReplaced(upload) from error
        raise


def _require_newest(upload: Upload, s3: S3Client) -> None:
    """Raises SourceReplaced. An object that was removed meanwhile has no newer one."""
    try:
        s3.head_object(Bucket=upload.bucket, Key=upload.key, IfMatch=f'"{upload.etag}"')
    except s3.exceptions.ClientError as error:
        # The answer to HEAD has no body, and so no code but its status.
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise SourceReplaced(upload) from error
        if status != HTTPStatus.NOT_FOUND:
            raise


def _correlate(metadata: Mapping[str, str], tracker: ProgressTracker) -> None:
    correlation_id = metadata.get(_CORRELATION_ID)
    # Whoever may put objects may write anything there.
    if is_correlation_id(correlation_id):
        tracker.correlation_id = correlation_id
        logger.append_keys(correlation_id=correlation_id)


def _download(upload: Upload, found: GetObjectOutputTypeDef, target: IO[bytes]) -> None:
    with closing(found["Body"]) as body:
        if upload.size > MAX_DOCUMENT_BYTES:
            raise UnreadableDocument(
                Reason.TOO_LARGE, f"The file is larger than {MAX_DOCUMENT_BYTES // 1024 // 1024} MB."
            )
        for chunk in body.iter_chunks(_CHUNK_BYTES):
            target.write(chunk)
    target.flush()


def _store(upload: Upload, result: IO[bytes], s3: S3Client) -> None:
    """Put the result, unless a newer upload's is there. Raises SourceReplaced.

    The condition holds at the very moment of the put: whatever was looked at before it may have changed since.
    """
    for attempt in range(_STORE_ATTEMPTS):
        kept = _kept_result(upload, s3)
        if kept is not None and kept.order > (upload.order or 0):
            raise SourceReplaced(upload)
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if kept is None else {"IfMatch": kept.etag}
        result.seek(0)
        try:
            s3.put_object(
                Bucket=upload.bucket,
                Key=upload.result_key,
                Body=result,
                ContentType="application/json",
                Metadata={_ORDER: upload.sequencer},
                **condition,
            )
        except s3.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status not in _RESULT_CHANGED or attempt == _STORE_ATTEMPTS - 1:
                raise
        else:
            return


class KeptResult(NamedTuple):
    etag: str
    order: int


def _kept_result(upload: Upload, s3: S3Client) -> KeptResult | None:
    try:
        head = s3.head_object(Bucket=upload.bucket, Key=upload.result_key)
    except s3.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
            return None
        raise
    sequencer = head["Metadata"].get(_ORDER, "")
    # Without one, somebody else has put it there.
    return KeptResult(head["ETag"], int(sequencer, 16) if _SEQUENCER.fullmatch(sequencer) else 0)


started(logger, lambda: (publisher().table.client, publisher().announcer and load_engine(), _s3()))
