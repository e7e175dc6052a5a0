"""Who may watch what. The one place to change for teams, tenants and administrators.

A document belongs to its owner. One without an owner is nobody's where callers are known: only a stack that shares
documents, or that has no authorization, shows it.
"""

from __future__ import annotations

from typing import Protocol

from docprogress.document import Status


class Owned(Protocol):
    """What has to be known of a document: a whole state, or no more than this of it."""

    @property
    def status(self) -> Status: ...
    @property
    def owner(self) -> str | None: ...


def may_cancel(principal_id: str | None, document: Owned | None) -> bool:
    """Whether a principal may end the work on a document: its owner may and, without authorization, everyone."""
    owner = document.owner if document else None
    return owner == principal_id


def may_watch(principal_id: str | None, document: Owned | None, *, shared: bool = False) -> bool:
    """Whether a principal may watch a document.

    One that nobody knows yet is as forbidden as one of somebody else, so that the answer tells nothing;
    `States.expect` makes it known. One that a worker has taken up and not started has no owner yet, so it is not known
    either.

    Args:
        principal_id: who is connected; None on a stack without authorization, where nobody has proved who they are.
        document: what is known of it; None for nothing.
        shared: whether documents without an owner are for all principals, see SHARED_DOCUMENTS.
    """
    owner = document.owner if document else None
    if principal_id is None or owner is not None:
        return owner == principal_id
    return shared and document is not None and document.status is not Status.PENDING
