"""Serves `GET /results/{docId}` of an HTTP API: a link to what a finished document came to.

    {"url": str, "expiresAt": int}   epoch seconds
Whoever may watch the document gets one, signed for a minute. It leads to the object that the document's own state
names, in this bucket and below `results/`: nobody who asks names a key. S3 gives it as a file to be saved, whatever its
type, since what stands in it comes from the document. A document without a result, or whose result has been removed, is
answered with 404 and `RESULT_MISSING`.

The link is signed with the function's own role, so it ends earlier if those credentials do.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from docprogress import clients, settings
from docprogress.document import DocumentState, Failure, Status
from docprogress.messages import error_message
from docprogress.table.client import Table, dynamodb_client
from docprogress.table.states import States
from documents.asking import Answer, AskingSettings, Documents, Event, answered, asked, http_answer
from documents.names import RESULTS
from documents.signing import s3_client
from sandbox import started

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = Logger(use_rfc3339=True)

EXPIRY_SECONDS = 60
# Of this API alone, so not among the codes of the wire protocol.
RESULT_MISSING = "RESULT_MISSING"

# Without s3:ListBucket, which this role has not, S3 says 403 of what is not there.
_NOT_THERE = {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN}


class Results:
    """The results of documents in one bucket.

    Args:
        now: epoch seconds.
    """

    def __init__(self, s3: S3Client, bucket: str, now: Callable[[], float] = time.time) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._now = now

    def link(self, key: str) -> tuple[str, int] | None:
        """A URL and when it expires, in epoch seconds. None: there is no such object."""
        try:
            self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status not in _NOT_THERE:
                raise
            logger.warning("The result is not there", key=key, status=status)
            return None
        expires_at = int(self._now()) + EXPIRY_SECONDS
        name = quote(key.rpartition("/")[2], safe="")
        url = self._s3.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self._bucket,
                "Key": key,
                # https://www.rfc-editor.org/rfc/rfc6266
                "ResponseContentDisposition": f"attachment; filename*=UTF-8''{name}",
                "ResponseContentType": "application/octet-stream",
                "ResponseCacheControl": "no-store",
            },
            ExpiresIn=EXPIRY_SECONDS,
        )
        return url, expires_at


def answer(event: Event, documents: Documents, known: AskingSettings, results: Results) -> Answer:
    """The answer to a request, payload format 2.0. Raises RequestRefused."""
    document_id, principal_id, state = asked(event, documents, known)
    key = key_of(state)
    link = results.link(key) if key else None
    logger.info("Result asked for", document_id=document_id, principal_id=principal_id, is_there=link is not None)
    if link is None:
        missing = Failure("The document has no result.", RESULT_MISSING)
        return http_answer(HTTPStatus.NOT_FOUND, error_message(missing, document_id))
    url, expires_at = link
    return http_answer(HTTPStatus.OK, {"url": url, "expiresAt": expires_at})


def key_of(state: DocumentState | None) -> str | None:
    """Where the result of a complete document is. None: it has none that is this function's to give."""
    if state is None or state.status is not Status.COMPLETE:
        return None
    key = (state.result or {}).get("key")
    return key if isinstance(key, str) and key.startswith(RESULTS) and key != RESULTS else None


session = cache(clients.new_session)


@cache
def table() -> Table:
    return Table(AskingSettings.from_environment().table_name, lambda: dynamodb_client(session()))


@cache
def wired() -> tuple[Documents, AskingSettings, Results]:
    """One for a sandbox, from its environment."""
    results = Results(s3_client(session()), settings.text(os.environ, "DOCUMENTS_BUCKET"))
    return States(table()), AskingSettings.from_environment(), results


def handler(event: Event, _context: object) -> Answer:
    return answered(lambda: answer(event, *wired()), logger)


started(logger, lambda: (wired(), table().client))
