"""What the pages have seen, in numbers, and what follows from it for a stack of one's own."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.scaling_model import DOLLARS_PER_MESSAGE, QUOTA_PER_SECOND, Scenario, bill

from .watchers import Watcher

# Later than this, people see that a page is behind.
_SLOW_MILLISECONDS = 1_000
# What a page that reconnects takes of the stage: $connect and progress, each of which has half of the throttle.
_ROUTE_SHARE = 0.5


@dataclass(frozen=True)
class Load:
    """What was asked for, and what the worker knows of it.

    Attributes:
        updates: How many the worker made.
        seconds: How long it took.
        rate: The stage's throttle, in requests a second.
        throttled, failed: Posts, as the worker counted them; None where the table's stream posts.
    """

    emulated: bool
    updates: int
    seconds: float
    messages_per_second: float
    rate: float
    throttled: int | None
    failed: int | None


def report(load: Load, watchers: Sequence[Watcher]) -> dict[str, Any]:
    """As JSON has it; times in milliseconds."""
    there = [each for each in watchers if not each.refused]
    published = {sequence for each in there for sequence in each.heard_seconds}
    heard = [seconds for each in there for seconds in each.heard_seconds.values()]
    found: dict[str, Any] = {
        "watchers": len(watchers),
        "watching": len(there),
        "refused": dict(Counter(each.refused for each in watchers if each.refused)),
        "connectMilliseconds": _times([each.connect_seconds for each in there]),
        "answerMilliseconds": _times([each.answer_seconds for each in there]),
        "updates": load.updates,
        "updatesSent": len(published),
        "seconds": round(load.seconds, 1),
        "heardMilliseconds": _times(heard),
        "endMilliseconds": _times([each.end_seconds for each in there if each.end_seconds is not None]),
        "updatesOvertaken": len(published) * len(there) - len(heard),
        "endsLost": sum(each.end_seconds is None for each in there),
        "outOfOrder": sum(each.out_of_order for each in there),
        "repeated": sum(each.repeated for each in there),
        "throttled": load.throttled,
        "failed": load.failed,
        "dollars": round(dollars(len(there), load.updates, load.seconds, load.messages_per_second), 5),
    }
    return {**found, "advice": advice(load, found)}


def dollars(watchers: int, updates: int, seconds: float, messages_per_second: float) -> float:
    """What such a load costs at list prices, by the model of docs/scaling.md."""
    scenario = Scenario(
        documents=1,
        pages=updates,
        seconds=max(seconds, 1.0),
        watchers=watchers,
        messages_per_second=messages_per_second,
    )
    return sum(item.dollars for item in bill(scenario))


def advice(load: Load, found: dict[str, Any]) -> list[str]:
    watching, rate = found["watching"], load.messages_per_second
    said = []
    if found["refused"]:
        worst, count = Counter(found["refused"]).most_common(1)[0]
        cure = {"429": "pulumi config set apiThrottleRate, or ramp slower", "401": "give a token with --token"}
        said.append(f"{count} could not watch ({worst}): {cure.get(worst, 'make doctor says why')}.")
    if found["endsLost"]:
        said.append(f"{found['endsLost']} never heard the end: make doctor, then the log of the one that posts.")
    if not watching:
        return said
    posts = watching * rate
    said.append(
        f"A document with {watching:,} watchers takes {posts:,.0f} posts a second at maxMessagesPerSecond {rate:g}; the"
        f" account has {QUOTA_PER_SECOND:,.0f} requests a second, so {math.floor(QUOTA_PER_SECOND / posts):,} such"
        " documents at once."
    )
    said.append(
        f"After an outage {watching:,} pages need {math.ceil(watching / (load.rate * _ROUTE_SHARE)):,} s to be back, at"
        f" apiThrottleRate {load.rate:,.0f}."
    )
    said.append(
        f"An hour of such documents, one after the other, costs {3600 * posts * DOLLARS_PER_MESSAGE:,.2f} dollars in"
        " messages; half of maxMessagesPerSecond costs half."
    )
    slow = found["heardMilliseconds"] and found["heardMilliseconds"]["p95"] > _SLOW_MILLISECONDS
    if (
        slow
        or found["throttled"]
        or found["failed"]
        or found["updatesOvertaken"] > found["updatesSent"] * watching / 100
    ):
        said.append("Updates come late or are overtaken: lower maxMessagesPerSecond, or give the worker more memory.")
    if load.emulated:
        said.append("The times are this machine's and its emulator's: only what was lost or out of order says more.")
    return said


def _times(seconds: Sequence[float]) -> dict[str, float] | None:
    """None of none. A time that is not known, of an end by somebody else, counts as none."""
    known = sorted(1000 * each for each in seconds if not math.isnan(each))
    if not known:
        return None
    points = statistics.quantiles(known, n=100, method="inclusive") if len(known) > 1 else known * 99
    return {
        "p50": round(points[49], 1),
        "p95": round(points[94], 1),
        "p99": round(points[98], 1),
        "max": round(known[-1], 1),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""

    def times(name: str) -> str:
        shown = found[name]
        return "none" if shown is None else "  ".join(f"{key} {value:,.0f} ms" for key, value in shown.items())

    posts = (
        "posted by the table's stream"
        if found["throttled"] is None
        else (f"{found['throttled']} throttled, {found['failed']} failed")
    )
    refused = "".join(f", {count} refused: {why}" for why, count in found["refused"].items())
    return [
        f"watching      {found['watching']:,} of {found['watchers']:,}{refused}",
        f"connected     {times('connectMilliseconds')}",
        f"answered      {times('answerMilliseconds')}",
        f"updates       {found['updates']:,} made in {found['seconds']} s, {found['updatesSent']:,} sent; {posts}",
        f"heard after   {times('heardMilliseconds')}",
        f"end after     {times('endMilliseconds')}",
        f"lost          {found['endsLost']} ends; {found['updatesOvertaken']} updates overtaken by newer ones",
        f"dropped       {found['outOfOrder']} out of order, {found['repeated']} repeated",
        f"cost          {found['dollars']:.4f} dollars at list prices",
        *(f"-> {each}" for each in found["advice"]),
    ]
