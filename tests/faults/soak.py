"""Announces to thousands of watchers, a part of them faulty, and looks whom it failed: `python -m tests.faults.soak`.

A seed decides everything but the scheduling: which watchers throttle, hang, reset, drip or are gone, when the table
fails, and how the states of several documents come. What must hold: all healthy hear the last state, nobody hears an
older state after a newer one, and nobody is forgotten but who is gone.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from botocore.credentials import ReadOnlyCredentials

from docprogress.announcer import Announcer
from docprogress.document import DocumentState, Status, Subscription
from docprogress.errors import StoreUnavailable
from docprogress.posting.fan_out import FanOut
from tests.faults.connections_server import Behaviour, ConnectionsServer

DOCUMENTS = 4
STATES = 6
FOR_EVER = 10_000
PASSING = [
    Behaviour.THROTTLED,
    Behaviour.UNAVAILABLE,
    Behaviour.RESET,
    Behaviour.DELIVER_AND_RESET,
    Behaviour.DELIVER_AND_CLOSE,
    Behaviour.DELIVER_AND_ANNOUNCE_CLOSE,
    Behaviour.DELIVER_AND_ANSWER_AGAIN,
    Behaviour.DELIVER_AND_HALF_CLOSE,
    Behaviour.DELIVER_CHUNKED,
    Behaviour.DELIVER_WITHOUT_LENGTH,
    Behaviour.DELIVER_WITH_ODD_HEADERS,
    Behaviour.DELIVER_AS_HTTP_1_0,
    Behaviour.GARBAGE,
]
LASTING = [
    Behaviour.THROTTLED,
    Behaviour.UNAVAILABLE,
    Behaviour.HANG,
    Behaviour.RESET,
    Behaviour.DELIVER_AND_DRIP,
    Behaviour.FORBIDDEN,
    Behaviour.BAD_REQUEST,
    Behaviour.NOT_FOUND,
    Behaviour.MOVED,
    Behaviour.BAD_CHUNKS,
    Behaviour.NEGATIVE_LENGTH,
    Behaviour.HUGE_HEAD,
    Behaviour.CONTINUE,
    Behaviour.FLOOD,
]


class FaultyTable:
    """Who watches what, in pages, with a read that fails now and then."""

    def __init__(self, chance: random.Random, watchers: dict[str, list[str]]) -> None:
        self._chance = chance
        self.watching = {document_id: set(ids) for document_id, ids in watchers.items()}
        self.forgotten: list[str] = []

    def watchers(self, document_id: str, *, after: str | None = None) -> Iterator[Sequence[Subscription]]:
        ids = sorted(id_ for id_ in self.watching[document_id] if after is None or id_ > after)
        size = self._chance.choice([7, 100, 1_000])
        for start in range(0, len(ids), size):
            if self._chance.random() < 0.1:
                raise StoreUnavailable("as the seed says")
            yield [Subscription(id_, 0, 2**40) for id_ in ids[start : start + size]]

    def forget(self, document_id: str, gone: Sequence[Subscription]) -> None:
        for subscription in gone:
            self.watching[document_id].discard(subscription.connection_id)
            self.forgotten.append(subscription.connection_id)


def soak(seed: int, *, watchers: int = 1_000) -> list[str]:
    """Run one seed; return what did not hold, in sentences."""
    chance = random.Random(seed)
    faulty = chance.uniform(0.02, 0.5)
    documents = {f"d{n}": [f"{n}-{number:05}=" for number in range(watchers // DOCUMENTS)] for n in range(DOCUMENTS)}
    behaviours: dict[str, list[Behaviour]] = {}
    gone: set[str] = set()
    lasting: set[str] = set()
    for id_ in (id_ for ids in documents.values() for id_ in ids):
        behaviours[id_] = chance.choices(PASSING, k=chance.choice([0, 0, 0, 0, 1, 2]))
        if chance.random() < faulty:
            if chance.random() < 0.5:
                gone.add(id_)
                behaviours[id_] = [Behaviour.GONE] * FOR_EVER
            else:
                lasting.add(id_)
                behaviours[id_] = [chance.choice(LASTING)] * FOR_EVER

    def plan(connection_id: str, attempt: int) -> Behaviour:
        listed = behaviours[connection_id]
        return listed[attempt] if attempt < len(listed) else Behaviour.DELIVER

    table = FaultyTable(chance, documents)
    keys = ReadOnlyCredentials("AKIDEXAMPLE", "secret", "token", None)
    server = ConnectionsServer(
        plan, name_errors=lambda id_: hash((seed, id_)) % 2 == 0, close_after=chance.choice([3, 50])
    )
    with server, ThreadPoolExecutor(DOCUMENTS) as pool:
        fan_out = FanOut(
            server.callback_url,
            region="eu-west-1",
            credentials=lambda: keys,
            max_connections=chance.choice([8, 64, 300]),
            request_timeout_seconds=chance.choice([1.0, 5.0]),
        )
        announcer = Announcer(table, fan_out)

        def report(document_id: str) -> None:
            for sequence in range(1, STATES + 1):
                status = Status.COMPLETE if sequence == STATES else Status.PROGRESS
                announcer.announce(
                    DocumentState(document_id=document_id, status=status, sequence=sequence, total=STATES, run_id="r"),
                    30.0,
                )

        list(pool.map(report, documents))
        healthy = behaviours.keys() - gone - lasting
        deadline = time.monotonic() + 60
        deaf = healthy
        while deaf and time.monotonic() < deadline:
            deaf = {id_ for id_ in healthy if STATES not in _sequences(server, id_)}
            time.sleep(0.05)
        fan_out.close()
    wrong = [f"{id_} is healthy and never heard the end" for id_ in sorted(deaf)]
    for id_ in behaviours:
        heard = _sequences(server, id_)
        if heard != sorted(heard):
            wrong.append(f"{id_} heard {heard}: an older state after a newer one")
    wrong += [f"{id_} was forgotten and is not gone" for id_ in table.forgotten if id_ not in gone]
    wrong += [f"{id_} is gone and was not forgotten" for id_ in sorted(gone - set(table.forgotten))]
    return wrong


def _sequences(server: ConnectionsServer, connection_id: str) -> list[int]:
    return [json.loads(message)["sequence"] for message in list(server.received.get(connection_id, ()))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default: 1)")
    arguments = parser.parse_args()
    failed = False
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        started = time.monotonic()
        wrong = soak(seed)
        failed |= bool(wrong)
        print(f"seed {seed}: {'FAILED' if wrong else 'held'}, {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201  a report
        for sentence in wrong[:10]:
            print(f"  {sentence}")  # noqa: T201
    sys.exit(failed)


if __name__ == "__main__":
    main()
