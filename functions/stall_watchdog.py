"""Ends documents whose worker died: called every minute, it finds those that are silent for too long.

A living worker writes at least every 20 seconds, however long a page takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import MetricUnit

from docprogress import settings
from docprogress.document import ErrorCode, Failure
from docprogress.publisher import Publisher, publisher
from docprogress.table.states import SilentDocument
from docprogress.telemetry import NAMESPACE, add_announcements, flush
from docprogress.tracker import FINAL_DELIVERY_SECONDS

logger = Logger(use_rfc3339=True)
metrics = Metrics(namespace=NAMESPACE)
copy_config_to_registered_loggers(logger, include={"docprogress"})

# What kills one worker often kills many; their watchers must not wait for one another.
_ENDED_AT_ONCE = 16
# For the write before an announcement, which boto3 may have to repeat, and for the return after it.
_RESERVED_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class WatchdogSettings:
    """
    Attributes:
        stall_timeout_seconds: how long a started document may be silent.
    """

    stall_timeout_seconds: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WatchdogSettings:
        return cls(stall_timeout_seconds=settings.positive(environment, "STALL_TIMEOUT_SECONDS", 120))


STALLED = Failure(
    "The worker stopped before the document was done. It may be tried again.",
    ErrorCode.PROCESSING_STALLED,
    recoverable=True,
)


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
    """Publish PROCESSING_STALLED for every silent document there is time for; returns their ids.

    The others stay as they are: the next minute finds them again, and nobody would find one that has ended untold.

    Raises:
        DeliveryRefused: after all of them were ended and everybody was told who could be.
    """
    stalled: list[str] = []

    def end(silent: SilentDocument) -> None:
        if remaining_seconds() < FINAL_DELIVERY_SECONDS + _RESERVED_SECONDS:
            logger.warning("Left to the next minute", document_id=silent.document_id)
            return
        state = reporter.states.end_silent(silent, STALLED)
        if state is None:
            return
        stalled.append(silent.document_id)
        logger.warning("Stalled", document_id=silent.document_id, silent_since=silent.updated_at)
        reporter.announce(state, FINAL_DELIVERY_SECONDS)

    with ThreadPoolExecutor(_ENDED_AT_ONCE) as pool:
        results = [pool.submit(end, silent) for silent in reporter.states.silent_documents(stall_timeout_seconds)]
    metrics.add_metric("DocumentsStalled", MetricUnit.Count, len(stalled))
    for result in results:
        result.result()
    return stalled
