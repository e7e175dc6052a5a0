"""The HTTP API of documents: its routes, authorization, stage and CORS, and the one that uploads had before.

Does not prove that API Gateway takes these inputs, nor what the functions behind the routes answer.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pulumi_aws as aws
import pytest

from infra.authorization import IamAuthorization, TokenAuthorization
from infra.documents_api import ACCESS_LOG_FORMAT, DocumentsApi, DocumentsApiArgs
from tests.infra.samples import FUNCTION_SETTINGS, lambda_function
from tests.mock_engine import REGION, SUFFIX, Graph, arn, run

API_ID = "a1b2c3d4e5"
ENDPOINT = f"https://{API_ID}.execute-api.{REGION}.amazonaws.com.cn"
JWT = TokenAuthorization(issuer="https://issuer.example.com/", audience="web,mobile", functions=FUNCTION_SETTINGS)
IAM = IamAuthorization()

# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
HTTP_LOG_VARIABLES = re.compile(
    r"""\$context\.(
        accountId | apiId | authorizer\..+ | awsEndpointRequestId2? | customDomain\.basePathMatched | dataProcessed
        | domainName | domainPrefix | error\.(message|messageString|responseType) | extendedRequestId | httpMethod
        | identity\..+ | integration\.(error|integrationStatus|latency|requestId|status) | integrationErrorMessage
        | integrationLatency | integrationStatus | path | protocol | requestId | requestTime | requestTimeEpoch
        | responseLatency | responseLength | routeKey | stage | status
    )""",
    re.VERBOSE,
)


def documents_api(**changes: Any) -> DocumentsApi:
    """With one route of a function."""
    args = DocumentsApiArgs(
        api_throttle_rate=20,
        api_throttle_burst=10,
        detailed_metrics_enabled=True,
        log_retention_days=30,
        physical_name="docprogress-test-documents",
    )
    api = DocumentsApi("documents-api", dataclasses.replace(args, **changes))
    function = lambda_function()
    function.grant("do-its-work", {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::bucket"]})
    api.add_route("asked", "GET /documents/{docId+}", function, parent=api, after=[aws.sqs.Queue("needed")])
    return api


def graph_of(program: Callable[..., object] = documents_api, **changes: Any) -> Graph:
    answers = {
        "id": API_ID,
        "apiEndpoint": ENDPOINT,
        "executionArn": arn("execute-api", API_ID),
    }
    return run(lambda: program(**changes), answers={"documents-api-api": answers})


def test_a_route_leads_to_its_function() -> None:
    graph = graph_of()
    assert graph.one("Route").inputs == {
        "apiId": API_ID,
        "routeKey": "GET /documents/{docId+}",
        "target": f"integrations/{graph.one('Integration').id}",
        "authorizationType": "NONE",
    }
    assert graph.one("Integration").inputs == {
        "apiId": API_ID,
        "integrationType": "AWS_PROXY",
        "integrationMethod": "POST",
        "integrationUri": graph.one("Function").outputs["invokeArn"],
        "payloadFormatVersion": "2.0",
        "timeoutMilliseconds": 29_000,
    }
    assert graph.of("Authorizer") == []


def test_only_this_route_of_this_api_may_invoke_the_function() -> None:
    graph = graph_of()
    assert graph.one("Permission").inputs == {
        "action": "lambda:InvokeFunction",
        "function": graph.one("Function").outputs["name"],
        "principal": "apigateway.amazonaws.com",
        "sourceArn": arn("execute-api", f"{API_ID}/$default/GET/documents/{{docId+}}"),
    }


def test_no_request_finds_a_function_that_is_not_ready_yet() -> None:
    graph = graph_of(authorization=JWT)
    before = graph.before(graph.one("Route"))
    assert {"documents-api-authorizer", "asked-permission", "asked-integration", "needed"} <= before
    assert set(graph.names("RolePolicy")) <= before, "the stage deploys a route at once"


def test_all_routes_ask_one_authorizer() -> None:
    def program() -> None:
        api = documents_api(authorization=JWT)
        api.add_route("more", "POST /documents", lambda_function("more"), parent=api)

    graph = graph_of(program)
    assert {each.inputs["authorizerId"] for each in graph.of("Route")} == {graph.one("Authorizer").id}


def test_the_api_that_uploads_had_before_goes_on_under_its_url() -> None:
    graph = graph_of(formerly="uploads", authorization=JWT)
    before = "urn:pulumi:test::docprogress::docprogress:infra:DocumentUploads::uploads"
    assert {each.name: each.aliases for each in graph if each.aliases} == {
        f"documents-api-{part}": ((before, f"uploads-{part}"),)
        for part in ("api", "stage", "access-logs", "authorizer")
    }


def test_signed_requests_are_checked_by_api_gateway() -> None:
    graph = graph_of(authorization=IAM)
    assert graph.one("Route").inputs["authorizationType"] == "AWS_IAM"
    assert "authorizerId" not in graph.one("Route").inputs
    assert graph.of("Authorizer") == []


def test_tokens_are_checked_by_api_gateway() -> None:
    graph = graph_of(authorization=JWT)
    authorizer = graph.one("Authorizer")
    assert authorizer.inputs == {
        "apiId": API_ID,
        "name": "jwt",
        "authorizerType": "JWT",
        "identitySources": ["$request.header.Authorization"],
        "jwtConfiguration": {"issuer": "https://issuer.example.com/", "audiences": ["web", "mobile"]},
    }
    route = graph.one("Route").inputs
    assert (route["authorizationType"], route["authorizerId"]) == ("JWT", authorizer.id)


def test_the_issuer_and_audience_may_come_from_another_resource() -> None:
    def program() -> None:
        pool = aws.sqs.Queue("pool")
        documents_api(authorization=dataclasses.replace(JWT, issuer=pool.url, audience=pool.arn))

    assert graph_of(program).one("Authorizer").inputs["jwtConfiguration"] == {
        "issuer": f"https://sqs/pool-{SUFFIX}",
        "audiences": [arn("sqs", f"pool-{SUFFIX}")],
    }


def test_a_plan_refuses_to_lose_the_url_unless_the_stack_is_disposable() -> None:
    assert {each.name for each in graph_of() if each.protect} >= {"documents-api-api", "documents-api-stage"}
    assert [each.name for each in graph_of(disposable=True).of("Api") if each.protect] == []


def test_the_stage_is_throttled_and_logs_every_request() -> None:
    assert graph_of().one("Stage").inputs == {
        "apiId": API_ID,
        "name": "$default",
        "autoDeploy": True,
        "defaultRouteSettings": {
            "throttlingRateLimit": 20,
            "throttlingBurstLimit": 10,
            "detailedMetricsEnabled": True,
        },
        "accessLogSettings": {
            "destinationArn": arn("logs", f"log-group:/aws/vendedlogs/apigateway/docprogress-test-documents/{API_ID}"),
            "format": ACCESS_LOG_FORMAT,
        },
    }


def test_access_logs_expire() -> None:
    assert graph_of().one("LogGroup", "documents-api-access-logs").inputs == {
        "name": f"/aws/vendedlogs/apigateway/docprogress-test-documents/{API_ID}",
        "retentionInDays": 30,
    }


def test_an_access_log_line_is_json_and_uses_only_what_an_http_api_knows() -> None:
    variables = re.findall(r"\$[\w.]+", ACCESS_LOG_FORMAT)
    assert [each for each in variables if not HTTP_LOG_VARIABLES.fullmatch(each)] == []
    assert "$context.requestId" in variables, "API Gateway refuses a format that names no request"
    line = json.loads(re.sub(r"\$context(?:\.\w+)+", "-", ACCESS_LOG_FORMAT))
    assert set(line.values()) == {"-"}, "every field has a value, and nothing but API Gateway's"
    assert "messageString" not in ACCESS_LOG_FORMAT, "it comes with quotes of its own"


@pytest.mark.parametrize(
    ("given", "set_"),
    [
        ([], ["*"]),
        (["*"], ["*"]),
        (["https://app.example.com", "*"], ["*"]),
        (
            ["https://app.example.com", "http://localhost:5173"],
            ["https://app.example.com", "http://localhost:5173"],
        ),
    ],
    ids=["none", "star", "star among others", "two"],
)
def test_pages_of_the_allowed_origins_may_ask(given: list[str], set_: list[str]) -> None:
    graph = graph_of(allowed_origins=given)
    assert graph.one("Api").inputs == {
        "name": "docprogress-test-documents",
        "description": "Documents: uploads, and how they stand",
        "protocolType": "HTTP",
        "ipAddressType": "ipv4",
        "corsConfiguration": {
            "allowOrigins": set_,
            "allowMethods": ["GET", "POST"],
            "allowHeaders": ["authorization", "content-type", "if-none-match"],
            "exposeHeaders": ["etag", "retry-after"],
            "maxAge": 3600,
        },
    }


def test_a_page_that_signs_may_send_the_headers_of_a_signature() -> None:
    cors = graph_of(authorization=IAM).one("Api").inputs["corsConfiguration"]
    assert cors["allowHeaders"] == [
        "authorization",
        "content-type",
        "if-none-match",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        *(
            ({"allowed_origins": [origin]}, f"allowed_origins is {[origin]!r}; it takes a JSON list of origins")
            for origin in (
                "https://app.example.com/",
                "https://app.example.com/page",
                "app.example.com",
                "https://*.example.com",
                "https://App.example.com",
                "https://a.example.com https://b.example.com",
                "https://app.example.com\n",
            )
        ),
        ({"api_throttle_rate": 0}, "api_throttle_rate is 0; it takes a whole number from 1 up (0 would refuse every"),
        ({"api_throttle_rate": math.nan}, "api_throttle_rate is nan"),
        ({"api_throttle_rate": math.inf}, "api_throttle_rate is inf"),
        ({"api_throttle_burst": 0}, "0 would refuse every request with 429"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_declared(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run(lambda: documents_api(**changes))
