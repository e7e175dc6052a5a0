"""The table's rules, on a DynamoDB that evaluates the real expressions.

The emulator is not AWS: not proved here are IAM, throttling, TTL's own deletions, and that DynamoDB counts a
page of a Query as the emulator does. Faults are played by botocore's Stubber, by a port where nobody listens,
and by an answer that is lost on its way back.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from botocore.stub import Stubber
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docprogress.document import Connection, ErrorCode, Failure, Status, Tally
from docprogress.errors import AlreadyProcessed, BeingProcessed, DocumentExists, StoreUnavailable, Superseded
from docprogress.table.client import Table
from docprogress.table.connections import Connections
from docprogress.table.states import SilentDocument, States
from local.emulator import REGION
from tests.functions.fakes import InMemoryStore
from tests.library.table.support import ABANDONED, NOW, Clock, advance, finish, live, offline_client, raw, start

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


# --- states ---


@pytest.mark.emulator
class TestStates:
    def test_a_document_nobody_has_started_is_unknown(self, store: States, document_id: str) -> None:
        assert store.read(document_id) is None

    def test_a_start_is_what_is_read(self, store: States, document_id: str) -> None:
        started = start(store, document_id, owner="alice")

        assert (started.status, started.sequence, started.total) == (Status.STARTED, 1, 10)
        assert (started.processed, started.run_id, started.owner) == (0, "run-1", "alice")
        assert store.read(document_id) == started

    def test_pages_add_up(self, store: States, document_id: str) -> None:
        start(store, document_id)
        advance(store, document_id, 3)
        state = advance(store, document_id, 4)

        assert (state.status, state.processed, state.sequence) == (Status.PROGRESS, 7, 3)
        assert store.read(document_id) == state

    def test_the_last_pages_are_counted_with_the_end(self, store: States, document_id: str) -> None:
        start(store, document_id)
        state = finish(store, document_id, pages=10)

        assert (state.status, state.processed, state.sequence) == (Status.COMPLETE, 10, 2)
        assert store.read(document_id) == state

    @pytest.mark.parametrize("recoverable", [True, False])
    def test_a_failure_is_kept_word_for_word(self, store: States, document_id: str, recoverable: bool) -> None:
        failure = Failure("Not a PDF: ü🎉", ErrorCode.PROCESSING_STALLED, recoverable)
        start(store, document_id)
        finish(store, document_id, failure)

        state = store.read(document_id)
        assert state is not None
        assert (state.status, state.failure) == (Status.ERROR, failure)

    def test_the_same_run_is_not_processed_again_after_its_end(self, store: States, document_id: str) -> None:
        start(store, document_id)
        finish(store, document_id)
        with pytest.raises(AlreadyProcessed):
            start(store, document_id)

    def test_the_same_run_is_not_processed_again_after_a_final_error(self, store: States, document_id: str) -> None:
        start(store, document_id)
        finish(store, document_id, Failure("No."))
        with pytest.raises(AlreadyProcessed):
            start(store, document_id)

    def test_the_same_run_starts_again_after_a_recoverable_error(self, store: States, document_id: str) -> None:
        start(store, document_id)
        advance(store, document_id, 4)
        finish(store, document_id, Failure("Again.", recoverable=True))

        again = start(store, document_id)

        assert (again.status, again.processed, again.failure, again.sequence) == (Status.STARTED, 0, None, 4)
        assert store.read(document_id) == again

    def test_a_start_leaves_nothing_of_an_error_behind(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str
    ) -> None:
        start(store, document_id)
        finish(store, document_id, Failure("Again.", recoverable=True))
        start(store, document_id)

        assert not {"error_code", "error_message", "recoverable"} & raw(client, table_name, document_id).keys()

    def test_a_second_worker_is_kept_out_while_the_first_is_heard_of(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += ABANDONED - 1
        with pytest.raises(BeingProcessed):
            start(store, document_id)

    def test_a_run_that_is_silent_for_too_long_is_taken_over(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        advance(store, document_id, 4)
        clock.now += ABANDONED + 1
        again = start(store, document_id)

        assert (again.sequence, again.processed) == (3, 0)

    @pytest.mark.parametrize("sign", ["heartbeat", "advance"])
    def test_a_worker_that_shows_it_is_alive_keeps_its_run(
        self, store: States, document_id: str, clock: Clock, sign: str
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

    def test_a_new_run_replaces_a_run_under_way_and_fences_its_writes(self, store: States, document_id: str) -> None:
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
        self, store: States, document_id: str, failure: Failure | None
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
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str
    ) -> None:
        for write in (
            lambda: advance(store, document_id),
            lambda: finish(store, document_id),
            lambda: store.heartbeat(document_id, run_id="run-1"),
        ):
            with pytest.raises(Superseded):
                write()
        assert raw(client, table_name, document_id) is None

    def test_the_sequence_grows_across_runs(self, store: States, document_id: str) -> None:
        sequences = []
        for run in ("run-1", "run-2", "run-3"):
            sequences.append(start(store, document_id, run_id=run).sequence)
            sequences.append(advance(store, document_id, run_id=run).sequence)
            sequences.append(finish(store, document_id, run_id=run).sequence)

        assert sequences == list(range(1, 10))

    def test_an_update_within_the_interval_is_not_written(self, store: States, document_id: str, clock: Clock) -> None:
        started = start(store, document_id)
        clock.now += 0.2

        assert advance(store, document_id, 5, not_within_seconds=0.25) is None
        assert store.read(document_id) == started

    def test_an_update_after_the_interval_is_written(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 0.3

        assert advance(store, document_id, 5, not_within_seconds=0.25).processed == 5

    def test_of_parallel_workers_one_gets_the_turn(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 1

        assert advance(store, document_id, 2, not_within_seconds=0.25) is not None
        assert advance(store, document_id, 3, not_within_seconds=0.25) is None

    def test_a_heartbeat_is_no_update(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str, clock: Clock
    ) -> None:
        started = start(store, document_id)
        clock.now += 1
        store.heartbeat(document_id, run_id="run-1")

        assert store.read(document_id) == started
        assert raw(client, table_name, document_id)["updated_at"]["N"] == str(int((NOW + 1) * 1000))

    def test_a_heartbeat_takes_no_turn_from_an_update(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 1
        store.heartbeat(document_id, run_id="run-1")

        assert advance(store, document_id, not_within_seconds=0.5) is not None

    def test_only_documents_under_way_are_in_the_index_of_activity(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str
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

    def test_an_expired_state_is_not_read(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 3599
        assert store.read(document_id) is not None
        clock.now += 2
        assert store.read(document_id) is None

    def test_every_update_keeps_a_state_for_its_whole_retention(
        self, store: States, document_id: str, clock: Clock
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
    def test_any_document_id_comes_back_as_it_went_in(
        self, store: States, connections: Connections, document_id: str
    ) -> None:
        run_id = uuid.uuid4().hex
        state = start(store, document_id, run_id=run_id)
        connections.subscribe(document_id, Connection("c", int(NOW) + 60, None))

        assert state.document_id == document_id
        assert store.read(document_id) == state
        assert live(connections, document_id) == ["c"]

    def test_documents_whose_names_begin_alike_are_apart(
        self, store: States, connections: Connections, document_id: str
    ) -> None:
        start(store, document_id)
        connections.subscribe(document_id + "#CONNECTION", Connection("c", int(NOW) + 60, None))

        assert store.read(document_id[:-1]) is None
        assert live(connections, document_id) == []

    def test_an_update_whose_answer_was_lost_is_counted_once(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        start(store, document_id)
        clock.now += 1
        with LosingOneAnswer() as forgetful:
            state = States(Table(table_name, lambda: forgetful), now=clock).advance(
                document_id, run_id="run-1", pages=4, not_within_seconds=0.25
            )

        # None would have the tracker count these pages again.
        assert state is not None
        assert state.processed == 4

    def test_pages_whose_answer_was_lost_are_counted_once_without_a_rate(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        start(store, document_id)
        with LosingOneAnswer() as forgetful:
            advance(States(Table(table_name, lambda: forgetful), now=clock), document_id, 4)

        state = store.read(document_id)
        assert state is not None
        assert state.processed == 4

    def test_an_end_whose_answer_was_lost_is_the_workers_own(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        start(store, document_id)
        with LosingOneAnswer() as forgetful:
            # Superseded would keep the last message from everybody who watches.
            state = finish(States(Table(table_name, lambda: forgetful), now=clock), document_id)

        assert state.status is Status.COMPLETE
        assert store.read(document_id) == state

    def test_a_start_whose_answer_was_lost_is_the_workers_own(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        with LosingOneAnswer() as forgetful:
            state = start(States(Table(table_name, lambda: forgetful), now=clock), document_id)

        assert state.status is Status.STARTED
        assert store.read(document_id) == state

    @pytest.mark.parametrize("interval_seconds", [0.0, 0.25])
    def test_an_update_is_counted_once_when_another_worker_writes_before_boto3_repeats_it(
        self, table_name: str, clock: Clock, document_id: str, store: States, interval_seconds: float
    ) -> None:
        start(store, document_id, total=20)
        clock.now += 1
        with LosingOneAnswer(lambda: advance(store, document_id, tally=Tally("b"))) as forgetful:
            mine = advance(
                States(Table(table_name, lambda: forgetful), now=clock),
                document_id,
                10,
                tally=Tally("a"),
                not_within_seconds=interval_seconds,
            )

        # None would have the tracker count these pages again.
        assert mine is not None
        assert (mine.processed, mine.sequence) == (11, 3)
        assert store.read(document_id) == mine

    def test_the_last_pages_are_counted_once_when_the_update_before_them_was_never_answered(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        start(store, document_id, total=100)
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            advance(States(Table(table_name, lambda: forgetful), now=clock), document_id, 50, tally=Tally("a"))
        advance(store, document_id, 3, tally=Tally("b"))

        end = finish(store, document_id, pages=60, tally=Tally("a"))

        assert end.processed == 63

    def test_an_update_that_was_never_answered_is_repeated_with_the_pages_that_came_after_it(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        start(store, document_id, total=100)
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            advance(States(Table(table_name, lambda: forgetful), now=clock), document_id, 50, tally=Tally("a"))

        assert advance(store, document_id, 50, tally=Tally("a")).processed == 50
        assert advance(store, document_id, 57, tally=Tally("a")).processed == 57
        assert advance(store, document_id, 1, tally=Tally("a", 57)).processed == 58

    @pytest.mark.parametrize("failure", [None, Failure("No.")])
    def test_an_end_that_was_never_answered_is_known_when_it_is_repeated(
        self, table_name: str, clock: Clock, document_id: str, store: States, failure: Failure | None
    ) -> None:
        start(store, document_id)
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            finish(
                States(Table(table_name, lambda: forgetful), now=clock), document_id, failure, pages=4, write_id="end"
            )

        end = finish(store, document_id, failure, pages=4, write_id="end")

        assert (end.processed, end.sequence, end.failure) == (4, 2, failure)
        with pytest.raises(Superseded):
            finish(store, document_id, failure, pages=4, write_id="another")

    def test_a_start_that_was_never_answered_is_known_when_it_is_repeated(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            start(States(Table(table_name, lambda: forgetful), now=clock), document_id, write_id="start")

        assert start(store, document_id, write_id="start").sequence == 1
        with pytest.raises(BeingProcessed):
            start(store, document_id, write_id="another")

    def test_pages_of_before_a_new_start_of_the_run_are_not_counted_after_it(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        advance(store, document_id, 4, tally=Tally("a"))
        clock.now += ABANDONED + 1
        again = start(store, document_id)

        with pytest.raises(Superseded):
            advance(store, document_id, 1, tally=Tally("a", 4))
        assert store.read(document_id) == again

    def test_the_row_holds_the_tallies_of_those_at_work_alone(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str
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
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str
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
    stores = (States(Table(table_name, lambda: client), now=clock), InMemoryStore(clock))
    tallies = {run_id: Tally(run_id) for run_id in ("run-1", "run-2")}

    def apply(store: States | InMemoryStore, operation: str, run_id: str, owner: str | None) -> object:
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
    def test_an_expected_document_is_pending_and_has_an_owner(self, store: States, document_id: str) -> None:
        store.expect(document_id, owner="alice")

        state = store.read(document_id)
        assert state is not None
        assert (state.owner, state.sequence, state.is_active, state.failure) == ("alice", 0, False, None)

    @pytest.mark.parametrize("event", ["expected", "started"])
    def test_a_document_that_is_known_cannot_be_claimed(self, store: States, document_id: str, event: str) -> None:
        if event == "expected":
            store.expect(document_id, owner="alice")
        else:
            start(store, document_id, owner="alice")
        with pytest.raises(DocumentExists):
            store.expect(document_id, owner="mallory")

        state = store.read(document_id)
        assert state is not None
        assert state.owner == "alice"

    def test_an_expected_document_keeps_its_owner_when_it_starts(self, store: States, document_id: str) -> None:
        store.expect(document_id, owner="alice")
        state = start(store, document_id)

        assert (state.owner, state.sequence) == ("alice", 1)

    def test_the_owner_named_at_the_start_is_the_owner(self, store: States, document_id: str) -> None:
        store.expect(document_id, owner="alice")

        assert start(store, document_id, owner="bob").owner == "bob"

    def test_nothing_but_a_start_is_written_to_an_expected_document(self, store: States, document_id: str) -> None:
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

    def _silent(self, store: States, document_id: str) -> list[SilentDocument]:
        return [silent for silent in store.silent_documents(120.0) if silent.document_id == document_id]

    def test_a_document_is_found_silent_after_so_long_and_no_sooner(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 119
        assert self._silent(store, document_id) == []
        clock.now += 2
        assert self._silent(store, document_id) == [SilentDocument(document_id, int(NOW * 1000))]

    @pytest.mark.parametrize("sign", ["heartbeat", "advance"])
    def test_a_worker_that_writes_is_not_silent(self, store: States, document_id: str, clock: Clock, sign: str) -> None:
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
        self, store: States, document_id: str, clock: Clock, failure: Failure | None
    ) -> None:
        start(store, document_id)
        finish(store, document_id, failure)
        clock.now += 1000

        assert self._silent(store, document_id) == []

    def test_a_silent_document_is_ended_once(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 200
        (silent,) = self._silent(store, document_id)

        ended = store.end_silent(silent, self.STALLED)

        assert ended is not None
        assert (ended.status, ended.failure, ended.sequence) == (Status.ERROR, self.STALLED, 2)
        assert store.end_silent(silent, self.STALLED) is None
        assert store.read(document_id) == ended

    def test_a_worker_heard_of_meanwhile_keeps_its_document(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 200
        (silent,) = self._silent(store, document_id)
        store.heartbeat(document_id, run_id="run-1")

        assert store.end_silent(silent, self.STALLED) is None
        assert advance(store, document_id).status is Status.PROGRESS


# --- faults ---


_WRITES: list[Callable[[States], object]] = [
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
def test_a_fault_that_passes_is_told_as_such(write: Callable[[States], object], code: str, status: int) -> None:
    client = offline_client()
    with Stubber(client) as stubber:
        stubber.add_client_error("update_item", service_error_code=code, http_status_code=status)
        with pytest.raises(StoreUnavailable):
            write(States(Table("t", lambda: client)))
    client.close()


@pytest.mark.parametrize("write", _WRITES)
@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException", "ValidationException"])
def test_a_fault_that_stays_is_not_told_as_one_that_passes(write: Callable[[States], object], code: str) -> None:
    client = offline_client()
    with Stubber(client) as stubber:
        stubber.add_client_error("update_item", service_error_code=code, http_status_code=400)
        with pytest.raises(ClientError, match=code):
            write(States(Table("t", lambda: client)))
    client.close()


@pytest.mark.parametrize("write", _WRITES)
def test_a_table_that_cannot_be_reached_is_unavailable(write: Callable[[States], object]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        client = offline_client(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(StoreUnavailable):
            write(States(Table("t", lambda: client)))
        client.close()


def test_a_request_that_cannot_be_made_is_not_tried_for_ever() -> None:
    client = offline_client()
    with pytest.raises(Exception, match="Parameter validation failed") as caught:
        start(States(Table("t", lambda: client)), "d", run_id=7)
    client.close()

    assert not isinstance(caught.value, StoreUnavailable)
