"""What the program has watched: of each of its stacks, and of one with every component.

Does not prove what an alarm or a graph looks like: their own tests do.
"""

from __future__ import annotations

import json

import pytest

from infra.monitoring import MonitoringArgs
from tests.mock_engine import REGION, Graph, run_main

PREFIX = "docprogress-dev-api-api-id"


def test_no_alarm_is_made_until_somebody_is_named(dev: Graph) -> None:
    assert dev.of("MetricAlarm") == dev.of("CompositeAlarm") == dev.of("Topic") == []


def test_one_key_turns_the_alarms_on(everything: Graph) -> None:
    assert everything.one("TopicSubscription").inputs["endpoint"] == "on-call@example.com"
    assert everything.one("CompositeAlarm").inputs["alarmName"] == f"{PREFIX}-needs-somebody"


def test_a_topic_that_is_there_is_told_in_place_of_an_email() -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:on-call"
    graph = run_main("dev", {"alarmTopicArn": topic})
    assert graph.one("CompositeAlarm").inputs["alarmActions"] == [topic]
    assert graph.of("Topic") == []


def test_every_function_is_watched_and_every_stack_has_its_queries(graph: Graph) -> None:
    names = {each.outputs["name"] for each in graph.of("Function")}
    assert set(graph.outputs["functionNames"].values()) == names
    life = next(each for each in graph.of("QueryDefinition") if each.inputs["name"].endswith("/life of a document"))
    assert set(life.inputs["logGroupNames"]) == {f"/aws/lambda/{name}" for name in names}
    groups = {each.inputs["name"] for each in graph.of("LogGroup")}
    for query in graph.of("QueryDefinition"):
        assert set(query.inputs["logGroupNames"]) <= groups, query.name


def test_errors_of_every_function_ring(everything: Graph) -> None:
    watched = {
        each.inputs["dimensions"]["FunctionName"]
        for each in everything.of("MetricAlarm")
        if each.name.startswith("alarms-function-errors-")
    }
    assert watched == {each.outputs["name"] for each in everything.of("Function")}


def test_whoever_tells_the_watchers_is_the_one_whose_delivery_is_watched(everything: Graph) -> None:
    direct = run_main("dev", {"alarmEmail": "on-call@example.com"})

    def announcers(graph: Graph) -> list[str]:
        begin = "alarms-delivery-failed-"
        return [each.name.removeprefix(begin) for each in graph.of("MetricAlarm") if each.name.startswith(begin)]

    assert announcers(everything) == ["stream-fan-out"]
    assert announcers(direct) == ["documents-processor", "stall-watchdog"]


def test_what_is_watched_is_in_the_stack_s_own_region_and_carries_its_api_s_id(everything: Graph) -> None:
    dashboard = everything.one("aws:cloudwatch/dashboard:Dashboard").inputs
    assert dashboard["dashboardName"] == everything.outputs["dashboardName"] == PREFIX
    widgets = json.loads(dashboard["dashboardBody"])["widgets"]
    assert {each["properties"]["region"] for each in widgets if each["type"] == "metric"} == {REGION}
    assert set(widgets[0]["properties"]["alarms"]) == {
        each.outputs["arn"] for kind in ("MetricAlarm", "CompositeAlarm") for each in everything.of(kind)
    }


def test_a_dashboard_can_be_done_without() -> None:
    graph = run_main("dev", {"dashboard": "false"})
    assert graph.of("aws:cloudwatch/dashboard:Dashboard") == []
    assert "dashboardName" not in graph.outputs


def test_a_stack_named_with_dots_has_a_dashboard_that_cloudwatch_takes() -> None:
    graph = run_main("dev.eu", {"disposable": "true"})
    assert graph.outputs["dashboardName"] == "docprogress-dev-eu-api-api-id"


def test_thresholds_are_taken_from_the_configuration() -> None:
    graph = run_main("dev", {"alarmEmail": "on-call@example.com", "alarmThresholds": '["latency=5000"]'})
    assert graph.one("MetricAlarm", "alarms-latency").inputs["threshold"] == 5000


def test_arguments_are_checked_where_no_configuration_was() -> None:
    with pytest.raises(ValueError, match="alarm_email is 'on-call'; it takes an email address"):
        MonitoringArgs(alarm_email="on-call")


def test_two_thresholds_of_one_alarm_are_refused() -> None:
    with pytest.raises(ValueError, match="alarm_thresholds has latency more than once"):
        MonitoringArgs(alarm_thresholds=["latency=1", "documents-failed=2", "latency=3"])
