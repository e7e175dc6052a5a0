"""The dashboard's JSON, as it is deployed.

Does not prove that CloudWatch draws it well: docs/images/dashboard.png shows what it is meant to look like.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from infra.dashboard import GRAPHS, Dashboard, DashboardArgs
from infra.monitored import OWN
from tests.infra.samples import MONITORED
from tests.mock_engine import PROJECT_ROOT, REGION, run

ALARM_ARNS = [f"arn:aws:cloudwatch:eu-west-1:123456789012:alarm:{number}" for number in range(9)]


def body(**changes: Any) -> dict[str, Any]:
    graph = run(lambda: Dashboard("dashboard", DashboardArgs(monitored=MONITORED, **changes)))
    parsed: dict[str, Any] = json.loads(graph.one("aws:cloudwatch/dashboard:Dashboard").inputs["dashboardBody"])
    return parsed


def graphs(**changes: Any) -> dict[str, dict[str, Any]]:
    return {
        widget["properties"]["title"]: widget["properties"]
        for widget in body(**changes)["widgets"]
        if widget["type"] == "metric"
    }


def test_it_is_named_after_the_stack_since_all_regions_share_the_names() -> None:
    graph = run(lambda: Dashboard("dashboard", DashboardArgs(monitored=MONITORED)))
    assert graph.one("aws:cloudwatch/dashboard:Dashboard").inputs["dashboardName"] == MONITORED.name


def test_the_alarms_are_on_top_all_of_them() -> None:
    top = body(alarm_arns=ALARM_ARNS)["widgets"][0]
    assert (top["type"], top["y"]) == ("alarm", 0)
    assert top["properties"]["alarms"] == ALARM_ARNS


def test_without_alarms_it_says_how_to_have_some() -> None:
    top = body()["widgets"][0]
    assert top["type"] == "text"
    assert "alarmEmail" in top["properties"]["markdown"]


def test_no_two_widgets_overlap_and_none_leaves_the_grid() -> None:
    for widgets in (body()["widgets"], body(alarm_arns=ALARM_ARNS)["widgets"]):
        fields = [
            set(
                itertools.product(
                    range(each["x"], each["x"] + each["width"]), range(each["y"], each["y"] + each["height"])
                )
            )
            for each in widgets
        ]
        assert sum(map(len, fields)) == len(set().union(*fields))
        assert max(x for field in fields for x, _ in field) < 24


def test_every_graph_of_the_table_is_there_with_a_line_for_each_part() -> None:
    drawn = graphs()
    assert list(drawn) == [graph.title for graph in GRAPHS]
    for graph in GRAPHS:
        parts = MONITORED.parts(graph.of, graph.namespace)
        count = len(parts) * len(graph.metrics) * len(graph.statistics) * len(graph.dimensions)
        assert len(drawn[graph.title]["metrics"]) == count + len(graph.expressions)
        assert drawn[graph.title]["region"] == REGION, "CloudWatch refuses a graph without one"


def test_a_line_is_a_metric_with_its_dimensions_and_its_name() -> None:
    assert graphs()["Delivery to watchers"]["metrics"][0] == [
        *("docprogress", "MessagesDelivered", "service", "docprogress-test-worker"),
        {"id": "m1", "stat": "Sum", "label": "delivered worker"},
    ]


def test_open_connections_are_estimated_from_those_opened_and_closed() -> None:
    opened, closed, (estimated,) = graphs()["Connections opened and closed"]["metrics"]
    assert opened[:4] == ["docprogress", "ConnectionsOpened", "service", "docprogress-test-handler"]
    assert (closed[1], closed[-1]["id"]) == ("ConnectionsClosed", "m2")
    assert estimated["expression"] == "RUNNING_SUM(FILL(m1, 0) - FILL(m2, 0))"


def test_no_two_lines_of_a_graph_are_called_the_same() -> None:
    for title, graph in graphs().items():
        labels = [line[-1]["label"] for line in graph["metrics"]]
        assert len(set(labels)) == len(labels), title


def test_every_metric_of_our_own_is_one_that_the_code_counts() -> None:
    sources = "".join(
        file.read_text() for folder in ("functions", "library") for file in (PROJECT_ROOT / folder).rglob("*.py")
    )
    ours = {metric for graph in GRAPHS if graph.namespace == OWN for metric in graph.metrics}
    assert {metric for metric in ours if f'"{metric}"' not in sources} == set()


def test_cold_starts_are_counted_in_the_lines_of_every_function() -> None:
    (widget,) = [each["properties"] for each in body()["widgets"] if each["type"] == "log"]
    for name in MONITORED.functions.values():
        assert f"SOURCE '/aws/lambda/{name}' | " in widget["query"]
    said = "Cold start"
    assert f'filter message = "{said}"' in widget["query"]
    functions = PROJECT_ROOT / "functions"
    assert f'logger.info("{said}")' in (functions / "sandbox" / "__init__.py").read_text()
    handlers = [file for file in functions.glob("*.py") if "\ndef handler(" in file.read_text()]
    assert [file.name for file in handlers if "\nstarted(logger, " not in file.read_text()] == []
