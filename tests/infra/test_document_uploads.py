"""The HTTP API for uploads alone: its route, authorization, stage, function, grants and CORS.

Does not prove that API Gateway takes these inputs, nor what the function behind the route answers.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

from infra.authorization import IamAuthorization, TokenAuthorization
from infra.document_uploads import ACCESS_LOG_FORMAT, DocumentUploads, DocumentUploadsArgs
from infra.progress_table import ProgressTable, ProgressTableArgs
from tests.infra.samples import FUNCTION_SETTINGS, allowed, policy
from tests.mock_engine import PARTITION, REGION, SUFFIX, Graph, arn, run

API_ID = "a1b2c3d4e5"
ENDPOINT = f"https://{API_ID}.execute-api.{REGION}.amazonaws.com.cn"
ROUTE_ARN = arn("execute-api", f"{API_ID}/$default/POST/uploads")
FUNCTION_ARN = arn("lambda", f"function:uploads-presigner-function-{SUFFIX}")
BUCKET = f"documents-bucket-{SUFFIX}"
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


def document_uploads(**changes: Any) -> DocumentUploads:
    args = DocumentUploadsArgs(
        bucket=aws.s3.Bucket("documents-bucket"),
        table=ProgressTable("progress", ProgressTableArgs()),
        functions=FUNCTION_SETTINGS,
        api_throttle_rate=20,
        api_throttle_burst=10,
        detailed_metrics_enabled=True,
    )
    return DocumentUploads("uploads", dataclasses.replace(args, **changes))


def graph_of(program: Callable[[], object] = document_uploads, **changes: Any) -> Graph:
    answers = {
        "id": API_ID,
        "apiEndpoint": ENDPOINT,
        "executionArn": arn("execute-api", API_ID),
    }
    return run(lambda: program(**changes), answers={"uploads-api": answers})


def test_the_one_route_goes_to_the_presigner() -> None:
    graph = graph_of()
    assert graph.one("Route").inputs == {
        "apiId": API_ID,
        "routeKey": "POST /uploads",
        "target": f"integrations/{graph.one('Integration').id}",
        "authorizationType": "NONE",
    }
    assert graph.one("Integration").inputs == {
        "apiId": API_ID,
        "integrationType": "AWS_PROXY",
        "integrationMethod": "POST",
        "integrationUri": f"arn:{PARTITION}:apigateway:{REGION}:lambda:path/2015-03-31/functions/"
        f"{FUNCTION_ARN}/invocations",
        "payloadFormatVersion": "2.0",
        "timeoutMilliseconds": 29_000,
    }
    assert graph.of("Authorizer") == []


def test_only_this_route_of_this_api_may_invoke_the_presigner() -> None:
    assert graph_of().one("Permission").inputs == {
        "action": "lambda:InvokeFunction",
        "function": f"uploads-presigner-function-{SUFFIX}",
        "principal": "apigateway.amazonaws.com",
        "sourceArn": ROUTE_ARN,
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
        document_uploads(authorization=dataclasses.replace(JWT, issuer=pool.url, audience=pool.arn))

    assert graph_of(program).one("Authorizer").inputs["jwtConfiguration"] == {
        "issuer": f"https://sqs/pool-{SUFFIX}",
        "audiences": [arn("sqs", f"pool-{SUFFIX}")],
    }


def test_the_presigner_knows_the_bucket_and_the_table() -> None:
    function = graph_of().one("Function")
    assert function.inputs["handler"] == "upload_presigner.handler"
    assert function.inputs["environment"]["variables"] == {
        "POWERTOOLS_SERVICE_NAME": "docprogress-test-uploads-presigner",
        "AUTHORIZATION": "NONE",
        "TABLE_NAME": f"progress-table-{SUFFIX}",
        "DOCUMENTS_BUCKET": BUCKET,
    }
    assert function.inputs["timeout"] == 29, "API Gateway gives up after 30 seconds, and nobody hears the answer"


def test_the_presigner_may_put_pdfs_and_nothing_else() -> None:
    graph = graph_of()
    put, *_use_of_keys = policy(graph, "uploads-presigner-put-documents")["Statement"]
    assert [put] == allowed((["s3:PutObject"], [f"arn:{PARTITION}:s3:::{BUCKET}/uploads/*.pdf"]))["Statement"]
    assert graph.names("RolePolicy") == ["uploads-presigner-put-documents", "uploads-presigner-write-logs"], (
        "where nobody is known, no owner is noted"
    )


@pytest.mark.parametrize("authorization", [IAM, JWT], ids=["AWS_IAM", "JWT"])
def test_where_callers_are_known_the_presigner_may_note_whose_a_document_will_be(authorization: object) -> None:
    graph = graph_of(authorization=authorization)
    actions = [
        action
        for statement in policy(graph, "uploads-presigner-expect-documents-in-progress")["Statement"]
        for action in statement["Action"]
    ]
    assert actions == ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem"]


def test_the_presigner_may_use_whatever_key_the_bucket_has_through_s3_only() -> None:
    _, use_of_keys, _ = policy(graph_of(), "uploads-presigner-put-documents")["Statement"]
    assert "kms:GenerateDataKey" in use_of_keys["Action"], "S3 asks for it in the signer's name"
    bucket = f"arn:{PARTITION}:s3:::{BUCKET}"
    assert use_of_keys["Condition"] == {
        "StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com.cn"},
        "StringLike": {"kms:EncryptionContext:aws:s3:arn": [bucket, f"{bucket}/*"]},
    }


def test_a_plan_refuses_to_lose_the_url_unless_the_stack_is_disposable() -> None:
    assert {each.name for each in graph_of() if each.protect} >= {"uploads-api", "uploads-stage"}
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
            "destinationArn": arn("logs", f"log-group:/aws/vendedlogs/apigateway/docprogress-test-uploads/{API_ID}"),
            "format": ACCESS_LOG_FORMAT,
        },
    }


def test_access_logs_expire() -> None:
    assert graph_of().one("LogGroup", "uploads-access-logs").inputs == {
        "name": f"/aws/vendedlogs/apigateway/docprogress-test-uploads/{API_ID}",
        "retentionInDays": 30,
    }


def test_an_access_log_line_is_json_and_uses_only_what_an_http_api_knows() -> None:
    variables = re.findall(r"\$[\w.]+", ACCESS_LOG_FORMAT)
    assert [each for each in variables if not HTTP_LOG_VARIABLES.fullmatch(each)] == []
    assert "$context.requestId" in variables, "API Gateway refuses a format that names no request"
    line = json.loads(re.sub(r"\$context(?:\.\w+)+", "-", ACCESS_LOG_FORMAT))
    assert set(line.values()) == {"-"}, "every field has a value, and nothing but API Gateway's"
    assert "messageString" not in ACCESS_LOG_FORMAT, "it comes with quotes of its own"


def test_no_request_finds_a_function_or_a_bucket_that_is_not_ready_yet() -> None:
    graph = graph_of(authorization=JWT)
    assert {
        "uploads-bucket-cors",
        "uploads-route",
        "uploads-authorizer",
        "uploads-invoke-presigner",
        "uploads-presigner-put-documents",
        "uploads-presigner-expect-documents-in-progress",
    } <= graph.before(graph.one("Stage"))


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
def test_pages_of_the_allowed_origins_may_ask_and_upload(given: list[str], set_: list[str]) -> None:
    graph = graph_of(allowed_origins=given)
    assert graph.one("Api").inputs == {
        "name": "docprogress-test-uploads",
        "description": "Forms to upload documents with",
        "protocolType": "HTTP",
        "corsConfiguration": {
            "allowOrigins": set_,
            "allowMethods": ["POST"],
            "allowHeaders": ["authorization", "content-type"],
            "maxAge": 3600,
        },
    }
    assert graph.one("BucketCorsConfiguration").inputs == {
        "bucket": BUCKET,
        "corsRules": [{"allowedMethods": ["POST"], "allowedOrigins": set_, "maxAgeSeconds": 3600}],
    }


def test_a_page_that_signs_may_send_the_headers_of_a_signature() -> None:
    cors = graph_of(authorization=IAM).one("Api").inputs["corsConfiguration"]
    assert cors["allowHeaders"] == [
        "authorization",
        "content-type",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
    ]


def test_the_url_and_the_route_s_arn_are_whole() -> None:
    outputs: dict[str, Any] = {}

    def program() -> None:
        uploads = document_uploads()
        pulumi.Output.all(url=uploads.url, route_arn=uploads.route_arn).apply(outputs.update)

    graph_of(program)
    assert outputs == {"url": f"{ENDPOINT}/uploads", "route_arn": ROUTE_ARN}


def test_everything_belongs_to_the_component() -> None:
    graph = graph_of(authorization=JWT)
    component = graph.one("docprogress:infra:DocumentUploads")
    children = {each.name for each in graph if graph.parent(each) is component}
    assert children == {
        "uploads-presigner",
        "uploads-presigner-put-documents",
        "uploads-bucket-cors",
        "uploads-api",
        "uploads-integration",
        "uploads-authorizer",
        "uploads-route",
        "uploads-invoke-presigner",
        "uploads-access-logs",
        "uploads-stage",
    }


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
        run(lambda: document_uploads(**changes))
