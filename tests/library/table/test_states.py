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

from docprogress.document import (
    MAX_ORDER,
    RETRY_WITHIN_SECONDS,
    Beginning,
    Connection,
    DocumentState,
    ErrorCode,
    Failure,
    Phase,
    Run,
    Status,
    Tally,
    Update,
)
from docprogress.errors import (
    AlreadyProcessed,
    BeingProcessed,
    Cancelled,
    DocumentExists,
    StoreUnavailable,
    Superseded,
)
from docprogress.table.client import Table
from docprogress.table.connections import Connections
from docprogress.table.items import ACTIVE_SHARDS, ACTIVITY_STEP_MS, active_shard, activity_step
from docprogress.table.states import CANCELLED, STALLED, STALLED_AND_TRIED_AGAIN, States
from local.emulator import REGION
from tests.functions.fakes import InMemoryStore
from tests.library.table.support import (
    ABANDONED,
    NOW,
    NOW_MS,
    Clock,
    advance,
    begin,
    finish,
    live,
    offline_client,
    raw,
    start,
)

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


# --- states ---


@pytest.mark.emulator
class TestStates:
    def test_a_document_nobody_has_started_is_unknown(self, store: States, document_id: str) -> None:
        assert store.read(document_id) is None

    def test_a_start_is_what_is_read(self, store: States, document_id: str) -> None:
        started = start(store, document_id, owner="alice")

        assert (started.status, started.sequence, started.total) == (Status.STARTED, NOW_MS + 1, 10)
        assert (started.processed, started.run_id, started.owner) == (0, "run-1", "alice")
        assert store.read(document_id) == started

    def test_pages_add_up(self, store: States, document_id: str) -> None:
        start(store, document_id)
        advance(store, document_id, 3)
        state = advance(store, document_id, 4)

        assert (state.status, state.processed, state.sequence) == (Status.PROGRESS, 7, NOW_MS + 3)
        assert store.read(document_id) == state

    def test_the_last_pages_are_counted_with_the_end(self, store: States, document_id: str) -> None:
        start(store, document_id)
        state = finish(store, document_id, pages=10)

        assert (state.status, state.processed, state.sequence) == (Status.COMPLETE, 10, NOW_MS + 2)
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

    def test_an_event_repeated_long_after_the_end_is_already_processed(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        finish(store, document_id)
        clock.now += 10 * ABANDONED
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id)

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

        assert (again.status, again.processed, again.failure, again.sequence) == (Status.STARTED, 0, None, NOW_MS + 4)
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

        assert (again.sequence, again.processed) == (NOW_MS + 3, 0)

    @pytest.mark.parametrize("sign", ["heartbeat", "advance"])
    def test_a_worker_that_shows_it_is_alive_keeps_its_run(
        self, store: States, document_id: str, clock: Clock, sign: str
    ) -> None:
        start(store, document_id)
        for _ in range(4):
            clock.now += 30
            if sign == "heartbeat":
                store.heartbeat(Run(document_id, "run-1"))
            else:
                advance(store, document_id)

        with pytest.raises(BeingProcessed):
            start(store, document_id)

    def test_each_attempt_at_a_run_knows_how_many_are_left(self, store: States, document_id: str, clock: Clock) -> None:
        left = []
        for attempt in range(3):
            beginning = Beginning(f"write-{attempt}", ABANDONED, retry_follows=2)
            left.append(store.begin(Run(document_id, "run-1"), beginning).retries_left)
            clock.now += ABANDONED + 1

        assert left == [2, 1, 0]

    def test_a_new_run_replaces_a_run_under_way_and_fences_its_writes(self, store: States, document_id: str) -> None:
        start(store, document_id, owner="alice")
        newer = start(store, document_id, run_id="run-2")

        for write in (
            lambda: advance(store, document_id),
            lambda: advance(store, document_id, not_within_seconds=60.0),
            lambda: finish(store, document_id),
            lambda: finish(store, document_id, Failure("No.")),
            lambda: store.heartbeat(Run(document_id, "run-1")),
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
            lambda: store.heartbeat(Run(document_id, "run-1")),
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
            lambda: store.heartbeat(Run(document_id, "run-1")),
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

        assert sequences == [NOW_MS + number for number in range(1, 10)]

    @pytest.mark.parametrize("tally", [None, Tally("a")])
    def test_an_update_within_the_interval_is_not_written(
        self, store: States, document_id: str, clock: Clock, tally: Tally | None
    ) -> None:
        started = start(store, document_id)
        clock.now += 0.2

        assert advance(store, document_id, 1, not_within_seconds=0.25, tally=tally) is None
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
        store.heartbeat(Run(document_id, "run-1"))

        assert store.read(document_id) == started
        assert raw(client, table_name, document_id)["heard_at"]["N"] == str(NOW_MS + 1000)

    def test_a_heartbeat_takes_no_turn_from_an_update(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 1
        store.heartbeat(Run(document_id, "run-1"))

        assert advance(store, document_id, not_within_seconds=0.5) is not None

    def test_documents_are_in_the_index_of_activity_until_their_end_was_announced(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str
    ) -> None:
        def shard() -> str | None:
            found: str | None = raw(client, table_name, document_id).get("active_shard", {}).get("S")
            return found

        start(store, document_id)
        active = shard()
        assert active is not None
        advance(store, document_id)
        store.heartbeat(Run(document_id, "run-1"))
        assert shard() == active
        end = finish(store, document_id)
        assert shard() == active, "an end that nobody was told must be found"
        store.announced(end._replace(sequence=end.sequence - 1))
        assert shard() == active, "what was announced is older than the end"
        store.announced(end)
        assert shard() is None
        begin(store, document_id, run_id="run-2")
        assert shard() == active

    def test_an_expired_state_is_not_read(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 3599
        assert store.read(document_id) is not None
        clock.now += 2
        assert store.read(document_id) is None

    def test_what_is_read_in_other_ways_is_the_same_state_for_as_long(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        assert (store.find(document_id), store.ownership(document_id)) == (None, None)
        state = start(store, document_id, owner="alice")
        assert store.find(document_id) == store.read(document_id) == state
        assert store.ownership(document_id) == (Status.STARTED, "alice")
        clock.now += 3600
        assert (store.find(document_id), store.ownership(document_id)) == (None, None)

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
            state = advance(
                States(Table(table_name, lambda: forgetful), now=clock), document_id, 4, not_within_seconds=0.25
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
        assert (mine.processed, mine.sequence) == (11, NOW_MS + 3)
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
        assert advance(store, document_id, 2, tally=Tally("a", 57)).processed == 59, "one more page is one page"

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

        assert (end.processed, end.sequence, end.failure) == (4, NOW_MS + 2, failure)
        with pytest.raises(Superseded):
            finish(store, document_id, failure, pages=4, write_id="another")

    def test_a_start_that_was_never_answered_is_known_when_it_is_repeated(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            begin(States(Table(table_name, lambda: forgetful), now=clock), document_id, write_id="start")

        assert begin(store, document_id, write_id="start").attempt == 1
        with pytest.raises(BeingProcessed):
            start(store, document_id, write_id="another")

    def test_an_attempt_whose_beginning_was_never_answered_is_known_when_it_is_repeated(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        begin(store, document_id)
        clock.now += ABANDONED + 1

        assert begin(store, document_id, write_id="w").attempt == 2
        assert begin(store, document_id, write_id="w").attempt == 2, "it is this worker that is on the run"

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
            store.leave(Run(document_id, "run-1"), "a")
        store.leave(Run(document_id, "run-0"), "b")
        assert tallies() == {"M": {"b": {"N": "1"}}}
        assert store.read(document_id) == state, "leaving is no update"
        finish(store, document_id, pages=2, tally=Tally("b", 1))
        assert tallies() is None
        store.leave(Run(document_id, "run-1"), "b")
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
                *("begin", "begin old", "begin new", "say", "cancel", "owned heartbeat"),
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
            "heartbeat": lambda: store.heartbeat(Run(document_id, run_id)),
            "finish": lambda: finish(store, document_id, run_id=run_id, pages=1),
            "fail": lambda: finish(store, document_id, Failure("No."), run_id=run_id),
            "recoverable": lambda: finish(store, document_id, Failure("Again.", recoverable=True), run_id=run_id),
            "count": lambda: advance(store, document_id, 5, run_id=run_id, tally=tallies[run_id]),
            "count unanswered": lambda: advance(store, document_id, 4, run_id=run_id, tally=tallies[run_id]),
            "claim counting": lambda: advance(
                store, document_id, 5, run_id=run_id, tally=tallies[run_id], not_within_seconds=1.0
            ),
            "count and finish": lambda: finish(store, document_id, run_id=run_id, pages=5, tally=tallies[run_id]),
            "leave": lambda: store.leave(Run(document_id, run_id), run_id),
            "begin": lambda: begin(store, document_id, run_id=run_id, owner=owner, retry_follows=1),
            "begin old": lambda: begin(store, document_id, run_id=run_id, order=1),
            "begin new": lambda: begin(store, document_id, run_id=run_id, order=10**20),
            "say": lambda: advance(store, document_id, 0, run_id=run_id, message="m", phase=Phase("p", 1), total=9),
            "cancel": lambda: store.cancel(document_id, principal_id=owner),
            "owned heartbeat": lambda: store.heartbeat(Run(document_id, run_id), owner=owner),
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

        assert (state.owner, state.sequence) == ("alice", NOW_MS + 1)

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


# --- documents that nobody writes any more ---


@pytest.mark.emulator
class TestSilent:
    def _settle(self, store: States, document_id: str, *, again: bool = False) -> DocumentState | None:
        """What the watchdog does when it looks; what it would tell."""
        found = [silent for silent in store.silent_documents(120.0) if silent.document_id == document_id]
        settled = store.settle(found[0], 120.0, again=again) if found else None
        return settled and settled.state

    def test_a_document_is_found_silent_after_so_long_and_no_sooner(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        clock.now += 119
        assert self._settle(store, document_id) is None, "the index is coarse, the row is not"
        clock.now += 2
        ended = self._settle(store, document_id)
        assert ended is not None
        assert (ended.status, ended.sequence) == (Status.ERROR, NOW_MS + 2)

    def test_a_worker_that_dies_before_it_starts_is_found(self, store: States, document_id: str, clock: Clock) -> None:
        begin(store, document_id)
        clock.now += 121
        ended = self._settle(store, document_id)

        assert ended is not None
        assert ended.failure == STALLED

    @pytest.mark.parametrize("sign", ["heartbeat", "advance"])
    def test_a_worker_that_writes_is_not_silent(self, store: States, document_id: str, clock: Clock, sign: str) -> None:
        start(store, document_id)
        clock.now += 100
        if sign == "heartbeat":
            store.heartbeat(Run(document_id, "run-1"))
        else:
            advance(store, document_id)
        clock.now += 100

        assert self._settle(store, document_id) is None
        assert advance(store, document_id).status is Status.PROGRESS

    @pytest.mark.parametrize("failure", [None, Failure("No.")])
    def test_a_document_whose_end_was_announced_is_not_found(
        self, store: States, document_id: str, clock: Clock, failure: Failure | None
    ) -> None:
        start(store, document_id)
        store.announced(finish(store, document_id, failure))
        clock.now += 1000

        assert self._settle(store, document_id) is None

    @pytest.mark.parametrize("failure", [None, Failure("No."), Failure("Again.", recoverable=True)])
    def test_an_end_that_nobody_was_told_is_told_as_it_stands(
        self, store: States, document_id: str, clock: Clock, failure: Failure | None
    ) -> None:
        start(store, document_id)
        end = finish(store, document_id, failure)
        clock.now += 121

        assert self._settle(store, document_id) == end
        assert self._settle(store, document_id) == end, "until it is noted as announced"
        store.announced(end)
        assert self._settle(store, document_id) is None

    @pytest.mark.parametrize("said", [{"result": {"key": "r"}}, {"failure": Failure("No.", "BROKEN")}])
    def test_an_end_that_the_stream_has_not_told_is_given_to_it_again(
        self, store: States, document_id: str, clock: Clock, said: dict[str, Any]
    ) -> None:
        start(store, document_id)
        end = finish(store, document_id, **said)
        clock.now += 121

        again = self._settle(store, document_id, again=True)
        assert again == end._replace(sequence=end.sequence + 1), "the stream's function tells what is newer"
        assert self._settle(store, document_id, again=True) is None, "it has its time to be told"

    def test_a_silent_document_is_ended_once(self, store: States, document_id: str, clock: Clock) -> None:
        start(store, document_id)
        clock.now += 200
        ended = self._settle(store, document_id)
        assert ended is not None
        assert ended.failure == STALLED
        store.announced(ended)

        assert self._settle(store, document_id) is None
        assert store.read(document_id) == ended
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id)

    def test_a_stall_is_recoverable_as_long_as_an_attempt_is_left(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        failures = []
        for _ in range(3):
            start(store, document_id, retry_follows=2)
            clock.now += 200
            ended = self._settle(store, document_id)
            assert ended is not None
            failures.append(ended.failure)

        assert failures == [STALLED_AND_TRIED_AGAIN, STALLED_AND_TRIED_AGAIN, STALLED]
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id, retry_follows=2)

    def test_an_error_that_was_to_be_tried_again_and_was_not_becomes_final(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id, retry_follows=True)
        told = finish(store, document_id, Failure("It broke.", "WORN_OUT", recoverable=True))
        store.announced(told)
        clock.now += RETRY_WITHIN_SECONDS - 1
        assert self._settle(store, document_id) is None
        clock.now += 2
        ended = self._settle(store, document_id)

        assert ended is not None
        assert ended.failure == Failure("It broke. It was not tried again.", "WORN_OUT")
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id)

    def test_a_row_of_an_older_version_is_ended_too(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str, clock: Clock
    ) -> None:
        client.put_item(TableName=table_name, Item=row_of_an_older_version(document_id))
        clock.now += 121
        ended = self._settle(store, document_id)

        assert ended is not None
        assert (ended.sequence, ended.failure) == (8, STALLED)

    def test_a_worker_of_an_older_version_that_writes_while_the_watchdog_looks_is_not_ended(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str, clock: Clock
    ) -> None:
        client.put_item(TableName=table_name, Item=row_of_an_older_version(document_id))
        clock.now += 121
        row = row_of_an_older_version(document_id) | {"updated_at": {"N": str(NOW_MS + 121_000)}}
        looked = False

        def write_after_the_look(**_: object) -> None:
            nonlocal looked
            if not looked:
                looked = True
                client.put_item(TableName=table_name, Item=row)

        client.meta.events.register("after-call.dynamodb.UpdateItem", write_after_the_look)
        try:
            assert self._settle(store, document_id) is None
        finally:
            client.meta.events.unregister("after-call.dynamodb.UpdateItem", write_after_the_look)

        assert looked
        assert raw(client, table_name, document_id) == row, "no `heard_at` tells of its write"


def row_of_an_older_version(document_id: str) -> dict[str, Any]:
    return {
        "pk": {"S": f"DOCUMENT#{document_id}"},
        "sk": {"S": "STATE"},
        "status": {"S": "progress"},
        "sequence": {"N": "7"},
        "total_pages": {"N": "10"},
        "pages_processed": {"N": "5"},
        "run_id": {"S": "run"},
        "active_shard": {"S": "ACTIVE#3"},
        "updated_at": {"N": str(NOW_MS)},
        "expires_at": {"N": "99999999999"},
    }


# --- runs in order ---


@pytest.mark.emulator
class TestOrder:
    # Two sequencers of S3, which are larger than what a float tells apart.
    OLD, NEW = 0x0055AED6DCD90281E5, 0x0055AED6DCD90281E6

    def test_an_older_run_does_not_begin_once_a_newer_one_has(self, store: States, document_id: str) -> None:
        start(store, document_id, run_id="new", order=self.NEW)
        newest = finish(store, document_id, run_id="new")
        with pytest.raises(Superseded):
            begin(store, document_id, run_id="old", order=self.OLD)
        assert store.read(document_id) == newest

    def test_a_newer_run_begins_while_an_older_one_is_under_way(self, store: States, document_id: str) -> None:
        old = begin(store, document_id, run_id="old", order=self.OLD)
        begin(store, document_id, run_id="new", order=self.NEW)
        with pytest.raises(Superseded):
            store.heartbeat(old)

    def test_a_run_without_an_order_is_as_new_as_its_beginning(self, store: States, document_id: str) -> None:
        begin(store, document_id, run_id="new", order=self.NEW)
        assert begin(store, document_id, run_id="by hand").attempt == 2, "the clock counts for less than any sequencer"
        with pytest.raises(Superseded):
            begin(store, document_id, run_id="late", order=self.NEW)

    def test_a_run_that_was_replaced_does_not_begin_again_however_late_its_event_is_repeated(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        for run_id in ("first", "second", "third", "fourth"):
            start(store, document_id, run_id=run_id)
            newest = finish(store, document_id, run_id=run_id)
            clock.now += 60
        for run_id in ("first", "second", "third"):
            with pytest.raises(Superseded):
                begin(store, document_id, run_id=run_id)
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id, run_id="fourth")
        assert store.read(document_id) == newest

    def test_an_order_that_is_given_decides_alone_for_the_same_file_may_be_uploaded_again(
        self, store: States, document_id: str
    ) -> None:
        for order, run_id in enumerate(("this file", "that file", "this file")):
            assert begin(store, document_id, run_id=run_id, order=order).run_id == run_id

    def test_a_run_whose_clock_is_ahead_keeps_no_later_one_out(
        self, table: Table, store: States, document_id: str, clock: Clock
    ) -> None:
        ahead = Clock()
        ahead.now += 3600
        begin(States(table, now=ahead), document_id, run_id="ahead")

        assert begin(store, document_id, run_id="later").attempt == 2

    def test_the_largest_order_is_kept_to_the_last_digit(self, store: States, document_id: str) -> None:
        begin(store, document_id, run_id="new", order=MAX_ORDER)
        with pytest.raises(Superseded):
            begin(store, document_id, run_id="old", order=MAX_ORDER - 1)
        begin(store, document_id, run_id="by hand")
        with pytest.raises(Superseded):
            begin(store, document_id, run_id="old", order=MAX_ORDER - 1)


# --- cancelling ---


@pytest.mark.emulator
class TestCancelling:
    def test_a_run_that_is_cancelled_has_ended_for_its_worker_and_its_retries(
        self, store: States, document_id: str
    ) -> None:
        run = begin(store, document_id, retry_follows=True)
        cancelled = store.cancel(document_id, principal_id=None)

        assert (cancelled.failure, cancelled.run_id) == (CANCELLED, "run-1")
        with pytest.raises(Cancelled) as caught:
            store.write(run, Update(status=Status.PROGRESS, pages=1))
        assert caught.value.state == cancelled
        with pytest.raises(Cancelled):
            store.heartbeat(run)
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id)
        assert store.cancel(document_id, principal_id=None) == cancelled

    def test_a_cancellation_and_an_end_have_one_winner(self, store: States, document_id: str) -> None:
        start(store, document_id)
        end = finish(store, document_id)

        assert store.cancel(document_id, principal_id=None) == end

    def test_an_error_that_is_to_be_tried_again_can_be_cancelled(self, store: States, document_id: str) -> None:
        start(store, document_id)
        finish(store, document_id, Failure("Again.", recoverable=True))

        assert store.cancel(document_id, principal_id=None).failure == CANCELLED
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id)

    @pytest.mark.parametrize(("owner", "principal"), [("alice", "bob"), ("alice", None), (None, "bob")])
    def test_somebody_elses_document_is_not_cancelled(
        self, store: States, document_id: str, owner: str | None, principal: str | None
    ) -> None:
        under_way = start(store, document_id, owner=owner)

        assert store.cancel(document_id, principal_id=principal) == under_way

    def test_a_document_that_is_gone_by_now_is_nobodys_to_cancel(self, store: States, document_id: str) -> None:
        assert store.cancel(document_id, principal_id="alice") is None
        assert store.read(document_id) is None

    @pytest.mark.parametrize("owner", ["alice", None])
    def test_a_document_that_was_cancelled_before_it_began_does_not_begin_but_its_next_run_does(
        self, store: States, document_id: str, owner: str | None
    ) -> None:
        if owner:
            store.expect(document_id, owner=owner)
        cancelled = store.cancel(document_id, principal_id=owner)
        assert (cancelled.failure, cancelled.owner) == (CANCELLED, owner)

        with pytest.raises(Cancelled):
            begin(store, document_id, run_id="run-1", order=7)
        with pytest.raises(AlreadyProcessed):
            begin(store, document_id, run_id="run-1", order=7)
        with pytest.raises(Superseded):
            begin(store, document_id, run_id="run-0", order=6)
        assert begin(store, document_id, run_id="run-2", order=8).attempt == 1

    def test_a_cancellation_that_no_worker_has_told_is_found_by_the_watchdog(
        self, store: States, document_id: str, clock: Clock
    ) -> None:
        cancelled = store.cancel(document_id, principal_id=None)
        clock.now += 121
        (silent,) = [each for each in store.silent_documents(120.0) if each.document_id == document_id]

        assert store.settle(silent, 120.0) == (cancelled, False)


# --- what a row costs and how long it lasts ---


@pytest.mark.emulator
class TestRows:
    def test_a_sequence_goes_on_after_its_row_has_expired(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        for _ in range(100):
            clock.now += 0.25
            advance(store, document_id)
        last = finish(store, document_id)
        clock.now += 3600
        client.delete_item(TableName=table_name, Key={"pk": {"S": f"DOCUMENT#{document_id}"}, "sk": {"S": "STATE"}})

        assert start(store, document_id, run_id="run-2").sequence > last.sequence, "an open tab would be deaf"

    def test_four_updates_a_second_leave_the_index_alone_but_once_in_fifteen_seconds(
        self, client: DynamoDBClient, table_name: str, store: States, document_id: str, clock: Clock
    ) -> None:
        start(store, document_id)
        units, place = 0, raw(client, table_name, document_id)["updated_at"]
        for _ in range(240):
            clock.now += 0.25
            advance(store, document_id)
            found = raw(client, table_name, document_id)["updated_at"]
            # The row, and for a changed sort key the index's old and new entry.
            units += 1 if found == place else 3
            place = found

        assert units / 240 <= 1.3

    def test_documents_are_spread_over_all_shards(self) -> None:
        shards = [active_shard(f"document-{number}")["S"] for number in range(4000)]
        assert all(shards.count(f"ACTIVE#{number}") > 300 for number in range(ACTIVE_SHARDS))

    def test_documents_do_not_all_move_in_the_index_at_once(self) -> None:
        moves = {activity_step(f"document-{number}", NOW_MS) for number in range(1000)}
        assert len(moves) > 900
        assert all(NOW_MS - ACTIVITY_STEP_MS < move <= NOW_MS for move in moves)

    def test_what_a_run_said_of_itself_does_not_outlive_it(self, store: States, document_id: str) -> None:
        start(store, document_id, owner="alice")
        advance(store, document_id, message="m", phase=Phase("p", 1, 2), total=7)
        finish(store, document_id, result={"key": "r"}, pages_unreadable=1)
        begin(store, document_id, run_id="run-2")

        taken_up = store.read(document_id)
        assert taken_up is not None
        assert (taken_up.message, taken_up.phase, taken_up.total, taken_up.result) == (None, None, None, None)
        assert (taken_up.pages_unreadable, taken_up.status, taken_up.owner) == (0, Status.PENDING, "alice")

    def test_everything_that_is_said_comes_back(self, store: States, document_id: str) -> None:
        run = begin(store, document_id)
        store.write(run, Update(status=Status.STARTED, unit="rows"))
        said = advance(store, document_id, 3, message="Reading ü🎉", phase=Phase("ocr", 2, 3), total=40)
        assert (said.message, said.phase, said.total, said.unit) == ("Reading ü🎉", Phase("ocr", 2, 3), 40, "rows")
        assert store.read(document_id) == said
        end = finish(store, document_id, result={"key": "ü", "deep": [{"a": None}]}, pages_unreadable=2)
        assert (end.result, end.pages_unreadable) == ({"key": "ü", "deep": [{"a": None}]}, 2)
        assert store.read(document_id) == end

    def test_a_message_is_not_lost_when_the_pages_before_it_were_counted_after_all(
        self, table_name: str, clock: Clock, document_id: str, store: States
    ) -> None:
        start(store, document_id)
        with LosingOneAnswer(attempts=1) as forgetful, pytest.raises(StoreUnavailable):
            advance(States(Table(table_name, lambda: forgetful), now=clock), document_id, 5, tally=Tally("a"))

        again = advance(store, document_id, 5, tally=Tally("a"), message="newer")
        assert (again.processed, again.message) == (5, "newer")


# --- faults ---


_WRITES: list[Callable[[States], object]] = [
    lambda store: start(store, "d"),
    lambda store: advance(store, "d"),
    lambda store: store.heartbeat(Run("d", "run-1")),
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


def test_a_row_that_is_deleted_while_a_run_would_begin_is_one_to_try_again() -> None:
    """DynamoDB gives the row that a write has met, unless there is none any more."""
    client = offline_client()
    with Stubber(client) as stubber:
        stubber.add_client_error("update_item", service_error_code="ConditionalCheckFailedException")
        with pytest.raises(StoreUnavailable):
            begin(States(Table("t", lambda: client)), "d")
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


def test_a_runs_correlation_id_is_kept_until_the_next_run(store: States, document_id: str) -> None:
    first = begin(store, document_id)
    store.write(first, Update(status=Status.STARTED, total=2, correlation_id="page-1"))
    known = store.write(first, Update(status=Status.COMPLETE))
    assert known is not None
    assert known.correlation_id == "page-1"
    begin(store, document_id, run_id="run-2")
    state = store.read(document_id)
    assert state is not None
    assert state.correlation_id is None
