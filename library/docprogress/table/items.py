"""The rows of the table: their keys, and how their values are read and written. No I/O.

| item         | pk                 | sk                | attributes                                               |
|--------------|--------------------|-------------------|----------------------------------------------------------|
| connection   | CONNECTION#{id}    | CONNECTION        | connected_at (ms), principal_id, expires_at              |
| subscription | DOCUMENT#{docId}   | CONNECTION#{id}   | connection_id, principal_id, subscribed_at (ms),         |
|              |                    |                   | expires_at                                               |
| state        | DOCUMENT#{docId}   | STATE             | status, sequence, pages_processed, total_pages, run_id,  |
|              |                    |                   | attempt, write_id (the last write's, to know its echo),  |
|              |                    |                   | tallies (pages by worker, of those at work),             |
|              |                    |                   | published_at (ms), updated_at (ms), owner, error_code,   |
|              |                    |                   | error_message, recoverable, active_shard, expires_at     |

`expires_at` is the table's TTL, in epoch seconds. Expired rows can stay for days, so no reader may take a row for
live by its mere presence.
The index `by_connection` holds what carries `connection_id`: subscriptions. The index `by_activity` holds what
carries `active_shard`: documents that have started and not ended.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from docprogress.document import DocumentState, ErrorCode, Failure, Status, Subscription

BY_CONNECTION = "by_connection"
BY_ACTIVITY = "by_activity"
# One partition takes 1,000 writes/s, and every write moves the row in the index, which is two: eight shards take
# 1,000 documents at 4 updates a second.
ACTIVE_SHARDS = 8

# The run of a document that has none yet; no worker may name its own so.
NO_RUN = "-"

Item = Mapping[str, Mapping[str, Any]]


def connection_key(connection_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"CONNECTION#{connection_id}"}, "sk": {"S": "CONNECTION"}}


def subscription_key(document_id: str, connection_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": f"CONNECTION#{connection_id}"}}


def state_key(document_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}}


def document_id_of(item: Item) -> str:
    document_id: str = item["pk"]["S"]
    return document_id.removeprefix("DOCUMENT#")


def principal(principal_id: str | None) -> dict[str, Any]:
    return {} if principal_id is None else {"principal_id": {"S": principal_id}}


def principal_of(item: Item) -> str | None:
    return item["principal_id"]["S"] if "principal_id" in item else None


def subscription_of(item: Item) -> Subscription:
    return Subscription(
        item["connection_id"]["S"],
        int(item["subscribed_at"]["N"]),
        int(item["expires_at"]["N"]),
        principal_of(item),
    )


def shard(document_id: str) -> int:
    # Not hash(): that one differs from process to process.
    return zlib.crc32(document_id.encode()) % ACTIVE_SHARDS


def state_of(item: Item) -> DocumentState:
    """Read a state row, from an answer of the table or from an image in its stream."""
    status = Status(item["status"]["S"])
    failure = None
    if status is Status.ERROR:
        failure = Failure(item["error_message"]["S"], ErrorCode(item["error_code"]["S"]), item["recoverable"]["BOOL"])
    return DocumentState(
        document_id=document_id_of(item),
        status=status,
        sequence=int(item["sequence"]["N"]),
        total=int(item["total_pages"]["N"]),
        processed=int(item["pages_processed"]["N"]),
        run_id=item["run_id"]["S"],
        attempt=int(item["attempt"]["N"]) if "attempt" in item else 0,
        owner=item["owner"]["S"] if "owner" in item else None,
        failure=failure,
    )
