"""The fan-out against a server that misbehaves as told.

Does not prove what API Gateway really answers, nor that it accepts the signatures (test_sigv4), nor any speed
(`make bench`). A frozen sandbox is played by closing its connections and by moving the wall clock.
"""

from __future__ import annotations

import random
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.certificate import server_context, write_certificate
from docprogress.posting.report import DeliveryRefused, DeliveryReport
from docprogress.posting.update import Update
from docprogress.posting.window import START
from tests.faults.connections_server import Behaviour, ConnectionsServer
from tests.functions.fakes import eventually
from tests.library.posting.conftest import Clock, MakeFanOut
from tests.library.posting.samples import AMPLE, KEYS, MESSAGE, Watcher, by_id, never_forget, pages, watchers

# Delivery


def test_everyone_hears_over_few_connections_that_are_kept_for_the_next_message(
    make_fan_out: MakeFanOut,
) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url, max_connections=8)
        for message in (b"1", b"2", b"3"):
            report = fan_out.post(
                pages(watchers(300), 100), message, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
            )
            assert report == DeliveryReport(delivered=300)
    assert server.received == {w.connection_id: [b"1", b"2", b"3"] for w in watchers(300)}
    assert server.accepted <= 8
    assert server.busiest <= 8
    assert {request.method for request in server.requests} == {"POST"}


@pytest.mark.parametrize("wrong", [{"max_connections": 0}, {"request_timeout_seconds": 0}])
def test_a_fan_out_that_could_send_nothing_is_refused(make_fan_out: MakeFanOut, wrong: dict[str, int]) -> None:
    least = {"max_connections": 1, "request_timeout_seconds": 0.1}
    make_fan_out("https://a.example/prod", **least)
    with pytest.raises(ValueError, match="both must be above zero"):
        make_fan_out("https://a.example/prod", **least | wrong)


def test_nobody_to_tell_is_no_delivery_and_no_connection(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url)
        nothing: list[list[list[Watcher]]] = [[], [[]], [[], []]]
        for empty in nothing:
            report = fan_out.post(empty, MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport()
    assert server.accepted == 0


def test_a_stale_connection_is_forgotten_and_the_others_still_hear(make_fan_out: MakeFanOut) -> None:
    gone = {w for w in watchers(250) if int(w.connection_id[1:-1]) % 5 < 3}
    forgotten: list[Sequence[Watcher]] = []
    threads: set[threading.Thread] = set()

    def forget(stale: Sequence[Watcher]) -> None:
        forgotten.append(stale)
        threads.add(threading.current_thread())

    plan = by_id({w.connection_id: [Behaviour.GONE] * 9 for w in gone})
    with ConnectionsServer(plan, name_errors=lambda id_: hash(id_) % 2 == 0) as server:
        report = make_fan_out(server.callback_url).post(
            pages(watchers(250), 40), MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=forget
        )
    assert report == DeliveryReport(delivered=100, stale=150)
    assert eventually(lambda: sum(map(len, forgotten)) == 150)
    assert sorted(w for batch in forgotten for w in batch) == sorted(gone), "each once, as it was read"
    assert max(len(batch) for batch in forgotten) <= 100
    assert {thread.name for thread in threads} == {"docprogress-aside"}, "a blocking delete would hold up the loop"
    assert len(server.requests) == 250, "a gone connection is not tried again"


def test_rows_that_take_long_to_delete_keep_nobody_from_hearing(make_fan_out: MakeFanOut) -> None:
    gone, healthy = watchers(300, "gone"), watchers(20)
    forgotten: list[Watcher] = []
    has_returned = threading.Event()

    def forget(stale: Sequence[Watcher]) -> None:
        has_returned.wait(AMPLE)
        forgotten.extend(stale)

    with ConnectionsServer(by_id({w.connection_id: [Behaviour.GONE] * 9 for w in gone})) as server:
        report = make_fan_out(server.callback_url).post(
            [gone, healthy, []], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=forget
        )
        assert report == DeliveryReport(delivered=20, stale=300)
        assert forgotten == []
        has_returned.set()
        assert eventually(lambda: sorted(forgotten) == sorted(gone))


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.THROTTLED,
        Behaviour.UNAVAILABLE,
        Behaviour.RESET,
        Behaviour.GARBAGE,
        Behaviour.NEGATIVE_LENGTH,
        Behaviour.HUGE_HEAD,
        Behaviour.DELIVER_AND_RESET,
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_may_pass_is_tried_again(make_fan_out: MakeFanOut, behaviour: Behaviour, named: bool) -> None:
    some = watchers(20)
    plan = by_id({w.connection_id: [behaviour] * (n % 3) for n, w in enumerate(some)})
    with ConnectionsServer(plan, name_errors=lambda _: named) as server:
        report = make_fan_out(server.callback_url, max_connections=4).post(
            [some], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=20)
    assert all(server.received[w.connection_id] for w in some)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.DELIVER_CHUNKED,
        Behaviour.DELIVER_WITHOUT_LENGTH,
        Behaviour.DELIVER_WITH_ODD_HEADERS,
        Behaviour.DELIVER_AS_HTTP_1_0,
        Behaviour.DELIVER_AND_CLOSE,
        Behaviour.DELIVER_AND_ANNOUNCE_CLOSE,
        Behaviour.DELIVER_AND_ANSWER_AGAIN,
    ],
)
def test_however_the_answer_is_framed_nobody_hears_twice(make_fan_out: MakeFanOut, behaviour: Behaviour) -> None:
    with ConnectionsServer(lambda _id, _attempt: behaviour) as server:
        report = make_fan_out(server.callback_url, max_connections=4).post(
            [watchers(40)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
        assert report == DeliveryReport(delivered=40)
    heard = [len(messages) for messages in server.received.values()]
    assert len(heard) == 40
    assert heard == [1] * 40


def test_a_kept_connection_that_ends_is_replaced_at_once_and_a_fresh_one_counts_against_its_watcher(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docprogress.posting.backlog.jitter", lambda *_: 1_000.0)
    kept, fresh = watchers(2)
    behaviours = {kept.connection_id: [Behaviour.DELIVER, Behaviour.RESET], fresh.connection_id: [Behaviour.RESET]}
    with ConnectionsServer(by_id(behaviours)) as server:
        fan_out = make_fan_out(server.callback_url, max_connections=1)
        for _ in range(2):
            report = fan_out.post([[kept]], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=1)
        report = make_fan_out(server.callback_url).post([[fresh]], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        assert report == DeliveryReport(failed=1)
    assert server.attempts == {kept.connection_id: 3, fresh.connection_id: 1}


def test_connections_closed_after_a_few_requests_are_replaced(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer(close_after=3) as server:
        report = make_fan_out(server.callback_url, max_connections=4).post(
            [watchers(60)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=60)
    assert sum(map(len, server.received.values())) == 60
    assert server.accepted >= 20


def test_a_message_too_large_for_one_write_arrives_whole(make_fan_out: MakeFanOut) -> None:
    message = random.Random(16).randbytes(8_000_000)
    with ConnectionsServer() as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(3)], message, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=3)
    assert [server.received[w.connection_id] == [message] for w in watchers(3)] == [True] * 3


# Refusals


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
        report = fan_out.post(
            pages(watchers(400), 50), MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=400)
    assert asked == 2


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(Behaviour.FORBIDDEN, "403"), (Behaviour.TOO_LARGE, "413"), (Behaviour.BAD_REQUEST, "400")],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_refusal_of_some_is_counted_and_logged_and_the_others_are_served(
    make_fan_out: MakeFanOut, behaviour: Behaviour, status: str, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = watchers(100, "a")  # more in a row than chance explains
    with ConnectionsServer(
        by_id({w.connection_id: [behaviour] * 9 for w in refusing}), name_errors=lambda _: named
    ) as server:
        report = make_fan_out(server.callback_url, strict=True).post(
            [refusing, watchers(90)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=90, refused=100)
    assert len(server.received) == 90
    assert len(server.requests) == 190, "a refusal is not tried again"
    assert f"{status}" in caplog.text


@pytest.mark.parametrize(
    ("behaviour", "status", "cure"),
    [
        (Behaviour.FORBIDDEN, 403, "execute-api:ManageConnections"),
        (Behaviour.TOO_LARGE, 413, "larger than the 128 KB"),
        (Behaviour.NOT_FOUND, 404, "CALLBACK_URL is the stack output callbackUrl"),
        (Behaviour.MOVED, 301, "CALLBACK_URL is the stack output callbackUrl"),
        (Behaviour.ELSEWHERE, 307, "CALLBACK_URL is the stack output callbackUrl"),
    ],
)
def test_a_refusal_by_all_is_one_loud_error_with_its_cure_and_raised_where_that_is_asked_for(
    make_fan_out: MakeFanOut, behaviour: Behaviour, status: int, cure: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ConnectionsServer(lambda _id, _attempt: behaviour) as server:
        lenient = make_fan_out(server.callback_url)
        assert lenient.post(
            [watchers(9)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        ) == DeliveryReport(refused=9)
        (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert cure in error
        strict = make_fan_out(server.callback_url, strict=True)
        with pytest.raises(DeliveryRefused, match=cure) as refused:
            strict.post([watchers(9)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget)
    assert refused.value.status == status
    assert refused.value.report == DeliveryReport(refused=9)
    assert "elsewhere" not in server.attempts, "a redirect would take the signed message to another server"


def test_credentials_that_stay_expired_are_a_refusal(make_fan_out: MakeFanOut) -> None:
    asked = 0

    def credentials() -> ReadOnlyCredentials:
        nonlocal asked
        asked += 1
        return ReadOnlyCredentials("AKIDEXAMPLE", "secret", f"token-{asked}", None)

    with ConnectionsServer(lambda _id, _attempt: Behaviour.EXPIRED_TOKEN) as server:
        fan_out = make_fan_out(server.callback_url, max_connections=4, credentials=credentials, strict=True)
        with pytest.raises(DeliveryRefused, match="token included in the request is expired"):
            fan_out.post([watchers(50)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget)
    assert asked == 2, "once for the message, and once more"


def test_credentials_that_cannot_be_renewed_hold_up_nobody_for_ever(
    make_fan_out: MakeFanOut, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Iterator[ReadOnlyCredentials] = iter([KEYS])

    def credentials() -> ReadOnlyCredentials:
        for keys in answers:
            return keys
        raise ConnectionError("the credentials' endpoint is away")

    with ConnectionsServer(lambda _id, _attempt: Behaviour.EXPIRED_TOKEN) as server:
        fan_out = make_fan_out(server.callback_url, credentials=credentials)
        report = fan_out.post([watchers(5)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert report == DeliveryReport(failed=5)
    assert "no credentials: ConnectionError the credentials' endpoint is away" in caplog.text


# Connections over time


def test_connections_closed_while_the_sandbox_was_frozen_are_reopened_unnoticed(
    make_fan_out: MakeFanOut, caplog: pytest.LogCaptureFixture
) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url, max_connections=4)
        for _ in range(5):
            report = fan_out.post(
                [watchers(40)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
            )
            assert report == DeliveryReport(delivered=40)
            server.drop_connections()
    assert server.accepted > 4
    assert sum(map(len, server.received.values())) == 200
    assert caplog.messages == []


def test_a_connection_idle_for_long_is_not_trusted(make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url, max_connections=1)
        for wait in (50.0, 50.0, 0.0, 0.0):
            monkeypatch.setattr("docprogress.posting.engine._MAX_IDLE_SECONDS", wait)
            assert fan_out.post(
                [watchers(1)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
            ).delivered
    assert server.accepted == 3


def test_a_server_that_cannot_be_reached_costs_the_deadline_and_says_why(
    make_fan_out: MakeFanOut,
    unreachable_url: str,
    clock: Clock,
    begun: list[Update],
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
    assert report.untried >= 10
    assert report == DeliveryReport(untried=report.untried)
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "cannot connect: ConnectionRefusedError" in error


def test_a_server_that_takes_the_connection_and_says_nothing_is_told_of_when_the_deadline_comes_first(
    make_fan_out: MakeFanOut, clock: Clock, begun: list[Update], caplog: pytest.LogCaptureFixture
) -> None:
    """It never answers the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(f"https://127.0.0.1:{silent.getsockname()[1]}/prod", request_timeout_seconds=1_000)
        posting = pool.submit(fan_out.post, [watchers(3)], MESSAGE, deadline_seconds=500, forget=never_forget)
        accepted, _ = silent.accept()
        assert not posting.done()
        clock.ahead += 501
        assert posting.result(AMPLE) == DeliveryReport(untried=3)
        accepted.close()
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "no connection was ready in time" in error


def test_tls_is_verified_against_the_systems_authorities(
    make_fan_out: MakeFanOut,
    certificate: Path,
    clock: Clock,
    begun: list[Update],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server_tls = server_context(certificate)
    with ConnectionsServer(close_after=7, ssl_context=server_tls) as server, ThreadPoolExecutor(1) as pool:
        stranger = make_fan_out(server.callback_url)
        posting = pool.submit(stranger.post, [watchers(1)], MESSAGE, deadline_seconds=1_000, forget=never_forget)
        assert eventually(lambda: bool(begun) and bool(begun[0].problems))
        clock.ahead += 1_000
        assert posting.result(AMPLE) == DeliveryReport(untried=1)
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        assert server.requests == [], "nothing was sent to a server that could be anyone"

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # how OpenSSL is told its authorities
        fan_out = make_fan_out(server.callback_url, max_connections=4)
        large = random.Random(16).randbytes(2_000_000)
        assert (
            fan_out.post(
                [watchers(60)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
            ).delivered
            == 60
        )
        server.drop_connections()
        assert (
            fan_out.post(
                [watchers(3)], large, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
            ).delivered
            == 3
        )
    assert server.received["w2="] == [MESSAGE, large]


def test_a_server_of_an_unlikely_authority_is_verified_against_all_of_the_system(
    make_fan_out: MakeFanOut, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    likely = write_certificate(tmp_path, common_name="Amazon Root CA 99")
    bundle.write_bytes(likely.read_bytes() + certificate.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with ConnectionsServer(ssl_context=server_context(certificate)) as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(3)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=3)


# The caller's side


def test_the_next_page_is_read_while_the_last_is_posted_and_no_further(make_fan_out: MakeFanOut) -> None:
    posted_when_read: list[int] = []
    second_is_read = threading.Event()

    def plan(connection_id: str, attempt: int) -> Behaviour:
        second_is_read.wait(AMPLE / 2)  # else this thread may be the faster one
        return Behaviour.DELIVER

    def recording() -> Iterator[Sequence[Watcher]]:
        for page in pages(watchers(1_000), 100):
            posted_when_read.append(len(server.requests))
            if len(posted_when_read) == 2:
                second_is_read.set()
            yield page

    with ConnectionsServer(plan) as server:
        make_fan_out(server.callback_url).post(
            recording(), MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
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
        fan_out = make_fan_out(server.callback_url, max_connections=8)
        reports: dict[str, DeliveryReport] = {}

        def publish(name: str, count: int) -> None:
            def page() -> Iterator[Sequence[Watcher]]:
                yield watchers(count, name)
                handed_over.append(name)
                if len(handed_over) == len(threads):
                    all_are_there.set()

            reports[name] = fan_out.post(
                page(), name.encode(), deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
            )

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
    def breaking() -> Iterator[Sequence[Watcher]]:
        yield watchers(70)
        raise ConnectionError("the table is away")

    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url)
        with pytest.raises(ConnectionError, match="the table is away"):
            fan_out.post(breaking(), MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget)
    assert len(server.received) == 70


def test_a_deadline_that_has_passed_sends_nothing_and_says_so(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer() as server:
        report = make_fan_out(server.callback_url).post(
            pages(watchers(50), 10), MESSAGE, deadline_seconds=0, forget=never_forget
        )
    assert report == DeliveryReport(untried=report.untried)
    assert report.untried >= 10


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
        assert eventually(lambda: len(server.requests) == 5)
        fan_out.close()
        thread.join(AMPLE)
        assert reports == [DeliveryReport(failed=5)]
        with pytest.raises(RuntimeError, match="closed"):
            fan_out.post([watchers(1)], MESSAGE, deadline_seconds=1, forget=never_forget)


def test_closing_while_a_page_is_read_ends_the_delivery(make_fan_out: MakeFanOut) -> None:
    closed = threading.Event()

    def reading() -> Iterator[Sequence[Watcher]]:
        yield watchers(1)
        closed.wait(AMPLE)
        yield watchers(2, "later")

    with ConnectionsServer() as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url)
        posting = pool.submit(fan_out.post, reading(), MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        assert eventually(lambda: "w0=" in server.received)
        fan_out.close()
        closed.set()
        assert posting.result(AMPLE).untried == 2


def test_disconnecting_takes_no_longer_than_it_may(make_fan_out: MakeFanOut, clock: Clock) -> None:
    with ConnectionsServer(lambda *_: Behaviour.HANG) as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_connections=1)
        disconnecting = pool.submit(fan_out.disconnect, ["w0=", "w1="], deadline_seconds=2.0)
        assert eventually(lambda: server.attempts["w0="] == 1)
        clock.ahead += 2.0
        assert disconnecting.result(AMPLE) == DeliveryReport(failed=1, untried=1)


def test_disconnecting_takes_what_is_gone_already_for_done(make_fan_out: MakeFanOut) -> None:
    ids = [w.connection_id for w in watchers(30)]
    plan = {ids[4]: [Behaviour.GONE], ids[5]: [Behaviour.UNAVAILABLE], ids[6]: [Behaviour.FORBIDDEN]}
    with ConnectionsServer(by_id(plan)) as server:
        report = make_fan_out(server.callback_url).disconnect(ids, deadline_seconds=AMPLE)
    assert report == DeliveryReport(delivered=29, refused=1)
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
from tests.faults.connections_server import ConnectionsServer
from docprogress.posting.fan_out import FanOut
from tests.library.posting.samples import Watcher

def post():
    return fan_out.post([[Watcher("a")]], b"{{}}", deadline_seconds=60, forget=print).delivered

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
# Nothing is closed, and the process ends all the same.
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


@given(st.lists(st.builds(DeliveryReport, *[st.integers(0, 10)] * 6)))
def test_reports_add_up_field_by_field(reports: list[DeliveryReport]) -> None:
    total = sum(reports, DeliveryReport())
    for field in ("delivered", "stale", "throttled", "failed", "untried", "refused"):
        assert getattr(total, field) == sum(getattr(report, field) for report in reports)


# Stragglers


HEALTHY = watchers(10)
BAD = watchers(2, "bad")


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour.THROTTLED, Behaviour.UNAVAILABLE, Behaviour.RESET, Behaviour.HANG, Behaviour.DELIVER_AND_DRIP],
)
def test_a_straggler_of_any_kind_holds_up_nobody_and_hears_once_it_can(
    make_fan_out: MakeFanOut, clock: Clock, behaviour: Behaviour
) -> None:
    recovered = threading.Event()

    def plan(connection_id: str, attempt: int) -> Behaviour:
        return behaviour if connection_id.startswith("bad") and not recovered.is_set() else Behaviour.DELIVER

    with ConnectionsServer(plan, name_errors=lambda _: False) as server:
        fan_out = make_fan_out(server.callback_url, request_timeout_seconds=20)
        report = fan_out.post([HEALTHY + BAD], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        missed = {"throttled": 2} if behaviour is Behaviour.THROTTLED else {"failed": 2}
        assert report == DeliveryReport(delivered=10, **missed)
        server.received.clear()  # of a dripping answer the server thinks that it is one
        recovered.set()
        clock.ahead += 21  # what hangs is given up, and what waits is due
        assert eventually(lambda: all(MESSAGE in server.received[w.connection_id] for w in BAD))
    assert all(w.connection_id not in server.received for w in HEALTHY), "those who heard are not told again"


def test_a_connection_found_gone_after_the_last_message_is_forgotten_without_another(make_fan_out: MakeFanOut) -> None:
    forgotten: list[str] = []
    with ConnectionsServer(by_id({"w0=": [Behaviour.THROTTLED, Behaviour.GONE]})) as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(2)],
            MESSAGE,
            deadline_seconds=AMPLE,
            forget=lambda gone: forgotten.extend(watcher.connection_id for watcher in gone),
        )
        assert report == DeliveryReport(delivered=1, throttled=1)
        assert eventually(lambda: forgotten == ["w0="])


def test_a_table_that_takes_long_to_forget_in_the_background_holds_up_no_delivery(
    make_fan_out: MakeFanOut, clock: Clock
) -> None:
    forgetting, released = threading.Event(), threading.Event()
    released_in_time: list[bool] = []

    def forget(_stale: Sequence[Watcher]) -> None:
        forgetting.set()
        released_in_time.append(released.wait(AMPLE))

    with ConnectionsServer(by_id({"w0=": [Behaviour.THROTTLED, Behaviour.GONE]})) as server:
        fan_out = make_fan_out(server.callback_url)
        report = fan_out.post([watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=forget)
        assert report == DeliveryReport(throttled=1)
        assert eventually(lambda: server.attempts["w0="] == 2)
        clock.ahead += 1.0
        assert forgetting.wait(AMPLE)
        report = fan_out.post([watchers(1, "x")], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        assert report == DeliveryReport(delivered=1)
        released.set()
        assert eventually(lambda: released_in_time == [True])


def test_what_is_gone_and_cannot_be_forgotten_in_the_background_is_logged(
    make_fan_out: MakeFanOut, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(gone: Sequence[Watcher]) -> None:
        raise RuntimeError("the table says no")

    with ConnectionsServer(by_id({"w0=": [Behaviour.THROTTLED, Behaviour.GONE]})) as server:
        make_fan_out(server.callback_url).post([watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=forget)
        assert eventually(lambda: "What was left to be done aside has failed" in caplog.messages)


def test_a_straggler_hears_the_newest_message_alone(make_fan_out: MakeFanOut) -> None:
    states = [b"1", b"2", b"3", b"4"]
    last_is_posted = threading.Event()

    def plan(connection_id: str, attempt: int) -> Behaviour:
        return Behaviour.DELIVER if connection_id.startswith("w") or last_is_posted.is_set() else Behaviour.THROTTLED

    with ConnectionsServer(plan) as server:
        fan_out = make_fan_out(server.callback_url)
        for version, state in enumerate(states):
            report = fan_out.post(
                [HEALTHY + BAD], state, topic="d", version=version, deadline_seconds=AMPLE, forget=never_forget
            )
            assert report == DeliveryReport(delivered=10, throttled=2)
        last_is_posted.set()
        assert eventually(lambda: all(server.received[w.connection_id] for w in BAD))
        fan_out.close()
    assert {w.connection_id: server.received[w.connection_id] for w in HEALTHY} == {
        w.connection_id: states for w in HEALTHY
    }
    assert [server.received[w.connection_id] for w in BAD] == [[states[-1]]] * 2


def test_a_message_older_than_the_topics_newest_is_not_sent_any_more(make_fan_out: MakeFanOut) -> None:
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url)
        for version, expected in ((2, DeliveryReport(delivered=3)), (1, DeliveryReport(untried=3))):
            report = fan_out.post(
                [watchers(3)],
                str(version).encode(),
                topic="d",
                version=version,
                deadline_seconds=AMPLE,
                forget=never_forget,
            )
            assert report == expected
    assert server.received == {w.connection_id: [b"2"] for w in watchers(3)}


def test_a_newer_message_ends_an_older_ones_update_and_takes_its_watchers(make_fan_out: MakeFanOut) -> None:
    newer_is_there = threading.Event()

    def plan(connection_id: str, attempt: int) -> Behaviour:
        newer_is_there.wait(AMPLE)
        return Behaviour.DELIVER

    everyone = watchers(40)
    with ConnectionsServer(plan) as server, ThreadPoolExecutor(2) as pool:
        fan_out = make_fan_out(server.callback_url, max_connections=4)

        def post(version: int) -> DeliveryReport:
            return fan_out.post(
                [everyone],
                str(version).encode(),
                topic="d",
                version=version,
                deadline_seconds=AMPLE,
                settle_seconds=AMPLE,
                forget=never_forget,
            )

        older = pool.submit(post, 1)
        assert eventually(lambda: bool(server.requests))
        newer = pool.submit(post, 2)
        assert older.result(AMPLE).untried > 0, "its watchers hear the newer one"
        newer_is_there.set()
        assert newer.result(AMPLE) == DeliveryReport(delivered=40)
    for w in everyone:
        heard = server.received[w.connection_id]
        assert heard[-1] == b"2"
        assert heard == sorted(heard), "nobody hears an older message after a newer one"


def test_a_last_message_waits_for_stragglers_a_bounded_time(
    make_fan_out: MakeFanOut, clock: Clock, begun: list[Update]
) -> None:
    plan = by_id({"bad0=": [Behaviour.THROTTLED], "bad1=": [Behaviour.UNAVAILABLE] * 10_000})
    with ConnectionsServer(plan) as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url)
        posting = pool.submit(
            fan_out.post, [HEALTHY + BAD], MESSAGE, deadline_seconds=1_000, settle_seconds=500, forget=never_forget
        )
        assert eventually(lambda: bool(server.received["bad0="]))
        assert not posting.done()
        clock.ahead += 501
        assert posting.result(AMPLE) == DeliveryReport(delivered=11, failed=1)


def test_more_watchers_that_hang_than_there_are_connections_hold_up_nobody(make_fan_out: MakeFanOut) -> None:
    hanging, healthy = watchers(40, "bad"), watchers(50)
    server = ConnectionsServer(by_id({w.connection_id: [Behaviour.HANG] * 99 for w in hanging}))
    with server:
        fan_out = make_fan_out(server.callback_url, max_connections=4)
        for version in (1, 2):
            report = fan_out.post(
                [[*hanging, *healthy]],
                b"%d" % version,
                topic="d",
                version=version,
                deadline_seconds=AMPLE,
                forget=never_forget,
            )
            assert report == DeliveryReport(delivered=50, failed=40)
        assert server.busiest <= 4
    assert [server.received[w.connection_id] for w in healthy] == [[b"1", b"2"]] * 50


def test_who_gave_no_answer_once_does_not_wait_behind_those_that_never_do(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("docprogress.posting.backlog.jitter", lambda least, _most: least)
    hanging, late, healthy = watchers(3, "bad"), watchers(1, "late"), watchers(50)
    behaviours = {w.connection_id: [Behaviour.HANG] * 99 for w in hanging} | {late[0].connection_id: [Behaviour.HANG]}
    with ConnectionsServer(by_id(behaviours)) as server:
        fan_out = make_fan_out(server.callback_url, max_connections=4)
        fan_out.post([[*hanging, *late, *healthy]], b"1", deadline_seconds=AMPLE, forget=never_forget)
        assert eventually(lambda: server.received[late[0].connection_id] == [b"1"])


def test_a_gateway_that_is_slow_for_everyone_makes_nobody_a_straggler(make_fan_out: MakeFanOut) -> None:
    everyone = watchers(128)
    with ConnectionsServer(answer_seconds=0.6) as server:
        fan_out = make_fan_out(server.callback_url, max_connections=64)
        for version in range(2):
            server.busiest = 0
            fan_out.post(
                [everyone],
                b"%d" % version,
                topic="d",
                version=version,
                deadline_seconds=AMPLE,
                settle_seconds=AMPLE,
                forget=never_forget,
            )
            assert server.busiest > 32, "most connections are for everyone, an eighth is for stragglers"
    assert [server.received[w.connection_id] for w in everyone] == [[b"0", b"1"]] * 128, "nobody was given up"


def test_a_gateway_slower_than_anybodys_patience_is_told_from_watchers_that_hang(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few of those that wait are spared. They are answered in the end, and then everyone is waited for as long."""
    monkeypatch.setattr("docprogress.posting.engine._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("docprogress.posting.engine._HUNG_SECONDS", 0.1)
    everyone = watchers(120)
    with ConnectionsServer(answer_seconds=1.0) as server:
        fan_out = make_fan_out(server.callback_url, max_connections=32)
        report = fan_out.post([everyone], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget)
        assert report == DeliveryReport(delivered=120)
        assert [server.received[w.connection_id] for w in everyone] == [[MESSAGE]] * 120
        assert max(server.attempts.values()) == 1
        assert len(server.requests) <= 360, "each is given up once, and a few twice on a busy machine"


def test_another_topic_notices_nothing_of_one_whose_watchers_hang(make_fan_out: MakeFanOut) -> None:
    hanging, healthy = watchers(300, "bad"), watchers(5)
    server = ConnectionsServer(by_id({w.connection_id: [Behaviour.HANG] * 99 for w in hanging}))
    with server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_connections=16)
        posting = pool.submit(fan_out.post, [hanging], b"bad", topic="bad", deadline_seconds=AMPLE, forget=never_forget)
        assert eventually(lambda: len(server.requests) >= 12)
        for version in range(20):
            report = fan_out.post(
                [healthy], b"good", topic="good", version=version, deadline_seconds=AMPLE, forget=never_forget
            )
            assert report == DeliveryReport(delivered=5)
        assert not posting.done(), "the other topic is still at it"
        assert posting.result(AMPLE) == DeliveryReport(failed=300)


def test_a_process_that_may_open_few_files_leaves_some_to_others(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 4_096))
    with ConnectionsServer(answer_seconds=0.05) as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(60)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(delivered=60)
    assert server.accepted == 14


def test_a_quick_burst_takes_more_connections_than_it_began_with(make_fan_out: MakeFanOut) -> None:
    """Where answers take a while, and take no longer when there are more of them."""
    with ConnectionsServer(answer_seconds=0.05) as server:
        fan_out = make_fan_out(server.callback_url)
        report = fan_out.post(pages(watchers(4_000), 1_000), MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
    assert report == DeliveryReport(delivered=4_000)
    assert server.busiest > START


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
def test_in_a_storm_all_healthy_hear_the_last_state_all_dead_are_forgotten_and_none_else(
    make_fan_out: MakeFanOut, seed: int
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
    healthy = set(everyone) - dead - slow - refused
    forgotten: list[Watcher] = []
    states = [f'{{"sequence":{n}}}'.encode() for n in range(10)]
    server = ConnectionsServer(by_id(behaviours), name_errors=lambda id_: hash(id_) % 2 == 0, close_after=50)
    with server:
        fan_out = make_fan_out(server.callback_url, max_connections=64)

        def tell(version: int, settle_seconds: float) -> DeliveryReport:
            left = sorted(set(everyone) - set(forgotten))
            report = fan_out.post(
                pages(left, 300),
                states[version],
                topic="d",
                version=version,
                deadline_seconds=AMPLE,
                settle_seconds=settle_seconds,
                forget=forgotten.extend,
            )
            assert sum(getattr(report, name) for name in report.__slots__) == len(left)
            return report

        # A dead connection may be called delivered by its first answers, so it can be forgotten by a later message.
        for version in range(9):
            assert tell(version, 0.0).untried == 0
            if set(forgotten) >= dead:
                break
        tell(9, 2.0)
        assert eventually(lambda: all(states[9] in server.received[w.connection_id] for w in healthy))
        # In the background too, so one that was read before may be forgotten twice, which costs a delete.
        assert eventually(lambda: set(forgotten) >= dead)
    assert set(forgotten) == dead
    for w in healthy:
        heard = server.received[w.connection_id]
        assert heard == sorted(heard), "nobody hears an older message after a newer one"
