"""The WebSocket API alone: routes, integrations, deployment, stage, log groups, URLs and grants.

Does not prove that API Gateway takes these inputs, nor anything of the functions behind the routes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from infra import websocket_api as module
from infra.websocket_api import WebSocketApi
from infra.websocket_stage import ACCESS_LOG_FORMAT
from tests.infra.samples import (
    FUNCTION_SETTINGS,
    allowed,
    deployed_api,
    document,
    lambda_function,
    policy,
    trust,
    websocket_api,
)
from tests.mock_engine import ACCOUNT, PARTITION, REGION, SUFFIX, Graph, arn, run

HANDLER_ARN = arn("lambda", f"function:handler-function-{SUFFIX}")
STAGE_ARN = arn("execute-api", "api-api-id/live")

# https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-logging.html
WEBSOCKET_LOG_VARIABLES = re.compile(
    r"""\$context\.(
        apiId | authorizer\..+ | awsEndpointRequestId2? | connectedAt | connectionId | domainName
        | error\.(message|messageString|responseType|validationErrorString) | eventType | extendedRequestId
        | identity\..+ | integration\..+ | integrationErrorMessage | integrationLatency | integrationStatus
        | messageId | requestId | requestTime | requestTimeEpoch | routeKey | stage | status
    )""",
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def deployed() -> Graph:
    """An API with the routes of the protocol, deployed."""
    return run(deployed_api)


def test_the_api_selects_routes_by_the_action_of_a_message(deployed: Graph) -> None:
    api = deployed.one("Api")
    assert api.inputs == {
        "name": "docprogress-test-api",
        "description": "Live progress of documents",
        "protocolType": "WEBSOCKET",
        "routeSelectionExpression": "$request.body.action",
        "ipAddressType": "ipv4",
    }


def test_the_routes_of_the_protocol_go_to_the_connection_handler(deployed: Graph) -> None:
    target = f"integrations/{deployed.one('Integration').id}"
    silent = {"apiId": "api-api-id", "target": target, "authorizationType": "NONE"}
    replying = silent | {"routeResponseSelectionExpression": "$default"}
    assert {route.inputs["routeKey"]: route.inputs for route in deployed.of("Route")} == {
        "$connect": silent | {"routeKey": "$connect"},
        "$disconnect": silent | {"routeKey": "$disconnect"},
        "$default": replying | {"routeKey": "$default"},
        "progress": replying | {"routeKey": "progress"},
    }


def test_only_the_routes_of_messages_have_a_route_response(deployed: Graph) -> None:
    routes = {route.inputs["routeKey"]: route.id for route in deployed.of("Route")}
    assert [response.inputs for response in deployed.of("RouteResponse")] == [
        {"apiId": "api-api-id", "routeId": routes[route_key], "routeResponseKey": "$default"}
        for route_key in ("$default", "progress")
    ], "without a route response the function's body never reaches the client; on $connect it has no meaning"


def test_an_integration_invokes_its_function_through_the_role_of_the_api(deployed: Graph) -> None:
    assert deployed.one("Integration").inputs == {
        "apiId": "api-api-id",
        "integrationType": "AWS_PROXY",
        "integrationMethod": "POST",
        "integrationUri": f"arn:{PARTITION}:apigateway:{REGION}:lambda:path/2015-03-31/functions/"
        f"{HANDLER_ARN}/invocations",
        "credentialsArn": f"arn:{PARTITION}:iam::{ACCOUNT}:role/api-invoke-role-{SUFFIX}",
        "timeoutMilliseconds": 29_000,
    }
    role = deployed.one("Role", "api-invoke-role")
    (statement,) = document(role, "assumeRolePolicy")["Statement"]
    assert statement.pop("Condition") == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}, (
        "API Gateway would take it on behalf of anybody's API otherwise"
    )
    assert [statement] == trust("apigateway.amazonaws.com")["Statement"]


def test_the_api_may_invoke_the_routed_functions_and_no_other() -> None:
    def program() -> None:
        api = websocket_api()
        first, second = lambda_function("first"), lambda_function("second")
        lambda_function("unrouted")
        api.add_route("$connect", first)
        api.add_route("progress", first)
        api.add_route("chat", second)
        api.deploy()

    graph = run(program)
    assert policy(graph, "api-invoke-functions") == allowed(
        (
            ["lambda:InvokeFunction"],
            [arn("lambda", f"function:{name}-function-{SUFFIX}") for name in ("first", "second")],
        )
    )
    assert graph.one("RolePolicy", "api-invoke-functions").inputs["role"] == f"api-invoke-role-{SUFFIX}"
    assert graph.names("Integration") == ["api-first-integration", "api-second-integration"], (
        "one integration a function, however many routes it has"
    )
    targets = {route.inputs["routeKey"]: route.inputs["target"] for route in graph.of("Route")}
    assert targets == {
        "$connect": "integrations/api-first-integration-id",
        "progress": "integrations/api-first-integration-id",
        "chat": "integrations/api-second-integration-id",
    }


def test_the_stage_has_every_setting(deployed: Graph) -> None:
    settings = {"loggingLevel": "INFO", "dataTraceEnabled": False, "detailedMetricsEnabled": True}
    assert deployed.one("Stage").inputs == {
        "apiId": "api-api-id",
        "name": "live",
        "deploymentId": deployed.one("Deployment").id,
        "defaultRouteSettings": settings | {"throttlingRateLimit": 100, "throttlingBurstLimit": 50},
        # What a route's settings leave out falls back to AWS's defaults, so they are whole too.
        "routeSettings": [
            settings | {"routeKey": route_key, "throttlingRateLimit": 50, "throttlingBurstLimit": 25}
            for route_key in ("$connect", "progress")
        ],
        "accessLogSettings": {
            "destinationArn": arn("logs", "log-group:/aws/apigateway/docprogress-test-api/api-api-id/live"),
            "format": ACCESS_LOG_FORMAT,
        },
    }


def test_access_logs_and_execution_logs_have_a_group_each_that_expires() -> None:
    graph = run(lambda: deployed_api(log_retention_days=90))
    groups = {name: graph.one("LogGroup", name).inputs for name in ("api-access-logs", "api-execution-logs")}
    assert groups == {
        "api-access-logs": {"name": "/aws/apigateway/docprogress-test-api/api-api-id/live", "retentionInDays": 90},
        # API Gateway decides on this name.
        "api-execution-logs": {"name": "/aws/apigateway/api-api-id/live", "retentionInDays": 90},
    }
    assert {"api-execution-logs", "api-access-logs"} <= graph.before(graph.one("Stage")), (
        "a stage that logs before its group is there makes the group itself, and keeps its events for ever"
    )


@pytest.mark.parametrize("value", ["-", "value", "200"])
def test_an_access_log_line_is_json_whatever_its_values(value: str) -> None:
    def written(variable: re.Match[str]) -> str:
        # API Gateway puts this one into quotes by itself.
        return f'"{value}"' if variable[0].endswith("messageString") else value

    line = json.loads(re.sub(r"\$context(?:\.\w+)+", written, ACCESS_LOG_FORMAT))
    assert set(line.values()) == {value}, "every field has a value, and nothing but API Gateway's"


def test_the_access_log_uses_only_what_a_websocket_api_knows() -> None:
    variables = re.findall(r"\$[\w.]+", ACCESS_LOG_FORMAT)
    assert [each for each in variables if not WEBSOCKET_LOG_VARIABLES.fullmatch(each)] == []
    assert {"$context.requestId", "$context.extendedRequestId"} & set(variables), (
        "API Gateway refuses a format that names no request"
    )
    assert len(ACCESS_LOG_FORMAT.encode()) <= 3 * 1024, "API Gateway's limit for a format"
    assert "\n" not in ACCESS_LOG_FORMAT, "one request is one line"


def test_a_deployment_comes_after_all_that_it_deploys(deployed: Graph) -> None:
    parts = {*deployed.names("Route"), *deployed.names("Integration"), *deployed.names("RouteResponse")}
    assert parts <= deployed.before(deployed.one("Deployment")), (
        "a deployment is a picture of what is there when it is made"
    )


def test_the_stage_waits_for_the_right_to_invoke(deployed: Graph) -> None:
    assert "api-invoke-functions" in deployed.before(deployed.one("Stage")), (
        "a client that connects before that would be refused with 500"
    )


# The trigger of the deployment


def trigger_of(graph: Graph) -> str:
    triggers: dict[str, str] = graph.one("Deployment").inputs["triggers"]
    assert list(triggers) == ["deployed"]
    return triggers["deployed"]


def trigger(program: Callable[[], object], answers: dict[str, dict[str, str]] | None = None) -> str:
    return trigger_of(run(program, answers=answers))


def with_routes(*route_keys: str, elsewhere: str | None = None) -> Callable[[], None]:
    def program() -> None:
        api = websocket_api()
        handler, other = lambda_function(), lambda_function("other")
        for route_key in route_keys:
            api.add_route(route_key, other if route_key == elsewhere else handler)
        api.deploy()

    return program


def test_the_same_api_is_not_deployed_again(deployed: Graph) -> None:
    assert trigger(deployed_api) == trigger_of(deployed)


@pytest.mark.parametrize(
    "settings",
    [
        {"api_throttle_rate": 7},
        {"api_throttle_burst": 7},
        {"logging_level": "ERROR"},
        {"data_trace_enabled": True},
        {"detailed_metrics_enabled": False},
        {"log_retention_days": 365},
        {"manage_account_logging": False},
        {"stage_name": "other"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_belongs_to_the_stage_deploys_nothing(settings: dict[str, Any], deployed: Graph) -> None:
    assert trigger(lambda: deployed_api(**settings)) == trigger_of(deployed)


def test_a_bigger_function_deploys_nothing(deployed: Graph) -> None:
    def program() -> None:
        bigger = dataclasses.replace(FUNCTION_SETTINGS, lambda_memory_megabytes=1024, log_retention_days=7)
        api = websocket_api()
        api.configure_routes(lambda_function(settings=bigger, timeout_seconds=5))
        api.deploy()

    assert trigger(program) == trigger_of(deployed)


def test_a_new_route_is_deployed() -> None:
    assert trigger(with_routes("$connect", "progress")) != trigger(with_routes("$connect"))


def test_a_renamed_route_is_deployed() -> None:
    assert trigger(with_routes("$connect", "progress")) != trigger(with_routes("$connect", "status"))


def test_a_route_that_moves_to_another_function_is_deployed() -> None:
    routes = ("$connect", "$default", "progress")
    before, after = (trigger(with_routes(*routes, elsewhere=route)) for route in ("$default", "progress"))
    assert before != after


def test_a_new_integration_timeout_is_deployed(deployed: Graph) -> None:
    assert trigger(lambda: deployed_api(integration_timeout_milliseconds=5000)) != trigger_of(deployed)


@pytest.mark.parametrize(
    "answers",
    [
        {"api-invoke-role": {"arn": arn("iam", "role/another")}},
        {"handler-function": {"invokeArn": "arn:another"}},
        {"api-handler-integration": {"id": "another"}},
        {"api-api": {"routeSelectionExpression": "$request.body.type"}},
    ],
    ids=["credentials", "function", "target", "route selection"],
)
def test_whatever_is_replaced_under_the_routes_is_deployed(answers: dict[str, dict[str, str]], deployed: Graph) -> None:
    assert trigger(deployed_api, answers) != trigger_of(deployed)


def test_every_input_of_what_is_deployed_is_in_the_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    # The digest tells nothing of what went in, so here it is left out.
    monkeypatch.setattr(module, "_digest", str)
    graph = run(deployed_api)
    digested = _texts(json.loads(graph.one("Deployment").inputs["triggers"]["deployed"]))
    # Who they are and what they are called is no part of how messages go.
    about = {"apiId", "routeId", "name", "description", "protocolType", "ipAddressType", "tags"}
    deployed: Counter[str] = Counter()
    for kind in ("Api", "Authorizer", "Integration", "IntegrationResponse", "Model", "Route", "RouteResponse"):
        for resource in graph.of(kind):
            deployed += _texts({key: value for key, value in resource.inputs.items() if key not in about})
    # Counted, since "$default" is the key of a route, of a response, and an expression too.
    assert deployed - digested == Counter(), "these can change and stay undeployed"


def _texts(value: object) -> Counter[str]:
    if isinstance(value, dict):
        return sum((_texts(each) for each in value.values()), Counter())
    if isinstance(value, list):
        return sum((_texts(each) for each in value), Counter())
    return Counter() if value is None else Counter([str(value)])


# URLs and grants


def test_clients_connect_and_workers_call_back_at_the_stage() -> None:
    def program() -> None:
        api = deployed_api()
        pulumi.export("url", api.url)
        pulumi.export("callback_url", api.callback_url)
        pulumi.export("api_id", api.api_id)
        pulumi.export("stage_name", api.stage_name)
        pulumi.export("execution_arn", api.execution_arn)

    host = f"api-api-id.execute-api.{REGION}.amazonaws.com.cn"
    assert run(program).outputs == {
        "url": f"wss://{host}/live",
        "callback_url": f"https://{host}/live",
        "api_id": "api-api-id",
        "stage_name": "live",
        "execution_arn": arn("execute-api", "api-api-id"),
    }


def test_the_callback_url_of_an_emulator_keeps_its_port_and_path() -> None:
    graph = run(
        lambda: pulumi.export("callback_url", deployed_api().callback_url),
        answers={"api-api": {"apiEndpoint": "ws://localhost:4566/_aws/execute-api/abc"}},
    )
    assert graph.outputs == {"callback_url": "http://localhost:4566/_aws/execute-api/abc/live"}


def granted(**arguments: Any) -> Graph:
    def program() -> None:
        api = deployed_api()
        for name in ("worker", "other-worker"):
            api.grant_manage_connections(lambda_function(name), **arguments)

    return run(program)


@pytest.mark.parametrize(
    ("arguments", "resources"),
    [
        ({}, [f"{STAGE_ARN}/*"]),
        ({"verbs": ["POST"]}, [f"{STAGE_ARN}/POST/@connections/*"]),
        ({"verbs": ["POST", "POST"]}, [f"{STAGE_ARN}/POST/@connections/*"]),
        (
            {"verbs": ["POST", "GET", "DELETE"]},
            [f"{STAGE_ARN}/{verb}/@connections/*" for verb in ("DELETE", "GET", "POST")],
        ),
    ],
    ids=["all", "POST", "POST twice", "each"],
)
def test_each_grantee_may_manage_connections_of_this_stage_only(
    arguments: dict[str, Any], resources: list[str]
) -> None:
    graph = granted(**arguments)
    for grantee in ("worker", "other-worker"):
        name = f"{grantee}-manage-connections-of-api"
        assert policy(graph, name) == allowed((["execute-api:ManageConnections"], resources))
        granting = graph.one("RolePolicy", name)
        assert granting.inputs["role"] == f"{grantee}-role-{SUFFIX}"
        parent = graph.parent(granting)
        assert parent is not None
        assert parent.name == "api", "what a component grants is its own child"


@pytest.mark.parametrize("verbs", [[], ["PUT"], ["POST", "post"]])
def test_a_grant_of_no_verb_or_an_unknown_one_is_refused(verbs: list[str]) -> None:
    with pytest.raises(ValueError, match=r"verbs is \[.*\]; it takes one or more of POST, GET and DELETE\."):
        granted(verbs=verbs)


# Order and wrong use


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (lambda api: api.url, "needs a stage; call deploy() first"),
        (lambda api: api.stage_name, "needs a stage; call deploy() first"),
        (lambda api: api.deploy(), "deploy() needs at least one route; call configure_routes() or add_route() first"),
    ],
    ids=["url", "stage_name", "deploy"],
)
def test_what_needs_routes_or_a_stage_is_refused_before(use: Callable[[WebSocketApi], object], sentence: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(sentence)):
        run(lambda: use(websocket_api()))


def test_a_route_after_the_deployment_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"add_route\('late'\) comes after deploy\(\), so .*; add it before"):
        run(lambda: deployed_api().add_route("late", lambda_function("other")))


def test_a_second_deployment_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"deploy\(\) was called twice"):
        run(lambda: deployed_api().deploy())


@pytest.mark.parametrize("route_key", ["", "$foo", "$Connect"])
def test_a_route_key_that_no_message_can_have_is_refused(route_key: str) -> None:
    sentence = f"The route key is {route_key!r}; it takes the value of a message's action, which does not start with $"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run(lambda: websocket_api().add_route(route_key, lambda_function()))


def test_a_second_function_for_a_route_is_refused() -> None:
    def program() -> None:
        api = websocket_api()
        api.add_route("progress", lambda_function())
        api.add_route("progress", lambda_function("other"))

    with pytest.raises(ValueError, match="The route 'progress' is there already"):
        run(program)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"api_throttle_rate": 0}, "api_throttle_rate is 0; it takes a whole number from 1 up (0 would refuse every"),
        ({"api_throttle_rate": -1}, "api_throttle_rate is -1; it takes"),
        ({"api_throttle_rate": math.inf}, "api_throttle_rate is inf; it takes"),
        ({"api_throttle_rate": math.nan}, "api_throttle_rate is nan; it takes"),
        ({"api_throttle_burst": 0}, "api_throttle_burst is 0; it takes"),
        ({"logging_level": "DEBUG"}, "logging_level is 'DEBUG'; it takes one of OFF, ERROR, INFO"),
        ({"integration_timeout_milliseconds": 49}, "is 49; it takes a whole number from 50 to 29000"),
        ({"integration_timeout_milliseconds": 29_001}, "is 29001; it takes a whole number from 50 to 29000"),
        ({"stage_name": "$default"}, "stage_name is '$default'; it takes 1 to 128 letters, digits, - and _"),
        ({"stage_name": "a.b"}, "stage_name is 'a.b'"),
        ({"stage_name": "x" * 129}, "it takes 1 to 128 letters"),
        ({"stage_name": "live\n"}, r"stage_name is 'live\n'"),
        ({"log_retention_days": 31}, "log_retention_days is 31; it takes one of 1, 3, 5, 7"),
        ({"stage": "live"}, "stage: there is no such argument; there are stage_name, api_throttle_rate,"),
    ],
    ids=str,
)
def test_settings_that_api_gateway_refuses_are_refused_first(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run(lambda: websocket_api(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"api_throttle_rate": 1},
        {"api_throttle_burst": 1},
        {"integration_timeout_milliseconds": 50},
        {"stage_name": "Live-1_b"},
    ],
    ids=str,
)
def test_settings_at_the_limits_are_taken(change: dict[str, Any]) -> None:
    assert run(lambda: deployed_api(**change)).names("Stage") == ["api-stage"]
