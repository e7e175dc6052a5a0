"""The fan-out engine against a server that misbehaves as told.

Does not prove what API Gateway really answers, nor that it accepts the signatures (test_sigv4), nor any speed
(`make bench`). A frozen sandbox is played by closing its connections and by moving the wall clock.
"""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.certificate import server_context, write_certificate
from benchmarks.connections_server import Behaviour, ConnectionsServer, Plan
from docprogress.document import Subscription
from docprogress.posting.delivery import Delivery, Post, Verdict, classify
from docprogress.posting.engine import Engine
from docprogress.posting.fan_out import FanOut, _forget_the_rest
from docprogress.posting.http1 import Response
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from docprogress.posting.sigv4 import Endpoint, Payload, RequestSigner
from tests.functions.fakes import PATIENCE_SECONDS, eventually

KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "secret", "token", None)
MESSAGE = b'{"status":"processing_complete","docId":"d","sequence":12}'
# On a machine that others use too, any step may take seconds: no time-out strikes where a test is not about it.
AMPLE = PATIENCE_SECONDS
MakeFanOut = Callable[..., FanOut]


@pytest.fixture
def make_fan_out() -> Iterator[MakeFanOut]:
    made: list[FanOut] = []

    def make(callback_url: str, **options: object) -> FanOut:
        arguments: dict[str, object] = {
            "region": "eu-west-1",
            "credentials": lambda: KEYS,
            "request_timeout_seconds": AMPLE,
            **options,
        }
        made.append(FanOut(callback_url, **arguments))  # type: ignore[arg-type]  # tests pass any subset
        return made[-1]

    yield make
    for fan_out in made:
        fan_out.close()


class Clock:
    """The time of every running loop. It goes on by itself, and a test moves it to where a time-out strikes."""

    ahead = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.SelectorEventLoop, "time", lambda _loop: time.monotonic() + clock.ahead)
    return clock


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Delivery]:
    """The deliveries that loops have begun, in order: how far one has come is seen in it before it is over."""
    begun: list[Delivery] = []
    begin = Delivery.begin

    def noting(delivery: Delivery) -> None:
        begun.append(delivery)
        begin(delivery)

    monkeypatch.setattr(Delivery, "begin", noting)
    return begun


@pytest.fixture
def unreachable_url() -> Iterator[str]:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused, and nobody else takes it
        yield f"http://127.0.0.1:{nobody.getsockname()[1]}/prod"


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock moves only when told to."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def run_until(self, now: float) -> None:
        self.now = now
        self.call_soon(self.stop)
        self.run_forever()


@pytest.fixture
def loop() -> Iterator[SteppedLoop]:
    stepped = SteppedLoop()
    yield stepped
    stepped.close()


def signer() -> RequestSigner:
    return RequestSigner("POST", Endpoint.from_url("http://127.0.0.1/prod"), "eu-west-1", KEYS)


def make_delivery(loop: SteppedLoop) -> Delivery:
    """A delivery with ten seconds, without an engine: the test takes posts and answers them."""
    return Delivery(loop, signer(), Payload.of(MESSAGE), loop.time() + 10, lambda _: None)


def take_all(delivery: Delivery) -> list[Post]:
    return list(iter(delivery.take, None))


def watchers(count: int, prefix: str = "w") -> list[Subscription]:
    return [Subscription(f"{prefix}{number}=", 1_000 + number, 2_000) for number in range(count)]


def pages(subscriptions: Sequence[Subscription], size: int) -> Iterator[Sequence[Subscription]]:
    for start in range(0, len(subscriptions), size):
        yield subscriptions[start : start + size]


def never_forget(stale: Sequence[Subscription]) -> None:
    raise AssertionError(f"healthy connections were forgotten: {stale}")


def by_id(behaviours: Mapping[str, Sequence[Behaviour]]) -> Plan:
    """Behave as listed for an id, one request after the other, and deliver from then on."""

    def plan(connection_id: str, attempt: int) -> Behaviour:
        listed = behaviours.get(connection_id, ())
        return listed[attempt] if attempt < len(listed) else Behaviour.DELIVER

    return plan


# What an answer means


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (Response(200), Verdict.DELIVERED),
        (Response(204), Verdict.DELIVERED),
        (Response(410), Verdict.STALE),
        (Response(410, "GoneException"), Verdict.STALE),
        (Response(400, "GoneException"), Verdict.STALE),
        (Response(429), Verdict.THROTTLED),
        (Response(429, "LimitExceededException"), Verdict.THROTTLED),
        (Response(400, "ThrottlingException"), Verdict.THROTTLED),
        (Response(408), Verdict.UNAVAILABLE),
        (Response(500), Verdict.UNAVAILABLE),
        (Response(503, "GoneException"), Verdict.UNAVAILABLE),
        (Response(413), Verdict.REFUSED),
        (Response(403), Verdict.REFUSED),
        (Response(403, "ForbiddenException"), Verdict.REFUSED),
        (Response(403, "ExpiredTokenException"), Verdict.EXPIRED_CREDENTIALS),
        (
            Response(403, "", b'{"message":"The security token included in the request is expired"}'),
            Verdict.EXPIRED_CREDENTIALS,
        ),
        (Response(400, "BadRequestException"), Verdict.FAILED),
        (Response(302), Verdict.FAILED),
    ],
)
def test_an_answer_is_classified_by_its_status_and_where_that_is_open_by_its_name(
    response: Response, verdict: Verdict
) -> None:
    assert classify(response) is verdict


# Delivery


def test_everyone_hears_over_few_connections_that_are_kept_for_the_next_message(
    make_fan_out: MakeFanOut,
) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url, max_in_flight=8)
        for message in (b"1", b"2", b"3"):
            report = fan_out.post(pages(watchers(300), 100), message, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=300)
    assert server.received == {w.connection_id: [b"1", b"2", b"3"] for w in watchers(300)}
    assert server.accepted <= 8
    assert server.busiest <= 8
    assert {request.method for request in server.requests} == {"POST"}


def test_nobody_to_tell_is_no_delivery_and_no_connection(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url)
        nothing: list[list[list[Subscription]]] = [[], [[]], [[], []]]
        for empty in nothing:
            report = fan_out.post(empty, MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport()
    assert server.accepted == 0


def test_a_stale_connection_is_forgotten_and_the_others_still_hear(make_fan_out: MakeFanOut) -> None:
    gone = {w for w in watchers(250) if int(w.connection_id[1:-1]) % 5 < 3}
    forgotten: list[Sequence[Subscription]] = []
    threads: set[threading.Thread] = set()

    def forget(stale: Sequence[Subscription]) -> None:
        forgotten.append(stale)
        threads.add(threading.current_thread())

    plan = by_id({w.connection_id: [Behaviour.GONE] * 9 for w in gone})
    with ConnectionsServer(plan, name_errors=lambda id_: hash(id_) % 2 == 0) as server:
        report = make_fan_out(server.callback_url).post(
            pages(watchers(250), 40), MESSAGE, deadline_seconds=AMPLE, forget=forget
        )
    assert report == DeliveryReport(delivered=100, stale=150)
    assert sorted(w for batch in forgotten for w in batch) == sorted(gone), "each once, as it was read"
    assert max(len(batch) for batch in forgotten) <= 100
    assert threads == {threading.current_thread()}, "a blocking delete would hold up the loop"
    assert len(server.requests) == 250, "a gone connection is not tried again"


def test_a_wanted_page_is_handed_over_before_more_are_forgotten(make_fan_out: MakeFanOut) -> None:
    gone, healthy = watchers(300, "gone"), watchers(20)
    events: list[str] = []
    forgotten: list[Subscription] = []
    forgetting = threading.Event()
    page_sent = threading.Event()

    def plan(connection_id: str, attempt: int) -> Behaviour:
        if connection_id == "gone250=":
            forgetting.wait(AMPLE)  # the first batch is full by now, and with 8 in flight the page not yet sent
        elif connection_id == "gone299=":
            page_sent.set()
        return Behaviour.GONE if connection_id.startswith("gone") else Behaviour.DELIVER

    def forget(stale: Sequence[Subscription]) -> None:
        events.append("forget")
        forgotten.extend(stale)
        forgetting.set()
        page_sent.wait(AMPLE)  # now the next page is wanted, and a second batch is full

    def recording() -> Iterator[Sequence[Subscription]]:
        for page in (gone, healthy, []):
            events.append("read")
            yield page

    with ConnectionsServer(plan) as server:
        report = make_fan_out(server.callback_url, max_in_flight=8).post(
            recording(), MESSAGE, deadline_seconds=AMPLE, forget=forget
        )
    assert report == DeliveryReport(delivered=20, stale=300)
    assert events[:4] == ["read", "read", "forget", "read"], "the healthy page was handed over before the third read"
    assert sorted(forgotten) == sorted(gone), "there was time for all"


@pytest.mark.parametrize(
    ("delivered_at", "batch_takes", "sizes"),
    [
        (1.0, 0.5, [100, 100, 100, 50]),
        (1.0, 4.0, [100, 100, 100]),
        (10.0, 4.0, [100]),
    ],
)
def test_those_left_are_forgotten_while_there_is_time_and_a_batch_past_it(
    loop: SteppedLoop, delivered_at: float, batch_takes: float, sizes: list[int]
) -> None:
    delivery = make_delivery(loop)
    delivery.add(watchers(350))
    for post in take_all(delivery):
        delivery.answered(post, Response(410))
    loop.run_until(delivered_at)
    batches: list[int] = []

    def forget(stale: Sequence[Subscription]) -> None:
        batches.append(len(stale))
        loop.run_until(loop.now + batch_takes)

    _forget_the_rest(delivery, forget)
    assert batches == sizes, "the others will answer 410 to the next update too"


def test_no_more_stale_ones_are_held_than_a_page(loop: SteppedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docprogress.posting.delivery._MAX_STALE", 3)
    delivery = make_delivery(loop)
    delivery.add(watchers(5))
    for post in take_all(delivery):
        delivery.answered(post, Response(410))
    assert list(delivery.stale) == watchers(3)
    assert delivery.report(5) == DeliveryReport(stale=5)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.THROTTLED,
        Behaviour.UNAVAILABLE,
        Behaviour.RESET,
        Behaviour.GARBAGE,
        Behaviour.DELIVER_AND_RESET,
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_may_pass_is_tried_again(make_fan_out: MakeFanOut, behaviour: Behaviour, named: bool) -> None:
    some = watchers(20)
    plan = by_id({w.connection_id: [behaviour] * (n % 3) for n, w in enumerate(some)})
    with ConnectionsServer(plan, name_errors=lambda _: named) as server:
        report = make_fan_out(server.callback_url, max_in_flight=4).post(
            [some], MESSAGE, deadline_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=20)
    assert all(server.received[w.connection_id] for w in some)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.DELIVER_CHUNKED,
        Behaviour.DELIVER_WITHOUT_LENGTH,
        Behaviour.DELIVER_AND_CLOSE,
        Behaviour.DELIVER_AND_ANNOUNCE_CLOSE,
    ],
)
def test_however_the_answer_is_framed_nobody_hears_twice(make_fan_out: MakeFanOut, behaviour: Behaviour) -> None:
    with ConnectionsServer(lambda _id, _attempt: behaviour) as server:
        report = make_fan_out(server.callback_url, max_in_flight=4).post(
            [watchers(40)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget
        )
        assert report == DeliveryReport(delivered=40)
    heard = [len(messages) for messages in server.received.values()]
    assert len(heard) == 40
    assert heard == [1] * 40


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (Behaviour.THROTTLED, DeliveryReport(delivered=10, throttled=2)),
        (Behaviour.UNAVAILABLE, DeliveryReport(delivered=10, failed=2)),
        (Behaviour.RESET, DeliveryReport(delivered=10, failed=2)),
        (Behaviour.HANG, DeliveryReport(delivered=10, failed=2)),
        (Behaviour.DELIVER_AND_DRIP, DeliveryReport(delivered=10, failed=2)),
    ],
)
def test_what_does_not_pass_is_counted_at_the_deadline_and_nothing_outlasts_it(
    make_fan_out: MakeFanOut, clock: Clock, begun: list[Delivery], behaviour: Behaviour, expected: DeliveryReport
) -> None:
    attempts: Counter[str] = Counter()

    def plan(connection_id: str, attempt: int) -> Behaviour:
        attempts[connection_id] += 1
        return behaviour if connection_id in ("w0=", "w7=") else Behaviour.DELIVER

    def tried(times: int) -> bool:
        return min(attempts["w0="], attempts["w7="]) >= times

    hangs = behaviour in (Behaviour.HANG, Behaviour.DELIVER_AND_DRIP)
    with ConnectionsServer(plan, name_errors=lambda _: False) as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, request_timeout_seconds=600 if hangs else 2_000)
        posting = pool.submit(fan_out.post, [watchers(12)], MESSAGE, deadline_seconds=1_000, forget=never_forget)
        assert eventually(lambda: tried(1) and begun[0].delivered == 10)
        if hangs:
            clock.ahead += 601
        assert eventually(lambda: tried(2)), "it is tried again while there is time"
        assert eventually(lambda: begun[0].throttled == expected.throttled)
        assert not posting.done()
        # Those that hang would have minutes still: a request that was under way a moment ago is not overdue.
        clock.ahead += 400 if hangs else 1_000
        assert posting.result(AMPLE) == expected


def test_watchers_never_tried_go_before_those_that_did_not_answer(loop: SteppedLoop) -> None:
    some = watchers(4)
    delivery = make_delivery(loop)
    delivery.add(some)
    for error in (TimeoutError(), ConnectionResetError()):
        post = delivery.take()
        assert post is not None
        delivery.unanswered(post, error, was_idle=isinstance(error, ConnectionResetError))
    loop.run_until(1.0)  # both retries are due
    assert [post.recipient for post in take_all(delivery)][:2] == some[2:], (
        "connections that hang would take the places of healthy ones again and again"
    )
    assert delivery.take() is None, "and each was taken once"


def test_what_is_throttled_is_tried_again_until_next_to_nothing_is_left_of_the_deadline(loop: SteppedLoop) -> None:
    delivery = make_delivery(loop)
    delivery.add(watchers(50))
    delivery.end_of_pages()
    for now in (0.0, 9.0, 9.5, 9.9):
        loop.run_until(now)
        tried = take_all(delivery)
        assert tried
        for post in tried:
            delivery.answered(post, Response(429))
    assert not delivery.over, "a tenth of a second is still enough for a retry"
    loop.run_until(10.0)
    tried = take_all(delivery)
    assert len(tried) == 50, "each has had its turn before the deadline"
    for post in tried:
        delivery.answered(post, Response(429))
    assert delivery.over
    assert delivery.report(50) == DeliveryReport(throttled=50)


def test_who_is_being_tried_again_at_the_deadline_was_throttled_last(loop: SteppedLoop) -> None:
    delivery = make_delivery(loop)
    delivery.begin()
    delivery.add(watchers(2))
    delivery.end_of_pages()
    for post in take_all(delivery):
        delivery.answered(post, Response(429))
    loop.run_until(9.0)
    first, _ = take_all(delivery)
    delivery.answered(first, Response(200))
    loop.run_until(10.0)
    assert delivery.report(2) == DeliveryReport(delivered=1, throttled=1)


def test_a_bad_request_fails_at_once_and_alone(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer(by_id({"w3=": [Behaviour.BAD_REQUEST] * 9})) as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(6)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=5, failed=1)
    assert len(server.requests) == 6


def test_a_slow_client_delays_nobody_else(make_fan_out: MakeFanOut, clock: Clock, begun: list[Delivery]) -> None:
    def plan(connection_id: str, attempt: int) -> Behaviour:
        return Behaviour.HANG if connection_id.startswith("slow") else Behaviour.DELIVER

    everyone = [watchers(3, "slow"), *pages(watchers(200), 20)]
    with ConnectionsServer(plan) as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_in_flight=4, request_timeout_seconds=1_000)
        posting = pool.submit(fan_out.post, everyone, MESSAGE, deadline_seconds=1_000, forget=never_forget)
        assert eventually(lambda: bool(begun) and begun[0].delivered == 200), (
            "three of four places are taken by slow clients, the fourth serves all the rest and every page"
        )
        clock.ahead += 1_000
        assert posting.result(AMPLE) == DeliveryReport(delivered=200, failed=3)


def test_more_clients_that_hang_than_there_are_places_do_not_hold_up_the_others_until_their_time_out(
    make_fan_out: MakeFanOut, clock: Clock, begun: list[Delivery]
) -> None:
    hanging = watchers(6, "slow")
    server = ConnectionsServer(by_id({w.connection_id: [Behaviour.HANG] * 9 for w in hanging}))
    with server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_in_flight=4, request_timeout_seconds=2_000)
        everyone = [[*hanging, *watchers(50)]]
        posting = pool.submit(fan_out.post, everyone, MESSAGE, deadline_seconds=1_000, forget=never_forget)
        assert eventually(lambda: bool(begun) and begun[0].delivered == 50)
        report = fan_out.post([watchers(50)], MESSAGE, deadline_seconds=500, forget=never_forget)
        assert report.delivered == 50, "nor do they hold up the next message"
        clock.ahead += 1_000
        assert posting.result(AMPLE) == DeliveryReport(delivered=50, failed=6)


def test_what_hangs_is_given_a_bounded_number_of_places(
    make_fan_out: MakeFanOut, clock: Clock, begun: list[Delivery]
) -> None:
    hanging = watchers(40)
    server = ConnectionsServer(by_id({w.connection_id: [Behaviour.HANG] * 9 for w in hanging}))
    with server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_in_flight=1, request_timeout_seconds=2_000)
        posting = pool.submit(fan_out.post, [hanging], MESSAGE, deadline_seconds=1_000, forget=never_forget)
        assert eventually(lambda: server.accepted == 4)
        time.sleep(0.6)  # the engine looks four times a second
        clock.ahead += 1_000
        assert posting.result(AMPLE) == DeliveryReport(failed=40)
        assert server.accepted == 4


def test_those_that_are_slow_by_turns_keep_their_connections_until_all_is_quiet(
    make_fan_out: MakeFanOut, clock: Clock
) -> None:
    asked: list[str] = []
    gates = {1: threading.Event(), 40: threading.Event(), 80: threading.Event()}

    def plan(connection_id: str, attempt: int) -> Behaviour:
        asked.append(connection_id)
        if len(asked) in gates:
            gates[len(asked)].wait(AMPLE)  # and with it all the others: the server has one thread
        return Behaviour.DELIVER

    with ConnectionsServer(plan) as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_in_flight=2)
        posting = pool.submit(fan_out.post, [watchers(120)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        assert eventually(lambda: len(asked) == 1)
        engine = fan_out._engine
        assert engine is not None
        for number, gate in gates.items():
            assert eventually(lambda number=number: len(asked) == number)
            if number == 40:
                time.sleep(0.4)  # long enough for a look at them, and too short to be slow
            else:
                clock.ahead += 0.6
                assert eventually(lambda: engine._count_busy() == 4)
            gate.set()
        assert posting.result(AMPLE) == DeliveryReport(delivered=120)
        assert server.accepted == 4, "none was closed and opened anew, which costs a TLS handshake"
        assert eventually(lambda: len(engine._connections) == 2)


def test_connections_closed_after_a_few_requests_are_replaced(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer(close_after=3) as server:
        report = make_fan_out(server.callback_url, max_in_flight=4).post(
            [watchers(60)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=60)
    assert sum(map(len, server.received.values())) == 60
    assert server.accepted >= 20


def test_a_message_too_large_for_one_write_arrives_whole(make_fan_out: MakeFanOut) -> None:
    message = random.Random(16).randbytes(8_000_000)
    with ConnectionsServer() as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(3)], message, deadline_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=3)
    assert [server.received[w.connection_id] == [message] for w in watchers(3)] == [True] * 3


# Refusals


@pytest.mark.parametrize(
    ("behaviour", "status", "cure"),
    [
        (Behaviour.FORBIDDEN, 403, "execute-api:ManageConnections"),
        (Behaviour.TOO_LARGE, 413, "larger than the 128 KB"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_refusal_is_raised_with_its_cure_after_the_others_were_served(
    make_fan_out: MakeFanOut, behaviour: Behaviour, status: int, cure: str, named: bool
) -> None:
    with ConnectionsServer(by_id({"w3=": [behaviour] * 9}), name_errors=lambda _: named) as server:
        fan_out = make_fan_out(server.callback_url)
        with pytest.raises(DeliveryRefused, match=cure) as refused:
            fan_out.post(pages(watchers(90), 30), MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert refused.value.status == status
    assert refused.value.connection_id == "w3="
    assert refused.value.report == DeliveryReport(delivered=89, failed=1)
    assert len(server.received) == 89
    assert len(server.requests) == 90, "a refusal is not tried again"


@pytest.mark.parametrize("behaviour", [Behaviour.FORBIDDEN, Behaviour.TOO_LARGE])
def test_a_refusal_that_hits_everyone_is_noticed_long_before_everyone_was_asked(
    make_fan_out: MakeFanOut, behaviour: Behaviour
) -> None:
    read = 0

    def endless() -> Iterator[Sequence[Subscription]]:
        nonlocal read
        while True:
            read += 1
            yield watchers(1_000)

    with ConnectionsServer(lambda _id, _attempt: behaviour) as server:
        fan_out = make_fan_out(server.callback_url, max_in_flight=16)
        with pytest.raises(DeliveryRefused) as refused:
            fan_out.post(endless(), MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert len(server.requests) <= 100
    assert read <= 3
    assert refused.value.report == DeliveryReport(failed=1_000 * read)


def test_expired_credentials_are_fetched_anew_once_and_nobody_is_lost(make_fan_out: MakeFanOut) -> None:
    asked = 0

    def credentials() -> ReadOnlyCredentials:
        nonlocal asked
        asked += 1
        return ReadOnlyCredentials("AKIDEXAMPLE", "secret", f"token-{asked}", None)

    def plan(connection_id: str, attempt: int) -> Behaviour:
        expired = server.requests[-1].headers["x-amz-security-token"] == "token-1"
        return Behaviour.EXPIRED_TOKEN if expired else Behaviour.DELIVER

    with ConnectionsServer(plan, name_errors=lambda id_: int(id_[1:-1]) % 2 == 0) as server:
        fan_out = make_fan_out(server.callback_url, credentials=credentials)
        report = fan_out.post(pages(watchers(400), 50), MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert report == DeliveryReport(delivered=400)
    assert asked == 2


def test_a_refusal_of_the_old_credentials_that_comes_late_is_not_held_against_the_new_ones(
    loop: SteppedLoop,
) -> None:
    expired, renewed = Response(403, "ExpiredTokenException"), signer()
    delivery = make_delivery(loop)
    delivery.add(watchers(2))
    first, second = take_all(delivery)
    delivery.answered(first, expired)
    assert delivery.wants_credentials
    assert delivery.take() is None, "nothing more is sent with credentials known to be expired"
    delivery.renew(renewed)
    assert delivery.answered(second, expired), "it is sent again at once"
    assert take_all(delivery) == [first, second]
    assert {first.signer, second.signer} == {renewed}
    assert delivery.refusal is None


def test_credentials_that_stay_expired_are_a_refusal(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer(lambda _id, _attempt: Behaviour.EXPIRED_TOKEN) as server:
        fan_out = make_fan_out(server.callback_url, max_in_flight=4)
        with pytest.raises(DeliveryRefused, match="token included in the request is expired"):
            fan_out.post([watchers(500)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert len(server.requests) < 100


# Connections over time


def test_connections_closed_while_the_sandbox_was_frozen_are_reopened_unnoticed(
    make_fan_out: MakeFanOut, caplog: pytest.LogCaptureFixture
) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url, max_in_flight=4)
        for _ in range(5):
            report = fan_out.post([watchers(40)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=40)
            server.drop_connections()
    assert server.accepted > 4
    assert sum(map(len, server.received.values())) == 200
    assert caplog.messages == []


def test_a_connection_idle_for_long_is_not_trusted(make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url, max_in_flight=1)
        for wait in (50.0, 50.0, 0.0, 0.0):
            monkeypatch.setattr("docprogress.posting.engine._MAX_IDLE_SECONDS", wait)
            assert fan_out.post([watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget).delivered
    assert server.accepted == 3


def test_a_server_that_cannot_be_reached_costs_the_deadline_and_says_why(
    make_fan_out: MakeFanOut,
    unreachable_url: str,
    clock: Clock,
    begun: list[Delivery],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fan_out = make_fan_out(unreachable_url)
    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(
            fan_out.post, pages(watchers(50), 10), MESSAGE, deadline_seconds=1_000, forget=never_forget
        )
        assert eventually(lambda: bool(begun) and bool(begun[0].problems))
        assert not posting.done()
        clock.ahead += 1_000
        report = posting.result(AMPLE)
    assert report.failed >= 10
    assert report == DeliveryReport(failed=report.failed)
    assert "cannot connect: ConnectionRefusedError" in caplog.text


def test_while_nobody_can_connect_no_delivery_outlives_its_deadline(
    make_fan_out: MakeFanOut, unreachable_url: str, clock: Clock, begun: list[Delivery]
) -> None:
    def deliveries() -> int:
        gc.collect()
        return sum(isinstance(each, Delivery) for each in gc.get_objects())

    fan_out = make_fan_out(unreachable_url)
    others = deliveries()
    for _ in range(50):
        fan_out.post([watchers(1)], MESSAGE, deadline_seconds=0.005, forget=never_forget)
    with ThreadPoolExecutor(1) as pool:
        # The last sees connections fail, long after the others are over.
        posting = pool.submit(fan_out.post, [watchers(1)], MESSAGE, deadline_seconds=1_000, forget=never_forget)
        assert eventually(lambda: len(begun) == 51 and bool(begun[50].problems))
        clock.ahead += 1_000
        assert posting.result(AMPLE) == DeliveryReport(failed=1)
    begun.clear()
    assert deliveries() - others <= 2


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


def test_tls_is_verified_against_the_systems_authorities(
    make_fan_out: MakeFanOut,
    certificate: Path,
    clock: Clock,
    begun: list[Delivery],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server_tls = server_context(certificate)
    with ConnectionsServer(close_after=7, ssl_context=server_tls) as server, ThreadPoolExecutor(1) as pool:
        stranger = make_fan_out(server.callback_url)
        posting = pool.submit(stranger.post, [watchers(1)], MESSAGE, deadline_seconds=1_000, forget=never_forget)
        assert eventually(lambda: bool(begun) and bool(begun[0].problems))
        clock.ahead += 1_000
        assert posting.result(AMPLE) == DeliveryReport(failed=1)
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        assert server.requests == [], "nothing was sent to a server that could be anyone"

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # how OpenSSL is told its authorities
        fan_out = make_fan_out(server.callback_url, max_in_flight=4)
        large = random.Random(16).randbytes(2_000_000)
        assert fan_out.post([watchers(60)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget).delivered == 60
        server.drop_connections()
        assert fan_out.post([watchers(3)], large, deadline_seconds=AMPLE, forget=never_forget).delivered == 3
    assert server.received["w2="] == [MESSAGE, large]


# The caller's side


def test_the_next_page_is_read_while_the_last_is_posted_and_no_further(make_fan_out: MakeFanOut) -> None:
    posted_when_read: list[int] = []
    second_is_read = threading.Event()

    def plan(connection_id: str, attempt: int) -> Behaviour:
        second_is_read.wait(AMPLE / 2)  # else this thread may be the faster one
        return Behaviour.DELIVER

    def recording() -> Iterator[Sequence[Subscription]]:
        for page in pages(watchers(1_000), 100):
            posted_when_read.append(len(server.requests))
            if len(posted_when_read) == 2:
                second_is_read.set()
            yield page

    with ConnectionsServer(plan) as server:
        make_fan_out(server.callback_url).post(recording(), MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    ahead = [100 * number - posted for number, posted in enumerate(posted_when_read)]
    assert max(ahead) <= 200 + 128, "two pages and what is in flight"
    assert max(ahead[1:]) > 0, "a page is read before all of the last was posted"


def test_documents_published_at_once_share_the_connections_fairly(make_fan_out: MakeFanOut) -> None:
    all_are_there = threading.Event()
    handed_over: list[str] = []

    def plan(connection_id: str, attempt: int) -> Behaviour:
        all_are_there.wait(AMPLE / 2)
        return Behaviour.DELIVER

    with ConnectionsServer(plan) as server:
        fan_out = make_fan_out(server.callback_url, max_in_flight=8)
        reports: dict[str, DeliveryReport] = {}

        def publish(name: str, count: int) -> None:
            def page() -> Iterator[Sequence[Subscription]]:
                yield watchers(count, name)
                handed_over.append(name)
                if len(handed_over) == len(threads):
                    all_are_there.set()

            reports[name] = fan_out.post(page(), name.encode(), deadline_seconds=AMPLE, forget=never_forget)

        threads = [threading.Thread(target=publish, args=("long", 4_000))]
        threads += [threading.Thread(target=publish, args=(f"short{n}", 50)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert reports.pop("long") == DeliveryReport(delivered=4_000)
    assert list(reports.values()) == [DeliveryReport(delivered=50)] * 6
    of_the_short = [number for number, request in enumerate(server.requests) if request.body != b"long"]
    assert max(of_the_short) < 1_000, "the long one has but a share of the turns"
    assert all(id_.startswith(message.decode()) for id_, messages in server.received.items() for message in messages), (
        "everyone hears of their own document"
    )


def test_a_page_that_cannot_be_read_is_raised_after_those_before_it_were_served(
    make_fan_out: MakeFanOut,
) -> None:
    def breaking() -> Iterator[Sequence[Subscription]]:
        yield watchers(70)
        raise ConnectionError("the table is away")

    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url)
        with pytest.raises(ConnectionError, match="the table is away"):
            fan_out.post(breaking(), MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert len(server.received) == 70


def test_a_forget_that_fails_is_raised_after_those_in_hand_were_served(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer(by_id({"w0=": [Behaviour.GONE]})) as server:
        fan_out = make_fan_out(server.callback_url)
        with pytest.raises(AssertionError, match="were forgotten"):
            fan_out.post([watchers(70)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert len(server.received) == 69


def test_a_deadline_that_has_passed_sends_nothing_and_says_so(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer() as server:
        report = make_fan_out(server.callback_url).post(
            pages(watchers(50), 10), MESSAGE, deadline_seconds=0, forget=never_forget
        )
    assert report.failed >= 10
    assert report.delivered == 0


def test_a_page_on_its_way_to_the_loop_at_the_deadline_counts_as_failed(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, returned = watchers(3, "late"), threading.Event()
    add = Delivery.add

    def add_late(delivery: Delivery, page: Sequence[Subscription]) -> None:
        if page == late:
            delivery.end()  # as the deadline does
            returned.wait(AMPLE)
        add(delivery, page)

    monkeypatch.setattr(Delivery, "add", add_late)
    with ConnectionsServer() as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(2), late], MESSAGE, deadline_seconds=AMPLE, forget=never_forget
        )
        returned.set()
    assert report.failed >= 3, "whoever reads that nothing failed does not send again"
    assert report.delivered + report.failed == 5


def test_a_page_handed_over_while_another_thread_closes_counts_as_failed(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = watchers(3, "late")
    call = Engine.call

    def call_late(engine: Engine, delivery: Delivery, step: Callable[..., None], *args: object) -> None:
        if late in args:
            fan_out.close()
        call(engine, delivery, step, *args)

    monkeypatch.setattr(Engine, "call", call_late)
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url)
        report = fan_out.post([watchers(2), late], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert report.failed >= 3
    assert report.delivered + report.failed == 5


def test_closing_ends_a_delivery_of_another_thread_and_the_next_is_refused(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer(lambda _id, _attempt: Behaviour.HANG) as server:
        fan_out = make_fan_out(server.callback_url, request_timeout_seconds=2 * AMPLE)
        reports: list[DeliveryReport] = []
        thread = threading.Thread(
            target=lambda: reports.append(
                fan_out.post([watchers(5)], MESSAGE, deadline_seconds=2 * AMPLE, forget=never_forget)
            )
        )
        thread.start()
        assert eventually(lambda: bool(server.requests))
        fan_out.close()
        thread.join(AMPLE)
        assert reports == [DeliveryReport(failed=5)]
        with pytest.raises(RuntimeError, match="closed"):
            fan_out.post([watchers(1)], MESSAGE, deadline_seconds=1, forget=never_forget)


def test_disconnecting_takes_what_is_gone_already_for_done(make_fan_out: MakeFanOut) -> None:
    ids = [w.connection_id for w in watchers(30)]
    with ConnectionsServer(by_id({ids[4]: [Behaviour.GONE], ids[5]: [Behaviour.UNAVAILABLE]})) as server:
        report = make_fan_out(server.callback_url).disconnect(ids, deadline_seconds=AMPLE)
    assert report == DeliveryReport(delivered=30)
    assert {(request.method, request.body) for request in server.requests} == {("DELETE", b"")}
    assert len(server.requests) == 31


@pytest.mark.parametrize(
    "in_the_child", ["post() == 1", "fan_out.close() is None", "post() == 1 and fan_out.close() is None"]
)
def test_a_worker_forked_after_a_delivery_has_an_engine_of_its_own_or_none(in_the_child: str) -> None:
    script = f"""
import os, sys
sys.path[:0] = {[path for path in sys.path if path]!r}
from botocore.credentials import ReadOnlyCredentials
from benchmarks.connections_server import ConnectionsServer
from docprogress.document import Subscription
from docprogress.posting.fan_out import FanOut

def post():
    return fan_out.post([[Subscription("a", 0, 0)]], b"{{}}", deadline_seconds=60, forget=print).delivered

with ConnectionsServer() as server:
    fan_out = FanOut(
        server.callback_url, region="eu-west-1", credentials=lambda: ReadOnlyCredentials("a", "b", None)
    )
    assert post() == 1
    child = os.fork()
    if not child:
        try:
            os._exit(0 if {in_the_child} else 1)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0, "the child could not do it"
    assert post() == 1, "the parent's connections were harmed"
    fan_out.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_importing_the_engine_imports_no_boto3() -> None:
    script = f"""
import sys
sys.path[:0] = {[path for path in sys.path if path]!r}
import docprogress.posting.fan_out
assert not {{"boto3", "botocore"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


@given(st.lists(st.builds(DeliveryReport, *[st.integers(0, 10)] * 4)))
def test_reports_add_up_field_by_field(reports: list[DeliveryReport]) -> None:
    total = sum(reports, DeliveryReport())
    for field in ("delivered", "stale", "throttled", "failed"):
        assert getattr(total, field) == sum(getattr(report, field) for report in reports)


# Everything at once


FAULTS = [
    Behaviour.THROTTLED,
    Behaviour.UNAVAILABLE,
    Behaviour.RESET,
    Behaviour.DELIVER_AND_RESET,
    Behaviour.DELIVER_AND_CLOSE,
    Behaviour.DELIVER_CHUNKED,
    Behaviour.DELIVER_WITHOUT_LENGTH,
    Behaviour.GARBAGE,
]


@pytest.mark.parametrize("seed", [1, 2])
def test_in_a_storm_all_healthy_hear_the_final_state_all_dead_are_forgotten_and_none_else(
    make_fan_out: MakeFanOut, clock: Clock, begun: list[Delivery], seed: int
) -> None:
    chance = random.Random(seed)
    everyone = watchers(2_000)
    chance.shuffle(everyone)
    dead, slow, refused = set(everyone[:400]), set(everyone[400:410]), set(everyone[410:415])
    behaviours: dict[str, list[Behaviour]] = {}
    for watcher in everyone:
        before = chance.choices(FAULTS, k=chance.choice([0, 0, 0, 1, 2]))
        if watcher in dead:
            before += [Behaviour.GONE] * 99
        elif watcher in slow:
            before = [chance.choice([Behaviour.HANG, Behaviour.DELIVER_AND_DRIP]) for _ in range(99)]
        elif watcher in refused:
            before = [Behaviour.FORBIDDEN] * 99
        behaviours[watcher.connection_id] = before
    # A dead connection may be called delivered by its first answers, so it can be forgotten by a later message.
    forgotten: list[Subscription] = []
    states = [f'{{"sequence":{n}}}'.encode() for n in range(3)]

    def settled() -> int:
        return sum(delivery.delivered + delivery.stale_count for delivery in begun)

    def tell(fan_out: FanOut, pool: ThreadPoolExecutor, state: bytes) -> None:
        left = [w for w in everyone if w not in set(forgotten)]
        begun.clear()
        posting = pool.submit(fan_out.post, pages(left, 300), state, deadline_seconds=800, forget=forgotten.extend)
        assert eventually(lambda: settled() >= 500)
        clock.ahead += 501  # nothing under way was answered in time
        assert eventually(lambda: settled() == len(left) - len(slow) - len(refused) and begun[0].refusal is not None)
        assert eventually(lambda: len(begun[0].stale) < 100), "past the deadline no more than a batch is forgotten"
        clock.ahead += 300
        refusal = posting.exception(AMPLE)
        assert isinstance(refusal, DeliveryRefused)
        report = refusal.report
        assert report.delivered + report.stale + report.throttled + report.failed == len(left)

    server = ConnectionsServer(by_id(behaviours), name_errors=lambda id_: hash(id_) % 2 == 0, close_after=50)
    with server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_in_flight=64, request_timeout_seconds=500)
        for state in states:
            tell(fan_out, pool, state)
    healthy = set(everyone) - dead - slow - refused
    deaf = [w for w in healthy if states[-1] not in server.received[w.connection_id]]
    assert deaf == []
    assert set(forgotten) == dead
    assert len(forgotten) == len(dead)
