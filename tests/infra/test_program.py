"""The graph of the whole program, the real __main__.py, as each of its stacks and as one with every component.

Does not prove that AWS takes it, nor what a single component looks like: its own file does.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from infra.document_kinds import KIND, kind_of, media_types_of
from infra.websocket_stage import ACCESS_LOG_FORMAT
from tests.infra.conftest import EVERYTHING
from tests.infra.samples import document, trust
from tests.mock_engine import ACCOUNT, PARTITION, PROJECT_ROOT, REGION, Graph, Resource, arn, run_main

WEBSOCKET_HOST = f"api-api-id.execute-api.{REGION}.amazonaws.com.cn"

# What each kind of authorization takes.
AUTHORIZATIONS = {
    "NONE": {"authorization": "NONE"},
    "AWS_IAM": {"authorization": "AWS_IAM"},
    "JWT": {"authorization": "JWT", "jwtIssuer": "https://issuer.example.com", "jwtAudience": "page,phone"},
}


def stack_of(graph: Graph) -> str:
    return next(iter(graph)).urn.split(":")[2]


def of_websocket_api(graph: Graph, resource_type: str) -> list[Resource]:
    """The parts of the WebSocket API, beside which an HTTP API may stand."""
    api = graph.one("docprogress:index:WebSocketApi")
    return [each for each in graph.of(resource_type) if graph.parent(each) is api]


def stage_of(graph: Graph) -> Resource:
    (stage,) = of_websocket_api(graph, "Stage")
    return stage


def test_the_rules_here_see_every_component_that_there_is(everything: Graph) -> None:
    sources = "".join(file.read_text() for file in (PROJECT_ROOT / "infra").glob("*.py"))
    # The account's is there only where the account had no role before, and what a deployer may do is another program's.
    apart = {"docprogress:infra:AccountLogging", "docprogress:index:DeployRole"}
    components = set(re.findall(r'__init__\(\s*"(docprogress:\w+:\w+)"', sources)) - apart
    assert components == {each.type for each in everything if each.type.startswith("docprogress:")}


def test_every_component_says_when_all_of_its_children_are_declared(everything: Graph) -> None:
    components = {each.urn for each in everything if each.type.startswith("docprogress:")}
    assert components <= everything.completed, "Pulumi shows a component that does not as unfinished"


# The stages


@pytest.mark.parametrize(
    ("stack", "throttle", "settings"),
    [
        ("dev", (100, 50), {"loggingLevel": "INFO", "dataTraceEnabled": True, "detailedMetricsEnabled": True}),
        ("prod", (1000, 500), {"loggingLevel": "INFO", "dataTraceEnabled": False, "detailedMetricsEnabled": True}),
        ("local", (1000, 500), {"loggingLevel": "INFO", "dataTraceEnabled": True, "detailedMetricsEnabled": True}),
    ],
)
def test_the_stage_of_each_stack_is_exactly_this(
    stack: str, throttle: tuple[int, int], settings: dict[str, object], request: pytest.FixtureRequest
) -> None:
    graph: Graph = request.getfixturevalue(stack)
    rate, burst = throttle
    assert graph.one("Stage").inputs == {
        "apiId": "api-api-id",
        "name": stack,
        "deploymentId": "api-deployment-id",
        "defaultRouteSettings": settings | {"throttlingRateLimit": rate, "throttlingBurstLimit": burst},
        "routeSettings": [
            settings | {"routeKey": route_key, "throttlingRateLimit": rate / 2, "throttlingBurstLimit": burst // 2}
            for route_key in ("$connect", "progress")
        ],
        "accessLogSettings": {
            "destinationArn": f"arn:{PARTITION}:logs:{REGION}:{ACCOUNT}:log-group:"
            f"/aws/apigateway/docprogress-{stack}/api-api-id/{stack}",
            "format": ACCESS_LOG_FORMAT,
        },
    }


def test_every_route_is_throttled_and_none_to_zero(graph: Graph) -> None:
    for stage in graph.of("Stage"):
        inputs = stage.inputs
        routes = {each.inputs["routeKey"] for each in graph.of("Route") if each.inputs["apiId"] == inputs["apiId"]}
        for settings in (inputs["defaultRouteSettings"], *inputs.get("routeSettings", [])):
            for limit in ("throttlingRateLimit", "throttlingBurstLimit"):
                assert settings[limit] >= 1, "the provider sends what is unset as 0: 429 for everyone"
            assert settings.get("routeKey") in {None, *routes}, "API Gateway refuses settings of no route"


def test_settings_of_one_route_leave_nothing_out(graph: Graph) -> None:
    stage = stage_of(graph).inputs
    for settings in stage["routeSettings"]:
        assert settings.keys() - {"routeKey"} == stage["defaultRouteSettings"].keys(), (
            "what is left out falls back to AWS's defaults, not to the stage's"
        )


def test_every_stage_logs_each_request_to_a_group_of_its_own(graph: Graph) -> None:
    groups = {group.outputs["arn"]: group for group in graph.of("LogGroup")}
    stages = graph.of("Stage")
    for stage in stages:
        settings = stage.inputs["accessLogSettings"]
        group = groups[settings["destinationArn"]]
        assert graph.parent(group) is graph.parent(stage)
        assert group.name in graph.before(stage)
        assert json.loads(settings["format"])["requestId"] == "$context.requestId", "AWS support asks for it first"
    assert len({stage.inputs["accessLogSettings"]["destinationArn"] for stage in stages}) == len(stages)


def test_uploads_are_throttled_like_connections(everything: Graph) -> None:
    limits = [
        {key: value for key, value in stage.inputs["defaultRouteSettings"].items() if key.startswith("throttling")}
        for stage in everything.of("Stage")
    ]
    assert limits == [{"throttlingRateLimit": 100, "throttlingBurstLimit": 50}] * 2


def test_a_stack_named_with_dots_has_a_stage_without() -> None:
    graph = run_main("dev.eu", {"disposable": "true", "documentPipeline": "true", "documentUploads": "true"})
    assert stage_of(graph).inputs["name"] == "dev-eu"
    assert graph.outputs["websocketUrl"] == f"wss://{WEBSOCKET_HOST}/dev-eu"


# Routes


def test_these_are_the_routes_and_each_leads_to_the_connection_handler(graph: Graph) -> None:
    integration = graph.one("Integration", "api-connection-handler-integration")
    assert {
        route.inputs["routeKey"]: route.inputs["target"] for route in of_websocket_api(graph, "Route")
    } == dict.fromkeys(("$connect", "$disconnect", "$default", "progress"), f"integrations/{integration.id}")


def test_a_route_answers_its_sender_exactly_where_it_has_a_route_response(graph: Graph) -> None:
    routes = {route.id: route.inputs for route in of_websocket_api(graph, "Route")}
    responses = {routes[each.inputs["routeId"]]["routeKey"] for each in of_websocket_api(graph, "RouteResponse")}
    answering = {each["routeKey"] for each in routes.values() if "routeResponseSelectionExpression" in each}
    assert responses == answering == {"$default", "progress"}, (
        "a reply reaches the client only if the route has both; a connection's life has no replies"
    )


def test_whoever_authorizes_does_so_on_connect(graph: Graph) -> None:
    asked = {
        route.inputs["routeKey"]
        for route in of_websocket_api(graph, "Route")
        if route.inputs["authorizationType"] != "NONE"
    }
    assert asked <= {"$connect"}, "API Gateway refuses authorization on any other WebSocket route"


@pytest.mark.parametrize(
    ("authorization", "connect", "upload"),
    [("NONE", "NONE", "NONE"), ("AWS_IAM", "AWS_IAM", "AWS_IAM"), ("JWT", "CUSTOM", "JWT")],
)
def test_whoever_may_connect_may_upload_and_nobody_else(authorization: str, connect: str, upload: str) -> None:
    graph = run_main("dev", {"documentUploads": "true", **AUTHORIZATIONS[authorization]})
    types = {route.inputs["routeKey"]: route.inputs["authorizationType"] for route in graph.of("Route")}
    assert (types["$connect"], types["POST /uploads"], types["POST /documents"]) == (connect, upload, upload)


@pytest.mark.parametrize("authorization", AUTHORIZATIONS)
def test_whoever_may_connect_may_ask_by_http_over_the_api_of_uploads(authorization: str) -> None:
    config = {"documentUploads": "true", "statusApi": "true", **AUTHORIZATIONS[authorization]}
    graph = run_main("dev", config)
    api = graph.one("Api", "documents-api-api")
    of_api = {each.inputs["routeKey"]: each.inputs for each in graph.of("Route") if each.inputs["apiId"] == api.id}
    assert of_api.keys() == {"GET /documents/{docId+}", "POST /documents", "POST /uploads"}
    assert len({(each["authorizationType"], each.get("authorizerId")) for each in of_api.values()}) == 1
    function = graph.one("Function", "document-status-function")
    variables = function.inputs["environment"]["variables"]
    assert variables["AUTHORIZATION"] == (AUTHORIZATIONS[authorization].get("authorization") or "NONE")


def test_a_stack_without_uploads_can_be_asked_by_http() -> None:
    graph = run_main("dev", {"statusApi": "true", "documentPipeline": "false"})
    api = graph.one("Api", "documents-api-api")
    assert [each.inputs["routeKey"] for each in graph.of("Route") if each.inputs["apiId"] == api.id] == [
        "GET /documents/{docId+}"
    ]
    assert graph.outputs["documentsUrl"].endswith("/documents")
    assert "uploadUrl" not in graph.outputs


def believed(graph: Graph) -> list[tuple[str, list[str]]]:
    """The issuer and the audiences of the tokens that connections and uploads take."""
    variables = graph.one("Function", "token-authorizer-function").inputs["environment"]["variables"]
    jwt = graph.one("Authorizer", "documents-api-authorizer").inputs["jwtConfiguration"]
    return [
        (variables["JWT_ISSUER"], variables["JWT_AUDIENCE"].split(",")),
        (jwt["issuer"], jwt["audiences"]),
    ]


def test_connections_and_uploads_take_the_tokens_of_the_configured_issuer() -> None:
    graph = run_main("dev", {"documentUploads": "true", **AUTHORIZATIONS["JWT"]})
    assert believed(graph) == [("https://issuer.example.com", ["page", "phone"])] * 2
    assert graph.of("docprogress:infra:UserPool") == []


def test_connections_and_uploads_take_the_tokens_of_the_program_s_own_pool(everything: Graph) -> None:
    issuer = f"https://{everything.one('aws:cognito/userPool:UserPool').outputs['endpoint']}"
    assert believed(everything) == [(issuer, [everything.one("UserPoolClient").id])] * 2


def test_the_same_origins_may_connect_ask_for_a_form_and_upload(everything: Graph) -> None:
    handler = everything.one("Function", "connection-handler-function").inputs["environment"]["variables"]
    (rule,) = everything.one("BucketCorsConfiguration").inputs["corsRules"]
    cors = everything.one("Api", "documents-api-api").inputs["corsConfiguration"]
    origins = ["https://app.example.com"]
    assert (handler["ALLOWED_ORIGINS"].split(), cors["allowOrigins"], rule["allowedOrigins"]) == (origins,) * 3
    assert "*" not in json.dumps([cors, rule])


def test_an_integration_gives_up_no_later_than_its_function(graph: Graph) -> None:
    for integration in graph.of("Integration"):
        function = behind(graph, integration.inputs["integrationUri"])
        assert integration.inputs["timeoutMilliseconds"] <= function.inputs["timeout"] * 1000


def test_the_api_s_role_may_invoke_what_is_behind_the_api_and_nothing_else(graph: Graph) -> None:
    uris = [each.inputs["integrationUri"] for each in of_websocket_api(graph, "Integration")]
    uris += [each.inputs["authorizerUri"] for each in of_websocket_api(graph, "Authorizer")]
    behind_the_api = {behind(graph, uri).outputs["arn"] for uri in uris}
    role = graph.one("Role", "api-invoke-role")
    statements = [statement for each in policies_of(graph, role) for statement in statements_of(each)]
    assert [each["Action"] for each in statements] == [["lambda:InvokeFunction"]]
    assert set(statements[0]["Resource"]) == behind_the_api
    for integration in of_websocket_api(graph, "Integration"):
        assert integration.inputs["credentialsArn"] == role.outputs["arn"]


def test_an_api_without_a_role_is_let_in_by_each_function_behind_it(graph: Graph) -> None:
    apis = {api.id: api for api in graph.of("Api")}
    allowed = {
        (each.inputs["function"], each.inputs["sourceArn"])
        for each in graph.of("Permission")
        if each.inputs["principal"] == "apigateway.amazonaws.com"
    }
    called = {
        (behind(graph, each.inputs["integrationUri"]).outputs["name"], call_of(graph, route, apis))
        for each in graph.of("Integration")
        if "credentialsArn" not in each.inputs
        for route in graph.of("Route")
        if route.inputs["target"] == f"integrations/{each.id}"
    }
    assert allowed == called, "this route and no other"


def test_no_two_integrations_invoke_the_same_function(graph: Graph) -> None:
    uris = [each.inputs["integrationUri"] for each in of_websocket_api(graph, "Integration")]
    assert len(uris) == len(set(uris))


def test_the_stage_serves_a_deployment_of_every_route(graph: Graph) -> None:
    (deployment,) = of_websocket_api(graph, "Deployment")
    parts = {
        each.name
        for kind in ("Route", "Integration", "RouteResponse", "Authorizer")
        for each in of_websocket_api(graph, kind)
    }
    assert parts <= graph.before(deployment)
    assert stage_of(graph).inputs["deploymentId"] == deployment.id
    assert "autoDeploy" not in stage_of(graph).inputs, "it would deploy beside the explicit deployment"


# Functions


def test_every_function_has_a_role_of_its_own(graph: Graph) -> None:
    functions = graph.of("Function")
    roles = {role.outputs["arn"]: role for role in graph.of("Role")}
    used = Counter(function.inputs["role"] for function in functions)
    assert len(functions) >= 2
    assert set(used.values()) == {1}, "a shared role gives each function what only the other needs"
    for role_arn in used:
        assert document(roles[role_arn], "assumeRolePolicy") == trust("lambda.amazonaws.com")


def test_every_function_logs_to_a_group_of_its_own(graph: Graph) -> None:
    groups = {group.inputs["name"]: group for group in graph.of("LogGroup")}
    for function in graph.of("Function"):
        group = groups[f"/aws/lambda/{function.outputs['name']}"]
        for opening in openings_of(graph, function):
            assert group.name in graph.before(opening), "Lambda would make it at the first call, without retention"


def test_every_function_may_write_to_its_own_log_group_only(graph: Graph) -> None:
    roles = {role.outputs["arn"]: role for role in graph.of("Role")}
    for function in graph.of("Function"):
        statements = [
            statement
            for each in policies_of(graph, roles[function.inputs["role"]])
            for statement in statements_of(each)
            if any(action.startswith("logs:") for action in statement["Action"])
        ]
        group = f"arn:{PARTITION}:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{function.outputs['name']}:*"
        assert [(each["Action"], each["Resource"]) for each in statements] == [
            (["logs:CreateLogStream", "logs:PutLogEvents"], [group])
        ]


def test_every_function_runs_on_the_same_platform_and_logs_json(graph: Graph) -> None:
    for function in graph.of("Function"):
        inputs = function.inputs
        assert (inputs["runtime"], inputs["architectures"]) == ("python3.13", ["arm64"]), function.name
        assert inputs["loggingConfig"]["logFormat"] == "JSON", function.name
        assert inputs["tracingConfig"]["mode"] == "PassThrough", "tracing costs, and is off unless a caller traces"


def test_every_function_s_handler_is_in_its_archive(graph: Graph) -> None:
    for function in graph.of("Function"):
        module, _, attribute = function.inputs["handler"].rpartition(".")
        with zipfile.ZipFile(function.inputs["code"].path) as archive:
            source = archive.read(f"{module}.py").decode()
        assert re.search(rf"^(def {attribute}\b|{attribute} *=)", source, re.MULTILINE), function.name


def test_no_function_is_called_before_it_may_do_its_work(graph: Graph) -> None:
    roles = {role.outputs["arn"]: role for role in graph.of("Role")}
    found = 0
    for function in graph.of("Function"):
        granted = {each.name for each in policies_of(graph, roles[function.inputs["role"]])}
        for opening in openings_of(graph, function):
            found += 1
            assert granted | {function.name} <= graph.before(opening), f"{opening.name} comes too early"
    assert found >= 2, "else nothing is looked at here"


def test_functions_of_two_stacks_are_told_apart_in_logs_and_metrics(graph: Graph) -> None:
    for function in graph.of("Function"):
        variables = function.inputs["environment"]["variables"]
        name = function.name.removesuffix("-function")
        assert variables["POWERTOOLS_SERVICE_NAME"] == f"docprogress-{stack_of(graph)}-{name}"


def test_no_name_of_a_function_or_a_log_group_can_be_another_owner_s(graph: Graph) -> None:
    """Nor a name left over from an interrupted deployment in the way of the next."""
    for function in graph.of("Function"):
        assert "name" not in function.inputs, "Pulumi makes one up each time"
        assert function.ignore_changes == ("name",), "the functions of an earlier version had names that were given"
    made_up = {each.outputs["name"] for each in graph.of("Function")} | {each.id for each in graph.of("Api")}
    for group in graph.of("LogGroup"):
        assert any(name in group.inputs["name"] for name in made_up), group.inputs["name"]
        # Only the name of the execution log was API Gateway's already.
        assert group.ignore_changes == ("name",) or group.name.endswith("-execution-logs")


def test_a_service_that_calls_a_function_is_let_in_by_its_own_arn_only(graph: Graph) -> None:
    for permission in graph.of("Permission"):
        assert permission.inputs["action"] == "lambda:InvokeFunction"
        source: str = permission.inputs["sourceArn"]
        assert is_of(graph, source), "any rule or bucket of the service could call it"
        assert "*" not in source, "a part of what is there could call it, too"
        assert permission.inputs["function"] in {each.outputs["name"] for each in graph.of("Function")}


# Logs


def test_every_log_group_expires_as_the_stack_says(graph: Graph) -> None:
    days = {"dev": 7, "prod": 90, "local": 30}[stack_of(graph)]
    assert {group.name: group.inputs["retentionInDays"] for group in graph.of("LogGroup")} == dict.fromkeys(
        graph.names("LogGroup"), days
    )


def test_no_two_log_groups_have_the_same_name(graph: Graph) -> None:
    names = [group.inputs["name"] for group in graph.of("LogGroup")]
    assert len(names) == len(set(names))


def test_both_logs_of_the_api_are_there_before_its_stage(graph: Graph) -> None:
    stage = stage_of(graph)
    groups = {group.inputs["name"]: group.name for group in graph.of("LogGroup")}
    execution = groups[f"/aws/apigateway/api-api-id/{stage.inputs['name']}"]
    access = groups[f"/aws/apigateway/docprogress-{stack_of(graph)}/api-api-id/{stage.inputs['name']}"]
    assert {execution, access} <= graph.before(stage)


def test_an_account_that_has_a_role_for_logs_is_left_alone(graph: Graph) -> None:
    assert graph.of("Account") == [], "there is one for all stacks of the region; this one may not be its owner"


def test_a_role_for_the_accounts_logs_is_retained_and_there_before_the_stage() -> None:
    none = {"api-account-logging-found": {"cloudwatchRoleArn": ""}}
    graph = run_main("prod", {"authorization": "NONE"}, answers=none)
    account = graph.one("Account")
    role = next(each for each in graph.of("Role") if each.outputs["arn"] == account.inputs["cloudwatchRoleArn"])
    (attachment,) = graph.of("RolePolicyAttachment")
    assert {each.name for each in graph if each.retain_on_delete} == {account.name, role.name, attachment.name}
    assert {account.name, role.name, attachment.name} <= graph.before(stage_of(graph))


# IAM


def test_no_policy_allows_more_than_named_actions_on_known_resources(graph: Graph) -> None:
    for resource, statement in allowing(graph):
        for action in statement["Action"]:
            assert "*" not in action, f"{resource.name} allows {action}"
        for allowed_resource in statement["Resource"]:
            if ":kms:" in allowed_resource:
                # By what they encrypt, which the statement's condition names.
                continue
            assert is_of(graph, allowed_resource), (
                f"{resource.name} allows {statement['Action']} on {allowed_resource}, which is not of this stack"
            )


def test_every_role_is_taken_by_one_service_and_no_account(graph: Graph) -> None:
    for role in graph.of("Role"):
        (statement,) = document(role, "assumeRolePolicy")["Statement"]
        assert statement["Action"] == "sts:AssumeRole"
        assert set(statement["Principal"]) == {"Service"}
        assert re.fullmatch(r"[a-z]+\.amazonaws\.com", statement["Principal"]["Service"])


def test_every_policy_is_of_a_role_of_this_stack(graph: Graph) -> None:
    roles = {role.id for role in graph.of("Role")}
    for each in graph.of("RolePolicy"):
        assert each.inputs["role"] in roles
    used = {each.inputs["role"] for kind in ("RolePolicy", "RolePolicyAttachment") for each in graph.of(kind)}
    assert used == roles, "a role that may do nothing is left over"


def test_the_connection_handler_may_not_post_to_connections(graph: Graph) -> None:
    role = graph.one("Role", "connection-handler-role")
    actions = {
        action
        for each in policies_of(graph, role)
        for statement in statements_of(each)
        for action in statement["Action"]
    }
    assert "dynamodb:PutItem" in actions
    assert not [each for each in actions if each.startswith("execute-api:")], "its answers are the route's reply"


def test_nothing_names_the_partition_by_hand(graph: Graph) -> None:
    for resource in graph:
        text = json.dumps(resource.inputs, default=repr)
        assert "arn:aws:" not in text, f"{resource.name} works in no other partition than aws"


# The user pool


def test_people_sign_in_where_the_configuration_says(everything: Graph) -> None:
    client = everything.one("UserPoolClient").inputs
    assert client["callbackUrls"] == client["logoutUrls"] == ["https://app.example.com/"]
    assert everything.one("UserPoolDomain").inputs["domain"] == "acme-documents"
    pool = everything.one("aws:cognito/userPool:UserPool").inputs
    assert pool["adminCreateUserConfig"] == {"allowAdminCreateUserOnly": True}, (
        "whoever makes an account may connect, so nobody makes one alone"
    )


def test_nothing_of_the_pool_is_open_to_any_page_or_kept_from_its_stack(everything: Graph) -> None:
    component = everything.one("docprogress:infra:UserPool")
    children = [each for each in everything if everything.parent(each) is component]
    assert {each.type.split("/")[0] for each in children} == {"aws:cognito"}
    pool = everything.one("aws:cognito/userPool:UserPool")
    for each in children:
        assert "*" not in json.dumps(each.inputs), each.name
        assert each is pool or each.inputs["userPoolId"] == pool.id


def test_a_stack_that_is_not_disposable_keeps_its_data_and_its_urls() -> None:
    everything = {**EVERYTHING, "disposable": "false", "dataTraceEnabled": "false"}
    graph = run_main("dev", everything)
    assert {each.name for each in graph if each.protect} == {
        *("progress-table", "documents-bucket", "users-pool", "users-client", "users-domain"),
        *("api-api", "api-stage", "documents-api-api", "documents-api-stage", "site-bucket", "site-distribution"),
        *(
            f"{api}-domain-{part}"
            for api in ("api", "documents-api")
            for part in ("name", "mapping", "a-record", "aaaa-record")
        ),
    }
    assert graph.one("aws:cognito/userPool:UserPool").inputs["deletionProtection"] == "ACTIVE"
    assert graph.one("Table").inputs["deletionProtectionEnabled"] is True
    assert graph.one("Bucket", "documents-bucket").inputs["forceDestroy"] is False


def test_a_disposable_stack_goes_without_a_trace(everything: Graph) -> None:
    assert [each.name for each in everything if each.protect] == []
    assert everything.one("aws:cognito/userPool:UserPool").inputs["deletionProtection"] == "INACTIVE"
    assert everything.one("Table").inputs["deletionProtectionEnabled"] is False
    assert everything.one("Bucket", "documents-bucket").inputs["forceDestroy"] is True


@pytest.mark.parametrize("authorization", AUTHORIZATIONS)
def test_every_function_that_deals_with_owners_is_told_whether_there_are_any(authorization: str) -> None:
    graph = run_main("dev", {"documentUploads": "true", **AUTHORIZATIONS[authorization]})
    told = {
        each.name: each.inputs["environment"]["variables"].get("AUTHORIZATION")
        for each in graph.of("Function")
        if "token-authorizer" not in each.name
    }
    assert set(told.values()) == {authorization}, told


def test_shared_documents_are_known_to_whoever_shows_or_tells_them() -> None:
    graph = run_main("dev", {"sharedDocuments": "true", "fanOut": "stream", **AUTHORIZATIONS["JWT"]})
    told = {
        each.name
        for each in graph.of("Function")
        if each.inputs["environment"]["variables"].get("SHARED_DOCUMENTS") == "true"
    }
    assert told == {
        "connection-handler-function",
        "documents-processor-function",
        "stall-watchdog-function",
        "stream-fan-out-function",
    }


# The whole


def test_the_local_stack_sends_every_service_to_the_emulator(everything: Graph) -> None:
    config = yaml.safe_load((PROJECT_ROOT / "Pulumi.local.yaml").read_text())["config"]
    (endpoints,) = config["aws:endpoints"]
    # What the provider calls a service, where a resource's type does not say so.
    names = {
        **dict.fromkeys(("cloudwatch/eventRule", "cloudwatch/eventTarget"), "events"),
        **dict.fromkeys(("cloudwatch/logGroup", "cloudwatch/queryDefinition"), "logs"),
        "cognito": "cognitoidp",
    }
    used = {each.type.split(":")[1] for each in everything if each.type.startswith("aws:")}
    needed = {names.get(path) or names.get(path.split("/")[0]) or path.split("/")[0] for path in used}
    # Which the provider asks besides, for who it is, for a table's key and for a bucket's tags.
    needed |= {"sts", "kms", "s3control"}
    assert needed - set(endpoints) == set(), "calls of these would leave for AWS itself"
    assert len(set(endpoints.values())) == 1
    assert "aws:skipRequestingAccountId" not in config, "the grants' ARNs would name no account"


def outputs_without_pipeline(stack: str, *more_functions: str) -> dict[str, object]:
    functions = ("connection-handler", "stall-watchdog", *more_functions)
    return {
        "functionNames": {name: f"{name}-function-1a2b3c4" for name in functions},
        "dashboardName": f"docprogress-{stack}-api-api-id",
        "websocketUrl": f"wss://{WEBSOCKET_HOST}/{stack}",
        "callbackUrl": f"https://{WEBSOCKET_HOST}/{stack}",
        "apiId": "api-api-id",
        "stageName": stack,
        "tableName": "progress-table-1a2b3c4",
        "connectionHandlerName": "connection-handler-function-1a2b3c4",
    }


def outputs_but_of_workers(graph: Graph) -> dict[str, object]:
    """What a worker gets is the component's to say, and held by its own tests."""
    outputs = dict(graph.outputs)
    assert outputs.pop("workerEnvironment")["TABLE_NAME"] == "progress-table-1a2b3c4"
    assert "dynamodb:UpdateItem" in outputs.pop("workerPolicy")
    return outputs


def test_the_outputs_without_the_pipeline(prod: Graph) -> None:
    assert outputs_but_of_workers(prod) == outputs_without_pipeline("prod")


@pytest.mark.parametrize("stack", ["dev", "local"])
def test_the_outputs_with_the_pipeline(stack: str, request: pytest.FixtureRequest) -> None:
    graph: Graph = request.getfixturevalue(stack)
    assert outputs_but_of_workers(graph) == outputs_without_pipeline(stack, "documents-processor") | {
        "documentsBucket": "documents-bucket-1a2b3c4",
        "documentProcessorName": "documents-processor-function-1a2b3c4",
        "documentMediaTypes": {".pdf": "application/pdf"},
    }


def test_the_outputs_with_everything(everything: Graph) -> None:
    more = (
        "document-results",
        "document-status",
        "documents-docx-processor",
        "documents-processor",
        "end-events",
        "stream-fan-out",
        "token-authorizer",
        "uploads-presigner",
    )
    assert outputs_but_of_workers(everything) == outputs_without_pipeline("dev", *more) | {
        "documentsBucket": "documents-bucket-1a2b3c4",
        "documentProcessorName": "documents-processor-function-1a2b3c4",
        "documentMediaTypes": {".pdf": "application/pdf", **media_types_of([kind_of(KIND.example)])},
        "userPoolId": "users-pool-id",
        "userPoolClientId": "users-client-id",
        "userPoolDomainUrl": f"https://acme-documents.auth.{REGION}.amazoncognito.com",
        "siteUrl": "https://site-distribution-id.cloudfront.cn/",
        "siteTarget": "site-distribution-id.cloudfront.cn",
        "websocketUrl": "wss://live.example.com",
        "domainTarget": f"d-api-domain-name.execute-api.{REGION}.amazonaws.com.cn",
        "documentsUrl": "https://documents.example.com/documents",
        "uploadUrl": "https://documents.example.com/uploads",
        "resultsUrl": "https://documents.example.com/results",
        "documentsDomainTarget": f"d-documents-api-domain-name.execute-api.{REGION}.amazonaws.com.cn",
    }


def test_the_pipeline_is_there_only_where_it_is_asked_for(dev: Graph, prod: Graph) -> None:
    assert dev.names("Bucket") == ["documents-bucket"]
    assert prod.of("Bucket") == []


def test_every_part_of_a_component_says_so_by_its_name(graph: Graph) -> None:
    for resource in graph:
        if resource.type.startswith("aws:"):
            parent = graph.parent(resource)
            if parent is None:
                continue  # a team's own, beside the components
            assert parent.type.startswith("docprogress:")
            assert parent.name in resource.name
            assert f"{parent.type}${resource.type}::" in resource.urn


def test_components_stand_at_the_top_or_in_one_another(graph: Graph) -> None:
    for resource in graph:
        if not resource.type.startswith("aws:"):
            assert resource.type.startswith("docprogress:")
            assert graph.parent(resource) or resource.parent.endswith(f"::docprogress-{stack_of(graph)}")


def test_the_program_uses_nothing_that_pulumi_warns_of(graph: Graph) -> None:
    our_own = ("has no authorization", "Data trace writes", "Cognito sends people back")
    warnings = [warning for warning in graph.warnings if not any(each in warning for each in our_own)]
    assert warnings == [], "pulumi_aws tells here of inputs and outputs that its next version drops"


def test_running_the_program_again_deploys_nothing_new(dev: Graph) -> None:
    again = run_main("dev")
    assert [each.inputs for each in again.of("Deployment")] == [each.inputs for each in dev.of("Deployment")]
    assert {each.name: archive(each) for each in again.of("Function")} == {
        each.name: archive(each) for each in dev.of("Function")
    }


# Who tells the watchers


@pytest.mark.parametrize("authorization", AUTHORIZATIONS)
@pytest.mark.parametrize(
    ("fan_out", "announcers"),
    [("direct", {"documents-processor", "stall-watchdog"}), ("stream", {"stream-fan-out"})],
)
@pytest.mark.parametrize("max_age_seconds", [3600, 7200])
def test_who_tells_the_watchers_may_post_and_where_connections_expire_early_disconnect(
    fan_out: str, announcers: set[str], authorization: str, max_age_seconds: int
) -> None:
    config = {"fanOut": fan_out, "connectionMaxAgeSeconds": str(max_age_seconds)}
    graph = run_main("dev", {**config, **AUTHORIZATIONS[authorization]})
    closes = authorization == "JWT" or max_age_seconds < 7200
    of_api = [each for each in granted(graph) if each[1].startswith("execute-api:")]
    verbs = ("POST", "DELETE") if closes else ("POST",)
    posting = {who for who, _, _ in of_api}
    assert posting >= announcers
    assert set(of_api) == {
        (announcer, "execute-api:ManageConnections", arn("execute-api", f"api-api-id/dev/{verb}/@connections/*"))
        for announcer in posting
        for verb in verbs
    }
    closing = {
        each.name.removesuffix("-function"): each.inputs["environment"]["variables"].get("CLOSE_EXPIRED_CONNECTIONS")
        for each in graph.of("Function")
    }
    assert {name: value for name, value in closing.items() if value} == dict.fromkeys(
        posting, "true" if closes else "false"
    ), "what it does and what it may do belong together"


@pytest.mark.parametrize("authorization", AUTHORIZATIONS)
def test_before_a_stream_a_worker_can_neither_find_watchers_nor_post_to_them(authorization: str) -> None:
    graph = run_main("dev", {"fanOut": "stream", **AUTHORIZATIONS[authorization]})
    # The function behind the stream notes which ends it told, and the handler that a document is cancelled.
    writers = {who for who, action, _ in granted(graph) if action == "dynamodb:UpdateItem"}
    workers = writers - {"connection-handler", "stream-fan-out"}
    assert workers >= {"documents-processor", "stall-watchdog"}
    of_workers = [each for each in granted(graph) if each[0] in workers]
    assert [each for each in of_workers if each[1].startswith("execute-api:")] == []
    reading = [each for each in of_workers if re.match(r"dynamodb:(Query|Scan|.*Get)", each[1])]
    activity = f"{graph.one('Table').outputs['arn']}/index/by_activity"
    assert reading == [("stall-watchdog", "dynamodb:Query", activity)], "that index knows documents, and no watchers"
    for worker in workers:
        assert "CALLBACK_URL" not in graph.one("Function", f"{worker}-function").inputs["environment"]["variables"]


def openings_of(graph: Graph, function: Resource) -> list[Resource]:
    """What lets a function be called from then on: a stage, an HTTP API's route, or whatever sends events to it."""
    apis = {
        each.inputs["apiId"]
        for kind, key in (("Integration", "integrationUri"), ("Authorizer", "authorizerUri"))
        for each in graph.of(kind)
        if each.inputs.get(key) == function.outputs["invokeArn"]
    }
    senders = [*graph.of("EventTarget"), *graph.of("EventSourceMapping"), *graph.of("BucketNotification")]
    integrations = {
        f"integrations/{each.id}"
        for each in graph.of("Integration")
        if each.inputs["integrationUri"] == function.outputs["invokeArn"]
    }
    deploying = {stage.inputs["apiId"] for stage in graph.of("Stage") if stage.inputs.get("autoDeploy")}
    return [
        *(stage for stage in graph.of("Stage") if stage.inputs["apiId"] in apis - deploying),
        *(
            route
            for route in graph.of("Route")
            if route.inputs["apiId"] in deploying and route.inputs["target"] in integrations
        ),
        *(sender for sender in senders if function.outputs["arn"] in json.dumps(sender.inputs)),
    ]


def granted(graph: Graph) -> Iterator[tuple[str, str, str]]:
    """Who may do what with what: a function or another owner of a role, an action and a resource."""
    owners = {role.id: role.name.removesuffix("-role") for role in graph.of("Role")}
    for each in graph.of("RolePolicy"):
        for statement in statements_of(each):
            for action in statement["Action"]:
                for resource in statement["Resource"]:
                    yield owners[each.inputs["role"]], action, resource


def call_of(graph: Graph, route: Resource, apis: dict[str, Resource]) -> str:
    """The ARN by which API Gateway calls on behalf of an HTTP API's route, such as `POST /uploads`."""
    api = apis[route.inputs["apiId"]]
    (stage,) = [each for each in graph.of("Stage") if each.inputs["apiId"] == api.id]
    method, path = route.inputs["routeKey"].split()
    return f"{api.outputs['executionArn']}/{stage.inputs['name']}/{method}{path}"


def is_of(graph: Graph, arn: str) -> bool:
    """Whether an ARN is that of a resource of the stack, or of something in it."""
    known = [each.outputs["arn"] for each in graph if "arn" in each.outputs]
    # Of an API nothing is known before its stage is.
    known += [each.outputs["executionArn"] for each in graph.of("Stage")]
    # The account's own, which nobody makes.
    known.append(f"arn:{PARTITION}:events:{REGION}:{ACCOUNT}:event-bus/default")
    return any(arn == each or arn.startswith((f"{each}/", f"{each}:")) for each in known)


def behind(graph: Graph, invoke_arn: str) -> Resource:
    (function,) = [each for each in graph.of("Function") if each.outputs["invokeArn"] == invoke_arn]
    return function


def policies_of(graph: Graph, role: Resource) -> list[Resource]:
    return [each for each in graph.of("RolePolicy") if each.inputs["role"] == role.id]


def statements_of(role_policy: Resource) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = document(role_policy, "policy")["Statement"]
    return statements


def allowing(graph: Graph) -> Iterator[tuple[Resource, dict[str, Any]]]:
    for resource in (*graph.of("RolePolicy"), *graph.of("BucketPolicy")):
        for statement in statements_of(resource):
            if statement["Effect"] == "Allow":
                yield resource, statement


def archive(function: Resource) -> str:
    path: str = function.inputs["code"].path
    return path
