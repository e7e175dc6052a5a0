"""Puts the parts together for a worker that has boto3 credentials, in Lambda or anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import boto3

from docprogress.announcer import Announcer
from docprogress.document import DocumentState
from docprogress.posting.fan_out import FanOut
from docprogress.settings import PublisherSettings
from docprogress.table.store import ProgressStore, dynamodb_client
from docprogress.tracker import ProgressTracker


class Publisher:
    """The store and the announcer of one process, shared by all its trackers.

    Attributes:
        session: for the worker's own clients; a second session would load botocore's data once more.
        announcer: None where a function behind the table's stream announces the states.
    """

    def __init__(self, settings: PublisherSettings, session: boto3.Session | None = None) -> None:
        self.session = session or boto3.Session(region_name=settings.region)
        self._settings = settings
        self.store = ProgressStore(
            dynamodb_client(self.session),
            settings.table_name,
            document_retention_seconds=settings.document_retention_seconds,
        )
        self.announcer: Announcer | None = None
        if settings.callback_url:
            self.announcer = Announcer(
                self.store,
                _fan_out(settings.callback_url, settings.region, self.session),
                close_expired=settings.close_expired,
            )

    def announce(self, state: DocumentState, deadline_seconds: float) -> None:
        """Tell everyone who watches, unless the table's stream does. Raises DeliveryRefused."""
        if self.announcer is not None:
            self.announcer.announce(state, deadline_seconds)

    def tracker(
        self,
        document_id: str,
        *,
        run_id: str | None = None,
        owner: str | None = None,
        joined: bool = False,
        remaining_seconds: Callable[[], float] = lambda: float("inf"),
        retry_follows: bool = False,
    ) -> ProgressTracker:
        """A tracker for one document; the arguments are ProgressTracker's."""
        return ProgressTracker(
            document_id,
            store=self.store,
            deliver=self.announce,
            run_id=run_id,
            owner=owner,
            joined=joined,
            max_messages_per_second=self._settings.max_messages_per_second,
            remaining_seconds=remaining_seconds,
            retry_follows=retry_follows,
        )


def _fan_out(callback_url: str, region: str, session: boto3.Session) -> FanOut:
    credentials = session.get_credentials()
    if credentials is None:
        raise RuntimeError("No AWS credentials were found where boto3 looks for them, and posting needs some.")
    return FanOut(callback_url, region=region, credentials=credentials.get_frozen_credentials)


@cache
def publisher() -> Publisher:
    """This process's publisher, from the environment that `PublisherSettings` reads. Raises SettingsError."""
    return Publisher(PublisherSettings.from_environment())
