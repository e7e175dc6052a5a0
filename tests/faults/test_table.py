"""A table that throttles, fails, delays and loses answers, between the library and its watchers.

Does not prove DynamoDB's own behaviour: the table is the emulator's, the faults are the proxy's.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.conftest import Site
from tests.faults.table_proxy import Fault, Kind

WATCHERS = [f"watcher{number}=" for number in range(5)]


def heard(site: Site, connection_id: str) -> list[dict[str, Any]]:
    return [json.loads(message) for message in site.gateway.received[connection_id]]


@pytest.mark.parametrize("kind", ["throttle", "fail", "lose"])
def test_a_document_is_reported_to_its_end_over_a_table_that_fails_by_turns(site: Site, kind: Kind) -> None:
    document_id = f"by-turns-{kind}"
    site.subscribe(document_id, *WATCHERS)
    site.table.plan = lambda _operation, number: Fault(kind if number % 3 == 1 else "pass")
    with site.publisher.track(document_id) as tracker:
        tracker.start(total=7)
        for _ in range(7):
            tracker.advance()
    for connection_id in WATCHERS:
        messages = heard(site, connection_id)
        assert messages[-1]["status"] == "processing_complete"
        sequences = [message["sequence"] for message in messages]
        assert sequences == sorted(sequences)
        assert max(message.get("pagesProcessed", 0) for message in messages) <= 7, "no page is counted twice"


def test_watchers_that_cannot_be_read_at_the_end_for_a_while_hear_it_still(site: Site) -> None:
    site.subscribe("throttled-end", *WATCHERS)
    with site.publisher.track("throttled-end") as tracker:
        tracker.start(total=1)
        before = site.table.operations["Query"]
        # boto3 tries four times; so the read as a whole fails twice.
        site.table.plan = lambda operation, number: Fault(
            "throttle" if operation == "Query" and number < before + 8 else "pass"
        )
    for connection_id in WATCHERS:
        assert heard(site, connection_id)[-1]["status"] == "processing_complete"


def test_a_slow_table_costs_nobody_the_end(site: Site) -> None:
    site.subscribe("slow-table", *WATCHERS)
    site.table.plan = lambda _operation, _number: Fault(delay_seconds=0.3)
    with site.publisher.track("slow-table") as tracker:
        tracker.start(total=1)
        tracker.advance()
    for connection_id in WATCHERS:
        assert heard(site, connection_id)[-1]["status"] == "processing_complete"
