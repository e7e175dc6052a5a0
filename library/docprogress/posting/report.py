"""To whom is posted, what became of it, and the one error that is raised. It imports nothing of the package."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol


class Recipient(Protocol):
    """Anything that names a connection, such as a row of the table."""

    @property
    def connection_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What became of a message, in connections; every watcher that was read is counted exactly once.

    Attributes:
        delivered: API Gateway took the message (2xx).
        stale: the connection is gone (410); its row was handed to `forget`, or will be at a later update.
        throttled: tried and answered 429. It is tried again in the background, with the newest message.
        failed: no answer, a reset or 5xx. It is tried again in the background too.
        untried: not sent to before the deadline. What was read is still sent to, in the background.
        refused: answered 403, 413 or anything else that no retry cures. Redirects are not followed.
    """

    delivered: int = 0
    stale: int = 0
    throttled: int = 0
    failed: int = 0
    untried: int = 0
    refused: int = 0

    def __add__(self, other: DeliveryReport) -> DeliveryReport:
        return DeliveryReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def reached_most(self) -> bool:
        """Everyone was tried, and no more are out of reach than were reached: stragglers, and no outage."""
        return self.untried == 0 and self.throttled + self.failed + self.refused <= self.delivered + self.stale

    @property
    def is_refused_by_all(self) -> bool:
        """Nobody took the message and somebody refused it: a fault of the configuration, not of a watcher."""
        return self.refused > 0 and not (self.delivered or self.stale)


_CAUSES = {
    403: "the caller may not post here: give its role execute-api:ManageConnections on this API and stage "
    "(grant_manage_connections), and check that CALLBACK_URL is the stack output callbackUrl",
    413: "the message is larger than the 128 KB that API Gateway takes: send less, or a reference to it",
}


class DeliveryRefused(Exception):
    """API Gateway refused a message to everyone, and a retry cannot cure it.

    Attributes:
        status: 403 (permission, credentials or endpoint), 413 (message over 128 KB), or another of a server that is
            not the stage's @connections API.
        report: what became of the whole delivery.
        connection_id: the first connection that was refused.
    """

    def __init__(self, status: int, report: DeliveryReport, connection_id: str, detail: str) -> None:
        self.status = status
        self.report = report
        self.connection_id = connection_id
        cause = _CAUSES.get(
            status, "this is not the stage's @connections API: check that CALLBACK_URL is the stack output callbackUrl"
        )
        super().__init__(f"@connections answered {status} for {connection_id}: {cause}. It said: {detail or '-'}")
