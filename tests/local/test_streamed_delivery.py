"""The stream's fan-out on the emulator: the same messages as the direct one, from workers that only write states.

Does not prove the order and the retries of a real DynamoDB stream.
"""

from __future__ import annotations

from pathlib import Path

from tests.local.conftest import DeployedStack
from tests.local.scenarios import as_taken, ask, pdf, receive_to_the_end, upload


def test_a_watcher_hears_start_and_end_from_the_stream(stream_stack: DeployedStack, tmp_path: Path) -> None:
    with stream_stack.connect() as connection:
        ask(connection, action="progress", docId="streamed")
        upload(stream_stack, "streamed", pdf(tmp_path, pages=100))
        messages = as_taken(receive_to_the_end(connection))
    assert messages[0]["totalPages"] == 100
    assert messages[-1]["status"] == "processing_complete"


def test_an_unreadable_file_is_told_from_the_stream_too(stream_stack: DeployedStack) -> None:
    with stream_stack.connect() as connection:
        ask(connection, action="progress", docId="unreadable")
        upload(stream_stack, "unreadable", b"no PDF")
        assert receive_to_the_end(connection)[-1]["errorCode"] == "DOCUMENT_DAMAGED"


def test_the_worker_may_not_post_by_itself(stream_stack: DeployedStack) -> None:
    function = stream_stack.outputs["functionNames"]["documents-processor"]
    configuration = stream_stack.client("lambda").get_function_configuration(FunctionName=function)
    assert "CALLBACK_URL" not in configuration["Environment"]["Variables"]
    role = configuration["Role"].rsplit("/")[-1]
    iam = stream_stack.client("iam")
    documents = [
        str(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]
    assert not any("execute-api" in document for document in documents)
