"""Uploads: their routes, function and grants, and the CORS of the bucket.

Does not prove what the API makes of the routes (test_documents_api), nor what the function behind them answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

from infra.authorization import IamAuthorization, TokenAuthorization
from infra.document_uploads import DocumentUploads, DocumentUploadsArgs
from infra.documents_api import DocumentsApi, DocumentsApiArgs
from infra.progress_table import ProgressTable, ProgressTableArgs
from tests.infra.samples import FUNCTION_SETTINGS, allowed, policy
from tests.mock_engine import PARTITION, REGION, SUFFIX, Graph, arn, run

API_ID = "a1b2c3d4e5"
ENDPOINT = f"https://{API_ID}.execute-api.{REGION}.amazonaws.com.cn"
ROUTE_ARN = arn("execute-api", f"{API_ID}/$default/POST/uploads")
BUCKET = f"documents-bucket-{SUFFIX}"
JWT = TokenAuthorization(issuer="https://issuer.example.com/", audience="web,mobile", functions=FUNCTION_SETTINGS)
IAM = IamAuthorization()


def document_uploads(**changes: Any) -> DocumentUploads:
    """changes: of the API."""
    api = DocumentsApiArgs(
        api_throttle_rate=20,
        api_throttle_burst=10,
        detailed_metrics_enabled=True,
        log_retention_days=30,
        physical_name="docprogress-test-documents",
        **changes,
    )
    args = DocumentUploadsArgs(
        bucket=aws.s3.Bucket("documents-bucket"),
        table=ProgressTable("progress", ProgressTableArgs()),
        functions=FUNCTION_SETTINGS,
        api=DocumentsApi("documents-api", api),
    )
    return DocumentUploads("uploads", args)


def graph_of(program: Callable[..., object] = document_uploads, **changes: Any) -> Graph:
    answers = {
        "id": API_ID,
        "apiEndpoint": ENDPOINT,
        "executionArn": arn("execute-api", API_ID),
    }
    return run(lambda: program(**changes), answers={"documents-api-api": answers})


def test_forms_are_handed_out_where_documents_are_and_where_they_were_at_first() -> None:
    graph = graph_of()
    function = graph.one("Function").outputs
    assert {each.inputs["routeKey"] for each in graph.of("Route")} == {"POST /documents", "POST /uploads"}
    assert {each.inputs["integrationUri"] for each in graph.of("Integration")} == {function["invokeArn"]}
    assert {each.inputs["sourceArn"] for each in graph.of("Permission")} == {
        ROUTE_ARN,
        arn("execute-api", f"{API_ID}/$default/POST/documents"),
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


def test_no_request_finds_a_function_or_a_bucket_that_is_not_ready_yet() -> None:
    graph = graph_of(authorization=JWT)
    for route in graph.of("Route"):
        assert {
            "uploads-bucket-cors",
            "uploads-presigner-put-documents",
            "uploads-presigner-expect-documents-in-progress",
        } <= graph.before(route), "the stage deploys it at once"


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
        *(f"uploads-{part}" for part in ("integration", "permission", "route")),
        *(f"uploads-documents-{part}" for part in ("integration", "permission", "route")),
    }


def test_the_bucket_takes_uploads_from_the_pages_that_may_ask() -> None:
    assert graph_of(allowed_origins=["https://app.example.com"]).one("BucketCorsConfiguration").inputs == {
        "bucket": BUCKET,
        "corsRules": [
            {"allowedMethods": ["POST"], "allowedOrigins": ["https://app.example.com"], "maxAgeSeconds": 3600}
        ],
    }
