"""The table's client: its time-outs, whose clock counts, and which failures pass.

Not proved here: that DynamoDB answers with its date, as its documentation shows.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import boto3
import pytest
from botocore.exceptions import CredentialRetrievalError
from botocore.stub import Stubber

from docprogress.document import Run, Status, Update
from docprogress.errors import StoreUnavailable, Superseded
from docprogress.table.client import ConditionFailed, Table, dynamodb_client, failures
from docprogress.table.items import state_key
from docprogress.table.states import States
from tests.functions.fakes import PATIENCE_SECONDS, eventually
from tests.library.table.support import NOW, NOW_MS, begin, offline_client

HEARD = {"S": "run-1"}


class Answering:
    """A client that answers with the table's own time, and keeps what it was sent."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.sent: list[dict[str, Any]] = []

    def update_item(self, **request: Any) -> dict[str, Any]:
        self.sent.append(request["ExpressionAttributeValues"])
        attributes = {**state_key("d"), "status": {"S": "pending"}, "run_id": HEARD, "attempt": {"N": "1"}}
        return {"Attributes": attributes, "ResponseMetadata": {"HTTPHeaders": {"date": formatdate(self.now)}}}

    def times(self, name: str) -> list[int]:
        return [int(values[name]["N"]) for values in self.sent if name in values]


@pytest.mark.parametrize("wrong_seconds", [3600.0, 130.0, -130.0, -3600.0])
def test_a_worker_whose_clock_is_wrong_writes_the_time_of_the_table(wrong_seconds: float) -> None:
    client: Any = Answering()
    states = States(Table("t", lambda: client, clock=lambda: NOW + wrong_seconds))
    begin(states, "d")
    states.write(Run("d", "run-1"), Update(status=Status.PROGRESS, pages=1), not_within_seconds=0.25)

    heard = client.times(":set_heard_at")
    assert heard[0] == NOW_MS + int(wrong_seconds * 1000), "nobody has told it yet"
    assert [abs(each - NOW_MS) < 2000 for each in heard[1:]] == [True, True], "put right at once"
    assert abs(client.times(":set_published_at")[0] - NOW_MS) < 2000
    assert abs(client.times(":due")[0] - NOW_MS) < 2000


def test_a_clock_that_is_right_is_believed_to_the_millisecond() -> None:
    client: Any = Answering()
    table = Table("t", lambda: client, clock=lambda: NOW + 1.234)
    begin(States(table), "d")

    assert table.now() == NOW + 1.234
    assert len(client.sent) == 1


def test_a_clock_that_is_put_right_is_believed_again() -> None:
    client: Any = Answering()
    clock = [NOW + 3600]
    table = Table("t", lambda: client, clock=lambda: clock[0])
    begin(States(table), "d")
    clock[0] = NOW + 1.234
    begin(States(table), "e")

    assert table.now() == NOW + 1.234


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Foo 2026 10:00:00 GMT"])
def test_an_answer_without_a_date_changes_no_clock(date: str) -> None:
    client: Any = Answering()
    client.update_item = lambda **_: {
        "Attributes": {},
        "ResponseMetadata": {"HTTPHeaders": {"date": date} if date else {}},
    }
    table = Table("t", lambda: client, clock=lambda: NOW)
    table.update(state_key("d"))

    assert table.now() == NOW


def test_a_write_that_is_refused_tells_the_time_as_well() -> None:
    client = offline_client()
    table = Table("t", lambda: client, clock=lambda: NOW - 130)
    with Stubber(client) as stubber:
        stubber.add_client_error(
            "update_item",
            service_error_code="ConditionalCheckFailedException",
            response_meta={"HTTPHeaders": {"date": formatdate(NOW)}},
        )
        with pytest.raises(Superseded):
            States(table).heartbeat(Run("d", "r"))
    client.close()

    assert table.now() == NOW


def test_the_tables_client_is_one_of_the_session_that_is_given() -> None:
    client = dynamodb_client(boto3.Session(region_name="eu-west-3"))
    assert client.meta.region_name == "eu-west-3"
    client.close()


def test_a_publication_from_the_future_holds_up_no_other_worker() -> None:
    client: Any = Answering()
    states = States(Table("t", lambda: client), now=lambda: NOW)
    states.write(Run("d", "run-1"), Update(status=Status.PROGRESS, pages=1), not_within_seconds=0.25)

    (ahead,), (due,) = client.times(":ahead"), client.times(":due")
    assert (due, ahead) == (NOW_MS - 249, NOW_MS + 1000), "published between the two, it is not due"


def test_the_tables_client_gives_up_within_seconds_and_serves_fifty_documents_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    client = dynamodb_client(boto3.Session(aws_access_key_id="x", aws_secret_access_key="x"))
    config = client.meta.config
    client.close()

    assert (config.connect_timeout, config.read_timeout) == (2, 3)
    assert config.retries["total_max_attempts"] == 4
    assert config.max_pool_connections >= 50, "urllib3 throws away each connection more"


def test_a_moment_without_credentials_passes() -> None:
    with pytest.raises(StoreUnavailable), failures():
        raise CredentialRetrievalError(provider="container", error_msg="timed out")


def test_a_failure_of_ones_own_stays_what_it_is() -> None:
    with pytest.raises(LookupError), failures():
        raise LookupError
    with pytest.raises(ConditionFailed), failures():
        raise ConditionFailed({})


def test_rows_that_the_table_had_no_time_for_are_asked_for_again_until_it_is_in_vain() -> None:
    client = offline_client()
    asked, row = [state_key("a"), state_key("b")], {"pk": {"S": "DOCUMENT#a"}}
    with Stubber(client) as answers:
        for keys in (asked, asked[1:]):
            answers.add_response(
                "batch_get_item",
                {"Responses": {"t": [row]}, "UnprocessedKeys": {"t": {"Keys": asked[1:]}} if keys is asked else {}},
                {"RequestItems": {"t": {"Keys": keys, "ConsistentRead": True}}},
            )
        assert Table("t", lambda: client).get_all(asked) == [row, row]
        for _ in range(10):
            answers.add_response("batch_get_item", {"Responses": {}, "UnprocessedKeys": {"t": {"Keys": asked}}})
        with pytest.raises(StoreUnavailable, match="2 rows"):
            Table("t", lambda: client).get_all(asked)
    client.close()


def test_no_more_calls_are_under_way_than_there_are_connections() -> None:
    """A thousand trackers of one process would open a thousand: more files than Lambda lets it open."""
    released, lock = threading.Event(), threading.Lock()
    under_way = most = 0

    class Slow:
        def put_item(self, **_: Any) -> None:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            released.wait(PATIENCE_SECONDS)
            with lock:
                under_way -= 1

    client: Any = Slow()
    table = Table("t", lambda: client)
    with ThreadPoolExecutor(100) as pool:
        calls = [pool.submit(table.put, {}) for _ in range(100)]
        assert eventually(lambda: under_way == 64)
        released.set()
        for call in calls:
            call.result(PATIENCE_SECONDS)
    assert most == 64
