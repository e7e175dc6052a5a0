"""Components as most tests want them; a test changes only what it is about."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from infra.authorization import Authorization
from infra.document_progress import DocumentProgress, DocumentProgressArgs
from infra.lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from infra.lambda_package import Packaging
from infra.monitored import Monitored
from infra.progress_table import ProgressTable, ProgressTableArgs
from infra.publishing import FanOut, Publishing
from infra.websocket_api import WebSocketApi, WebSocketApiArgs
from tests.mock_engine import REGION, Graph, Resource, arn

KMS_KEY_ARN = arn("kms", "key/0000-1111")

FUNCTION_SETTINGS = FunctionSettings(
    # This machine's wheels: those of Lambda are the subject of test_lambda_package.
    lambda_packaging=Packaging.HOST,
)

FUNCTION_ARGS = LambdaFunctionArgs(handler_module="connection_handler", timeout_seconds=29, settings=FUNCTION_SETTINGS)

API_ARGS = WebSocketApiArgs(stage_name="live", api_throttle_rate=100, api_throttle_burst=50)

MONITORED = Monitored(
    name="docprogress-test-api1",
    region=REGION,
    api_id="api1",
    stage_name="live",
    access_log_group="/aws/apigateway/docprogress-test/live",
    table_name="progress",
    functions={
        "handler": "docprogress-test-handler",
        "worker": "docprogress-test-worker",
        "watchdog": "docprogress-test-watchdog",
    },
    services={name: f"docprogress-test-{name}" for name in ("handler", "worker", "watchdog")},
    handler="handler",
    announcers=("worker", "watchdog"),
    workers=("worker",),
    watchdog="watchdog",
)


def lambda_function(name: str = "handler", **changes: Any) -> LambdaFunction:
    return LambdaFunction(name, dataclasses.replace(FUNCTION_ARGS, **changes))


def websocket_api(**changes: Any) -> WebSocketApi:
    return WebSocketApi("api", {**API_ARGS, **changes})


def deployed_api(**changes: Any) -> WebSocketApi:
    api = websocket_api(**changes)
    api.configure_routes(lambda_function())
    api.deploy()
    return api


def progress_table(**changes: Any) -> ProgressTable:
    return ProgressTable("progress", ProgressTableArgs(**changes))


def publishing(**changes: Any) -> Publishing:
    """What a worker needs, with a table and a deployed API of its own."""
    sample = Publishing(
        table=progress_table(with_stream=changes.get("fan_out") == "stream"),
        api=deployed_api(),
        fan_out=FanOut.DIRECT,
        authorization=Authorization.NONE,
        close_expired=False,
        max_messages_per_second=4,
        document_retention_hours=25,
    )
    return dataclasses.replace(sample, **changes)


def document_progress(**changes: Any) -> DocumentProgress:
    args: DocumentProgressArgs = {"stage_name": "live", "lambda_packaging": Packaging.HOST}
    return DocumentProgress("progress", {**args, **changes})


def allowed(*statements: tuple[list[str], list[str]]) -> dict[str, Any]:
    """A whole policy document of (actions, resources) that are allowed."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": actions, "Resource": resources} for actions, resources in statements
        ],
    }


OF_DOCUMENTS = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["DOCUMENT#*"]}}


def of_documents(*actions: str, table: str) -> dict[str, Any]:
    """The statement that allows actions on the rows of documents in a table."""
    return {"Effect": "Allow", "Action": list(actions), "Resource": [table], "Condition": OF_DOCUMENTS}


def trust(service: str) -> dict[str, Any]:
    """A whole trust policy that lets one AWS service take a role."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
    }


def policy(graph: Graph, name: str) -> dict[str, Any]:
    return document(graph.one("RolePolicy", name), "policy")


def document(resource: Resource, key: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(resource.inputs[key])
    return parsed
