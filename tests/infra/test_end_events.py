"""What puts the ends of runs on EventBridge: its rights, and what wakes it.

Does not prove that Lambda reads the stream, nor what the function makes of it.
"""

from __future__ import annotations

import json

import pytest

from infra.end_events import EndEvents, EndEventsArgs
from infra.progress_table import ProgressTable, ProgressTableArgs
from tests.infra.samples import FUNCTION_SETTINGS, policy
from tests.mock_engine import Graph, arn, run, run_main


def graph_of() -> Graph:
    def program() -> None:
        table = ProgressTable("progress", ProgressTableArgs(with_stream=True))
        EndEvents("end-events", EndEventsArgs(table=table, functions=FUNCTION_SETTINGS))

    return run(program)


def test_it_may_put_events_of_its_own_source_and_read_the_stream_and_nothing_else() -> None:
    graph = graph_of()
    assert policy(graph, "end-events-put-events")["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["events:PutEvents"],
            "Resource": [arn("events", "event-bus/default")],
            "Condition": {"ForAllValues:StringEquals": {"events:source": ["docprogress"]}},
        }
    ]
    assert graph.names("RolePolicy") == [
        "end-events-put-events",
        "end-events-read-stream-of-progress",
        "end-events-use-keys-of-progress",
        "end-events-write-logs",
    ]


def test_only_states_that_have_ended_wake_it_until_they_are_put() -> None:
    graph = graph_of()
    mapping = graph.one("EventSourceMapping")
    (one,) = mapping.inputs["filterCriteria"]["filters"]
    assert json.loads(one["pattern"]) == {
        "eventName": ["INSERT", "MODIFY"],
        "dynamodb": {
            "Keys": {"sk": {"S": ["STATE"]}},
            "NewImage": {"status": {"S": ["processing_complete", "error"]}},
        },
    }
    assert mapping.inputs["functionResponseTypes"] == ["ReportBatchItemFailures"]
    assert not mapping.inputs.keys() & {"maximumRecordAgeInSeconds", "maximumRetryAttempts"}, "no end goes unheard"
    assert set(graph.names("RolePolicy")) <= graph.before(mapping)


@pytest.mark.parametrize("fan_out", ["direct", "stream"])
def test_ends_are_put_whoever_tells_the_watchers(fan_out: str) -> None:
    graph = run_main("dev", {"events": "true", "fanOut": fan_out})
    assert graph.one("EventSourceMapping", "end-events-ends").inputs["eventSourceArn"]
    table = graph.one("Table").inputs
    assert (table["streamEnabled"], table["streamViewType"]) == (True, "NEW_AND_OLD_IMAGES")
    assert "CALLBACK_URL" in graph.one("Function", "stall-watchdog-function").inputs["environment"]["variables"] or (
        fan_out == "stream"
    ), "events change nothing of who tells"
