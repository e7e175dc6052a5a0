"""The component that others use: its defaults, its outputs, who may be a worker, and two of it in one program.

Does not prove what is in it: test_program compares the graph of the whole program.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

from docprogress.document import Connection
from docprogress.table import items
from docprogress.table.connections import Connections
from infra import progress_table
from infra.document_pipeline import DocumentPipeline
from infra.document_progress import DocumentProgress
from infra.grants import Grantee
from infra.lambda_package import Packaging
from infra.publishing import FanOut, Publishing
from infra.websocket_api import WebSocketApi
from tests.infra.samples import KMS_KEY_ARN, allowed, document_progress, lambda_function, of_documents, policy
from tests.mock_engine import PARTITION, REGION, SUFFIX, Graph, arn, run

HOST: dict[str, Any] = {"lambda_packaging": Packaging.HOST}
TABLE = arn("dynamodb", f"table/progress-table-{SUFFIX}")


def test_without_any_argument_it_gives_all_its_outputs() -> None:
    def program() -> None:
        progress = DocumentProgress("progress", HOST)  # type: ignore[arg-type]  # a part of it
        for name in DocumentProgress.__annotations__:
            pulumi.export(name, getattr(progress, name))

    outputs = run(program, stack="dev.eu").outputs
    policy = json.loads(outputs.pop("worker_policy"))
    callback_url = f"https://api-api-id.execute-api.{REGION}.amazonaws.com.cn/dev-eu"
    assert outputs == {
        "url": callback_url.replace("https", "wss"),
        "callback_url": callback_url,
        "api_id": "api-api-id",
        "stage_name": "dev-eu",
        "table_name": f"progress-table-{SUFFIX}",
        "connection_handler_name": f"connection-handler-function-{SUFFIX}",
        "worker_environment": {
            "AUTHORIZATION": "NONE",
            "TABLE_NAME": f"progress-table-{SUFFIX}",
            "MAX_MESSAGES_PER_SECOND": "4",
            "DOCUMENT_RETENTION_SECONDS": "86400",
            "CALLBACK_URL": callback_url,
            "CLOSE_EXPIRED_CONNECTIONS": "false",
        },
    }
    assert policy["Statement"].pop()["Action"] == ["kms:DescribeKey"]
    assert policy["Statement"].pop()["Condition"]["StringLike"] == {
        "kms:EncryptionContext:aws:dynamodb:tableName": [f"progress-table-{SUFFIX}"]
    }
    posting = arn("execute-api", "api-api-id/dev-eu/POST/@connections/*")
    assert policy["Statement"] == [
        of_documents("dynamodb:UpdateItem", table=TABLE),
        of_documents("dynamodb:DeleteItem", "dynamodb:Query", table=TABLE),
        *allowed((["execute-api:ManageConnections"], [posting]))["Statement"],
    ]


def test_a_route_of_ones_own_may_post_to_the_watchers() -> None:
    def routes(publishing: Publishing) -> dict[str, Any]:
        chat = lambda_function("chat", environment=publishing.announcer_environment)
        publishing.grant_announcer(chat)
        return {"say": chat, "shout": "a-function-elsewhere"}

    graph = run(lambda: DocumentProgress("progress", HOST, routes=routes))  # type: ignore[arg-type]
    environment = graph.one("Function", "chat-function").inputs["environment"]["variables"]
    assert environment["CALLBACK_URL"].startswith("https://api-api-id.execute-api.")
    deployed = {each.inputs["routeKey"] for each in graph.of("Route")}
    assert deployed == {"$connect", "$disconnect", "$default", "progress", "say", "shout"}
    assert len(graph.of("Deployment")) == 1, "a route that came after it would not be served"
    posting = [
        statement
        for name in graph.names("RolePolicy")
        if name.startswith("chat-")
        for statement in policy(graph, name)["Statement"]
        if "execute-api:ManageConnections" in statement["Action"]
    ]
    assert len(posting) == 1


@pytest.mark.parametrize(("args", "told"), [({}, None), ({"cancellation": False}, "false")])
def test_a_stack_may_say_that_nothing_is_cancelled(args: dict[str, Any], told: str | None) -> None:
    graph = run(lambda: DocumentProgress("progress", {**HOST, **args}))  # type: ignore[typeddict-item]
    variables = graph.one("Function", "connection-handler-function").inputs["environment"]["variables"]
    assert variables.get("CANCELLATION") == told


@pytest.mark.parametrize("fan_out", FanOut)
@pytest.mark.parametrize("kms_key_arn", ["", KMS_KEY_ARN])
def test_the_policy_that_crosses_languages_allows_what_the_grants_allow(fan_out: FanOut, kms_key_arn: str) -> None:
    def program() -> None:
        progress = document_progress(fan_out=fan_out, kms_key_arn=kms_key_arn)
        progress.grant_worker(lambda_function("worker"))
        pulumi.export("worker_policy", progress.worker_policy)

    graph = run(program)
    granted = [
        statement
        for name in graph.names("RolePolicy")
        if name.startswith("worker-") and name != "worker-write-logs"
        for statement in policy(graph, name)["Statement"]
    ]
    assert texts(granted) == texts(json.loads(graph.outputs["worker_policy"])["Statement"])


def texts(statements: list[dict[str, Any]]) -> set[str]:
    """Without repetition: each grant brings the use of the key along."""
    return {json.dumps(statement, sort_keys=True) for statement in statements}


def role() -> aws.iam.Role:
    return aws.iam.Role("worker", assume_role_policy="{}")


def function_with_a_role_under_a_path() -> aws.lambda_.Function:
    return aws.lambda_.Function("worker", role=f"arn:{PARTITION}:iam::123456789012:role/teams/a/worker-{SUFFIX}")


@pytest.mark.parametrize(
    ("grantee", "role_name"),
    [
        (lambda: lambda_function("worker"), f"worker-role-{SUFFIX}"),
        (role, f"worker-{SUFFIX}"),
        (function_with_a_role_under_a_path, f"worker-{SUFFIX}"),
        (lambda: "worker", "worker"),
    ],
    ids=["ours", "role", "function", "name"],
)
def test_a_worker_is_any_function_or_role(grantee: Callable[[], Grantee], role_name: str) -> None:
    graph = run(lambda: document_progress().grant_worker(grantee()))
    for name in ("write-states-in-progress", "find-watchers-in-progress", "manage-connections-of-api"):
        granted = graph.one("RolePolicy", f"worker-{name}")
        assert granted.inputs["role"] == role_name
        assert graph.parent(granted) in (graph.one("ProgressTable"), graph.one("WebSocketApi"))


@pytest.mark.parametrize("grantee", ["", "arn:aws:iam::123456789012:role/worker", None, 7])
def test_what_has_no_role_is_no_worker(grantee: Any) -> None:
    with pytest.raises(
        ValueError, match=r"it takes a LambdaFunction, an aws\.iam\.Role, an aws\.lambda_\.Function, or"
    ):
        run(lambda: document_progress().grant_worker(grantee))


def two_of_each() -> None:
    """As programs in other languages use them, where methods do not reach."""
    for name in ("progress", "invoices", "contracts"):
        progress = DocumentProgress(name, {**HOST, "fan_out": FanOut.STREAM})  # type: ignore[typeddict-item]
        DocumentPipeline(
            f"{name}-documents",
            {**HOST, "worker_environment": progress.worker_environment, "worker_policy": progress.worker_policy},  # type: ignore[typeddict-item]
        )
    for name in ("messages", "chat"):
        WebSocketApi(name, {"routes": {"$connect": "connect", "$default": arn("lambda", "function:default")}})


@pytest.fixture(scope="module")
def crowd() -> Graph:
    return run(two_of_each)


def test_two_of_each_do_not_collide(crowd: Graph) -> None:
    # That no two have one URN, the mock engine sees.
    named = Counter(
        (each.type, each.inputs["name"]) for each in crowd if each.inputs.get("name") and "Stage" not in each.type
    )
    assert {name: count for name, count in named.items() if count > 1} == {}
    assert len(crowd.of("Table")) == 3


def test_a_function_of_another_program_is_called_by_name_or_arn(crowd: Graph) -> None:
    uris = [
        crowd.one("Integration", f"chat-{key}-route-integration").inputs["integrationUri"]
        for key in ("$connect", "$default")
    ]
    prefix = f"arn:{PARTITION}:apigateway:{REGION}:lambda:path/2015-03-31/functions"
    arns = [arn("lambda", f"function:{name}") for name in ("connect", "default")]
    assert uris == [f"{prefix}/{each}/invocations" for each in arns]
    assert policy(crowd, "chat-invoke-functions") == allowed((["lambda:InvokeFunction"], arns))
    assert crowd.one("Stage", "chat-stage").inputs["deploymentId"] == "chat-deployment-id"


def test_a_processor_may_report_to_a_component_of_another_language(crowd: Graph) -> None:
    given = policy(crowd, "invoices-documents-processor-report-progress")
    table = arn("dynamodb", f"table/invoices-progress-table-{SUFFIX}")
    assert given["Statement"][0] == of_documents("dynamodb:UpdateItem", table=table)
    variables = crowd.one("Function", "invoices-documents-processor-function").inputs["environment"]["variables"]
    assert variables["TABLE_NAME"] == f"invoices-progress-table-{SUFFIX}"
    assert variables["POWERTOOLS_SERVICE_NAME"] == "docprogress-test-invoices-documents-processor"


def test_a_pipeline_that_knows_nobody_to_report_to_is_refused() -> None:
    with pytest.raises(ValueError, match="worker_environment and worker_policy are needed"):
        run(lambda: DocumentPipeline("documents", {"worker_policy": "{}"}))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"authorization": "JWT"}, "issuer is empty, so no token could be checked"),
        ({"authorization": "COGNITO"}, "authorization is 'COGNITO'; it takes one of NONE, AWS_IAM, JWT"),
        (
            {"allowed_origins": ["https://a.example/"]},
            "allowed_origins is ['https://a.example/']; it takes a JSON list",
        ),
        (
            {"connection_max_age_seconds": 7201},
            "connection_max_age_seconds is 7201; it takes a whole number from 60 to",
        ),
        ({"stall_timeout_seconds": 90.5}, "stall_timeout_seconds is 90.5; it takes a whole number"),
        ({"disposable": "yes"}, "disposable is 'yes'; it takes true or false"),
        ({"throttle": 5}, "throttle: there is no such argument; there are"),
    ],
    ids=str,
)
def test_a_bad_argument_is_told_what_it_may_be(args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence is looked at below
        run(lambda: document_progress(**args))
    assert str(refused.value).startswith(sentence)


def test_a_number_may_arrive_as_other_languages_send_it() -> None:
    # Every number of the engine's protocol is a float.
    graph = run(lambda: document_progress(api_throttle_rate=50.0, lambda_memory_megabytes=1024.0))
    assert graph.one("Stage").inputs["defaultRouteSettings"]["throttlingRateLimit"] == 50
    assert graph.one("Function", "connection-handler-function").inputs["memorySize"] == 1024


def test_the_rows_of_connections_have_the_attributes_that_their_grant_names() -> None:
    class Puts:
        name = "progress"

        def __init__(self) -> None:
            self.items: list[Mapping[str, Any]] = []

        def put(self, item: Mapping[str, Any]) -> None:
            self.items.append(item)

    puts = Puts()
    connections = Connections(puts)  # type: ignore[arg-type]  # only its puts are looked at
    connection = Connection("c1", 1_000, "alice")
    connections.add_connection(connection, connected_at=1)
    connections.subscribe("report", connection)
    assert {key for item in puts.items for key in item} == set(progress_table.CONNECTION_ATTRIBUTES), (
        "IAM refuses a row with another attribute, which the local stack does not show"
    )


def test_the_table_has_the_keys_and_indexes_that_the_library_uses() -> None:
    keys = {progress_table.PARTITION_KEY, progress_table.SORT_KEY}
    assert set(items.state_key("report")) == set(items.connection_key("c1")) == keys
    assert items.state_key("report")[progress_table.SORT_KEY] == {"S": progress_table.STATE}
    assert (items.BY_CONNECTION, items.BY_ACTIVITY) == (progress_table.CONNECTION_INDEX, progress_table.ACTIVITY_INDEX)
