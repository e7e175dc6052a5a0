"""What is known of a document while it is processed, and who watches it. Plain values, no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

MAX_DOCUMENT_ID_LENGTH = 256
MAX_MESSAGE_CHARACTERS = 500
MAX_RESULT_BYTES = 2048
MAX_NAME_CHARACTERS = 100
# JavaScript counts no further without rounding.
MAX_COUNT = 2**53 - 1
# DynamoDB keeps 38 digits of a number.
MAX_ORDER = 10**38 - 1
# How long a recoverable error may stay one: who was to try again has not, so the watchdog makes it final.
RETRY_WITHIN_SECONDS = 900.0

PAGES = "pages"

# The run of a document that has none yet; no worker may name its own so.
NO_RUN = "-"


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
    CANCELLED = "CANCELLED"
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


def readable(value: object, name: str = "message", limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """A text for people, cut at a character's edge. Raises ValueError for what is no string."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; it is a string.")
    # Lone surrogates, as file names may have, cannot be encoded on their way to a watcher.
    text = value.encode("utf-8", "replace").decode()
    if len(text) <= limit:
        return text
    end = limit - 1
    # What is shown as one character may be several: a letter and its accents, an emoji and its parts.
    while end > 0 and (_joins(text[end]) or text[end - 1] == "\u200d"):
        end -= 1
    return (text[:end] if end else text[: limit - 1]) + "…"


def _joins(character: str) -> bool:
    import unicodedata  # 1 MB that only a message that is cut needs

    return character == "\u200d" or unicodedata.category(character).startswith("M") or "🏻" <= character <= "🏿"


@dataclass(frozen=True)
class Failure:
    """Why a document ended in an error, in words its watchers may read.

    Args:
        message: cut to 500 characters.
        code: one of this package's or of the worker's own: A to Z, 0 to 9 and _, from a letter on, up to 64 characters.
        recoverable: whether the server tries again. False for an end.

    Raises:
        ValueError: the code is none, or the message no string.
    """

    message: str
    code: str = ErrorCode.PROCESSING_FAILED
    recoverable: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.code, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", self.code):
            raise ValueError(
                f"code is {self.code!r}; it is 1 to 64 of the characters A to Z, 0 to 9 and _, beginning with a letter."
            )
        object.__setattr__(self, "code", str(self.code))
        object.__setattr__(self, "message", readable(self.message))


class Phase(NamedTuple):
    """A part of the work. number: which one, from 1 up. of: how many there are; None for an unknown number."""

    name: str
    number: int
    of: int | None = None


class DocumentState(NamedTuple):
    """The newest state of one document.

    Attributes:
        sequence: grows strictly with every published state of the document, across runs and retention too. 0 before
            the first one.
        total: of the unit; None while it is unknown.
        run_id: names one processing of the document. Writes of another run are refused.
        attempt: how many workers have started the document. A worker that was presumed dead carries an older number,
            so its writes are refused.
        retries_left: how many more workers the caller may start on this run after a failure.
        owner: the only principal who may watch the document; see `access.may_watch` for None.
        failure: set exactly when the status is ERROR.
        result: what the worker said of its result, as JSON has it.
        pages_unreadable: how many pages are part of a complete document and could not be read.
        correlation_id: what the log lines about the run are found by, from the page that asked for it on.
    """

    document_id: str
    status: Status
    sequence: int
    run_id: str
    total: int | None = None
    processed: int = 0
    unit: str = PAGES
    attempt: int = 0
    retries_left: int = 0
    owner: str | None = None
    message: str | None = None
    phase: Phase | None = None
    failure: Failure | None = None
    result: Mapping[str, Any] | None = None
    pages_unreadable: int = 0
    correlation_id: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether it has started and not ended."""
        return self.status in (Status.STARTED, Status.PROGRESS)

    @property
    def has_ended(self) -> bool:
        return self.status in (Status.COMPLETE, Status.ERROR)

    @property
    def is_cancelled(self) -> bool:
        return self.failure is not None and self.failure.code == ErrorCode.CANCELLED

    @property
    def is_final(self) -> bool:
        """Whether nothing follows but a newer run."""
        return self.has_ended and not (self.failure and self.failure.recoverable)


class Ownership(NamedTuple):
    """What has to be known of a document to tell who may watch it."""

    status: Status
    owner: str | None


class Run(NamedTuple):
    """One processing of one document, by one attempt at it. attempt: None writes to the attempt that is on."""

    document_id: str
    run_id: str
    attempt: int | None = None


class Tally(NamedTuple):
    """What one worker has counted of a run. With it, retrying a write never counts a page twice.

    worker: names the worker among all that are on the run. Short: the state's row holds the tallies of all.
    counted: its pages in the table, as far as it was told. The table may know of more.
    """

    worker: str
    counted: int = 0


class Beginning(NamedTuple):
    """How a worker takes a document up.

    Attributes:
        write_id: the same for each repetition of one call.
        abandoned_after_seconds: a worker that was silent for so long is taken for dead.
        order: grows with each run of the document. None: now.
        owner: None keeps the owner noted earlier.
        retry_follows: how many more attempts the caller makes; see `retries_left`.
    """

    write_id: str
    abandoned_after_seconds: float
    order: int | None = None
    owner: str | None = None
    retry_follows: bool | int = False


class Update(NamedTuple):
    """What one write changes of a state. What is None stays as it is.

    Attributes:
        pages: to add to what is processed, in the document's unit.
        tally: what the worker has counted before. None: pages are counted with each write.
        write_id: names the write, so that a repeated one is known for what it is. None: a new one.
    """

    status: Status
    pages: int = 0
    tally: Tally | None = None
    total: int | None = None
    unit: str | None = None
    owner: str | None = None
    message: str | None = None
    phase: Phase | None = None
    failure: Failure | None = None
    result: Mapping[str, Any] | None = None
    pages_unreadable: int = 0
    correlation_id: str | None = None
    write_id: str | None = None

    @property
    def says_more_than_pages(self) -> bool:
        return any(value is not None for value in (self.message, self.phase, self.total))


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


def is_correlation_id(value: object) -> bool:
    """Whether value can be followed through the logs: it stands in headers and in queries as it is."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", value) is not None


def correlated(correlation_id: str | None) -> dict[str, str]:
    """What a log line says of it."""
    return {"correlation_id": correlation_id} if correlation_id else {}


def composed(document_id: str) -> str:
    """The name in NFC, in which names are compared: a Mac writes them decomposed, and people type them composed."""
    if document_id.isascii():
        return document_id
    import unicodedata  # 1 MB that most names do not need

    return unicodedata.normalize("NFC", document_id)


def retries_left(retry_follows: bool | int, *, before: int | None) -> int:
    """How many more workers may start a run.

    Args:
        retry_follows: how many times at most the caller starts the work again. True: it will, however often it has.
        before: how many were left to the worker before. None for the first one of a run.
    """
    if retry_follows is True or before is None:
        return int(retry_follows)
    return max(0, min(int(retry_follows), before - 1))


def result_json(result: Mapping[str, Any]) -> str:
    """The result as it is kept and told. Raises ValueError with what is wrong with it."""
    try:
        if not isinstance(result, Mapping):
            raise TypeError(f"it is {type(result).__name__}")
        encoded = json.dumps(dict(result), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        size = len(encoded.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"result is no JSON object: {error}.") from error
    if size > MAX_RESULT_BYTES:
        raise ValueError(f"result has {size} bytes as JSON; watchers are told up to {MAX_RESULT_BYTES}. Name a place.")
    return encoded
