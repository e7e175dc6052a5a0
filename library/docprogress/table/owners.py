"""The rows that say what an owner has asked for: how many documents may be under way at once.

A row needs nobody to take documents out: each time one is added, those that have ended are found by their states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from docprogress.document import NO_RUN, Status
from docprogress.errors import TooManyDocuments
from docprogress.table.client import ConditionFailed, Table
from docprogress.table.items import Item, document_id_of, state_key

# Requests of one owner at the same moment are told apart by the row's version, one after the other.
_ATTEMPTS = 5
# BatchGetItem's own.
MAX_LIMIT = 100


_RETENTION_SECONDS = 24 * 3600


def owner_key(owner: str) -> dict[str, Any]:
    return {"pk": {"S": f"OWNER#{owner}"}, "sk": {"S": "DOCUMENTS"}}


class Owners:
    """
    Args:
        limit: how many documents of one owner may be unfinished, 1 to 100.
        upload_seconds: how long a document may be waited for; then it will not come.
        now: epoch seconds.
    """

    def __init__(self, table: Table, *, limit: int, upload_seconds: int, now: Callable[[], float] = time.time) -> None:
        if not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"limit is {limit}; it is 1 to {MAX_LIMIT}.")
        self._table = table
        self._limit = limit
        self._upload_seconds = upload_seconds
        self._now = now

    def add(self, owner: str, document_id: str) -> None:
        """Note one more document of an owner. Raises TooManyDocuments, StoreUnavailable."""
        for _ in range(_ATTEMPTS):
            row = self._table.get(owner_key(owner))
            unfinished = self._unfinished(row["documents"]["M"] if row else {})
            if len(unfinished) >= self._limit:
                break
            now = int(self._now())
            version = row["version"]["N"] if row else "0"
            item = {
                **owner_key(owner),
                "documents": {"M": {**unfinished, document_id: {"N": str(now)}}},
                "version": {"N": str(int(version) + 1)},
                "expires_at": {"N": str(now + _RETENTION_SECONDS)},
            }
            with suppress(ConditionFailed):
                self._table.put(
                    item,
                    ConditionExpression="attribute_not_exists(pk) OR version = :version",
                    ExpressionAttributeValues={":version": {"N": version}},
                )
                return
        raise TooManyDocuments(f"{self._limit} documents of one owner are unfinished.")

    def _unfinished(self, documents: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        """Of documents and when they were asked for, those that have neither ended nor failed to come."""
        states = self._table.get_all([state_key(document_id) for document_id in documents])
        by_id = {document_id_of(state): state for state in states}
        return {
            document_id: asked_at
            for document_id, asked_at in documents.items()
            if _is_at_work(by_id.get(document_id), self._now())
            or (_is_awaited(by_id.get(document_id)) and int(asked_at["N"]) + self._upload_seconds > self._now())
        }


def _is_awaited(state: Item | None) -> bool:
    return state is None or state["run_id"]["S"] == NO_RUN


def _is_at_work(state: Item | None, now: float) -> bool:
    if state is None or _is_awaited(state) or int(state["expires_at"]["N"]) <= now:
        return False
    if state["status"]["S"] == Status.ERROR:
        return bool(state["recoverable"]["BOOL"])  # it is tried again
    return bool(state["status"]["S"] != Status.COMPLETE)
