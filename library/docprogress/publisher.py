"""Puts the parts together for a worker that has boto3 credentials, in Lambda or anywhere else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from docprogress import clients, settings
from docprogress.announcer import Announcer
from docprogress.document import DocumentState, Status
from docprogress.errors import SettingsError, StoreUnavailable
from docprogress.messages import own_message
from docprogress.posting.fan_out import FanOut
from docprogress.posting.report import DeliveryReport
from docprogress.process import PerProcess, aside, importing, making_what_stays
from docprogress.table.client import Table, dynamodb_client
from docprogress.table.connections import Connections
from docprogress.table.states import States
from docprogress.telemetry import announcements, embedded, outcome
from docprogress.tracker import PROGRESS_DELIVERY_SECONDS, ProgressTracker

if TYPE_CHECKING:
    import boto3
    from botocore.session import Session

logger = logging.getLogger(__name__)

# Everyone has heard by then. What is noted no sooner, or not at all since the process ends, the watchdog tells again.
_NOTE_SECONDS = 1.0


class PublisherSettings(NamedTuple):
    """
    Attributes:
        callback_url: the stage's `https://…/{stage}`, through which connections are posted to. None where a
            function behind the table's stream does that, so that the worker only writes states.
        document_retention_seconds: how long a state is kept after its last change.
        max_messages_per_second: progress updates per document. Start, end and errors are always sent.
        close_expired: disconnect watchers whose connection has expired, with its token or of age.
        shared_documents: tell documents without an owner to all principals who watch them. False: to none of them.
        emit_metrics: write what this process counts to its standard output, in CloudWatch's embedded metric format, at
            each start and end of a document. For a worker outside Lambda, whose output is shipped to CloudWatch Logs.
        service: what those metrics are of.
    """

    table_name: str
    callback_url: str | None
    region: str
    document_retention_seconds: int
    max_messages_per_second: int
    close_expired: bool
    shared_documents: bool = False
    emit_metrics: bool = False
    service: str = "worker"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> PublisherSettings:
        return cls(
            table_name=settings.text(environment, "TABLE_NAME"),
            callback_url=environment.get("CALLBACK_URL") or None,
            region=environment.get("AWS_REGION") or settings.text(environment, "AWS_DEFAULT_REGION"),
            document_retention_seconds=settings.positive(environment, "DOCUMENT_RETENTION_SECONDS", 24 * 3600),
            max_messages_per_second=settings.positive(environment, "MAX_MESSAGES_PER_SECOND", 4),
            close_expired=environment.get("CLOSE_EXPIRED_CONNECTIONS") == "true",
            shared_documents=settings.are_documents_shared(environment),
            emit_metrics=environment.get("EMIT_METRICS") == "true",
            service=environment.get("POWERTOOLS_SERVICE_NAME") or "worker",
        )


class Publisher:
    """The table and the announcer of one process, shared by all its trackers. Loads botocore at first use.

    Args:
        session: whose credentials and endpoints are used. None: a new one.
    """

    def __init__(self, settings: PublisherSettings, session: boto3.Session | None = None) -> None:
        self._settings = settings
        self._session: PerProcess[boto3.Session | Session] = PerProcess(
            lambda: session or clients.new_session(settings.region)
        )
        self._boto3_session = PerProcess(lambda: session or _wrapped(self._session()))
        self._announcer = PerProcess(self._new_announcer)
        self.table = Table(settings.table_name, lambda: dynamodb_client(self._session()))
        self.states = States(self.table, document_retention_seconds=settings.document_retention_seconds)

    @property
    def session(self) -> boto3.Session:
        """For the worker's own clients too: a second session would load botocore's data once more."""
        return self._boto3_session()

    def client(self, service: str) -> Any:
        """A client of the worker's own, like those of `session`, for which boto3 is not loaded: a function of Lambda
        starts sooner.
        """
        return clients.client(service, self._session())

    @property
    def announcer(self) -> Announcer | None:
        """None where a function behind the table's stream announces the states."""
        return self._announcer()

    def _new_announcer(self) -> Announcer | None:
        if not self._settings.callback_url:
            return None
        return Announcer(
            Connections(self.table),
            _fan_out(self._settings.callback_url, self._settings.region, self._session()),
            close_expired=self._settings.close_expired,
            shared_documents=self._settings.shared_documents,
            now=self.table.now,  # by a clock that is ahead all watchers would have expired
        )

    def announce(self, state: DocumentState, deadline_seconds: float) -> DeliveryReport | None:
        """Tell everyone who watches. None where the table's stream does.

        An end counts as announced when everyone was tried and most were reached; until then the watchdog finds it.

        Raises:
            StoreUnavailable: who watches could not be read.
        """
        announcer = self.announcer
        try:
            if announcer is None:
                return None
            report = announcer.announce(state, deadline_seconds)
        finally:
            if self._settings.emit_metrics and state.status is not Status.PROGRESS:
                self._emit_metrics(state, announcer)
        if state.has_ended and report.reached_most:
            note = ("announced", id(self), state.document_id, state.sequence)
            aside.do(note, lambda: self.note_announced(state), wait_seconds=_NOTE_SECONDS)
        return report

    def _emit_metrics(self, state: DocumentState, announcer: Announcer | None) -> None:
        figures = [*outcome(state), *(announcements(announcer) if announcer else ())]
        try:
            sys.stdout.writelines(f"{line}\n" for line in embedded(self._settings.service, figures))
            sys.stdout.flush()
        except (OSError, ValueError) as error:  # whoever read the output has gone
            logger.warning("The metrics are not written: %s", error)

    def note_announced(self, state: DocumentState) -> None:
        """Have the watchdog leave an end alone."""
        try:
            self.states.announced(state)
        except StoreUnavailable as error:
            # Told once more by the watchdog, and a client drops what is not newer.
            logger.info("Not noted as announced: %s", error, extra={"document_id": state.document_id})

    def post(
        self, document_id: str, message: Mapping[str, Any], *, deadline_seconds: float = PROGRESS_DELIVERY_SECONDS
    ) -> DeliveryReport:
        """Tell the watchers of a document something that is no state of it, such as a line of a chat.

        It is not stored: a watcher that comes later, or is out of reach for long, never hears it. Only those hear it
        who may watch the document.

        Args:
            message: a JSON object of at most 32 KB with a `status` that is none of the protocol's. `docId` is added.

        Raises:
            ValueError: it is no such message.
            SettingsError: this process has no CALLBACK_URL, so it cannot post.
            StoreUnavailable: who watches could not be read.
        """
        own = own_message(document_id, message)
        announcer = self.announcer
        if announcer is None:
            raise SettingsError(
                "CALLBACK_URL is not set: only who knows it may post, not a worker of a stack whose"
                " stream tells the watchers."
            )
        return announcer.post(document_id, self.states.find(document_id), own, deadline_seconds)

    def track(
        self,
        document_id: str,
        *,
        run_id: str | None = None,
        order: int | None = None,
        owner: str | None = None,
        joined: bool = False,
        attempt: int | None = None,
        correlation_id: str | None = None,
        remaining_seconds: Callable[[], float] = lambda: float("inf"),
        retry_follows: bool | int = False,
    ) -> ProgressTracker:
        """A tracker for one document; the arguments are ProgressTracker's."""
        return ProgressTracker(
            document_id,
            store=self.states,
            deliver=self.announce,
            run_id=run_id,
            order=order,
            owner=owner,
            joined=joined,
            attempt=attempt,
            correlation_id=correlation_id,
            max_messages_per_second=self._settings.max_messages_per_second,
            remaining_seconds=remaining_seconds,
            retry_follows=retry_follows,
        )


def _wrapped(session: Any) -> boto3.Session:
    with importing:
        import boto3

        return boto3.Session(botocore_session=session)


def _fan_out(callback_url: str, region: str, session: boto3.Session | Session) -> FanOut:
    credentials = session.get_credentials()
    if credentials is None:
        raise RuntimeError("No AWS credentials were found where boto3 looks for them, and posting needs some.")
    return FanOut(callback_url, region=region, credentials=credentials.get_frozen_credentials)


def connect(
    *,
    table_name: str | None = None,
    callback_url: str | None = None,
    region: str | None = None,
    document_retention_seconds: int | None = None,
    max_messages_per_second: int | None = None,
    close_expired: bool | None = None,
    shared_documents: bool | None = None,
    emit_metrics: bool | None = None,
    session: boto3.Session | None = None,
) -> Publisher:
    """This process's publisher of these settings. What no keyword says, the environment does; see PublisherSettings.

    Args:
        callback_url: "" leaves the announcing to the table's stream, whatever the environment says.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    numbers = {
        "DOCUMENT_RETENTION_SECONDS": document_retention_seconds,
        "MAX_MESSAGES_PER_SECOND": max_messages_per_second,
    }
    given = {
        "TABLE_NAME": table_name,
        "CALLBACK_URL": callback_url,
        "AWS_REGION": region or (session.region_name if session else None),
        "CLOSE_EXPIRED_CONNECTIONS": None if close_expired is None else str(close_expired).lower(),
        "SHARED_DOCUMENTS": None if shared_documents is None else str(shared_documents).lower(),
        "EMIT_METRICS": None if emit_metrics is None else str(emit_metrics).lower(),
        **{name: None if number is None else str(number) for name, number in numbers.items()},
    }
    environment = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
    return _shared(PublisherSettings.from_environment(environment), session)


@cache
def _shared(settings: PublisherSettings, session: boto3.Session | None) -> Publisher:
    """One for all who ask for the same, so that a task that connects each time it runs leaves no sockets behind."""
    return Publisher(settings, session)


@cache
def publisher() -> Publisher:
    """The publisher of this function of Lambda, from the environment, connected to the table. Raises SettingsError."""
    made = connect()
    with making_what_stays():
        _ = made.table.client
    return made
