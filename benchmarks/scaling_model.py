"""`python -m benchmarks.scaling_model`: what a load costs on AWS, and how long until the last watcher hears.

A model, not a measurement: list prices, counted requests, and a fan-out that shares API Gateway's quota. How many
requests there are follows library/docprogress (table/, tracker.py); where prices and quotas are from, and when, is
said in docs/scaling.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

# us-east-1, in dollars; the first tier of each, without free tiers. Sources and dates are in docs/scaling.md.
DOLLARS_PER_MESSAGE = 1.00e-6
DOLLARS_PER_CONNECTION_MINUTE = 0.25e-6
DOLLARS_PER_INVOCATION = 0.20e-6
DOLLARS_PER_GB_SECOND = 0.0000133334  # arm64
DOLLARS_PER_WRITE_UNIT = 0.625e-6
DOLLARS_PER_READ_UNIT = 0.125e-6

# The rules of the tracker and the table, repeated so that this runs without boto3; a test compares them.
PROGRESS_DELIVERY_SECONDS = 2.0
FINAL_DELIVERY_SECONDS = 10.0
HEARTBEAT_SECONDS = 20.0
ACTIVE_SHARDS = 8
ACTIVITY_STEP_SECONDS = 15.0

METERED_BYTES = 32 * 1024
READ_UNIT_BYTES = 4096
# A subscription with ids of usual length (document 30, connection 16, principal 36 characters): names and values.
SUBSCRIPTION_BYTES = 184
MINUTES_PER_MONTH = 43_200

# The account's, in a region, shared by all its APIs and the posts to connections.
QUOTA_PER_SECOND = 10_000.0
QUOTA_BURST = 5_000.0

# Lambda looks at a shard four times a second, and starts the function.
STREAM_DELAY_SECONDS = 0.3
# A new on-demand table has four partitions, each a shard of the stream; infra/stream_fan_out.py runs ten batches each.
STREAM_INVOCATIONS = 4 * 10
_HANDLER_SECONDS = 0.015
_TICK_SECONDS = 0.01

FanOut = Literal["direct", "stream", "sharded"]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Documents that are processed at once, and each with its own watchers, who stay for all of it.

    Attributes:
        seconds: how long a document takes; its pages are spread evenly.
        watchers: of each document; every watcher is one connection that watches this one document.
        shards: invocations that share one document's watchers, for `sharded`, which docprogress does not have.
        posts_per_second: what one invocation can do when nothing throttles it.
        message_bytes: of a progress message.
    """

    documents: int = 100
    pages: int = 100
    seconds: float = 60.0
    watchers: int = 3
    messages_per_second: float = 4.0
    fan_out: FanOut = "direct"
    shards: int = 4
    posts_per_second: float = 6_000.0
    memory_megabytes: int = 512
    message_bytes: int = 120

    def __post_init__(self) -> None:
        for name in ("documents", "pages", "seconds", "messages_per_second", "shards", "posts_per_second"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it takes a number above 0.")
        if self.watchers < 0:
            raise ValueError(f"watchers is {self.watchers}; it takes 0 or more.")

    @property
    def invocations_per_update(self) -> int:
        return self.shards if self.fan_out == "sharded" else 1

    @property
    def document_posts_per_second(self) -> float:
        """What one document's fan-out can do, before the quota."""
        if self.fan_out == "stream" and self.documents > STREAM_INVOCATIONS:
            # Documents of one batch share one invocation's sockets.
            return self.posts_per_second * STREAM_INVOCATIONS / self.documents
        return self.posts_per_second * self.invocations_per_update


class TokenBucket:
    """API Gateway's throttle: so many requests a second, and a burst of as many as were left unused."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst

    def wait(self, seconds: float) -> None:
        self._tokens = min(self._burst, self._tokens + seconds * self._per_second)

    def take(self, wanted: float) -> float:
        taken = min(wanted, self._tokens)
        self._tokens -= taken
        return taken


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """One update of one document: whom it reached by its deadline, and after how many seconds the last of them."""

    heard: float
    seconds: float
    final: bool


def announce(
    bucket: TokenBucket, watchers: int, posts_per_second: float, deadline_seconds: float
) -> tuple[float, float]:
    """Post to all watchers until the deadline; returns how many heard and the seconds it took.

    A refused post (429) is posted again in the next tick: the engine's jitter spreads retries and is left out.
    """
    left, elapsed = float(watchers), 0.0
    while left > 1e-6 and elapsed < deadline_seconds - 1e-9:
        wanted = posts_per_second * _TICK_SECONDS
        taken = bucket.take(min(left, wanted))
        # The last tick is not used up; without watchers left in it, the last one heard before its end.
        elapsed += _TICK_SECONDS * (left / wanted if taken == left else 1.0)
        left -= taken
        bucket.wait(_TICK_SECONDS)
    return watchers - left, elapsed


def simulate(scenario: Scenario) -> list[Announcement]:
    """The life of one of the documents, which all start at the same moment and share the quota evenly.

    None of its updates begins before the one before it is over, in the tracker as in the stream's batches, so that a
    slow fan-out has fewer updates and not a queue.
    """
    bucket = TokenBucket(QUOTA_PER_SECOND / scenario.documents, QUOTA_BURST / scenario.documents)
    delay = 0.0 if scenario.fan_out == "direct" else STREAM_DELAY_SECONDS
    interval = max(1 / scenario.messages_per_second, scenario.seconds / scenario.pages)
    announcements = []
    now = 0.0
    while True:
        final = now >= scenario.seconds
        deadline = FINAL_DELIVERY_SECONDS if final else PROGRESS_DELIVERY_SECONDS
        heard, seconds = announce(bucket, scenario.watchers, scenario.document_posts_per_second, deadline)
        announcements.append(Announcement(heard=heard, seconds=delay + seconds, final=final))
        if final:
            return announcements
        # The last page is told by the final update.
        following = now + max(interval, seconds)
        if following > scenario.seconds - 1e-9:
            following = max(scenario.seconds, now + seconds)
        bucket.wait(following - now - seconds)
        now = following


@dataclass(frozen=True)
class Item:
    what: str
    quantity: float
    dollars_each: float

    @property
    def dollars(self) -> float:
        return self.quantity * self.dollars_each


def bill(scenario: Scenario) -> list[Item]:
    """What all documents of a scenario cost, by AWS's meters."""
    announcements = simulate(scenario)
    documents, connections = scenario.documents, scenario.documents * scenario.watchers
    updates = len(announcements)
    posts = documents * sum(announcement.heard for announcement in announcements)
    gigabytes = scenario.memory_megabytes / 1024
    minutes = connections * (scenario.seconds + announcements[-1].seconds) / 60
    invocations, fan_out_seconds = _fan_out_work(scenario, announcements)
    return [
        # Each watcher also asks once and is answered once.
        Item(
            "API Gateway messages",
            posts * math.ceil(scenario.message_bytes / METERED_BYTES) + 2 * connections,
            DOLLARS_PER_MESSAGE,
        ),
        Item("API Gateway connection minutes", minutes, DOLLARS_PER_CONNECTION_MINUTE),
        # $connect, progress, $disconnect.
        Item("Lambda requests", documents * invocations + 3 * connections, DOLLARS_PER_INVOCATION),
        Item(
            "Lambda GB-seconds",
            (documents * fan_out_seconds + 3 * connections * _HANDLER_SECONDS) * gigabytes,
            DOLLARS_PER_GB_SECOND,
        ),
        Item(
            "DynamoDB write units",
            documents * state_write_units(scenario, updates) + connections * WATCHER_WRITE_UNITS,
            DOLLARS_PER_WRITE_UNIT,
        ),
        Item(
            "DynamoDB read units",
            documents * updates * watcher_query_units(scenario) + connections * WATCHER_READ_UNITS,
            DOLLARS_PER_READ_UNIT,
        ),
    ]


# add_connection 1; subscribe 1, and 1 in by_connection; remove_connection deletes those three.
WATCHER_WRITE_UNITS = 6
# A progress request reads the connection and, before and after subscribing, the state, all consistently (3), and
# counts subscriptions in the index (0.5); remove_connection asks the index (0.5).
WATCHER_READ_UNITS = 4


def state_write_units(scenario: Scenario, updates: int) -> int:
    """Of one document: the row, and its place in by_activity, whose sort key is the last write's time in steps.

    A changed index key is two writes, one to delete and one to put. Taking the document up only puts, and noting that
    its end was announced only deletes.
    """
    silences = scenario.seconds / scenario.pages
    heartbeats = scenario.pages * int(silences / HEARTBEAT_SECONDS)
    moves = min(int(scenario.seconds / ACTIVITY_STEP_SECONDS), updates + heartbeats)
    return 2 + updates + heartbeats + 2 * moves + 2


def watcher_query_units(scenario: Scenario) -> int:
    """Of one update: a consistent Query is charged by the 4 KB, and one that finds nothing as one unit."""
    each = math.ceil(scenario.watchers / scenario.invocations_per_update) * SUBSCRIPTION_BYTES
    return scenario.invocations_per_update * max(1, math.ceil(each / READ_UNIT_BYTES))


def _fan_out_work(scenario: Scenario, announcements: Sequence[Announcement]) -> tuple[int, float]:
    """Invocations, and seconds of Lambda's time, that one document's fan-out adds to the work itself."""
    if scenario.fan_out == "direct":
        # The worker waits for the last only; those before it are a thread's, during the work.
        return 0, announcements[-1].seconds
    each = [_HANDLER_SECONDS + announcement.seconds - STREAM_DELAY_SECONDS for announcement in announcements]
    return len(each) * scenario.invocations_per_update, sum(each) * scenario.invocations_per_update


def watchdog_dollars_per_month(memory_megabytes: int = 512, seconds: float = 0.1) -> float:
    """The one cost of an idle stack: a look, every minute, at each shard of by_activity."""
    return MINUTES_PER_MONTH * (
        DOLLARS_PER_INVOCATION
        + seconds * memory_megabytes / 1024 * DOLLARS_PER_GB_SECOND
        + ACTIVE_SHARDS * 0.5 * DOLLARS_PER_READ_UNIT
    )


def idle_dollars_per_connection_hour(memory_megabytes: int = 512, ping_seconds: float = 60.0) -> float:
    """A page that hears nothing: its minutes, and its pings, each a message, an answer and an invocation."""
    ping = (
        2 * DOLLARS_PER_MESSAGE
        + DOLLARS_PER_INVOCATION
        + _HANDLER_SECONDS * memory_megabytes / 1024 * DOLLARS_PER_GB_SECOND
    )
    return 60 * DOLLARS_PER_CONNECTION_MINUTE + 3600 / ping_seconds * ping


def cost_table(scenario: Scenario) -> Iterator[str]:
    items = bill(scenario)
    total = sum(item.dollars for item in items)
    updates = scenario.documents * len(simulate(scenario))
    yield "| meter | quantity | dollars | dollars per million updates |"
    yield "|---|---:|---:|---:|"
    for item in items:
        yield f"| {item.what} | {item.quantity:,.0f} | {item.dollars:,.4f} | {item.dollars / updates * 1e6:,.2f} |"
    yield f"| all, for {updates:,} updates | | {total:,.4f} | {total / updates * 1e6:,.2f} |"


def watchers_table(scenario: Scenario, watchers: Sequence[int] = (0, 1, 3, 10, 100, 1_000)) -> Iterator[str]:
    """What a million updates of a document cost, by the number of those who watch it; in dollars."""
    yield "| watchers of each document | gateway | Lambda | DynamoDB | `direct`, all | `stream`, all |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for count in watchers:
        one = replace(scenario, documents=1, watchers=count)
        direct, stream = (_dollars_per_million_updates(replace(one, fan_out=way)) for way in ("direct", "stream"))
        cells = [*direct, sum(direct), sum(stream)]
        yield f"| {count:,} | " + " | ".join(f"{dollars:,.2f}" for dollars in cells) + " |"


def _dollars_per_million_updates(scenario: Scenario) -> list[float]:
    """For API Gateway, Lambda and DynamoDB."""
    updates = scenario.documents * len(simulate(scenario))
    services = ("API Gateway", "Lambda", "DynamoDB")
    items = bill(scenario)
    return [sum(item.dollars for item in items if item.what.startswith(name)) / updates * 1e6 for name in services]


SWEEP = (100, 1_000, 10_000, 100_000, 1_000_000)


def delay_table(scenario: Scenario, watchers: Sequence[int] = SWEEP) -> Iterator[str]:
    """How long one update of one document takes to reach all, if nothing but the quota ends it."""
    ways = [
        ("direct", replace(scenario, documents=1, fan_out="direct")),
        ("stream", replace(scenario, documents=1, fan_out="stream")),
        *((f"sharded over {k}", replace(scenario, documents=1, fan_out="sharded", shards=k)) for k in (2, 4, 8)),
    ]
    yield "| watchers | " + " | ".join(name for name, _ in ways) + " | heard within 2 s, 10 s (direct) |"
    yield "|---:|" + "---:|" * (len(ways) + 1)
    for count in watchers:
        cells = []
        for _, way in ways:
            delay = 0.0 if way.fan_out == "direct" else STREAM_DELAY_SECONDS
            seconds = announce(_whole_bucket(), count, way.document_posts_per_second, math.inf)[1]
            cells.append(f"{delay + seconds:,.2f} s")
        heard = [
            announce(_whole_bucket(), count, scenario.posts_per_second, deadline)[0] / count
            for deadline in (PROGRESS_DELIVERY_SECONDS, FINAL_DELIVERY_SECONDS)
        ]
        yield f"| {count:,} | {' | '.join(cells)} | {heard[0]:.0%}, {heard[1]:.0%} |"


def life_table(scenario: Scenario, documents: Sequence[int] = (1, 10, 100, 1_000)) -> Iterator[str]:
    """Many documents at once: how many updates each watcher gets a second, and how late."""
    yield "| documents at once | posts/s wanted | updates/s, each watcher | heard an update | last one heard it after |"
    yield "|---:|---:|---:|---:|---:|"
    for count in documents:
        each = replace(scenario, documents=count)
        announcements = simulate(each)
        reach = sum(a.heard for a in announcements) / max(1, len(announcements) * each.watchers)
        interval = max(1 / each.messages_per_second, each.seconds / each.pages)
        yield (
            f"| {count:,} | {count * each.watchers / interval:,.0f} | {len(announcements) * reach / each.seconds:.2f}"
            f" | {reach:.0%} | {max(a.seconds for a in announcements):.2f} s |"
        )


def _whole_bucket() -> TokenBucket:
    return TokenBucket(QUOTA_PER_SECOND, QUOTA_BURST)


def main(arguments: Sequence[str] | None = None) -> None:
    defaults = Scenario()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_model", description=__doc__)
    parser.add_argument("--documents", type=int, default=defaults.documents, help="processed at once")
    parser.add_argument("--pages", type=int, default=defaults.pages, help="of each document")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="that each document takes")
    parser.add_argument("--watchers", type=int, default=defaults.watchers, help="of each document")
    parser.add_argument("--messages-per-second", type=float, default=defaults.messages_per_second)
    parser.add_argument("--fan-out", choices=("direct", "stream", "sharded"), default=defaults.fan_out)
    parser.add_argument("--shards", type=int, default=defaults.shards, help="invocations per update, for sharded")
    parser.add_argument(
        "--posts-per-second", type=float, default=defaults.posts_per_second, help="that one invocation can do"
    )
    parser.add_argument("--memory-megabytes", type=int, default=defaults.memory_megabytes)
    parser.add_argument("--message-bytes", type=int, default=defaults.message_bytes)
    try:
        scenario = Scenario(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))
    for title, lines in (
        (f"Costs of {scenario}", cost_table(scenario)),
        ("Dollars per million updates, by watchers", watchers_table(scenario)),
        ("Documents at once", life_table(scenario)),
        ("One update of one document, until the last watcher hears", delay_table(scenario)),
    ):
        print(f"\n{title}\n")
        print("\n".join(lines))
    megabytes = scenario.memory_megabytes
    print(f"\nAn idle stack, its watchdog: {watchdog_dollars_per_month(megabytes):.2f} dollars a month.")
    idle = 1_000 * idle_dollars_per_connection_hour(megabytes)
    print(f"A thousand idle pages: {idle:.2f} dollars an hour.")


if __name__ == "__main__":
    main()
