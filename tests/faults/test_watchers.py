"""What the healthy hear beside watchers that throttle, hang, reset or drip: counted, not timed.

Does not prove API Gateway's own behaviour.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from botocore.credentials import ReadOnlyCredentials

from docprogress.posting.fan_out import FanOut
from docprogress.posting.report import DeliveryReport
from tests.faults.conftest import Site
from tests.faults.connections_server import Behaviour, ConnectionsServer
from tests.functions.fakes import eventually
from tests.library.posting.samples import AMPLE, never_forget, pages, watchers

KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "secret", "token", None)
BAD = [
    Behaviour.THROTTLED,
    Behaviour.UNAVAILABLE,
    Behaviour.HANG,
    Behaviour.RESET,
    Behaviour.DELIVER_AND_RESET,
    Behaviour.DELIVER_AND_DRIP,
    Behaviour.GARBAGE,
    Behaviour.FORBIDDEN,
    Behaviour.FLOOD,
]
HEALTHY_WATCHERS = 20


def misbehave(connection_id: str, _attempt: int) -> Behaviour:
    name = connection_id.partition("-")[0]
    return Behaviour[name] if name in Behaviour.__members__ else Behaviour.DELIVER


def test_beside_a_bad_watcher_of_any_kind_the_healthy_hear_almost_as_many_states_and_all_hear_the_end(
    site: Site,
) -> None:
    """One document with healthy watchers alone, and one for each kind, all at once in one process."""
    site.gateway.plan = misbehave
    documents = ["none", *(kind.name for kind in BAD)]
    for document in documents:
        site.subscribe(document, *(f"w{number}-{document}=" for number in range(HEALTHY_WATCHERS)))
        if document != "none":
            site.subscribe(document, f"{document}-bad=")

    def work(document: str) -> None:
        with site.publisher.track(document) as tracker:
            tracker.start(total=10_000)
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                tracker.advance()
                time.sleep(0.02)

    with ThreadPoolExecutor(len(documents)) as pool:
        list(pool.map(work, documents))

    written: Counter[str] = Counter()
    heard: Counter[str] = Counter(dict.fromkeys(documents, 10_000))
    for document in documents:
        for number in range(HEALTHY_WATCHERS):
            messages = [json.loads(message) for message in site.gateway.received[f"w{number}-{document}="]]
            assert (messages[0]["status"], messages[-1]["status"]) == ("processing_started", "processing_complete")
            written[document] = messages[-1]["sequence"] - messages[0]["sequence"] + 1
            heard[document] = min(heard[document], len(messages))
    assert written["none"] >= 5, "the comparison compares something"
    for document in documents:
        assert heard[document] >= 0.95 * written[document], f"{document}: {heard[document]} of {written[document]}"
        # A busy machine decides too how many are written. A worker that waits for a watcher writes a fifth.
        assert written[document] >= 0.6 * written["none"], f"{document}: {written[document]} of {written['none']}"


def test_all_healthy_hear_start_and_end_beside_5000_that_hang_and_another_document_notices_nothing() -> None:
    hanging = watchers(5_000, "HANG-")
    healthy, others = watchers(100, "healthy"), watchers(10, "other")
    everyone = [*hanging, *healthy]
    random.Random(16).shuffle(everyone)
    stop = threading.Event()

    with ConnectionsServer(misbehave) as server, ThreadPoolExecutor(1) as pool:
        fan_out = FanOut(server.callback_url, region="eu-west-1", credentials=lambda: KEYS, max_connections=300)

        def tell_others() -> list[DeliveryReport]:
            reports: list[DeliveryReport] = []
            while not stop.is_set():
                reports.append(
                    fan_out.post(
                        [others],
                        b"%d" % len(reports),
                        topic="other",
                        version=len(reports),
                        deadline_seconds=AMPLE,
                        settle_seconds=AMPLE,
                        forget=never_forget,
                    )
                )
                stop.wait(0.05)
            return reports

        telling = pool.submit(tell_others)
        for version, state in enumerate((b"start", b"end")):
            fan_out.post(
                pages(everyone, 1_000),
                state,
                topic="d",
                version=version,
                deadline_seconds=AMPLE,
                forget=never_forget,
            )
            assert eventually(lambda state=state: all(state in server.received[w.connection_id] for w in healthy))
        stop.set()
        reports = telling.result(AMPLE)
        fan_out.close()
    # On a loaded machine one of them may seem slow, and hear a state twice.
    assert [list(dict.fromkeys(server.received[w.connection_id])) for w in healthy] == [[b"start", b"end"]] * 100
    assert reports == [DeliveryReport(delivered=10)] * len(reports)
    assert [len(set(server.received[w.connection_id])) for w in others] == [len(reports)] * 10
