"""One document: where it stands, who works on it, who watches, what was said of it, and two ways to act."""

import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .finding import Check, Finding, Patient, fault, ok, warning
from .settings import log_events, said

# A living worker writes every 20 s. Two signs of life missed: a retry takes over; the watchdog ends it later.
_SILENT_SECONDS = 45.0
_LOOK_BACK_SECONDS = 24 * 3600
_LINES = 8
_ACTIVE = ("processing_started", "progress")


def document(document_id: str) -> Check:
    def check(patient: Patient) -> Iterator[Finding]:
        rows = _rows(patient, document_id)
        state = next((row for row in rows if row["sk"] == "STATE"), None)
        yield _standing(patient, document_id, state)
        watchers = [row for row in rows if row["sk"].startswith("CONNECTION#")]
        here = [row for row in watchers if float(row["expires_at"]) > patient.now()]
        if here:
            yield ok("watchers", f"{len(here)}, such as connection {here[0]['connection_id']}")
        else:
            yield warning("watchers", f"none; {len(watchers)} have expired", "open the page, or ask for it again")
        yield from _lines(patient, document_id)

    return check


def _standing(patient: Patient, document_id: str, state: Mapping[str, Any] | None) -> Finding:
    if state is None:
        return warning(
            "document",
            f"{document_id!r} is not in the table: nobody has started it, or it has expired",
            "look for its upload in the worker's log, and for dropped events",
        )
    pages = f"{state.get('pages_processed', 0)} of {state.get('total_pages', '?')}"
    whose = f", owned by {state['owner']}" if state.get("owner") else ""
    detail = (
        f"{state['status']}, {pages}, sequence {state['sequence']}, run {state.get('run_id', '-')},"
        f" attempt {state.get('attempt', 0)}{whose}"
    )
    if state["status"] == "error":
        why = f"{detail}: {state.get('error_code')}: {state.get('error_message')}"
        return warning("document", why, "doctor --document ID --retry, once its cause is mended")
    silent = patient.now() - float(state.get("updated_at", 0)) / 1000
    if state["status"] not in _ACTIVE:
        return ok("document", detail)
    if silent > _SILENT_SECONDS:
        return fault(
            "document",
            f"{detail}, and its worker is silent for {silent:.0f} s",
            "the watchdog ends it (see watchdog above); at once: doctor --document ID --end",
        )
    return ok("document", f"{detail}, written {silent:.0f} s ago")


def _lines(patient: Patient, document_id: str) -> Iterator[Finding]:
    since = int((patient.now() - _LOOK_BACK_SECONDS) * 1000)
    # In quotes the filter takes a text to the letter; what a quote or a backslash would end is a JSON filter's.
    text = document_id.replace("\\", "\\\\").replace('"', '\\"')
    events = sorted(
        (event["timestamp"], name, event["message"])
        for name, function in patient.functions.items()
        for event in log_events(patient, f"/aws/lambda/{function}", since, f'"{text}"')
    )
    for _, name, message in events[-_LINES:]:
        yield ok("said", f"{name}: {said(message)}")
    if not events:
        yield warning("said", "no line of any function is about it", "is it spelt as in its upload?")


def _rows(patient: Patient, document_id: str) -> list[dict[str, Any]]:
    pages = (
        patient.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=patient.outputs["tableName"],
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"DOCUMENT#{document_id}"}},
            ConsistentRead=True,
        )
    )
    # Each value as its text: numbers, strings and the rest are all that is shown.
    return [{key: next(iter(value.values())) for key, value in row.items()} for page in pages for row in page["Items"]]


def end(document_id: str) -> Check:
    """Ends the run under way, as the watchdog would, and tells its watchers."""

    def check(patient: Patient) -> Iterator[Finding]:
        state = next((row for row in _rows(patient, document_id) if row["sk"] == "STATE"), None)
        if state is None or state["status"] not in _ACTIVE:
            yield fault("end", f"{document_id!r} is not being processed", "nothing has to be ended")
            return
        docprogress = library()
        try:
            publisher(patient).track(document_id, run_id=state["run_id"], joined=True).fail(
                docprogress.Failure("Processing was stopped. It may be tried again.", recoverable=False)
            )
        except docprogress.Superseded:
            yield fault("end", f"{document_id!r} has ended or was started anew meanwhile", "look again")
            return
        yield ok("end", f"{document_id!r} has ended, and its watchers were told")

    return check


def retry(document_id: str) -> Check:
    """Puts the document into its bucket again, in place: a new event, and so a new run."""

    def check(patient: Patient) -> Iterator[Finding]:
        bucket = patient.outputs.get("documentsBucket")
        if bucket is None:
            yield fault("retry", "the stack has no bucket of documents", "start it again where your worker is called")
            return
        s3 = patient.client("s3")
        # Only `.pdf` is no part of a document's id; of other kinds, and of .PDF, the key is the id.
        for key in (f"{document_id}.pdf", document_id):
            found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
            # The first key that begins so, if it is there at all.
            if [each["Key"] for each in found] == [key]:
                head = s3.head_object(Bucket=bucket, Key=key)
                s3.copy_object(
                    Bucket=bucket,
                    Key=key,
                    CopySource=f"{bucket}/{urllib.parse.quote(key)}",
                    # S3 refuses a copy in place that changes nothing. The owner is in the metadata, and stays.
                    MetadataDirective="REPLACE",
                    Metadata=head.get("Metadata", {}),
                    ContentType=head.get("ContentType", "application/pdf"),
                )
                yield ok("retry", f"s3://{bucket}/{key} was put again; a new run starts")
                return
        yield fault("retry", f"there is neither {document_id}.pdf nor {document_id} in {bucket}", "upload it again")

    return check


def publisher(patient: Patient) -> Any:
    return library().connect(
        table_name=patient.outputs["tableName"],
        callback_url=patient.outputs["callbackUrl"],
        region=patient.region,
        session=patient.client("session"),
    )


def library() -> Any:
    """The library of this repository, which need not be installed beside the local stack."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "library"))
    import docprogress

    return docprogress
