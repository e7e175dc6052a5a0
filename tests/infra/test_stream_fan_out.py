"""The function behind the table's stream: what wakes it and what it may do.

Does not prove that DynamoDB's filter passes what the store writes: the emulator's tests do.
"""

from __future__ import annotations

import json

import pytest

from infra.stream_fan_out import StreamFanOut, StreamFanOutArgs
from tests.infra.samples import FUNCTION_SETTINGS, publishing
from tests.mock_engine import SUFFIX, Graph, arn, run

TABLE = arn("dynamodb", f"table/progress-table-{SUFFIX}")


@pytest.fixture(scope="module")
def graph() -> Graph:
    def program() -> None:
        StreamFanOut("fan-out", StreamFanOutArgs(publishing=publishing(fan_out="stream"), functions=FUNCTION_SETTINGS))

    return run(program)


def test_the_stream_wakes_the_function(graph: Graph) -> None:
    inputs = dict(graph.one("EventSourceMapping").inputs)
    filters = inputs.pop("filterCriteria")["filters"]
    assert inputs == {
        "functionName": arn("lambda", f"function:fan-out-function-{SUFFIX}"),
        "eventSourceArn": f"{TABLE}/stream/2026-01-01T00:00:00.000",
        "startingPosition": "TRIM_HORIZON",
        "batchSize": 64,
        "functionResponseTypes": ["ReportBatchItemFailures"],
        "parallelizationFactor": 10,
        "maximumRecordAgeInSeconds": 120,
        "maximumRetryAttempts": 5,
        "bisectBatchOnFunctionError": True,
    }
    assert [json.loads(each["pattern"]) for each in filters] == [
        {"eventName": ["INSERT", "MODIFY"], "dynamodb": {"Keys": {"sk": {"S": ["STATE"]}}}}
    ], "each new connection would wake it otherwise"


def test_lambda_may_read_the_stream_before_it_is_told_to(graph: Graph) -> None:
    assert "fan-out-read-stream-of-progress" in graph.before(graph.one("EventSourceMapping")), (
        "Lambda refuses a mapping whose role cannot read the stream"
    )


def test_the_function_may_read_the_stream_tell_the_watchers_and_note_that(graph: Graph) -> None:
    names = {name for name in graph.names("RolePolicy") if name.startswith("fan-out-")}
    assert names == {
        "fan-out-write-logs",
        "fan-out-read-stream-of-progress",
        "fan-out-find-watchers-in-progress",
        "fan-out-write-states-in-progress",
        "fan-out-use-keys-of-progress",
        "fan-out-manage-connections-of-api",
    }
    variables = graph.one("Function", "fan-out-function").inputs["environment"]["variables"]
    assert "CALLBACK_URL" in variables
