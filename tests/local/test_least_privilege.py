"""Every statement that a function's role has is needed: without it, what the function is for fails. On the emulator.

Does not prove statements that the emulator does not enforce: who may assume a role, the invoke role, S3's
permission. Nor that no narrower resource would do; the graph tests compare those whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.local.scenarios import ask, eventually, pdf, put_silent_document, receive, rows, upload

Stack = Any

_numbers = count()


def _connections_are_kept(stack: Stack, _folder: Path, patience: float) -> bool:
    document_id = f"kept-{next(_numbers)}"
    with stack.connect() as connection:
        for subscribe in (True, False, True):
            if ask(connection, action="progress", docId=document_id, subscribe=subscribe)["status"] != "pending":
                return False
    return eventually(lambda: not rows(stack, f"DOCUMENT#{document_id}"), within=patience)


def _documents_are_processed(stack: Stack, folder: Path, patience: float) -> bool:
    document_id = f"processed-{next(_numbers)}"
    with stack.connect() as connection:
        ask(connection, action="progress", docId=document_id)
        upload(stack, document_id, pdf(folder))
        while (message := receive(connection, timeout=patience))["status"] != "processing_complete":
            if message["status"] == "error":
                return False
    return True


def _silent_documents_are_ended(stack: Stack, _folder: Path, patience: float) -> bool:
    document_id = f"silent-{next(_numbers)}"
    put_silent_document(stack, document_id)
    with stack.connect() as connection:
        ask(connection, action="progress", docId=document_id)
        stack.client("lambda").invoke(FunctionName="docprogress-local-stall-watchdog", Payload=b"{}")
        return bool(receive(connection, timeout=patience)["errorCode"] == "PROCESSING_STALLED")


WORKS: dict[str, Callable[[Stack, Path, float], bool]] = {
    "connection-handler": _connections_are_kept,
    "documents-processor": _documents_are_processed,
    "stall-watchdog": _silent_documents_are_ended,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("function", WORKS)
def test_each_statement_of_a_functions_role_is_needed(stack: Stack, tmp_path: Path, function: str) -> None:
    works = WORKS[function]
    assert works(stack, tmp_path, 30.0), "with all of its statements the function does its work"
    needless = []
    for role, policy, index, statement in list(_statements(stack, function)):
        with _without(stack, role, policy, index):
            try:
                is_needed = not works(stack, tmp_path, 3.0)
            except (TimeoutError, InvalidStatus):
                is_needed = True
        if not is_needed:
            needless.append(statement)
    assert needless == []


def _statements(stack: Stack, function: str) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    iam = stack.client("iam")
    configuration = stack.client("lambda").get_function_configuration(FunctionName=f"docprogress-local-{function}")
    role = configuration["Role"].rsplit("/")[-1]
    for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        for index, statement in enumerate(document["Statement"]):
            # The emulator keeps the logs of functions to itself, and answers 404 without s3:ListBucket.
            if not {"logs:PutLogEvents", "s3:ListBucket"} & set(statement["Action"]):
                yield role, policy, index, statement


@contextmanager
def _without(stack: Stack, role: str, policy: str, index: int) -> Iterator[None]:
    iam = stack.client("iam")
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    rest = [statement for number, statement in enumerate(document["Statement"]) if number != index]
    if rest:
        iam.put_role_policy(
            RoleName=role, PolicyName=policy, PolicyDocument=json.dumps({**document, "Statement": rest})
        )
    else:
        iam.delete_role_policy(RoleName=role, PolicyName=policy)
    try:
        yield
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
