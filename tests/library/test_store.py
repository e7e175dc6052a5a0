"""The table's rules, on a DynamoDB that evaluates the real expressions.

The emulator is not AWS: not proved here are IAM, throttling, TTL's own deletions, and that DynamoDB counts a
page of a Query as the emulator does. Faults are played by botocore's Stubber, by a port where nobody listens,
and by an answer that is lost on its way back.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from botocore.stub import Stubber
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docprogress.document import Connection, ErrorCode, Failure, Status, Subscription, Tally
from docprogress.table.store import (
    BY_ACTIVITY,
    BY_CONNECTION,
    DocumentExists,
    ProgressStore,
    SilentDocument,
)
from docprogress.tracker import AlreadyProcessed, BeingProcessed, StoreUnavailable, Superseded
from local.emulator import CREDENTIALS, REGION, Emulator
from tests.functions.fakes import InMemoryStore

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NOW = 1_800_000_000.0
ABANDONED = 45.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def client() -> Iterator[DynamoDBClient]:
    with Emulator() as emulator, pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        environment.setenv("AWS_ENDPOINT_URL_DYNAMODB", emulator.endpoint_url)
        # Without the package's own time-outs of seconds, which a busy machine may take for an answer.
        client = boto3.Session(region_name=REGION).client("dynamodb")
        yield client
        client.close()


@pytest.fixture(scope="module")
def table_name(client: DynamoDBClient) -> str:
    """A table as infra/progress_table.py declares it."""
    client.create_table(
        TableName="progress",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "connection_id", "AttributeType": "S"},
            {"AttributeName": "active_shard", "AttributeType": "S"},
            {"AttributeName": "updated_at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": BY_CONNECTION,
                "KeySchema": [{"AttributeName": "connection_id", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
            {
                "IndexName": BY_ACTIVITY,
                "KeySchema": [
                    {"AttributeName": "active_shard", "KeyType": "HASH"},
                    {"AttributeName": "updated_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
    )
    return "progress"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(client: DynamoDBClient, table_name: str, clock: Clock) -> ProgressStore:
    return ProgressStore(client, table_name, document_retention_seconds=3600, now=clock)


@pytest.fixture
def document_id() -> str:
    return f"document-{uuid.uuid4()}"


def start(store: ProgressStore | InMemoryStore, document_id: str, **arguments: Any) -> Any:
    defaults = {"run_id": "run-1", "total_pages": 10, "owner": None, "abandoned_after_seconds": ABANDONED}
    return store.start(document_id, **{**defaults, **arguments})


def advance(store: ProgressStore | InMemoryStore, document_id: str, pages: int = 1, **arguments: Any) -> Any:
    return store.advance(document_id, **{"run_id": "run-1", "pages": pages, "not_within_seconds": 0.0, **arguments})


def finish(
    store: ProgressStore | InMemoryStore, document_id: str, failure: Failure | None = None, **arguments: Any
) -> Any:
    return store.finish(document_id, **{"run_id": "run-1", "pages": 0, "failure": failure, **arguments})


def live(store: ProgressStore, document_id: str) -> list[str]:
    return [subscription.connection_id for page in store.watchers(document_id) for subscription in page]


def raw(client: DynamoDBClient, table_name: str, document_id: str) -> Any:
    key = {"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}}
    return client.get_item(TableName=table_name, Key=key, ConsistentRead=True).get("Item")


# --- states ---


@pytest.mark.emulator
class TestStates:
    def test_a_document_nobody_has_started_is_unknown(self, store: ProgressStore, document_id: str) -> None:
        assert store.read(document_id) is None

    def test_a_start_is_what_is_read(self, store: ProgressStore, document_id: str) -> None:
        started = start(store, document_id, owner="alice")

        assert (started.status, started.sequence, started.total_pages) == (Status.STARTED, 1, 10)
        assert (started.pages_processed, started.run_id, started.owner) == (0, "run-1", "alice")
        assert store.read(document_id) == started

    def test_pages_add_up(self, store: ProgressStore, document_id: str) -> None:
        start(store, document_id)
        advance(store, document_id, 3)
        state = advance(store, document_id, 4)

        assert (state.status, state.pages_processed, state.sequence) == (Status.PROGRESS, 7, 3)
        assert store.read(document_id) == state

    def test_the_last_pages_are_counted_with_the_end(self, store: ProgressStore, document_id: str) -> None:
        start(store, document_id)
        state = finish(store, document_id, pages=10)

        assert (state.status, state.pages_processed, state.sequence) == (Status.COMPLETE, 10, 2)
        assert store.read(document_id) == state

    @pytest.mark.parametrize("recoverable", [True, False])
    def test_a_failure_is_kept_word_for_word(self, store: ProgressStore, document_id: str, recoverable: bool) -> None:
        failure = Failure("Not a PDF: ü🎉", ErrorCode.PROCESSING_STALLED, recoverable)
        start(store, document_id)
        finish(store, document_id, failure)

        state = store.read(document_id)
        assert state is not None
        assert (state.status, state.failure) == (Status.ERROR, failure)

    def test_the_same_run_is_not_processed_again_after_its_end(self, store: ProgressStore, document_id: str) -> None:
        start(store, document_id)
        finish(store, document_id)
        with pytest.raises(AlreadyProcessed):
            start(store, document_id)

    def test_the_same_run_is_not_processed_again_after_a_final_error(
        self, store: ProgressStore, document_id: str
    ) -> None:
        start(store, document_id)
        finish(store, document_id, Failure("No."))
        with pytest.raises(AlreadyProcessed):
            start(store, document_id)

    def test_the_same_run_starts_again_after_a_recoverable_error(self, store: ProgressStore, document_id: str) -> None:
        start(store, document_id)
        advance(store, document_id, 4)
        finish(store, document_id, Failure("Again.", recoverable=True))

        again = start(store, document_id)

        assert (again.status, again.pages_processed, again.failure, again.sequence) == (Status.STARTED, 0, None, 4)
        assert store.read(document_id) == again

    def test_a_start_leaves_nothing_of_an_error_behind(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str
    ) -> None:
        start(store, document_id)
        finish(store, document_id, Failure("Again.", recoverable=True))
        start(store, document_id)

        assert not {"error_code", "error_message", "recoverable"} & raw(client, table_name, document_id).keys()

    def test_a_second_worker_is_kept_out_while_the_first_is_heard_of(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += ABANDONED - 1
        with pytest.raises(BeingProcessed):
            start(store, document_id)

    def test_a_run_that_is_silent_for_too_long_is_taken_over(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        advance(store, document_id, 4)
        clock.now += ABANDONED + 1
        again = start(store, document_id)

        assert (again.sequence, again.pages_processed) == (3, 0)

    @pytest.mark.parametrize("sign", ["heartbeat", "advance"])
    def test_a_worker_that_shows_it_is_alive_keeps_its_run(
        self, store: ProgressStore, document_id: str, clock: Clock, sign: str
    ) -> None:
        start(store, document_id)
        for _ in range(4):
            clock.now += 30
            if sign == "heartbeat":
                store.heartbeat(document_id, run_id="run-1")
            else:
                advance(store, document_id)

        with pytest.raises(BeingProcessed):
            start(store, document_id)

    def test_a_new_run_replaces_a_run_under_way_and_fences_its_writes(
        self, store: ProgressStore, document_id: str
    ) -> None:
        start(store, document_id, owner="alice")
        newer = start(store, document_id, run_id="run-2")

        for write in (
            lambda: advance(store, document_id),
            lambda: advance(store, document_id, not_within_seconds=60.0),
            lambda: finish(store, document_id),
            lambda: finish(store, document_id, Failure("No.")),
            lambda: store.heartbeat(document_id, run_id="run-1"),
        ):
            with pytest.raises(Superseded):
                write()
        assert store.read(document_id) == newer

    @pytest.mark.parametrize("failure", [None, Failure("No."), Failure("Again.", recoverable=True)])
    def test_nothing_but_a_start_follows_the_end(
        self, store: ProgressStore, document_id: str, failure: Failure | None
    ) -> None:
        start(store, document_id)
        end = finish(store, document_id, failure)

        for write in (
            lambda: advance(store, document_id),
            lambda: advance(store, document_id, not_within_seconds=60.0),
            lambda: finish(store, document_id),
            lambda: finish(store, document_id, Failure("Late.")),
            lambda: store.heartbeat(document_id, run_id="run-1"),
        ):
            with pytest.raises(Superseded):
                write()
        assert store.read(document_id) == end

    def test_nothing_is_written_about_a_document_that_was_never_started(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str
    ) -> None:
        for write in (
            lambda: advance(store, document_id),
            lambda: finish(store, document_id),
            lambda: store.heartbeat(document_id, run_id="run-1"),
        ):
            with pytest.raises(Superseded):
                write()
        assert raw(client, table_name, document_id) is None

    def test_the_sequence_grows_across_runs(self, store: ProgressStore, document_id: str) -> None:
        sequences = []
        for run in ("run-1", "run-2", "run-3"):
            sequences.append(start(store, document_id, run_id=run).sequence)
            sequences.append(advance(store, document_id, run_id=run).sequence)
            sequences.append(finish(store, document_id, run_id=run).sequence)

        assert sequences == list(range(1, 10))

    def test_an_update_within_the_interval_is_not_written(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        started = start(store, document_id)
        clock.now += 0.2

        assert advance(store, document_id, 5, not_within_seconds=0.25) is None
        assert store.read(document_id) == started

    def test_an_update_after_the_interval_is_written(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 0.3

        assert advance(store, document_id, 5, not_within_seconds=0.25).pages_processed == 5

    def test_of_parallel_workers_one_gets_the_turn(self, store: ProgressStore, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 1

        assert advance(store, document_id, 2, not_within_seconds=0.25) is not None
        assert advance(store, document_id, 3, not_within_seconds=0.25) is None

    def test_a_heartbeat_is_no_update(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        started = start(store, document_id)
        clock.now += 1
        store.heartbeat(document_id, run_id="run-1")

        assert store.read(document_id) == started
        assert raw(client, table_name, document_id)["updated_at"]["N"] == str(int((NOW + 1) * 1000))

    def test_a_heartbeat_takes_no_turn_from_an_update(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 1
        store.heartbeat(document_id, run_id="run-1")

        assert advance(store, document_id, not_within_seconds=0.5) is not None

    def test_only_documents_under_way_are_in_the_index_of_activity(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str
    ) -> None:
        def shard() -> str | None:
            found: str | None = raw(client, table_name, document_id).get("active_shard", {}).get("S")
            return found

        start(store, document_id)
        active = shard()
        assert active is not None
        advance(store, document_id)
        store.heartbeat(document_id, run_id="run-1")
        assert shard() == active
        finish(store, document_id)
        assert shard() is None
        start(store, document_id, run_id="run-2")
        assert shard() == active

    def test_an_expired_state_is_not_read(self, store: ProgressStore, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 3599
        assert store.read(document_id) is not None
        clock.now += 2
        assert store.read(document_id) is None

    def test_every_update_keeps_a_state_for_its_whole_retention(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 3000
        advance(store, document_id)
        clock.now += 3000

        assert store.read(document_id) is not None

    @pytest.mark.parametrize(
        "document_id",
        ["a", "a#b", "DOCUMENT#x", "a/b/c.d", "  ", "漢字", "🎉" * 256, "x" * 256, ":run", "#status", "'\"\\", "%2F+"],
    )
    def test_any_document_id_comes_back_as_it_went_in(self, store: ProgressStore, document_id: str) -> None:
        run_id = uuid.uuid4().hex
        state = start(store, document_id, run_id=run_id)
        store.subscribe(document_id, Connection("c", int(NOW) + 60, None))

        assert state.document_id == document_id
        assert store.read(document_id) == state
        assert live(store, document_id) == ["c"]

    def test_documents_whose_names_begin_alike_are_apart(self, store: ProgressStore, document_id: str) -> None:
        start(store, document_id)
        store.subscribe(document_id + "#CONNECTION", Connection("c", int(NOW) + 60, None))

        assert store.read(document_id[:-1]) is None
        assert live(store, document_id) == []

    def test_an_update_whose_answer_was_lost_is_counted_once(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore
    ) -> None:
        start(store, document_id)
        clock.now += 1
        with LosingOneAnswer() as forgetful:
            state = ProgressStore(forgetful, table_name, now=clock).advance(
                document_id, run_id="run-1", pages=4, not_within_seconds=0.25
            )

        # None would have the tracker count these pages again.
        assert state is not None
        assert state.pages_processed == 4

    def test_pages_whose_answer_was_lost_are_counted_once_without_a_rate(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore
    ) -> None:
        start(store, document_id)
        with LosingOneAnswer() as forgetful:
            advance(ProgressStore(forgetful, table_name, now=clock), document_id, 4)

        state = store.read(document_id)
        assert state is not None
        assert state.pages_processed == 4

    def test_an_end_whose_answer_was_lost_is_the_workers_own(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore
    ) -> None:
        start(store, document_id)
        with LosingOneAnswer() as forgetful:
            # Superseded would keep the last message from everybody who watches.
            state = finish(ProgressStore(forgetful, table_name, now=clock), document_id)

        assert state.status is Status.COMPLETE
        assert store.read(document_id) == state

    def test_a_start_whose_answer_was_lost_is_the_workers_own(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore
    ) -> None:
        with LosingOneAnswer() as forgetful:
            state = start(ProgressStore(forgetful, table_name, now=clock), document_id)

        assert state.status is Status.STARTED
        assert store.read(document_id) == state

    @pytest.mark.parametrize("interval_seconds", [0.0, 0.25])
    def test_an_update_is_counted_once_when_another_worker_writes_before_boto3_repeats_it(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore, interval_seconds: float
    ) -> None:
        start(store, document_id, total_pages=20)
        clock.now += 1
        with LosingOneAnswer(lambda: advance(store, document_id, tally=Tally("b"))) as forgetful:
            mine = advance(
                ProgressStore(forgetful, table_name, now=clock),
                document_id,
                10,
                tally=Tally("a"),
                not_within_seconds=interval_seconds,
            )

        # None would have the tracker count these pages again.
        assert mine is not None
        assert (mine.pages_processed, mine.sequence) == (11, 3)
        assert store.read(document_id) == mine

    def test_the_last_pages_are_counted_once_when_the_update_before_them_was_never_answered(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore
    ) -> None:
        start(store, document_id, total_pages=100)
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            advance(ProgressStore(forgetful, table_name, now=clock), document_id, 50, tally=Tally("a"))
        advance(store, document_id, 3, tally=Tally("b"))

        end = finish(store, document_id, pages=60, tally=Tally("a"))

        assert end.pages_processed == 63

    def test_an_update_that_was_never_answered_is_repeated_with_the_pages_that_came_after_it(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore
    ) -> None:
        start(store, document_id, total_pages=100)
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            advance(ProgressStore(forgetful, table_name, now=clock), document_id, 50, tally=Tally("a"))

        assert advance(store, document_id, 50, tally=Tally("a")).pages_processed == 50
        assert advance(store, document_id, 57, tally=Tally("a")).pages_processed == 57
        assert advance(store, document_id, 1, tally=Tally("a", 57)).pages_processed == 58

    @pytest.mark.parametrize("failure", [None, Failure("No.")])
    def test_an_end_that_was_never_answered_is_known_when_it_is_repeated(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore, failure: Failure | None
    ) -> None:
        start(store, document_id)
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            finish(ProgressStore(forgetful, table_name, now=clock), document_id, failure, pages=4, write_id="end")

        end = finish(store, document_id, failure, pages=4, write_id="end")

        assert (end.pages_processed, end.sequence, end.failure) == (4, 2, failure)
        with pytest.raises(Superseded):
            finish(store, document_id, failure, pages=4, write_id="another")

    def test_a_start_that_was_never_answered_is_known_when_it_is_repeated(
        self, table_name: str, clock: Clock, document_id: str, store: ProgressStore
    ) -> None:
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            start(ProgressStore(forgetful, table_name, now=clock), document_id, write_id="start")

        assert start(store, document_id, write_id="start").sequence == 1
        with pytest.raises(BeingProcessed):
            start(store, document_id, write_id="another")

    def test_pages_of_before_a_new_start_of_the_run_are_not_counted_after_it(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        advance(store, document_id, 4, tally=Tally("a"))
        clock.now += ABANDONED + 1
        again = start(store, document_id)

        with pytest.raises(Superseded):
            advance(store, document_id, 1, tally=Tally("a", 4))
        assert store.read(document_id) == again

    def test_the_row_holds_the_tallies_of_those_at_work_alone(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str
    ) -> None:
        def tallies() -> Any:
            return raw(client, table_name, document_id).get("tallies")

        start(store, document_id)
        for worker in ("a", "b"):
            state = advance(store, document_id, tally=Tally(worker))
        for _ in range(2):
            store.leave(document_id, run_id="run-1", worker="a")
        store.leave(document_id, run_id="run-0", worker="b")
        assert tallies() == {"M": {"b": {"N": "1"}}}
        assert store.read(document_id) == state, "leaving is no update"
        finish(store, document_id, pages=2, tally=Tally("b", 1))
        assert tallies() is None
        store.leave(document_id, run_id="run-1", worker="b")
        start(store, document_id, run_id="run-2")
        assert tallies() == {"M": {}}

    def test_a_hundred_workers_at_once_fit_into_two_kilobytes(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str
    ) -> None:
        start(store, document_id, run_id=uuid.uuid4().hex)
        run_id = raw(client, table_name, document_id)["run_id"]["S"]
        for number in range(100):
            advance(store, document_id, 100, run_id=run_id, tally=Tally(f"{number:08d}"))

        row = raw(client, table_name, document_id)
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
        tallies = row.pop("tallies")["M"]
        flat = sum(len(name) + len(str(next(iter(value.values())))) for name, value in row.items())
        assert flat + 3 + sum(len(worker) + 1 + 3 for worker in tallies) < 2048


class LosingOneAnswer:
    """A client whose first write is made, and its answer lost on the way back.

    Args:
        meanwhile: what others do before the client repeats its write.
        attempts: how often the client sends it at most.
    """

    def __init__(self, meanwhile: Callable[[], object] = lambda: None, attempts: int = 4) -> None:
        self._meanwhile = meanwhile
        self._attempts = attempts

    def __enter__(self) -> DynamoDBClient:
        config = Config(retries={"mode": "standard", "total_max_attempts": self._attempts})
        self._client = boto3.Session(region_name=REGION).client("dynamodb", config=config)
        self._session = URLLib3Session()
        self._lost = False
        self._client.meta.events.register("before-send.dynamodb.UpdateItem", self._send)
        return self._client

    def __exit__(self, *_: object) -> None:
        assert self._lost, "the write was never sent"
        self._client.close()
        self._session.close()

    def _send(self, request: Any, **_: Any) -> None:
        if self._lost:
            return
        self._lost = True
        assert self._session.send(request).status_code == 200
        self._meanwhile()
        raise ReadTimeoutError(endpoint_url=request.url)


_operations = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("start", "start", "advance", "advance", "claim", "heartbeat", "finish", "fail", "recoverable"),
                *("count", "count", "count unanswered", "claim counting", "count and finish", "leave"),
            ]
        ),
        st.sampled_from(["run-1", "run-2"]),
        st.sampled_from([None, "alice", "bob"]),
        st.sampled_from([0.0, 0.5, 2.0, 30.0, ABANDONED + 1]),
    ),
    max_size=12,
)


@pytest.mark.emulator
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_operations)
def test_the_table_and_its_stand_in_in_memory_keep_the_same_rules(
    client: DynamoDBClient, table_name: str, operations: list[tuple[str, str, str | None, float]]
) -> None:
    clock = Clock()
    document_id = uuid.uuid4().hex
    stores = (ProgressStore(client, table_name, now=clock), InMemoryStore(clock))
    tallies = {run_id: Tally(run_id) for run_id in ("run-1", "run-2")}

    def apply(store: ProgressStore | InMemoryStore, operation: str, run_id: str, owner: str | None) -> object:
        actions: dict[str, Callable[[], Any]] = {
            "start": lambda: start(store, document_id, run_id=run_id, owner=owner),
            "advance": lambda: advance(store, document_id, 2, run_id=run_id),
            "claim": lambda: advance(store, document_id, 3, run_id=run_id, not_within_seconds=1.0),
            "heartbeat": lambda: store.heartbeat(document_id, run_id=run_id),
            "finish": lambda: finish(store, document_id, run_id=run_id, pages=1),
            "fail": lambda: finish(store, document_id, Failure("No."), run_id=run_id),
            "recoverable": lambda: finish(store, document_id, Failure("Again.", recoverable=True), run_id=run_id),
            "count": lambda: advance(store, document_id, 5, run_id=run_id, tally=tallies[run_id]),
            "count unanswered": lambda: advance(store, document_id, 4, run_id=run_id, tally=tallies[run_id]),
            "claim counting": lambda: advance(
                store, document_id, 5, run_id=run_id, tally=tallies[run_id], not_within_seconds=1.0
            ),
            "count and finish": lambda: finish(store, document_id, run_id=run_id, pages=5, tally=tallies[run_id]),
            "leave": lambda: store.leave(document_id, run_id=run_id, worker=run_id),
        }
        try:
            return actions[operation]()
        except (AlreadyProcessed, BeingProcessed, Superseded) as refused:
            return type(refused)

    for operation, run_id, owner, seconds in operations:
        clock.now += seconds
        real, stand_in = (apply(store, operation, run_id, owner) for store in stores)
        assert real == stand_in
        if operation in ("count", "claim counting") and real not in (None, Superseded):
            tallies[run_id] = Tally(run_id, tallies[run_id].counted + 5)
        elif operation == "leave":
            tallies[run_id] = Tally(run_id)
        assert stores[0].read(document_id) == stores[1].read(document_id)


# --- documents that are expected ---


@pytest.mark.emulator
class TestExpected:
    def test_an_expected_document_is_pending_and_has_an_owner(self, store: ProgressStore, document_id: str) -> None:
        store.expect(document_id, owner="alice")

        state = store.read(document_id)
        assert state is not None
        assert (state.owner, state.sequence, state.is_active, state.failure) == ("alice", 0, False, None)

    @pytest.mark.parametrize("event", ["expected", "started"])
    def test_a_document_that_is_known_cannot_be_claimed(
        self, store: ProgressStore, document_id: str, event: str
    ) -> None:
        if event == "expected":
            store.expect(document_id, owner="alice")
        else:
            start(store, document_id, owner="alice")
        with pytest.raises(DocumentExists):
            store.expect(document_id, owner="mallory")

        state = store.read(document_id)
        assert state is not None
        assert state.owner == "alice"

    def test_an_expected_document_keeps_its_owner_when_it_starts(self, store: ProgressStore, document_id: str) -> None:
        store.expect(document_id, owner="alice")
        state = start(store, document_id)

        assert (state.owner, state.sequence) == ("alice", 1)

    def test_the_owner_named_at_the_start_is_the_owner(self, store: ProgressStore, document_id: str) -> None:
        store.expect(document_id, owner="alice")

        assert start(store, document_id, owner="bob").owner == "bob"

    def test_nothing_but_a_start_is_written_to_an_expected_document(
        self, store: ProgressStore, document_id: str
    ) -> None:
        store.expect(document_id, owner="alice")
        expected = store.read(document_id)

        with pytest.raises(Superseded):
            advance(store, document_id)
        with pytest.raises(Superseded):
            finish(store, document_id)
        assert store.read(document_id) == expected


# --- documents whose worker is silent ---


@pytest.mark.emulator
class TestSilent:
    STALLED = Failure("Stopped.", ErrorCode.PROCESSING_STALLED, recoverable=True)

    def _silent(self, store: ProgressStore, document_id: str) -> list[SilentDocument]:
        return [silent for silent in store.silent_documents(120.0) if silent.document_id == document_id]

    def test_a_document_is_found_silent_after_so_long_and_no_sooner(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 119
        assert self._silent(store, document_id) == []
        clock.now += 2
        assert self._silent(store, document_id) == [SilentDocument(document_id, int(NOW * 1000))]

    @pytest.mark.parametrize("sign", ["heartbeat", "advance"])
    def test_a_worker_that_writes_is_not_silent(
        self, store: ProgressStore, document_id: str, clock: Clock, sign: str
    ) -> None:
        start(store, document_id)
        clock.now += 100
        if sign == "heartbeat":
            store.heartbeat(document_id, run_id="run-1")
        else:
            advance(store, document_id)
        clock.now += 100

        assert self._silent(store, document_id) == []

    @pytest.mark.parametrize("failure", [None, Failure("No.")])
    def test_a_document_that_has_ended_is_not_silent(
        self, store: ProgressStore, document_id: str, clock: Clock, failure: Failure | None
    ) -> None:
        start(store, document_id)
        finish(store, document_id, failure)
        clock.now += 1000

        assert self._silent(store, document_id) == []

    def test_a_silent_document_is_ended_once(self, store: ProgressStore, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 200
        (silent,) = self._silent(store, document_id)

        ended = store.end_silent(silent, self.STALLED)

        assert ended is not None
        assert (ended.status, ended.failure, ended.sequence) == (Status.ERROR, self.STALLED, 2)
        assert store.end_silent(silent, self.STALLED) is None
        assert store.read(document_id) == ended

    def test_a_worker_heard_of_meanwhile_keeps_its_document(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 200
        (silent,) = self._silent(store, document_id)
        store.heartbeat(document_id, run_id="run-1")

        assert store.end_silent(silent, self.STALLED) is None
        assert advance(store, document_id).status is Status.PROGRESS


# --- connections and subscriptions ---


@pytest.mark.emulator
class TestSubscriptions:
    EXPIRES = int(NOW) + 7200

    def test_a_connection_is_kept_with_its_principal_until_it_expires(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore
    ) -> None:
        store.add_connection(Connection("c=1", self.EXPIRES, "alice"), connected_at=1_800_000_000_123)

        assert self._connection(client, table_name, "c=1") == {
            "pk": {"S": "CONNECTION#c=1"},
            "sk": {"S": "CONNECTION"},
            "connected_at": {"N": "1800000000123"},
            "principal_id": {"S": "alice"},
            "expires_at": {"N": str(self.EXPIRES)},
        }

    def test_a_connection_without_a_principal_has_none(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore
    ) -> None:
        store.add_connection(Connection("anonymous", self.EXPIRES, None), connected_at=1)

        assert "principal_id" not in self._connection(client, table_name, "anonymous")

    def test_a_subscription_is_found_with_when_it_was_made_and_when_it_expires(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        clock.now += 0.123
        store.subscribe(document_id, Connection("c1", self.EXPIRES, None))

        assert list(store.watchers(document_id)) == [[Subscription("c1", int(NOW * 1000) + 123, self.EXPIRES, None)]]

    def test_the_state_of_a_document_is_no_watcher(self, store: ProgressStore, document_id: str) -> None:
        start(store, document_id)

        assert live(store, document_id) == []

    def test_unsubscribing_ends_one_subscription_and_is_repeatable(
        self, store: ProgressStore, document_id: str
    ) -> None:
        for connection_id in ("c1", "c2"):
            store.subscribe(document_id, Connection(connection_id, self.EXPIRES, None))
        for _ in range(2):
            store.unsubscribe(document_id, "c1")

        assert live(store, document_id) == ["c2"]

    def test_an_expired_subscription_is_told_with_its_end_so_that_it_can_be_closed(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        store.subscribe(document_id, Connection("old", int(NOW) + 10, "alice"))
        clock.now += 30

        assert list(store.watchers(document_id)) == [[Subscription("old", int(NOW * 1000), int(NOW) + 10, "alice")]]

    def test_an_expired_connection_is_not_found(self, store: ProgressStore, clock: Clock) -> None:
        connection = Connection("short", int(NOW) + 10, "alice")
        store.add_connection(connection, connected_at=1)
        assert store.connection("short") == connection
        clock.now += 10
        assert store.connection("short") is None

    def test_a_connection_may_have_so_many_subscriptions_and_renew_each(
        self, store: ProgressStore, document_id: str
    ) -> None:
        connection = Connection(f"c-{document_id}", self.EXPIRES, None)
        for number in range(3):
            assert store.may_subscribe(f"{document_id}-{number}", connection.connection_id, limit=3)
            store.subscribe(f"{document_id}-{number}", connection)

        assert not store.may_subscribe(f"{document_id}-3", connection.connection_id, limit=3)
        assert store.may_subscribe(f"{document_id}-1", connection.connection_id, limit=3)
        assert store.may_subscribe(document_id, "another", limit=3)

    def test_a_connection_that_is_gone_is_forgotten_and_the_others_stay(
        self, store: ProgressStore, document_id: str
    ) -> None:
        for connection_id in ("c1", "c2", "c3"):
            store.subscribe(document_id, Connection(connection_id, self.EXPIRES, None))
        gone = [subscription for page in store.watchers(document_id) for subscription in page][:2]
        store.forget(document_id, gone)

        assert live(store, document_id) == ["c3"]

    def test_forgetting_spares_a_subscription_made_meanwhile(
        self, store: ProgressStore, document_id: str, clock: Clock
    ) -> None:
        for connection_id in ("c1", "c2"):
            store.subscribe(document_id, Connection(connection_id, self.EXPIRES, None))
        gone = [subscription for page in store.watchers(document_id) for subscription in page]
        clock.now += 0.001
        store.subscribe(document_id, Connection("c1", self.EXPIRES, None))
        store.forget(document_id, gone)

        assert live(store, document_id) == ["c1"]

    def test_forgetting_what_is_forgotten_already_is_no_error(self, store: ProgressStore, document_id: str) -> None:
        store.forget(document_id, [Subscription("never", 1, self.EXPIRES, None)])

        assert live(store, document_id) == []

    def test_a_connection_leaves_with_all_its_subscriptions_and_nobody_elses(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str
    ) -> None:
        store.add_connection(Connection("leaver", self.EXPIRES, None), connected_at=1)
        documents = [f"{document_id}-{number}" for number in range(60)]
        for name in documents:
            store.subscribe(name, Connection("leaver", self.EXPIRES, None))
        store.subscribe(documents[0], Connection("stayer", self.EXPIRES, None))
        start(store, documents[0])

        store.remove_connection("leaver")

        assert [name for name in documents if live(store, name)] == documents[:1]
        assert live(store, documents[0]) == ["stayer"]
        assert store.read(documents[0]) is not None
        assert self._connection(client, table_name, "leaver") is None

    def test_removing_a_connection_that_is_not_there_is_no_error(self, store: ProgressStore) -> None:
        store.remove_connection("never-was")

    def test_watchers_come_a_page_of_the_query_at_a_time(
        self, client: DynamoDBClient, table_name: str, store: ProgressStore, document_id: str
    ) -> None:
        # Ids of 900 bytes, in the key and beside it, make a megabyte of some 570 rows.
        ids = [f"{number:04d}-{'x' * 895}" for number in range(800)]
        subscribed: list[Any] = [
            {
                "PutRequest": {
                    "Item": {
                        "pk": {"S": f"DOCUMENT#{document_id}"},
                        "sk": {"S": f"CONNECTION#{connection_id}"},
                        "connection_id": {"S": connection_id},
                        "subscribed_at": {"N": "1"},
                        "expires_at": {"N": str(self.EXPIRES)},
                    }
                }
            }
            for connection_id in ids
        ]
        for first in range(0, len(subscribed), 25):
            client.batch_write_item(RequestItems={table_name: subscribed[first : first + 25]})

        pages = list(store.watchers(document_id))

        assert len(pages) >= 2
        assert [subscription.connection_id for page in pages for subscription in page] == ids

    @staticmethod
    def _connection(client: DynamoDBClient, table_name: str, connection_id: str) -> Any:
        key = {"pk": {"S": f"CONNECTION#{connection_id}"}, "sk": {"S": "CONNECTION"}}
        return client.get_item(TableName=table_name, Key=key, ConsistentRead=True).get("Item")


# --- faults ---


def offline_client(endpoint_url: str | None = None) -> DynamoDBClient:
    return boto3.client(
        "dynamodb",
        region_name="eu-west-1",
        endpoint_url=endpoint_url,
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(connect_timeout=1, retries={"mode": "standard", "total_max_attempts": 1}),
    )


_WRITES: list[Callable[[ProgressStore], object]] = [
    lambda store: start(store, "d"),
    lambda store: advance(store, "d"),
    lambda store: store.heartbeat("d", run_id="run-1"),
    lambda store: finish(store, "d"),
]


@pytest.mark.parametrize("write", _WRITES)
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ProvisionedThroughputExceededException", 400),
        ("ThrottlingException", 400),
        ("RequestLimitExceeded", 400),
        ("TransactionConflictException", 400),
        ("InternalServerError", 500),
        ("ServiceUnavailable", 503),
    ],
)
def test_a_fault_that_passes_is_told_as_such(write: Callable[[ProgressStore], object], code: str, status: int) -> None:
    client = offline_client()
    with Stubber(client) as stubber:
        stubber.add_client_error("update_item", service_error_code=code, http_status_code=status)
        with pytest.raises(StoreUnavailable):
            write(ProgressStore(client, "t"))
    client.close()


@pytest.mark.parametrize("write", _WRITES)
@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException", "ValidationException"])
def test_a_fault_that_stays_is_not_told_as_one_that_passes(write: Callable[[ProgressStore], object], code: str) -> None:
    client = offline_client()
    with Stubber(client) as stubber:
        stubber.add_client_error("update_item", service_error_code=code, http_status_code=400)
        with pytest.raises(ClientError, match=code):
            write(ProgressStore(client, "t"))
    client.close()


@pytest.mark.parametrize("write", _WRITES)
def test_a_table_that_cannot_be_reached_is_unavailable(write: Callable[[ProgressStore], object]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        client = offline_client(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(StoreUnavailable):
            write(ProgressStore(client, "t"))
        client.close()


def test_a_request_that_cannot_be_made_is_not_tried_for_ever() -> None:
    client = offline_client()
    with pytest.raises(Exception, match="Parameter validation failed") as caught:
        start(ProgressStore(client, "t"), "d", run_id=7)
    client.close()

    assert not isinstance(caught.value, StoreUnavailable)


def test_a_disconnect_deletes_again_what_dynamodb_left_over() -> None:
    client = offline_client()
    key = {"pk": {"S": "DOCUMENT#d"}, "sk": {"S": "CONNECTION#c"}}
    connection = {"pk": {"S": "CONNECTION#c"}, "sk": {"S": "CONNECTION"}}
    left = {"t": [{"DeleteRequest": {"Key": key}}]}
    with Stubber(client) as stubber:
        stubber.add_response("query", {"Items": [key]})
        stubber.add_response(
            "batch_write_item",
            {"UnprocessedItems": left},
            {"RequestItems": {"t": [*left["t"], {"DeleteRequest": {"Key": connection}}]}},
        )
        stubber.add_response("batch_write_item", {"UnprocessedItems": {}}, {"RequestItems": left})
        ProgressStore(client, "t").remove_connection("c")
        stubber.assert_no_pending_responses()
    client.close()
