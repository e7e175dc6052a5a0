"""The library writes what the shared vectors say; workers in other languages are held to the same ones.

Does not prove what more the library does: expected documents, joined runs, the watchdog's ends.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from docprogress.document import Beginning, Failure, Run, Status, Tally, Update
from docprogress.errors import Cancelled, StartRefused, Superseded
from docprogress.table.states import States
from tests.library.table.support import ABANDONED, NOW_MS
from tests.state_vectors import DOCUMENT_ID, VECTORS, assert_outcome, put_row

STATUSES = {
    "start": Status.STARTED,
    "advance": Status.PROGRESS,
    "complete": Status.COMPLETE,
    "fail": Status.ERROR,
}


@pytest.mark.emulator
@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_the_library_writes_what_the_vector_says(
    client: Any, table_name: str, store: States, vector: dict[str, Any]
) -> None:
    assert VECTORS["nowMs"] == NOW_MS
    put_row(client, table_name, vector)
    ((name, said),) = vector["call"].items()
    assert_outcome(client, table_name, vector, outcome(store, name, dict(said)))


def outcome(store: States, name: str, said: dict[str, Any]) -> str:
    run = Run(DOCUMENT_ID, said.pop("run"), said.pop("attempt", None))
    try:
        if name == "begin":
            store.begin(run, Beginning(uuid.uuid4().hex, ABANDONED, order=int(said["order"])))
        elif name == "heartbeat":
            store.heartbeat(run)
        else:
            tally = Tally(VECTORS["worker"], said.pop("counted", 0))
            if name == "fail":
                said = {"failure": Failure(said.pop("message"), said.pop("code")), **said}
            store.write(run, Update(status=STATUSES[name], tally=tally, **said))
    except Cancelled:
        return "refused" if name == "begin" else "cancelled"
    except (StartRefused, Superseded):
        return "refused"
    return "written"
