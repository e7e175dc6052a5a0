"""Puts the parts together for a worker that has boto3 credentials, in Lambda or anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import boto3

from progress.announcer import Announcer
from progress.fanout import FanOut
from progress.settings import PublisherSettings
from progress.store import ProgressStore, dynamodb_client
from progress.tracker import ProgressTracker


class Publisher:
    """The store and the announcer of one process, shared by all its trackers."""

    def __init__(self, settings: PublisherSettings, session: boto3.Session | None = None) -> None:
        session = session or boto3.Session(region_name=settings.region)
        credentials = session.get_credentials()
        if credentials is None:
            raise RuntimeError("No AWS credentials: progress is reported with the worker's own (boto3's search order).")
        self._settings = settings
        self.store = ProgressStore(
            dynamodb_client(session),
            settings.table_name,
            document_retention_seconds=settings.document_retention_seconds,
        )
        self.announcer = Announcer(
            self.store,
            FanOut(settings.callback_url, region=settings.region, credentials=credentials.get_frozen_credentials),
        )

    def tracker(
        self,
        document_id: str,
        *,
        run_id: str | None = None,
        worker_id: str | None = None,
        lease_seconds: float = 900.0,
        owner: str | None = None,
        joined: bool = False,
        remaining_seconds: Callable[[], float] = lambda: float("inf"),
        retry_follows: bool = False,
    ) -> ProgressTracker:
        """A tracker for one document; the arguments are ProgressTracker's."""
        return ProgressTracker(
            document_id,
            store=self.store,
            deliver=self.announcer.announce,
            run_id=run_id,
            worker_id=worker_id,
            lease_seconds=lease_seconds,
            owner=owner,
            joined=joined,
            max_messages_per_second=self._settings.max_messages_per_second,
            remaining_seconds=remaining_seconds,
            retry_follows=retry_follows,
        )


@cache
def publisher() -> Publisher:
    """This process's publisher, from the environment: TABLE_NAME, CALLBACK_URL, AWS_REGION."""
    return Publisher(PublisherSettings.from_environment())
