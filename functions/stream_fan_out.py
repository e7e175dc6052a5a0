"""Announces states from the table's stream, so that workers only write them.

Of each document in a batch only the newest state is told: what a newer record has overtaken is not sent. What
could not be told is reported back, and the stream gives it again from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers

from docprogress.document import DocumentState
from docprogress.posting.fan_out import load_engine
from docprogress.posting.report import DeliveryReport
from docprogress.publisher import Publisher, publisher
from docprogress.table.items import state_of
from docprogress.telemetry import NAMESPACE, add_announcements, flush
from docprogress.tracker import FINAL_DELIVERY_SECONDS, PROGRESS_DELIVERY_SECONDS
from sandbox import started

logger = Logger(use_rfc3339=True)
metrics = Metrics(namespace=NAMESPACE)
copy_config_to_registered_loggers(logger, include={"docprogress"})

# Documents of one batch announced at once; a slow client of one must not keep the others waiting.
_ANNOUNCED_AT_ONCE = 16
# Of 100 watchers 95 out of reach are an outage. So few of them that were tried in vain may be stragglers, all of them.
_OUTAGE_FACTOR = 19
_LEAST_OUTAGE = 20

Record = Mapping[str, Any]


class Change(NamedTuple):
    """position: the record's sequence number in the stream, where a retry starts."""

    position: str
    state: DocumentState


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    reporter = publisher()
    if reporter.announcer is None:
        raise RuntimeError("The stream's fan-out needs CALLBACK_URL in its environment.")
    changes = newest_changes(event["Records"])
    try:
        with ThreadPoolExecutor(_ANNOUNCED_AT_ONCE) as pool:
            told = pool.map(lambda change: _tell(reporter, change), changes)
            failed = [change.position for change, is_told in zip(changes, told, strict=True) if not is_told]
    finally:
        add_announcements(metrics, reporter.announcer)
        flush(metrics)
    return {"batchItemFailures": [{"itemIdentifier": position} for position in failed]}


def newest_changes(records: Sequence[Record]) -> list[Change]:
    """The last state of each document in a batch, without records that changed no state, such as heartbeats."""
    newest: dict[str, Change] = {}
    for record in records:
        try:
            change = _change(record)
        except (KeyError, ValueError):
            # Given again it would read no better, and all others of the batch would be told once more.
            logger.exception("A record that cannot be read is passed over", event_id=record.get("eventID"))
            continue
        if change:
            newest[change.state.document_id] = change
    return list(newest.values())


def _change(record: Record) -> Change | None:
    change = record["dynamodb"]
    if "NewImage" not in change:
        return None
    state = state_of(change["NewImage"])
    before = change.get("OldImage", {}).get("sequence", {}).get("N", "0")
    return Change(change["SequenceNumber"], state) if int(before) < state.sequence else None


def _tell(reporter: Publisher, change: Change) -> bool:
    state = change.state
    seconds = PROGRESS_DELIVERY_SECONDS if state.is_active else FINAL_DELIVERY_SECONDS
    try:
        report = reporter.announce(state, seconds)
    except Exception:
        logger.exception("Not announced", document_id=state.document_id, sequence=state.sequence)
        return False
    # A watcher that misses a progress update hears the next one; after the last there is none.
    if state.is_active or report is None:
        return True
    if is_outage(report):
        return False
    if not (report.reached_most or report.untried):
        # The watchdog would write it again, for stragglers, and again for those that listen to ends.
        reporter.note_announced(state)
    return True


def is_outage(report: DeliveryReport) -> bool:
    """Whether almost nobody could be reached, so that telling all of them again later is worth their hearing it twice.

    Fewer who are not reached are stragglers: a frozen tab is no reason for all documents of its shard to wait.
    """
    reached = report.delivered + report.stale
    unreached = report.throttled + report.failed + report.untried
    return unreached > _OUTAGE_FACTOR * reached and (report.untried > 0 or unreached >= _LEAST_OUTAGE)


started(logger, lambda: (publisher().table.client, publisher().announcer, load_engine()))
