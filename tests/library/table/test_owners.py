"""How many documents of an owner may be unfinished at once, on the emulator's table."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from docprogress.document import Failure
from docprogress.errors import TooManyDocuments
from docprogress.table.client import Table
from docprogress.table.owners import Owners
from docprogress.table.states import States
from tests.library.table.support import Clock, finish, start

UPLOAD_SECONDS = 360


@pytest.fixture
def owners(table: Table, clock: Clock) -> Owners:
    return Owners(table, limit=2, upload_seconds=UPLOAD_SECONDS, now=clock)


@pytest.fixture
def owner() -> str:
    return f"alice-{uuid.uuid4()}"


def ask(owners: Owners, store: States, owner: str) -> str:
    document_id = f"uploads/{uuid.uuid4()}"
    owners.add(owner, document_id)
    store.expect(document_id, owner=owner)
    return document_id


def test_an_owner_has_only_so_many_unfinished_documents_and_another_one_as_many(
    owners: Owners, store: States, owner: str
) -> None:
    for _ in range(2):
        ask(owners, store, owner)
    with pytest.raises(TooManyDocuments):
        ask(owners, store, owner)
    ask(owners, store, "bob-" + owner)


@pytest.mark.parametrize("failure", [None, Failure("Damaged.")], ids=["complete", "error"])
def test_a_document_that_has_ended_makes_room(
    owners: Owners, store: States, owner: str, failure: Failure | None
) -> None:
    first = ask(owners, store, owner)
    ask(owners, store, owner)
    start(store, first)
    with pytest.raises(TooManyDocuments):
        ask(owners, store, owner)
    finish(store, first, failure)
    ask(owners, store, owner)


def test_a_document_that_is_tried_again_has_not_ended(owners: Owners, store: States, owner: str) -> None:
    for _ in range(2):
        document_id = ask(owners, store, owner)
        start(store, document_id)
        finish(store, document_id, Failure("Tried again.", recoverable=True))
    with pytest.raises(TooManyDocuments):
        ask(owners, store, owner)


def test_a_form_that_was_never_used_makes_room_once_it_has_expired(
    owners: Owners, store: States, owner: str, clock: Clock
) -> None:
    for _ in range(2):
        ask(owners, store, owner)
    clock.now += UPLOAD_SECONDS - 1
    with pytest.raises(TooManyDocuments):
        ask(owners, store, owner)
    clock.now += 1
    ask(owners, store, owner)


def test_what_was_taken_up_in_time_counts_however_long_it_takes(
    owners: Owners, store: States, owner: str, clock: Clock
) -> None:
    for _ in range(2):
        start(store, ask(owners, store, owner))
    clock.now += 2 * UPLOAD_SECONDS
    with pytest.raises(TooManyDocuments):
        ask(owners, store, owner)


def test_requests_at_the_same_moment_get_no_more_than_one_by_one(owners: Owners, owner: str) -> None:
    def add(number: int) -> bool:
        try:
            owners.add(owner, f"uploads/{number}-{owner}")
        except TooManyDocuments:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert 1 <= sum(pool.map(add, range(16))) <= 2


@pytest.mark.parametrize("limit", [0, 101])
def test_a_limit_that_the_table_cannot_hold_is_refused(table: Table, limit: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        Owners(table, limit=limit, upload_seconds=UPLOAD_SECONDS)
