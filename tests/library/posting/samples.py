"""Watchers, messages and plans for the tests of posting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from botocore.credentials import ReadOnlyCredentials

from tests.faults.connections_server import Behaviour, Plan
from tests.functions.fakes import PATIENCE_SECONDS

KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "secret", "token", None)
MESSAGE = b'{"status":"processing_complete","docId":"d","sequence":12}'
# On a machine that others use too, any step may take seconds: no time-out strikes where a test is not about it.
AMPLE = PATIENCE_SECONDS


class Watcher(NamedTuple):
    connection_id: str


def watchers(count: int, prefix: str = "w") -> list[Watcher]:
    return [Watcher(f"{prefix}{number}=") for number in range(count)]


def pages(everyone: Sequence[Watcher], size: int) -> Iterator[Sequence[Watcher]]:
    for start in range(0, len(everyone), size):
        yield everyone[start : start + size]


def never_forget(stale: Sequence[Watcher]) -> None:
    raise AssertionError(f"healthy connections were forgotten: {stale}")


def by_id(behaviours: Mapping[str, Sequence[Behaviour]]) -> Plan:
    """Behave as listed for an id, one request after the other, and deliver from then on."""

    def plan(connection_id: str, attempt: int) -> Behaviour:
        listed = behaviours.get(connection_id, ())
        return listed[attempt] if attempt < len(listed) else Behaviour.DELIVER

    return plan
