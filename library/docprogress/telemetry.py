"""What the functions count, as CloudWatch metrics in the embedded metric format.

API Gateway has no metric for messages sent, for 410 or for 429, so these are the only ones. Needs the extra `lambda`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aws_lambda_powertools import Metrics

    from docprogress.announcer import Announcer

NAMESPACE = "docprogress"


def add_announcements(metrics: Metrics, announcer: Announcer) -> None:
    """Add what was announced since the last call."""
    totals = announcer.take_totals()
    report = totals.report
    for name, count in (
        ("MessagesDelivered", report.delivered),
        ("ConnectionsStale", report.stale),
        ("MessagesThrottled", report.throttled),
        ("MessagesFailed", report.failed + report.untried + report.refused),
        ("MessagesRefused", report.refused),
    ):
        metrics.add_metric(name, "Count", count)
    for milliseconds in totals.fan_out_milliseconds:
        metrics.add_metric("FanOutTime", "Milliseconds", milliseconds)


def flush(metrics: Metrics) -> None:
    """Write what there is; a call that counted nothing is no mistake, as Powertools would have it."""
    if metrics.metric_set:
        metrics.flush_metrics()
