"""What the functions count, as CloudWatch metrics in the embedded metric format.

API Gateway has no metric for messages sent, for 410 or for 429, so these are the only ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from docprogress.document import DocumentState, Status

if TYPE_CHECKING:
    from aws_lambda_powertools import Metrics

    from docprogress.announcer import Announcer

NAMESPACE = "docprogress"
# CloudWatch's limit.
_VALUES_IN_A_LINE = 100


def counted(metric: str, **dimensions: str) -> dict[str, Any]:
    """Fields with which a structured log line counts one, too.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

    Args:
        dimensions: beside `service`, which the line has. Each combination of them is a metric on the bill, so they take
            few values and never a client's.
    """
    definition = {
        "Namespace": NAMESPACE,
        "Dimensions": [["service", *dimensions]],
        "Metrics": [{"Name": metric, "Unit": "Count"}],
    }
    return {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [definition]}, metric: 1, **dimensions}


class Figure(NamedTuple):
    """unit: as CloudWatch calls it, such as Count."""

    name: str
    unit: str
    value: float


def announcements(announcer: Announcer) -> Iterator[Figure]:
    """What was announced since the last call."""
    totals = announcer.take_totals()
    report = totals.report
    for name, count in (
        ("MessagesDelivered", report.delivered),
        ("ConnectionsStale", report.stale),
        ("MessagesThrottled", report.throttled),
        ("MessagesFailed", report.failed + report.untried + report.refused),
        ("MessagesRefused", report.refused),
    ):
        yield Figure(name, "Count", count)
    for milliseconds in totals.fan_out_milliseconds:
        yield Figure("FanOutTime", "Milliseconds", milliseconds)


def add_announcements(metrics: Metrics, announcer: Announcer) -> None:
    """Add what was announced since the last call."""
    for figure in announcements(announcer):
        metrics.add_metric(*figure)


def outcome(state: DocumentState) -> Iterator[Figure]:
    """What a start or an end of a document counts as; nothing for any other state."""
    match state.status:
        case Status.STARTED:
            yield Figure("DocumentsStarted", "Count", 1)
        case Status.COMPLETE:
            yield Figure("DocumentsCompleted", "Count", 1)
            # Whatever the unit is called: each name is a metric on the bill, and a unit is anybody's word.
            yield Figure("PagesProcessed", "Count", state.processed)
        case Status.ERROR:
            yield Figure("DocumentsCancelled" if state.is_cancelled else "DocumentsFailed", "Count", 1)


def embedded(service: str, figures: Iterable[Figure]) -> Iterator[str]:
    """The log lines out of which CloudWatch takes the figures, whoever ships them there."""
    by_name: dict[str, list[Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.name, []).append(figure)
    while by_name:
        line = {name: found[:_VALUES_IN_A_LINE] for name, found in by_name.items()}
        by_name = {name: found[_VALUES_IN_A_LINE:] for name, found in by_name.items() if found[_VALUES_IN_A_LINE:]}
        units = [{"Name": name, "Unit": found[0].unit} for name, found in line.items()]
        definition = {"Namespace": NAMESPACE, "Dimensions": [["service"]], "Metrics": units}
        yield json.dumps(
            {
                "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [definition]},
                "service": service,
                **{name: [figure.value for figure in found] for name, found in line.items()},
            }
        )


def flush(metrics: Metrics) -> None:
    """Write what there is; a call that counted nothing is no mistake, as Powertools would have it."""
    if metrics.metric_set:
        metrics.flush_metrics()
