"""When an end counts as announced. Not proved here: who is told (test_announcer), how it is noted (test_states)."""

from __future__ import annotations

import inspect
import io
import json
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from docprogress.announcer import Totals
from docprogress.document import Connection, DocumentState, ErrorCode, Failure, Status
from docprogress.errors import SettingsError, StoreUnavailable
from docprogress.messages import Message
from docprogress.posting.report import DeliveryReport
from docprogress.publisher import Publisher, PublisherSettings, connect
from docprogress.table.connections import Connections
from docprogress.tracker import ProgressTracker
from local.emulator import REGION
from tests.faults.connections_server import ConnectionsServer
from tests.functions.fakes import PATIENCE_SECONDS, eventually, started
from tests.library.table.support import live

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

SETTINGS = PublisherSettings(
    table_name="t",
    callback_url="https://a.example/dev",
    region="eu-west-1",
    document_retention_seconds=60,
    max_messages_per_second=4,
    close_expired=False,
)


TIMES = deque(float(number) for number in range(250))


class Announced:
    """An announcer with the outcome given."""

    def __init__(self, outcome: DeliveryReport | Exception) -> None:
        self._outcome = outcome

    def announce(self, state: DocumentState, deadline_seconds: float) -> DeliveryReport:
        assert (state.document_id, deadline_seconds > 0) == ("d", True)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def post(self, document_id: str, known: DocumentState | None, message: Message, deadline_seconds: float) -> object:
        return document_id, known, message, deadline_seconds

    def take_totals(self) -> Totals:
        return Totals(self._outcome if isinstance(self._outcome, DeliveryReport) else DeliveryReport(), TIMES.copy())


class Notes:
    """In place of the table: keeps what is noted as announced."""

    def __init__(self) -> None:
        self.noted: list[DocumentState] = []
        self.unavailable = False

    def announced(self, state: DocumentState) -> None:
        if self.unavailable:
            raise StoreUnavailable("throttled")
        self.noted.append(state)

    def find(self, document_id: str) -> DocumentState:
        return state(Status.STARTED)._replace(document_id=document_id, owner="alice")


class Told(Publisher):
    def __init__(self, outcome: DeliveryReport | Exception | None, **settings: Any) -> None:
        super().__init__(SETTINGS._replace(**settings))
        self._told = None if outcome is None else Announced(outcome)
        self.states: Any = Notes()

    @property
    def announcer(self) -> Any:
        return self._told

    @property
    def noted(self) -> list[DocumentState]:
        noted: list[DocumentState] = self.states.noted
        return noted


def state(status: Status, failure: Failure | None = None) -> DocumentState:
    return DocumentState(document_id="d", status=status, sequence=7, run_id="r", failure=failure)


ENDS = [
    state(Status.COMPLETE),
    state(Status.ERROR, Failure("No.")),
    state(Status.ERROR, Failure("Again.", recoverable=True)),
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("report", [DeliveryReport(), DeliveryReport(delivered=9, throttled=1, failed=2, refused=1)])
def test_an_end_of_which_everyone_was_tried_and_most_were_reached_counts_as_announced(
    end: DocumentState, report: DeliveryReport
) -> None:
    publisher = Told(report)

    assert publisher.announce(end, 10.0) == report
    assert publisher.noted == [end]


def test_an_end_of_which_somebody_was_not_tried_is_left_to_the_watchdog() -> None:
    publisher = Told(DeliveryReport(delivered=9, untried=1))
    publisher.announce(ENDS[0], 10.0)
    unread = Told(StoreUnavailable("the Query was throttled"))
    with pytest.raises(StoreUnavailable):
        unread.announce(ENDS[0], 10.0)

    assert publisher.noted == unread.noted == []


@pytest.mark.parametrize(
    "report", [DeliveryReport(failed=1), DeliveryReport(delivered=9, throttled=7, failed=3), DeliveryReport(refused=2)]
)
def test_an_end_that_most_could_not_be_told_is_left_to_the_watchdog(report: DeliveryReport) -> None:
    """The gateway is away, or this worker may not post: the watchdog comes later, and has rights of its own."""
    publisher = Told(report)
    publisher.announce(ENDS[0], 10.0)

    assert publisher.noted == []


def test_an_end_whose_note_takes_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docprogress.publisher._NOTE_SECONDS", 0.01)
    publisher, has_returned = Told(DeliveryReport(delivered=1)), threading.Event()
    note = publisher.states.announced

    def slowly(end: DocumentState) -> None:
        has_returned.wait(PATIENCE_SECONDS)
        note(end)

    monkeypatch.setattr(publisher.states, "announced", slowly)
    publisher.announce(ENDS[0], 10.0)
    assert publisher.noted == []
    has_returned.set()
    assert eventually(lambda: publisher.noted == [ENDS[0]])


@pytest.mark.parametrize("status", [Status.STARTED, Status.PROGRESS])
def test_what_is_no_end_is_not_noted(status: Status) -> None:
    publisher = Told(DeliveryReport(delivered=1))
    publisher.announce(state(status), 2.0)

    assert publisher.noted == []


def test_where_the_stream_tells_the_watchers_its_function_notes_it_and_no_worker() -> None:
    publisher = Told(None)

    assert publisher.announce(ENDS[0], 10.0) is None
    assert publisher.noted == []


def test_an_end_that_was_told_and_cannot_be_noted_is_no_failure_of_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "docprogress.publisher")
    publisher = Told(DeliveryReport(delivered=1))
    publisher.states.unavailable = True

    assert publisher.announce(ENDS[0], 10.0) == DeliveryReport(delivered=1)
    assert "Not noted as announced: throttled" in caplog.messages


def test_a_message_of_ones_own_is_posted_to_those_who_may_watch_the_document() -> None:
    publisher = Told(DeliveryReport())
    posted: Any = publisher.post("d", {"status": "chat", "text": "hello"}, deadline_seconds=3.0)
    assert posted == ("d", publisher.states.find("d"), {"status": "chat", "text": "hello", "docId": "d"}, 3.0)


def test_a_process_without_credentials_is_told_so_at_its_first_post(monkeypatch: pytest.MonkeyPatch) -> None:
    session = boto3.Session(region_name="eu-west-1")
    monkeypatch.setattr(session, "get_credentials", lambda: None)
    with pytest.raises(RuntimeError, match="No AWS credentials were found"):
        assert Publisher(SETTINGS, session).announcer


def test_where_the_stream_tells_the_watchers_a_worker_cannot_post() -> None:
    with pytest.raises(SettingsError, match="CALLBACK_URL is not set"):
        Told(None).post("d", {"status": "chat"})


@pytest.mark.emulator
@pytest.mark.parametrize(("shared", "reached"), [(True, ["alice="]), (False, [])])
def test_those_in_the_table_are_told_through_the_callback_url_and_those_whose_time_is_over_are_disconnected(
    client: DynamoDBClient, table_name: str, document_id: str, shared: bool, reached: list[str]
) -> None:
    with ConnectionsServer() as server:
        where = {"table_name": table_name, "callback_url": server.callback_url, "region": REGION}
        settings = SETTINGS._replace(**where, close_expired=True, shared_documents=shared)
        publisher = Publisher(settings, boto3.Session(region_name=REGION))
        connections = Connections(publisher.table)
        for connection_id, seconds in (("alice=", 600), ("gone=", -1)):
            connections.subscribe(document_id, Connection(connection_id, int(time.time()) + seconds, "alice"))
        report = publisher.announce(started(publisher.states, document_id), PATIENCE_SECONDS)
        assert report == DeliveryReport(delivered=len(reached))
        assert eventually(lambda: live(connections, document_id) == ["alice="])
        assert eventually(lambda: "gone=" in server.received)
        publisher.table.client.close()
    assert list(server.received) == [*reached, "gone="]
    assert sorted(request.method for request in server.requests) == ["DELETE"] + ["POST"] * len(reached)


# What is handed on


def test_a_tracker_takes_all_that_is_said_to_track(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, Any] = {}
    monkeypatch.setattr("docprogress.publisher.ProgressTracker", lambda document_id, **said: taken.update(said))
    said = {
        name: object() for name in inspect.signature(Publisher.track).parameters if name not in ("self", "document_id")
    }
    publisher = Told(None)
    publisher.track("d", **said)  # type: ignore[arg-type]  # nobody looks at them here
    assert taken == {**said, "store": publisher.states, "deliver": publisher.announce, "max_messages_per_second": 4}
    assert taken.keys() == inspect.signature(ProgressTracker).parameters.keys() - {"document_id"}


def test_every_keyword_says_what_its_variable_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docprogress.publisher.Publisher", lambda settings, session: (settings, session))
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "reader")
    session = boto3.Session(region_name="eu-west-3")
    wanted = PublisherSettings(
        table_name="keywords",
        callback_url="https://a.example/dev",
        region="eu-west-2",
        document_retention_seconds=61,
        max_messages_per_second=3,
        close_expired=True,
        shared_documents=True,
        emit_metrics=True,
        service="reader",
    )
    said: dict[str, Any] = wanted._asdict()
    del said["service"]
    assert connect(**said, session=session) == (wanted, session)
    del said["region"]
    assert connect(**said, session=session) == (wanted._replace(region="eu-west-3"), session)


# Metrics of a worker outside Lambda


def emitted(publisher: Publisher, told: DocumentState, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    publisher.announce(told, 10.0)
    lines: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        (definition,) = line["_aws"]["CloudWatchMetrics"]
        assert (definition["Namespace"], definition["Dimensions"]) == ("docprogress", [["service"]])
        assert {each["Name"] for each in definition["Metrics"]} == line.keys() - {"_aws", "service"}
        assert all(
            each["Unit"] == ("Milliseconds" if each["Name"] == "FanOutTime" else "Count")
            for each in definition["Metrics"]
        )
        assert line["service"] == "reader"
        assert all(len(line[each["Name"]]) <= 100 for each in definition["Metrics"]), "CloudWatch takes no more"
    return lines


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        (state(Status.STARTED), {"DocumentsStarted": 1}),
        (state(Status.COMPLETE)._replace(processed=9), {"DocumentsCompleted": 1, "PagesProcessed": 9}),
        (state(Status.COMPLETE)._replace(processed=9, unit="x" * 99), {"DocumentsCompleted": 1, "PagesProcessed": 9}),
        (state(Status.ERROR, Failure("No.")), {"DocumentsFailed": 1}),
        (state(Status.ERROR, Failure("No.", ErrorCode.CANCELLED)), {"DocumentsCancelled": 1}),
    ],
)
def test_a_worker_that_is_told_to_writes_what_it_counts_in_lines_for_cloudwatch(
    told: DocumentState, counted: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    report = DeliveryReport(delivered=3, stale=4, throttled=5, failed=6, untried=7, refused=8)
    publisher = Told(report, emit_metrics=True, service="reader")
    lines = emitted(publisher, told, capsys)
    first = {name: sum(value) for name, value in lines[0].items() if name not in ("_aws", "service", "FanOutTime")}
    assert first == {
        **counted,
        "MessagesDelivered": 3,
        "ConnectionsStale": 4,
        "MessagesThrottled": 5,
        "MessagesFailed": 21,
        "MessagesRefused": 8,
    }
    assert [time for line in lines for time in line["FanOutTime"]] == list(TIMES)


def test_a_document_is_counted_where_its_watchers_cannot_be_read_and_where_the_stream_tells_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unread = Told(StoreUnavailable("the Query was throttled"), emit_metrics=True)
    with pytest.raises(StoreUnavailable):
        unread.announce(ENDS[0], 10.0)
    Told(None, emit_metrics=True).announce(ENDS[0], 10.0)
    assert capsys.readouterr().out.count('"DocumentsCompleted": [1]') == 2


def test_an_output_that_nobody_reads_any_more_costs_no_document_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stdout", closed)
    publisher = Told(DeliveryReport(delivered=1), emit_metrics=True)
    publisher.announce(ENDS[0], 10.0)

    assert publisher.noted == [ENDS[0]]
    assert any(message.startswith("The metrics are not written") for message in caplog.messages)


def test_progress_writes_no_line_and_without_the_switch_nothing_does(capsys: pytest.CaptureFixture[str]) -> None:
    Told(DeliveryReport(), emit_metrics=True).announce(state(Status.PROGRESS), 2.0)
    Told(DeliveryReport()).announce(ENDS[0], 10.0)
    assert capsys.readouterr().out == ""
