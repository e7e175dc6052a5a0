"""Ends documents whose worker died: called every minute, it finds those that are silent for too long.

A living worker writes at least every 20 seconds, however long a page takes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import MetricUnit

from progress.aws import Publisher, publisher
from progress.document import ErrorCode, Failure
from progress.settings import WatchdogSettings
from progress.telemetry import NAMESPACE, add_announcements, flush
from progress.tracker import FINAL_DELIVERY_SECONDS

logger = Logger(use_rfc3339=True)
metrics = Metrics(namespace=NAMESPACE)
copy_config_to_registered_loggers(logger, include={"progress"})

# What kills one worker often kills many; their watchers must not wait for one another.
_ANNOUNCED_AT_ONCE = 16

STALLED = Failure(
    "The worker stopped before the document was done. Try again.",
    ErrorCode.PROCESSING_STALLED,
    recoverable=True,
)


def handler(_event: object, _context: object) -> dict[str, Any]:
    reporter = publisher()
    try:
        stalled = end_stalled(reporter, WatchdogSettings.from_environment().stall_timeout_seconds)
    finally:
        if reporter.announcer is not None:
            add_announcements(metrics, reporter.announcer)
        flush(metrics)
    return {"stalled": stalled}


def end_stalled(reporter: Publisher, stall_timeout_seconds: float) -> list[str]:
    """Publish PROCESSING_STALLED for every silent document; returns their ids.

    Raises:
        DeliveryRefused: after all of them were ended and everybody was told who could be.
    """
    stalled = []
    with ThreadPoolExecutor(_ANNOUNCED_AT_ONCE) as pool:
        announcements = []
        for silent in reporter.store.silent_documents(stall_timeout_seconds):
            state = reporter.store.end_silent(silent, STALLED)
            if state is None:
                continue
            stalled.append(silent.document_id)
            logger.warning("Stalled", document_id=silent.document_id, silent_since=silent.updated_at)
            announcements.append(pool.submit(reporter.announce, state, FINAL_DELIVERY_SECONDS))
    metrics.add_metric("DocumentsStalled", MetricUnit.Count, len(stalled))
    for announcement in announcements:
        announcement.result()
    return stalled
