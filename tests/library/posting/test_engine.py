"""When connections are opened, kept and given up, by what the server and the name's look-ups see.

Not proved here: who is posted to next (test_backlog), nor what TLS costs (make bench).
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from botocore.credentials import ReadOnlyCredentials

from docprogress.posting import engine
from docprogress.posting.connection import Address, open_socket
from docprogress.posting.report import DeliveryReport
from docprogress.posting.update import Update
from tests.faults.connections_server import Behaviour, ConnectionsServer
from tests.functions.fakes import eventually
from tests.library.posting.conftest import Clock, MakeFanOut
from tests.library.posting.samples import AMPLE, KEYS, MESSAGE, by_id, never_forget, watchers


class Opener:
    """Stands before the opening of sockets: holds it up, or has it fail, and notes how many were opened at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing = self.held = False
        self.at_once = self.most_at_once = self.asked = 0
        self.first_addresses: list[Any] = []
        monkeypatch.setattr(engine, "open_socket", self._open)

    async def _open(self, addresses: Sequence[Address], host: str, context: Any) -> socket.socket:
        self.first_addresses.append(addresses[0][4])
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while self.held:
                await asyncio.sleep(0.005)
            if self.failing:
                raise ConnectionRefusedError("as the test says")
            return await open_socket(addresses, host, context)
        finally:
            self.at_once -= 1


@pytest.mark.parametrize(
    ("later", "accepted"), [(49.0, 1), (51.0, 2), (-51.0, 2)], ids=["idle", "idle for long", "clock set back"]
)
def test_an_idle_connection_is_let_go_before_a_nat_gateway_forgets_it(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, later: float, accepted: int
) -> None:
    now = time.time()
    monkeypatch.setattr("docprogress.posting.engine.time.time", lambda: now)
    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url, max_connections=1)
        for _ in range(2):
            report = fan_out.post([watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=1)
            now += later
    assert server.accepted == accepted


def test_no_more_than_sixteen_handshakes_are_under_way_at_once(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(monkeypatch)
    opener.held = True
    with ConnectionsServer() as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url)
        posting = pool.submit(
            fan_out.post, [watchers(300)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
        assert eventually(lambda: opener.at_once == 16)
        opener.held = False
        assert posting.result(AMPLE) == DeliveryReport(delivered=300)
    assert opener.most_at_once == 16


def test_closing_while_connections_are_opened_leaves_none_of_them_behind(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(monkeypatch)
    opener.held = True
    with ConnectionsServer() as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url)
        posting = pool.submit(fan_out.post, [watchers(9)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        assert eventually(lambda: opener.at_once == 9)
        fan_out.close()
        assert opener.at_once == 0
        assert posting.result(AMPLE) == DeliveryReport(untried=9)


def test_a_connection_answered_before_its_request_was_sent_is_not_used_again(make_fan_out: MakeFanOut) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(AMPLE)

        def serve() -> None:
            early, _ = listener.accept()
            with early:
                early.recv(100)
                early.sendall(answer)
                later, _ = listener.accept()
                with later:
                    received = b""
                    while not received.endswith(MESSAGE):
                        received += later.recv(65_536)
                    later.sendall(answer)

        served = pool.submit(serve)
        fan_out = make_fan_out(f"http://127.0.0.1:{listener.getsockname()[1]}/prod", max_connections=1)
        more_than_a_socket_holds = b"x" * 20_000_000
        for message in (more_than_a_socket_holds, MESSAGE):
            report = fan_out.post([watchers(1)], message, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=1)
        served.result(AMPLE)


def test_a_connection_on_which_the_server_speaks_unasked_is_not_used_again(make_fan_out: MakeFanOut) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(AMPLE)

        def serve(*answers: bytes) -> None:
            connection, _ = listener.accept()
            connection.settimeout(AMPLE)
            with connection:
                received = b""
                while not received.endswith(MESSAGE):
                    received += connection.recv(65_536)
                for each in answers:
                    connection.sendall(each)
                    delivered.wait(AMPLE)
                assert connection.recv(1) == b"", "the client has closed it"

        fan_out = make_fan_out(f"http://127.0.0.1:{listener.getsockname()[1]}/prod", max_connections=1)
        for answers in ([answer, answer], [answer]):
            delivered = threading.Event()
            served = pool.submit(serve, *answers)
            report = fan_out.post([watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=1)
            delivered.set()
            if answers == [answer]:
                fan_out.close()
            served.result(AMPLE)


@pytest.mark.parametrize("behaviour", [Behaviour.FLOOD, Behaviour.CONTINUE])
def test_an_answer_without_an_end_is_a_failure_once_it_is_too_long(
    make_fan_out: MakeFanOut,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    behaviour: Behaviour,
) -> None:
    monkeypatch.setattr("docprogress.posting.window._MOST_SLOW_SECONDS", AMPLE)
    with ConnectionsServer(lambda *_: behaviour) as server:
        report = make_fan_out(server.callback_url).post(
            [watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget
        )
    assert report == DeliveryReport(failed=1)
    assert "MalformedResponse" in caplog.text


def test_an_address_that_never_answers_is_given_up_after_the_time_of_a_request(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("docprogress.posting.engine.jitter", lambda *_: 1_000.0)
    opener = Opener(monkeypatch)
    opener.held = True
    with ConnectionsServer() as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url)
        posting = pool.submit(fan_out.post, [watchers(2)], MESSAGE, deadline_seconds=10_000, forget=never_forget)
        assert eventually(lambda: opener.at_once == 2)
        clock.ahead += AMPLE
        assert eventually(lambda: opener.at_once == 0)
        fan_out.close()
        assert posting.result(AMPLE) == DeliveryReport(untried=2)


def test_a_message_of_several_packets_does_not_wait_for_the_servers_acknowledgement() -> None:
    with ConnectionsServer() as server:
        port = int(server.callback_url.split(":")[2].split("/")[0])
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        sock, _ = asyncio.run(open_socket([address], "", None))
        with sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_while_connections_fail_one_at_a_time_is_tried_after_longer_and_longer_and_then_many_again(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    delays: list[float] = []

    def longest(_least: float, most: float) -> float:
        delays.append(most)
        return 1_000.0  # until the test moves the clock

    monkeypatch.setattr("docprogress.posting.engine.jitter", longest)
    opener = Opener(monkeypatch)
    opener.failing = True
    with ConnectionsServer() as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url)
        posting = pool.submit(
            fan_out.post, [watchers(300)], MESSAGE, deadline_seconds=10_000, settle_seconds=AMPLE, forget=never_forget
        )
        assert eventually(lambda: len(delays) == 16)
        assert delays == sorted(delays)
        assert (delays[0], delays[-1]) == (0.1, 1.0)
        assert opener.asked == 16, "a server that refuses connections is not asked in a hot loop"
        opener.most_at_once, opener.held = 0, True
        clock.ahead += 1_001
        assert eventually(lambda: opener.asked == 17)
        opener.held = False
        assert eventually(lambda: len(delays) == 17)
        assert opener.most_at_once == 1, "while they fail, one finds out for all"
        opener.failing = False
        clock.ahead += 1_001
        report = fan_out.post(
            [watchers(300, "x")], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
        assert report == DeliveryReport(delivered=300)
        assert opener.most_at_once == 16, "many are opened at once again"
        fan_out.close()
        posting.result(AMPLE)


def test_a_post_whose_time_is_up_as_others_need_its_connection_is_given_up_once(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    # So slow that nothing is overdue before the test says so.
    monkeypatch.setattr(asyncio.SelectorEventLoop, "time", lambda _loop: time.monotonic() / 20 + clock.ahead)
    monkeypatch.setattr("docprogress.posting.backlog.jitter", lambda _least, _most: 10_000.0)  # nobody is tried again
    options: Any = {"deadline_seconds": 10_000, "settle_seconds": 10_000, "forget": never_forget}
    with ConnectionsServer() as server, ThreadPoolExecutor(3) as pool:
        server.plan = lambda id_, _attempt: Behaviour.DELIVER if id_.startswith("healthy") else Behaviour.HANG
        with closing(make_fan_out(server.callback_url, max_connections=200, request_timeout_seconds=60.0)) as fan_out:
            hanging = pool.submit(fan_out.post, [watchers(72, "hanging")], MESSAGE, **options)
            assert eventually(lambda: len(server.requests) == 72)
            clock.ahead += 1.0
            fan_out.post([watchers(1, "healthy")], MESSAGE, **options)  # so it is not the gateway that is slow
            for others in ("a", "b"):  # one document alone may not have all of them
                pool.submit(fan_out.post, [watchers(300, others)], MESSAGE, **options)
            assert eventually(lambda: len(server.requests) == 72 + 1 + 128), "so many may await an answer at first"
            clock.ahead += 59.5  # the first are overdue, and the others so slow that more of them may be tried
            assert eventually(lambda: len(server.requests) > 72 + 1 + 128)
        assert hanging.result(AMPLE) == DeliveryReport(failed=72)
    assert any("{'TimeoutError': 72}" in record.getMessage() for record in caplog.records)


def test_the_name_is_looked_up_again_after_half_its_ttl_and_connections_are_spread_over_its_addresses(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    looked_up = 0
    opener = Opener(monkeypatch)
    with ConnectionsServer() as server:
        port = int(server.callback_url.split(":")[2].split("/")[0])
        here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        nowhere = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))

        def look_up(*_: object, **__: object) -> list[Any]:
            nonlocal looked_up
            looked_up += 1
            return [here, nowhere]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        fan_out = make_fan_out(server.callback_url, max_connections=1)
        for ahead, expected in ((0.0, 1), (29.0, 1), (2.0, 2)):
            clock.ahead += ahead
            report = fan_out.post([watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=1)
            assert looked_up == expected
            server.drop_connections()
    assert {address[1] for address in opener.first_addresses} == {port, 9}


@pytest.mark.parametrize("failure", ["fails", "hangs"])
def test_while_the_name_cannot_be_looked_up_it_is_reached_where_it_was(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, clock: Clock, failure: str
) -> None:
    monkeypatch.setattr("docprogress.posting.engine._LOOKUP_SECONDS", 0.05)
    released = threading.Event()

    def look_up(*_: object, **__: object) -> list[Any]:
        if failure == "hangs":
            released.wait(AMPLE)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with ConnectionsServer() as server:
        fan_out = make_fan_out(server.callback_url)
        for number in range(3):
            report = fan_out.post([watchers(20)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
            assert report == DeliveryReport(delivered=20), f"after {number} lookups that were none"
            monkeypatch.setattr(socket, "getaddrinfo", look_up)
            clock.ahead += 31.0
            server.drop_connections()
        released.set()


def test_while_credentials_are_awaited_nothing_is_sent_and_no_connection_is_opened_but_those_begun_before(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(monkeypatch)
    asked, fetched = 0, threading.Event()

    def credentials() -> ReadOnlyCredentials:
        nonlocal asked
        asked += 1
        if asked == 3:  # the first two times for an update, and now since they are said to have expired
            assert fetched.wait(AMPLE)
        return KEYS

    with ConnectionsServer(by_id({"w0=": [Behaviour.EXPIRED_TOKEN]})) as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, credentials=credentials)
        fan_out.post([watchers(1, "first")], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        opener.held = True
        posting = pool.submit(
            fan_out.post, [watchers(300)], MESSAGE, deadline_seconds=AMPLE, settle_seconds=AMPLE, forget=never_forget
        )
        assert eventually(lambda: (asked, opener.at_once) == (3, 16))
        opener.held = False
        assert eventually(lambda: opener.at_once == 0)
        for _ in range(2):  # by the second, the loop has done what the first made it begin
            fan_out.post([[]], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        assert opener.asked == 17
        assert server.attempts == {"first0=": 1, "w0=": 1}
        fetched.set()
        assert posting.result(AMPLE) == DeliveryReport(delivered=300)


def test_who_gives_no_answer_is_waited_for_a_second_longer_each_time(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, clock: Clock, begun: list[Update]
) -> None:
    monkeypatch.setattr("docprogress.posting.backlog.jitter", lambda least, _most: least)
    hanging = by_id({"w0=": [Behaviour.HANG] * 9})
    with ConnectionsServer(hanging) as server, ThreadPoolExecutor(1) as pool, monkeypatch.context() as standing_still:
        now = time.monotonic()
        standing_still.setattr(asyncio.SelectorEventLoop, "time", lambda _loop: now + clock.ahead)
        fan_out = make_fan_out(server.callback_url, request_timeout_seconds=10.0)
        pool.submit(fan_out.post, [watchers(1)], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
        for given_up, patience_seconds in enumerate((10.0, 1.0, 2.0, 3.0)):
            assert eventually(lambda sent=given_up + 1: server.attempts["w0="] == sent)  # type: ignore[misc]
            for ahead, expected in ((patience_seconds - 0.1, given_up), (0.2, given_up + 1)):
                clock.ahead += ahead
                # Until another was told, the loop has looked after those that wait.
                fan_out.post([watchers(1, "other")], MESSAGE, deadline_seconds=AMPLE, forget=never_forget)
                assert begun[0].problems["TimeoutError"] == expected


@pytest.mark.parametrize(
    ("meanwhile", "is_slow"), [(Behaviour.GONE, False), (Behaviour.DELIVER, True)], ids=["gone", "delivered"]
)
def test_only_a_delivery_to_another_proves_that_it_is_the_watcher_who_is_slow_and_not_the_gateway(
    make_fan_out: MakeFanOut, monkeypatch: pytest.MonkeyPatch, clock: Clock, meanwhile: Behaviour, is_slow: bool
) -> None:
    monkeypatch.setattr("tests.faults.connections_server.DRIP_SECONDS", 50.0)
    order: list[str] = []
    behave = by_id({"w0=": [Behaviour.DELIVER_AND_DRIP], "other0=": [meanwhile, Behaviour.GONE]})

    def plan(connection_id: str, attempt: int) -> Behaviour:
        order.append(connection_id)
        return behave(connection_id, attempt)

    with ConnectionsServer(plan) as server, ThreadPoolExecutor(1) as pool:
        fan_out = make_fan_out(server.callback_url, max_connections=2, request_timeout_seconds=1_000.0)
        posting = pool.submit(
            fan_out.post,
            [watchers(1)],
            MESSAGE,
            topic="d",
            version=1,
            deadline_seconds=1_000.0,
            settle_seconds=1_000.0,
            forget=never_forget,
        )
        assert eventually(lambda: order == ["w0="])
        clock.ahead += 1.0
        fan_out.post([watchers(1, "other")], MESSAGE, deadline_seconds=AMPLE, forget=lambda _: None)
        monkeypatch.setattr("tests.faults.connections_server.DRIP_SECONDS", 0.0)
        clock.ahead += 50.0
        # A server that is asked something looks at its clock.
        fan_out.post([watchers(1, "other")], MESSAGE, deadline_seconds=AMPLE, forget=lambda _: None)
        assert posting.result(AMPLE) == DeliveryReport(delivered=1)
        order.clear()
        fan_out.post(
            [watchers(20)],
            MESSAGE,
            topic="d",
            version=2,
            deadline_seconds=AMPLE,
            settle_seconds=AMPLE,
            forget=never_forget,
        )
    assert (order.index("w0=") > 10) is is_slow, "who is slow comes last"
