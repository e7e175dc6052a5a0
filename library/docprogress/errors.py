"""What this package raises. Apart from the rules, so that an adapter need not import them."""

from __future__ import annotations

from docprogress.document import DocumentState, ErrorCode


class SettingsError(Exception):
    """An environment variable is missing or malformed."""


class StartRefused(Exception):
    """This run must not be processed (again). Nothing was written."""


class AlreadyProcessed(StartRefused):
    """The same run has reached its final state, so this is a repeated event."""


class BeingProcessed(StartRefused):
    """Another worker is on the same run and was heard of lately. Should it be dying, try again in a minute."""


class Superseded(Exception):
    """The document has ended, or a newer run has started it again; this worker should stop.

    Attributes:
        state: the document's, where it is known.
    """

    def __init__(self, message: str, state: DocumentState | None = None) -> None:
        super().__init__(message)
        self.state = state


class Cancelled(Superseded):
    """The document's owner has cancelled it; stop working, and leave no half result."""


class TimeLimitExceeded(Exception):
    """The worker's time is nearly up, so it must stop. Its document ends, or has ended, with TIME_LIMIT_EXCEEDED."""


class StoreUnavailable(Exception):
    """The table gave no answer, so a write may have been made or not.

    It may be tried again: a beginning, a start or an end under the same write_id, pages with the same tally.
    """


class DocumentExists(Exception):
    """The document is known already."""


class TooManyDocuments(Exception):
    """An owner has as many unfinished documents as one may have."""


class RequestRefused(Exception):
    """A client's message that cannot be served.

    Attributes:
        code: INVALID_MESSAGE, UNKNOWN_ACTION, FORBIDDEN or TOO_MANY_SUBSCRIPTIONS.
        document_id: the document it was about, or None where none is known.
        recoverable: whether the same question on a new connection may be answered.
    """

    def __init__(
        self, code: ErrorCode, message: str, document_id: str | None = None, *, recoverable: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.document_id = document_id
        self.recoverable = recoverable
