"""The table of alarms and what is made of it.

Does not prove that a metric moves when its fault happens: tests/local/test_alarms.py does, where the emulator can.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from infra.alarms import ALARMS, Alarms, AlarmsArgs, alarms_in_markdown
from infra.monitored import DYNAMODB, OWN
from tests.infra.samples import MONITORED
from tests.mock_engine import PROJECT_ROOT, SUFFIX, Graph, arn, run

TOPIC = arn("sns", "on-call")
ALL_PARTS = dataclasses.replace(
    MONITORED,
    functions={**MONITORED.functions, "fan-out": "docprogress-test-fan-out"},
    services={**MONITORED.services, "fan-out": "docprogress-test-fan-out"},
    announcers=("fan-out",),
    stream="fan-out",
    dead_letter_queue="given-up",
)


def alarms(monitored: Any = MONITORED, **changes: Any) -> Graph:
    return run(lambda: Alarms("alarms", AlarmsArgs(monitored=monitored, **{"topic_arn": TOPIC, **changes})))


def test_every_row_is_an_alarm_for_each_part_that_it_is_of() -> None:
    graph = alarms(ALL_PARTS)
    expected = {
        f"alarms-{row.name}-{part}" if part else f"alarms-{row.name}"
        for row in ALARMS
        for part in ALL_PARTS.parts(row.of, row.namespace)
    }
    assert set(graph.names("MetricAlarm")) == expected
    for row in ALARMS:
        assert any(name.startswith(f"alarms-{row.name}") for name in expected), f"{row.name} watches nothing"


def test_a_stack_without_stream_and_dead_letters_has_no_alarm_on_them() -> None:
    names = alarms().names("MetricAlarm")
    assert not [name for name in names if "stream" in name or "dead" in name]


def test_an_alarm_on_one_metric_is_exactly_this() -> None:
    row = next(row for row in ALARMS if row.name == "latency")
    assert alarms().one("MetricAlarm", "alarms-latency").inputs == {
        "name": "docprogress-test-api1-latency",
        "alarmDescription": f"{row.means} First: {row.first}",
        "namespace": "AWS/ApiGateway",
        "metricName": "IntegrationLatency",
        "dimensions": {"ApiId": "api1", "Stage": "live"},
        "extendedStatistic": "p99",
        "period": 300,
        "comparisonOperator": "GreaterThanOrEqualToThreshold",
        "threshold": 3000,
        "datapointsToAlarm": 3,
        "evaluationPeriods": 3,
        "treatMissingData": "notBreaching",
    }


def test_an_alarm_on_a_ratio_is_of_both_metrics_of_one_sender() -> None:
    inputs = alarms().one("MetricAlarm", "alarms-delivery-failed-worker").inputs
    *metrics, value = inputs["metricQueries"]
    assert {each["id"]: each["metric"]["metricName"] for each in metrics} == {
        "messagesDelivered": "MessagesDelivered",
        "messagesFailed": "MessagesFailed",
    }
    for each in metrics:
        assert each["metric"]["dimensions"] == {"service": "docprogress-test-worker"}
    assert [each["returnData"] for each in inputs["metricQueries"]] == [False, False, True]
    assert set(re.findall(r"\b[a-z]\w+", value["expression"])) == {each["id"] for each in metrics}
    assert "metricName" not in inputs, "CloudWatch refuses an alarm with both"


def test_missing_data_is_bad_only_for_what_reports_every_minute() -> None:
    breaching = {each.name for each in alarms().of("MetricAlarm") if each.inputs["treatMissingData"] == "breaching"}
    assert breaching == {"alarms-metrics-stopped-watchdog"}, "at night nobody connects, and that is fine"


def test_somebody_is_told_once_by_the_composite_alarm_and_by_no_other() -> None:
    graph = alarms()
    composite = graph.one("CompositeAlarm")
    assert composite.inputs["alarmActions"] == composite.inputs["okActions"] == [TOPIC]
    assert all("alarmActions" not in each.inputs for each in graph.of("MetricAlarm"))
    waking = {
        graph.one("MetricAlarm", f"alarms-{row.name}-{part}" if part else f"alarms-{row.name}").outputs["arn"]
        for row in ALARMS
        if row.wakes
        for part in MONITORED.parts(row.of, row.namespace)
    }
    rule = composite.inputs["alarmRule"]
    assert set(re.findall(r'ALARM\("([^"]+)"\)', rule)) == waking
    assert len(rule) <= 10_240, "CloudWatch's limit"
    assert len(waking) <= 100, "CloudWatch's limit"


def test_every_physical_name_starts_with_what_no_other_owner_has() -> None:
    graph = alarms()
    names = [each.inputs["name"] for each in graph.of("MetricAlarm")]
    names.append(graph.one("CompositeAlarm").inputs["alarmName"])
    assert all(name.startswith(f"{MONITORED.name}-") for name in names)
    assert len(set(names)) == len(names)


def test_an_email_gets_a_topic_of_its_own() -> None:
    graph = alarms(topic_arn="", email="on-call@example.com")
    topic = arn("sns", f"alarms-topic-{SUFFIX}")
    assert graph.one("TopicSubscription").inputs == {
        "topic": topic,
        "protocol": "email",
        "endpoint": "on-call@example.com",
    }
    assert graph.one("CompositeAlarm").inputs["alarmActions"] == [topic]


def test_a_topic_that_is_given_is_used_and_none_is_made() -> None:
    graph = alarms()
    assert graph.of("Topic") == graph.of("TopicSubscription") == []


@pytest.mark.parametrize("changes", [{"topic_arn": ""}, {"email": "on-call@example.com"}])
def test_nobody_and_two_to_tell_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either an email or a topic_arn"):
        alarms(**changes)


def test_a_threshold_can_be_another_one() -> None:
    graph = alarms(thresholds={"function-errors": 7})
    assert {each.inputs["threshold"] for each in graph.of("MetricAlarm") if "function-errors" in each.name} == {7}


def test_a_threshold_of_no_alarm_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no alarm function-error; there are execution-errors, "):
        alarms(thresholds={"function-error": 7})


def test_the_table_s_throttles_are_those_that_dynamodb_counts_by_table() -> None:
    # ThrottledRequests and SystemErrors have a second dimension, Operation: by table alone there is no such metric.
    on_table = {metric for row in ALARMS if row.namespace == DYNAMODB for metric in row.metrics}
    assert on_table == {"ReadThrottleEvents", "WriteThrottleEvents"}


def test_every_metric_of_our_own_is_one_that_the_code_counts() -> None:
    sources = "".join(
        file.read_text() for folder in ("functions", "library") for file in (PROJECT_ROOT / folder).rglob("*.py")
    )
    ours = {metric for row in ALARMS if row.namespace == OWN for metric in row.metrics}
    assert {metric for metric in ours if f'"{metric}"' not in sources} == set()


def test_the_documentation_holds_the_table_as_it_is() -> None:
    assert alarms_in_markdown() in (PROJECT_ROOT / "docs" / "operations.md").read_text(), (
        "make it anew: python -m tools.docs_from_code"
    )


def test_parts_that_are_not_among_the_functions_are_refused() -> None:
    with pytest.raises(ValueError, match="worked is not among functions: handler, worker, watchdog"):
        dataclasses.replace(MONITORED, workers=("worked",))
