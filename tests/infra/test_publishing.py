"""What a worker gets: its environment and its grants, for both ways of fan-out.

Does not prove that this is enough to report: the emulator's tests do, with IAM enforced.
"""

from __future__ import annotations

import pytest

from tests.infra.samples import allowed, lambda_function, of_documents, policy, publishing
from tests.mock_engine import REGION, SUFFIX, Graph, arn, run

TABLE_NAME = f"progress-table-{SUFFIX}"
TABLE = arn("dynamodb", f"table/{TABLE_NAME}")
POST, DELETE = (arn("execute-api", f"api-api-id/live/{verb}/@connections/*") for verb in ("POST", "DELETE"))
RECORDING = {
    "AUTHORIZATION": "NONE",
    "TABLE_NAME": TABLE_NAME,
    "MAX_MESSAGES_PER_SECOND": "4",
    "DOCUMENT_RETENTION_SECONDS": "90000",
}
ANNOUNCING = RECORDING | {
    "CALLBACK_URL": f"https://api-api-id.execute-api.{REGION}.amazonaws.com.cn/live",
    "CLOSE_EXPIRED_CONNECTIONS": "false",
}


def worker(**changes: object) -> Graph:
    def program() -> None:
        sample = publishing(**changes)
        sample.grant_worker(lambda_function("worker", environment=sample.worker_environment))

    return run(program)


def environment(graph: Graph) -> dict[str, str]:
    variables: dict[str, str] = graph.one("Function", "worker-function").inputs["environment"]["variables"]
    return {name: value for name, value in variables.items() if not name.startswith("POWERTOOLS_")}


def grants(graph: Graph, grantee: str = "worker") -> dict[str, object]:
    return {
        name.removeprefix(f"{grantee}-"): policy(graph, name)
        for name in graph.names("RolePolicy")
        if name.startswith(f"{grantee}-") and name not in (f"{grantee}-write-logs", f"{grantee}-use-keys-of-progress")
    }


def test_a_worker_that_tells_the_watchers_may_find_them_and_post_to_them() -> None:
    graph = worker()
    assert environment(graph) == ANNOUNCING
    finding = of_documents("dynamodb:DeleteItem", "dynamodb:Query", table=TABLE)
    assert grants(graph) == {
        "write-states-in-progress": allowed() | {"Statement": [of_documents("dynamodb:UpdateItem", table=TABLE)]},
        "find-watchers-in-progress": allowed() | {"Statement": [finding]},
        "manage-connections-of-api": allowed((["execute-api:ManageConnections"], [POST])),
    }


def test_a_worker_is_told_that_documents_are_shared() -> None:
    assert environment(worker(shared_documents=True)) == ANNOUNCING | {"SHARED_DOCUMENTS": "true"}


def test_a_worker_before_a_stream_only_records() -> None:
    graph = worker(fan_out="stream")
    assert environment(graph) == RECORDING
    assert set(grants(graph)) == {"write-states-in-progress"}


def test_a_worker_may_close_connections_only_where_tokens_expire() -> None:
    graph = worker(close_expired=True)
    assert environment(graph) == ANNOUNCING | {"CLOSE_EXPIRED_CONNECTIONS": "true"}
    assert grants(graph)["manage-connections-of-api"] == allowed((["execute-api:ManageConnections"], [DELETE, POST]))


@pytest.mark.parametrize("fan_out", ["direct", "stream"])
def test_each_of_two_workers_gets_the_same(fan_out: str) -> None:
    def program() -> None:
        sample = publishing(fan_out=fan_out)
        for name in ("worker", "other"):
            sample.grant_worker(lambda_function(name, environment=sample.worker_environment))

    graph = run(program)
    assert "write-states-in-progress" in grants(graph, "worker")
    assert grants(graph, "worker") == grants(graph, "other")
