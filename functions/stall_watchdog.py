"""Sees that every document reaches an end that its watchers hear. Called every minute.

Ends documents whose worker has died: a living one writes at least every 20 seconds, however long a page takes. Ends
for good what was to be tried again and was not. Tells what has ended and was not told to everyone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import MetricUnit

from docprogress import settings
from docprogress.document import RETRY_WITHIN_SECONDS, ErrorCode
from docprogress.publisher import Publisher, publisher
from docprogress.table.states import SilentDocument
from docprogress.telemetry import NAMESPACE, add_announcements, flush
from docprogress.tracker import FINAL_DELIVERY_SECONDS
from sandbox import started

logger = Logger(use_rfc3339=True)
metrics = Metrics(namespace=NAMESPACE)
copy_config_to_registered_loggers(logger, include={"docprogress"})

# What kills one worker often kills many; their watchers must not wait for one another.
_SETTLED_AT_ONCE = 64
# For the write before an announcement, which botocore may have to repeat, and for the return after it.
_RESERVED_SECONDS = 10.0


class WatchdogSettings(NamedTuple):
    """
    Attributes:
        stall_timeout_seconds: how long a document may be silent once it was taken up.
    """

    stall_timeout_seconds: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WatchdogSettings:
        return cls(stall_timeout_seconds=settings.positive(environment, "STALL_TIMEOUT_SECONDS", 120))


def handler(_event: object, context: Any) -> dict[str, Any]:
    reporter = publisher()
    try:
        stalled = end_stalled(
            reporter,
            WatchdogSettings.from_environment().stall_timeout_seconds,
            remaining_seconds=lambda: float(context.get_remaining_time_in_millis()) / 1000,
        )
    finally:
        if reporter.announcer is not None:
            add_announcements(metrics, reporter.announcer)
        flush(metrics)
    return {"stalled": stalled}


def end_stalled(
    reporter: Publisher,
    stall_timeout_seconds: float,
    *,
    remaining_seconds: Callable[[], float] = lambda: float("inf"),
) -> list[str]:
    """End every silent document there is time for, and tell what ended untold; returns the ids of both.

    The others stay as they are: the next minute finds them again.

    Raises:
        Exception: the first one, after all were ended and told that could be.
    """
    stalled: list[str] = []
    told_late: list[str] = []
    # Where the table's stream tells the watchers, it must be given an end again that it has not told.
    again = reporter.announcer is None

    def settle(silent: SilentDocument) -> None:
        if remaining_seconds() < FINAL_DELIVERY_SECONDS + _RESERVED_SECONDS:
            logger.warning("Left to the next minute", document_id=silent.document_id)
            return
        settled = reporter.states.settle(silent, stall_timeout_seconds, again=again)
        if settled is None:
            return
        state = settled.state
        has_stalled = state.failure is not None and state.failure.code == ErrorCode.PROCESSING_STALLED
        (stalled if has_stalled else told_late).append(silent.document_id)
        logger.warning(
            "Stalled" if has_stalled else "Ended untold",
            document_id=silent.document_id,
            silent_since=silent.updated_at,
            status=state.status.value,
            error_code=state.failure.code if state.failure else None,
            correlation_id=state.correlation_id,
        )
        report = reporter.announce(state, FINAL_DELIVERY_SECONDS)
        is_old = not settled.is_new and silent.updated_at < (reporter.table.now() - RETRY_WITHIN_SECONDS) * 1000
        if is_old and report and not report.untried:
            reporter.note_announced(state)  # whoever is still out of reach sleeps

    with ThreadPoolExecutor(_SETTLED_AT_ONCE) as pool:
        results = [pool.submit(settle, silent) for silent in reporter.states.silent_documents(stall_timeout_seconds)]
    # Zeros too: that they come says that the watchdog runs.
    metrics.add_metric("DocumentsStalled", MetricUnit.Count, len(stalled))
    metrics.add_metric("EndsToldLate", MetricUnit.Count, len(told_late))
    for result in results:
        result.result()
    return [*stalled, *told_late]


started(logger, lambda: (publisher().table.client, publisher().announcer))
