"""Whose a document is, by its upload. Where callers are known, a document of unknown owner is nobody's."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from docprogress import settings

# The name of the object's metadata, whose value is percent-encoded, as headers need it.
OWNER = "owner"
# An owner that no principal is: ids of callers are ASCII in every mode of authorization.
NOBODY = "\N{EMPTY SET}"


class BlankOwner(Exception):
    """The upload was meant to have an owner, and the name got lost on the way."""


def owner_of(metadata: Mapping[str, str], environment: Mapping[str, str], noted: str | None = None) -> str | None:
    """The principal who may watch; None for everyone who may connect.

    Args:
        noted: whose the document was expected to be, or was before. None: nobody has said so.

    With SHARED_DOCUMENTS=true, an upload that names no owner is everyone's although callers are known.

    Raises:
        BlankOwner: only where callers are known.
    """
    owner = metadata.get(OWNER)
    if not settings.callers_are_known(environment):
        return unquote(owner) if owner else None
    if owner is None:
        return noted or (None if settings.are_documents_shared(environment) else NOBODY)
    name = unquote(owner)
    if not name.strip():
        raise BlankOwner
    return name
