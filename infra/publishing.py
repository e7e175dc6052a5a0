"""What it takes to report progress: the environment and the grants of a worker, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pulumi

from .authorization import Authorization
from .grants import Grantee
from .policy import policy_document
from .progress_table import ProgressTable
from .websocket_api import ManageConnectionsVerb, WebSocketApi


class FanOut(StrEnum):
    """Who tells the watchers."""

    DIRECT = "direct"
    """Each worker itself."""
    STREAM = "stream"
    """A function behind the table's stream; workers only record states."""


@dataclass(frozen=True, kw_only=True)
class Publishing:
    """
    ```python
    worker = LambdaFunction("worker", LambdaFunctionArgs(environment=publishing.worker_environment, ...))
    publishing.grant_worker(worker)
    ```

    Attributes:
        authorization: without any, documents have no owners.
        shared_documents: a document without an owner is for every principal, and not for nobody.
        close_expired: connections may expire while they are open. The function that tells the watchers closes those.
    """

    table: ProgressTable
    api: WebSocketApi
    fan_out: FanOut
    authorization: Authorization
    shared_documents: bool = False
    close_expired: bool
    max_messages_per_second: int
    document_retention_hours: int

    @property
    def worker_environment(self) -> Mapping[str, pulumi.Input[str]]:
        return self._environment if self.fan_out == FanOut.STREAM else self.announcer_environment

    @property
    def announcer_environment(self) -> Mapping[str, pulumi.Input[str]]:
        """For a function that tells the watchers, whatever fan_out says."""
        return {
            **self._environment,
            "CALLBACK_URL": self.api.callback_url,
            "CLOSE_EXPIRED_CONNECTIONS": "true" if self.close_expired else "false",
        }

    def grant_worker(self, worker: Grantee) -> None:
        self.table.grant_write_states(worker)
        if self.fan_out == FanOut.DIRECT:
            self.grant_announcer(worker)

    def grant_announcer(self, announcer: Grantee) -> None:
        self.table.grant_find_watchers(announcer)
        self.api.grant_manage_connections(announcer, verbs=self._verbs)

    @property
    def worker_policy(self) -> pulumi.Output[str]:
        """The policy document of a worker, for a role that this program does not know."""
        announcing = [self.table.finding_watchers, self.api.managing_connections(self._verbs)]
        return policy_document(
            self.table.writing_states,
            *(announcing if self.fan_out == FanOut.DIRECT else []),
            *self.table.using_keys,
        )

    @property
    def _verbs(self) -> Sequence[ManageConnectionsVerb]:
        return ["POST", "DELETE"] if self.close_expired else ["POST"]

    @property
    def _environment(self) -> Mapping[str, pulumi.Input[str]]:
        return {
            "AUTHORIZATION": self.authorization,
            "TABLE_NAME": self.table.table_name,
            "MAX_MESSAGES_PER_SECOND": str(self.max_messages_per_second),
            "DOCUMENT_RETENTION_SECONDS": str(self.document_retention_hours * 3600),
            **({"SHARED_DOCUMENTS": "true"} if self.shared_documents else {}),
        }
