"""What is known of a document while it is processed, and who watches it. Plain values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """The states of a document; the words are those of the wire protocol and of the table."""

    PENDING = "pending"
    STARTED = "processing_started"
    PROGRESS = "progress"
    COMPLETE = "processing_complete"
    ERROR = "error"


class ErrorCode(StrEnum):
    PROCESSING_FAILED = "PROCESSING_FAILED"
    PROCESSING_STALLED = "PROCESSING_STALLED"
    TIME_LIMIT_EXCEEDED = "TIME_LIMIT_EXCEEDED"
    DOCUMENT_TOO_LARGE = "DOCUMENT_TOO_LARGE"
    DOCUMENT_ENCRYPTED = "DOCUMENT_ENCRYPTED"
    DOCUMENT_DAMAGED = "DOCUMENT_DAMAGED"
    DOCUMENT_EMPTY = "DOCUMENT_EMPTY"
    DOCUMENT_MISSING = "DOCUMENT_MISSING"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    UNKNOWN_ACTION = "UNKNOWN_ACTION"
    FORBIDDEN = "FORBIDDEN"
    TOO_MANY_SUBSCRIPTIONS = "TOO_MANY_SUBSCRIPTIONS"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class Failure(NamedTuple):
    """Why a document ended in an error, in words its watchers may read.

    recoverable: true when a retry by the server is coming or the client may try again.
    """

    message: str
    code: ErrorCode = ErrorCode.PROCESSING_FAILED
    recoverable: bool = False


@dataclass(frozen=True, kw_only=True)
class DocumentState:
    """The newest state of one document.

    Attributes:
        sequence: grows strictly with every published state of the document, across runs too.
        run_id: names one processing of the document; writes of another run are refused.
            A pending document has none yet.
        attempt: counts the workers that began this document, so that one that was taken for dead and is not
            cannot go on.
        owner: the principal that may watch the document, or None for everyone who may connect.
        failure: set exactly when the status is ERROR.
    """

    document_id: str
    status: Status
    sequence: int
    total: int
    processed: int = 0
    run_id: str
    attempt: int = 0
    owner: str | None = None
    failure: Failure | None = None

    @property
    def is_active(self) -> bool:
        return self.status in (Status.STARTED, Status.PROGRESS)


class Tally(NamedTuple):
    """What one worker has counted of a run, so that pages whose answer was lost are not counted again.

    worker: names the worker among all that are on the run. Short: the state's row holds the tallies of all.
    counted: its pages in the table, as far as it was told; the table may know of more.
    """

    worker: str
    counted: int = 0


class Connection(NamedTuple):
    """expires_at: epoch seconds; principal_id: None on a stack without authorization."""

    connection_id: str
    expires_at: int
    principal_id: str | None = None


class Subscription(NamedTuple):
    """One connection's wish to hear of one document.

    subscribed_at: epoch milliseconds; names one writing of the row, so that a delete meant for an
        older writing spares a newer one.
    expires_at: epoch seconds.
    principal_id: who is connected; None on a stack without authorization.
    """

    connection_id: str
    subscribed_at: int
    expires_at: int
    principal_id: str | None = None


MAX_DOCUMENT_ID_LENGTH = 256


def is_document_id(value: object) -> bool:
    """Whether value can name a document: 1 to 256 characters, no control characters, valid Unicode.

    Anything an S3 key or a file name may hold is welcome: spaces, slashes, other scripts.
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_DOCUMENT_ID_LENGTH
        # Lone surrogates arrive as \ud800 in JSON, and no UTF-8 encoder takes them further.
        and not any(ch < " " or "\x7f" <= ch <= "\x9f" or "\ud800" <= ch <= "\udfff" for ch in value)
    )
