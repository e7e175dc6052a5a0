"""The model of costs and delays: its counting, its limits, and that it follows the library's own rules.

Does not prove that AWS charges or throttles so: prices and quotas are list values, and the fan-out is a fluid that
knows neither jitter nor slow clients.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scaling_model
from benchmarks.scaling_model import (
    QUOTA_BURST,
    QUOTA_PER_SECOND,
    STREAM_DELAY_SECONDS,
    Scenario,
    TokenBucket,
    announce,
    bill,
    delay_table,
    life_table,
    main,
    simulate,
    state_write_units,
    watcher_query_units,
    watchers_table,
)
from docprogress import tracker
from docprogress.table import items

ONE = Scenario(documents=1, pages=100, seconds=60, watchers=3)


def quantities(scenario: Scenario) -> dict[str, float]:
    return {item.what: item.quantity for item in bill(scenario)}


def seconds_to_all(watchers: int, posts_per_second: float) -> float:
    return announce(TokenBucket(QUOTA_PER_SECOND, QUOTA_BURST), watchers, posts_per_second, math.inf)[1]


def test_the_model_keeps_the_rules_of_the_library() -> None:
    rules = ("PROGRESS_DELIVERY_SECONDS", "FINAL_DELIVERY_SECONDS", "HEARTBEAT_SECONDS")
    assert [getattr(scaling_model, name) for name in rules] == [getattr(tracker, name) for name in rules]
    assert scaling_model.ACTIVE_SHARDS == items.ACTIVE_SHARDS
    assert scaling_model.ACTIVITY_STEP_SECONDS * 1000 == items.ACTIVITY_STEP_MS


def test_pages_slower_than_the_rate_are_told_one_by_one_and_the_last_with_the_end() -> None:
    assert len(simulate(replace(ONE, pages=10))) == 1 + 9 + 1


def test_pages_faster_than_the_rate_are_told_at_the_rate() -> None:
    assert len(simulate(replace(ONE, pages=10_000))) == 1 + (60 * 4 - 1) + 1


def test_every_meter_of_a_small_document_is_counted() -> None:
    updates, posts = 101, 3 * 101
    assert quantities(ONE) == {
        "API Gateway messages": pytest.approx(posts + 2 * 3),
        "API Gateway connection minutes": pytest.approx(3, rel=1e-3),
        "Lambda requests": 3 * 3,
        "Lambda GB-seconds": pytest.approx(3 * 3 * 0.015 / 2, rel=0.01),
        "DynamoDB write units": 2 + updates + 2 * 4 + 2 + 3 * 6,
        "DynamoDB read units": updates * 1 + 3 * 4,
    }


def test_a_silent_worker_pays_for_its_heartbeats_in_the_table_and_in_its_index() -> None:
    silent = replace(ONE, pages=1, seconds=65)
    assert state_write_units(silent, updates=2) == 2 + 2 + 3 + 2 * 4 + 2


def test_an_update_at_four_a_second_costs_little_more_than_its_row() -> None:
    busy = replace(ONE, pages=1_000)
    updates = len(simulate(busy))
    assert updates == 241
    assert state_write_units(busy, updates) / updates <= 1.3


def test_the_index_takes_four_thousand_documents_at_once() -> None:
    moves_per_second = 2 / scaling_model.ACTIVITY_STEP_SECONDS
    assert scaling_model.ACTIVE_SHARDS * 1_000 / moves_per_second >= 4_000


def test_a_message_over_32_kb_is_metered_as_two() -> None:
    small, large = (quantities(replace(ONE, message_bytes=size))["API Gateway messages"] for size in (32_768, 32_769))
    assert large - small == pytest.approx(3 * 101)


def test_watchers_are_read_by_the_4_kb_and_nobody_costs_one_unit() -> None:
    assert [watcher_query_units(replace(ONE, watchers=count)) for count in (0, 22, 23, 100_000)] == [1, 1, 2, 4493]


def test_a_stream_pays_for_an_invocation_per_update_and_is_later() -> None:
    direct, stream = ONE, replace(ONE, fan_out="stream")
    assert quantities(stream)["Lambda requests"] - quantities(direct)["Lambda requests"] == 101
    assert simulate(stream)[0].seconds - simulate(direct)[0].seconds == pytest.approx(STREAM_DELAY_SECONDS)


def test_one_invocation_below_the_quota_is_bound_by_itself() -> None:
    assert seconds_to_all(60_000, 6_000) == pytest.approx(10, rel=0.01)


def test_shards_are_faster_until_the_quota_and_no_faster_beyond() -> None:
    alone, two, four, eight = (seconds_to_all(1_000_000, 6_000 * shards) for shards in (1, 2, 4, 8))
    assert alone == pytest.approx(166.67, rel=0.01)
    quota_bound = (1_000_000 - QUOTA_BURST) / QUOTA_PER_SECOND
    assert [two, four, eight] == pytest.approx([quota_bound] * 3, rel=0.01)


def test_the_burst_serves_a_small_audience_faster_than_the_quota() -> None:
    assert seconds_to_all(5_000, 48_000) == pytest.approx(5_000 / 48_000, rel=0.05)


def test_a_deadline_leaves_the_rest_to_the_next_update() -> None:
    heard, seconds = announce(TokenBucket(QUOTA_PER_SECOND, QUOTA_BURST), 100_000, 6_000, 2.0)
    assert [heard, seconds] == pytest.approx([12_000, 2.0])


def test_documents_at_once_share_the_quota_and_get_fewer_updates_instead_of_a_queue() -> None:
    calm, crowded = (simulate(replace(ONE, documents=count, watchers=1_000)) for count in (1, 100))
    assert len(crowded) < len(calm)
    assert max(update.seconds for update in crowded) <= 10
    posts = 100 * sum(update.heard for update in crowded)
    assert posts <= QUOTA_BURST + QUOTA_PER_SECOND * (60 + 10)


def test_the_final_update_waits_for_one_that_runs_late_and_then_has_its_own_time() -> None:
    updates = simulate(replace(ONE, seconds=3, watchers=50_000))
    assert [update.final for update in updates] == [False, False, True]
    assert [update.seconds for update in updates] == pytest.approx([2, 2, 50_000 / 6_000], rel=0.01)


def test_shards_of_one_document_post_at_once() -> None:
    sharded = replace(ONE, watchers=3_000, fan_out="sharded", shards=2)
    assert simulate(sharded)[0].seconds == pytest.approx(STREAM_DELAY_SECONDS + 3_000 / 12_000, rel=0.05)


def test_the_report_says_the_same_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    def report() -> str:
        main(["--documents", "2", "--watchers", "5", "--fan-out", "stream"])
        return capsys.readouterr().out

    first = report()
    assert "| 1,000,000 |" in first
    assert report() == first


def test_the_tables_of_the_document_are_those_that_the_model_prints() -> None:
    document = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    shown = Scenario(pages=1_000, seconds=60, watchers=100)
    for table in (watchers_table(shown), life_table(shown), delay_table(shown)):
        assert "\n".join(table) in document


def test_an_impossible_scenario_is_refused_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seconds", "0"])
    assert "seconds is 0.0; it takes a number above 0" in capsys.readouterr().err
