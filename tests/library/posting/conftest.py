from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.certificate import write_certificate
from docprogress.posting.fan_out import FanOut
from docprogress.posting.update import Update
from tests.library.posting.samples import AMPLE, KEYS

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
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Update]:
    """The updates that loops have begun, in order: how far one has come is seen in it before it is over."""
    begun: list[Update] = []
    begin = Update.begin

    def noting(update: Update) -> None:
        begun.append(update)
        begin(update)

    monkeypatch.setattr(Update, "begin", noting)
    return begun


@pytest.fixture
def unreachable_url() -> Iterator[str]:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused, and nobody else takes it
        yield f"http://127.0.0.1:{nobody.getsockname()[1]}/prod"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("certificate"))
