"""The dashboard of a stack: alarms on top, then what people see, what workers do, and what both stand on.

A graph is a row of `GRAPHS`. `tools/docs_from_code.py --image` draws the same JSON that is deployed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from .monitored import API_GATEWAY, DYNAMODB, LAMBDA, OWN, Monitored, Parts

_COLUMNS = 24  # of CloudWatch's grid
_WIDTH, _HEIGHT = 8, 6


@dataclass(frozen=True, kw_only=True)
class Graph:
    """
    Attributes:
        of: a line is drawn for each of these parts.
        metrics: what a line is called, by its metric's name.
        statistics: one line each.
        dimensions: more of them, such as a route.
        expressions: what a line is called, by metric math over the lines, which are m1, m2 and so on.
        unit: of the axis.
    """

    title: str
    of: Parts
    namespace: str
    metrics: Mapping[str, str]
    statistics: tuple[str, ...] = ("Sum",)
    dimensions: tuple[Mapping[str, str], ...] = ({},)
    expressions: Mapping[str, str] = field(default_factory=dict)
    stacked: bool = False
    unit: str = "Count"


# Pings that are answered are not counted: AWS's MessageCount has them.
_KINDS = (
    *({"kind": kind, "outcome": "answered"} for kind in ("subscribe", "ask", "cancel")),
    *({"kind": kind, "outcome": "refused"} for kind in ("subscribe", "cancel", "ping", "unknown")),
    {"kind": "subscribe", "outcome": "failed"},
)
_OPERATIONS = tuple({"Operation": name} for name in ("GetItem", "PutItem", "Query", "UpdateItem"))

GRAPHS = (
    Graph(
        title="Connections opened and closed",
        of="handler",
        namespace=OWN,
        metrics={"ConnectionsOpened": "opened", "ConnectionsClosed": "closed"},
        # A connection that vanished without a close is counted as open until API Gateway ends it, after two hours.
        expressions={"RUNNING_SUM(FILL(m1, 0) - FILL(m2, 0))": "open, estimated from the left edge on"},
    ),
    Graph(
        title="Messages",
        of="api",
        namespace=API_GATEWAY,
        metrics={"MessageCount": "from and to clients", "ConnectCount": "connects"},
    ),
    Graph(
        title="Messages of pages by kind and outcome",
        of="handler",
        namespace=OWN,
        metrics={"Messages": ""},
        dimensions=_KINDS,
        stacked=True,
    ),
    Graph(
        title="Latency of the connection handler",
        of="api",
        namespace=API_GATEWAY,
        metrics={"IntegrationLatency": ""},
        statistics=("p50", "p95", "p99"),
        unit="Milliseconds",
    ),
    Graph(
        title="Errors by who made them",
        of="api",
        namespace=API_GATEWAY,
        metrics={
            "ClientError": "client (4xx before the handler)",
            "IntegrationError": "handler",
            "ExecutionError": "API Gateway",
        },
    ),
    Graph(
        title="Delivery to watchers",
        of="announcers",
        namespace=OWN,
        metrics={
            "MessagesDelivered": "delivered",
            "ConnectionsStale": "gone",
            "MessagesThrottled": "throttled",
            "MessagesFailed": "failed",
        },
        stacked=True,
    ),
    Graph(
        title="Time to tell all watchers",
        of="announcers",
        namespace=OWN,
        metrics={"FanOutTime": ""},
        statistics=("p50", "p95", "p99"),
        unit="Milliseconds",
    ),
    Graph(
        title="Documents by outcome",
        of="workers",
        namespace=OWN,
        metrics={
            "DocumentsCompleted": "completed",
            "DocumentsUnreadable": "unreadable",
            "DocumentsCancelled": "cancelled",
            "DocumentsFailed": "failed attempts",
        },
        stacked=True,
    ),
    Graph(
        title="Documents' age at their end",
        of="workers",
        namespace=OWN,
        metrics={"DocumentTime": ""},
        statistics=("p50", "p95", "Maximum"),
        unit="Seconds",
    ),
    Graph(
        title="Documents that the watchdog settled",
        of="watchdog",
        namespace=OWN,
        metrics={"DocumentsStalled": "stalled", "EndsToldLate": "ended untold"},
    ),
    Graph(
        title="Documents started and pages",
        of="workers",
        namespace=OWN,
        metrics={"DocumentsStarted": "documents started", "PagesProcessed": "pages processed"},
    ),
    Graph(
        title="Duration of the functions, p99",
        of="functions",
        namespace=LAMBDA,
        metrics={"Duration": ""},
        statistics=("p99",),
        unit="Milliseconds",
    ),
    Graph(title="Errors of the functions", of="functions", namespace=LAMBDA, metrics={"Errors": ""}),
    Graph(title="Throttles of the functions", of="functions", namespace=LAMBDA, metrics={"Throttles": ""}),
    Graph(
        title="Concurrency of the account",
        of="account",
        namespace=LAMBDA,
        metrics={"ConcurrentExecutions": "executions"},
        statistics=("Maximum",),
    ),
    Graph(
        title="Latency of the table",
        of="table",
        namespace=DYNAMODB,
        metrics={"SuccessfulRequestLatency": ""},
        statistics=("Average",),
        dimensions=_OPERATIONS,
        unit="Milliseconds",
    ),
    Graph(
        title="Throttles of the table",
        of="table",
        namespace=DYNAMODB,
        metrics={"ReadThrottleEvents": "reads", "WriteThrottleEvents": "writes"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class DashboardArgs:
    """
    Attributes:
        alarm_arns: the alarms on top; empty where there are none.
    """

    monitored: Monitored
    alarm_arns: Sequence[pulumi.Input[str]] = ()


class Dashboard(pulumi.ComponentResource):
    """
    ```python
    dashboard = Dashboard("dashboard", DashboardArgs(monitored=monitored, alarm_arns=alarms.arns))
    pulumi.export("dashboardName", dashboard.dashboard_name)
    ```
    """

    dashboard_name: pulumi.Output[str]

    def __init__(self, name: str, args: DashboardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:Dashboard", name, None, opts)
        dashboard = aws.cloudwatch.Dashboard(
            f"{name}-dashboard",
            # The dashboards of all regions share their names.
            dashboard_name=args.monitored.name,
            dashboard_body=pulumi.Output.json_dumps(dashboard_body(args)),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.dashboard_name = dashboard.dashboard_name
        self.register_outputs({"dashboard_name": self.dashboard_name})


def dashboard_body(args: DashboardArgs) -> dict[str, Any]:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html"""
    top = _alarms(args.alarm_arns)
    graphs = [
        *(_graph(graph, args.monitored) for graph in GRAPHS if args.monitored.parts(graph.of, graph.namespace)),
        _cold_starts(args.monitored),
    ]
    return {
        "periodOverride": "inherit",
        "widgets": [top, *({**_place(at, top["height"]), **graph} for at, graph in enumerate(graphs))],
    }


def _place(at: int, below: int) -> dict[str, int]:
    row, column = divmod(at, _COLUMNS // _WIDTH)
    return {"x": column * _WIDTH, "y": below + row * _HEIGHT, "width": _WIDTH, "height": _HEIGHT}


def _cold_starts(monitored: Monitored) -> dict[str, Any]:
    """CloudWatch has no metric of them; each sandbox writes one line."""
    sources = [pulumi.Output.concat("SOURCE '", group, "' | ") for group in monitored.function_log_groups]
    query = 'filter message = "Cold start" | stats count(*) as cold_starts by service | sort cold_starts desc'
    return {
        "type": "log",
        "properties": {
            "title": "Cold starts",
            "region": monitored.region,
            "view": "table",
            "query": pulumi.Output.concat(*sources, query),
        },
    }


def _alarms(arns: Sequence[pulumi.Input[str]]) -> dict[str, Any]:
    place = {"x": 0, "y": 0, "width": _COLUMNS}
    if not arns:
        markdown = "No alarm is deployed: `pulumi config set alarmEmail on-call@example.com`, then `pulumi up`."
        return {"type": "text", **place, "height": 2, "properties": {"markdown": markdown}}
    # Four in a line.
    height = 1 + -(-len(arns) // 4)
    return {"type": "alarm", **place, "height": height, "properties": {"title": "Alarms", "alarms": list(arns)}}


def _graph(graph: Graph, monitored: Monitored) -> dict[str, Any]:
    return {
        "type": "metric",
        "properties": {
            "title": graph.title,
            "region": monitored.region,
            "view": "timeSeries",
            "stacked": graph.stacked,
            "period": 300,
            "yAxis": {"left": {"label": graph.unit, "min": 0, "showUnits": False}},
            "metrics": [
                *_lines(graph, monitored),
                *([{"expression": math, "label": label}] for math, label in graph.expressions.items()),
            ],
        },
    }


def _lines(graph: Graph, monitored: Monitored) -> list[list[Any]]:
    lines: list[list[Any]] = []
    for part, dimensions in monitored.parts(graph.of, graph.namespace).items():
        for metric, name in graph.metrics.items():
            for more in graph.dimensions:
                for statistic in graph.statistics:
                    words = [name, part, *more.values(), statistic if len(graph.statistics) > 1 else ""]
                    flat = [word for pair in {**dimensions, **more}.items() for word in pair]
                    options = {
                        "id": f"m{len(lines) + 1}",
                        "stat": statistic,
                        "label": " ".join(filter(None, words)) or metric,
                    }
                    lines.append([graph.namespace, metric, *flat, options])
    return lines
