"""Why a document cannot be read: one code and one advice for each reason."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Error codes of the wire protocol. No retry changes any of them."""

    TOO_LARGE = "DOCUMENT_TOO_LARGE"
    ENCRYPTED = "DOCUMENT_ENCRYPTED"
    DAMAGED = "DOCUMENT_DAMAGED"
    EMPTY = "DOCUMENT_EMPTY"
    MISSING = "DOCUMENT_MISSING"
    OUT_OF_TIME = "TIME_LIMIT_EXCEEDED"


ADVICE = {
    Reason.TOO_LARGE: "Split it, or leave out its largest pages, and upload it again.",
    Reason.ENCRYPTED: "Remove its protection, and upload it again.",
    Reason.DAMAGED: "Open it, print or save it as a new file, and upload that.",
    Reason.EMPTY: "Upload one that has something to read.",
    Reason.MISSING: "Upload it again.",
    Reason.OUT_OF_TIME: "Split it, and upload the parts.",
}


class UnreadableDocument(Exception):
    """No retry will read this document; the text is for its watchers.

    Args:
        finding: one sentence about this document. The advice of the reason follows it.
    """

    def __init__(self, reason: Reason, finding: str) -> None:
        super().__init__(f"{finding} {ADVICE[reason]}")
        self.reason = reason
        self.finding = finding
