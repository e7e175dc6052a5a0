"""What it takes to report progress: the environment and the grants of a worker, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pulumi

from infra.lambda_function import LambdaFunction
from infra.progress_table import ProgressTable
from infra.websocket_api import WebSocketApi

FanOut = Literal["direct", "stream"]


@dataclass(frozen=True, kw_only=True)
class Publishing:
    """
    ```python
    worker = LambdaFunction("worker", LambdaFunctionArgs(environment=publishing.worker_environment, ...))
    publishing.grant_worker(worker)
    ```

    Attributes:
        fan_out: direct: a worker records states and tells the watchers; stream: it only records them.
        close_expired: connections may expire while they are open, and whoever tells the watchers closes those.
    """

    table: ProgressTable
    api: WebSocketApi
    fan_out: FanOut
    close_expired: bool
    max_messages_per_second: int
    document_retention_hours: int

    @property
    def worker_environment(self) -> Mapping[str, pulumi.Input[str]]:
        return self._environment if self.fan_out == "stream" else self.announcer_environment

    @property
    def announcer_environment(self) -> Mapping[str, pulumi.Input[str]]:
        """For a function that tells the watchers, whatever fan_out says."""
        return {
            **self._environment,
            "CALLBACK_URL": self.api.callback_url,
            "CLOSE_EXPIRED_CONNECTIONS": "true" if self.close_expired else "false",
        }

    def grant_worker(self, worker: LambdaFunction) -> None:
        self.table.grant_write_states(worker)
        if self.fan_out == "direct":
            self.grant_announcer(worker)

    def grant_announcer(self, announcer: LambdaFunction) -> None:
        self.table.grant_find_watchers(announcer)
        self.api.grant_manage_connections(announcer, verbs=["POST", "DELETE"] if self.close_expired else ["POST"])

    @property
    def _environment(self) -> Mapping[str, pulumi.Input[str]]:
        return {
            "TABLE_NAME": self.table.table_name,
            "MAX_MESSAGES_PER_SECOND": str(self.max_messages_per_second),
            "DOCUMENT_RETENTION_SECONDS": str(self.document_retention_hours * 3600),
        }
