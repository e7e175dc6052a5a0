"""Who may watch what. The one place to change for teams, tenants and administrators."""

from __future__ import annotations

from docprogress.document import DocumentState, Status


def may_cancel(principal_id: str | None, document: DocumentState | None) -> bool:
    """Whether a principal may end the work on a document: its owner may and, without authorization, everyone."""
    owner = document.owner if document else None
    return owner == principal_id


def may_watch(principal_id: str | None, document: DocumentState | None) -> bool:
    """Whether a principal may watch a document.

    A document without an owner is open to everyone who may connect. One that nobody knows yet is as forbidden
    as one of somebody else, so that the answer tells nothing; `States.expect` makes it known. One that a worker has
    taken up and not started has no owner yet, so it is not known either.

    Args:
        principal_id: who is connected; None on a stack without authorization, where nobody has proved who they are.
        document: what is known of it; None for nothing.
    """
    if document is not None and document.status is Status.PENDING and document.owner is None:
        document = None
    if principal_id is None:
        return document is None or document.owner is None
    return document is not None and document.owner in (None, principal_id)
