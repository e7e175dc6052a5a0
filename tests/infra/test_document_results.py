"""Links to results: their route, their function and what it may do.

Does not prove what the API makes of the route (test_documents_api), nor what the function behind it answers.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

from infra.authorization import AuthorizationMode, IamAuthorization, NoAuthorization
from infra.document_results import DocumentResults, DocumentResultsArgs
from infra.documents_api import DocumentsApi, DocumentsApiArgs
from infra.progress_table import ProgressTable, ProgressTableArgs
from infra.stack_config import ConfigError
from tests.infra.samples import FUNCTION_SETTINGS, allowed, of_documents, policy
from tests.mock_engine import PARTITION, REGION, SUFFIX, Graph, arn, run, run_main

BUCKET = f"documents-bucket-{SUFFIX}"


def graph_of(*, authorization: AuthorizationMode | None = None, **changes: Any) -> Graph:
    def program() -> None:
        api = DocumentsApiArgs(
            authorization=authorization or NoAuthorization(),
            api_throttle_rate=20,
            api_throttle_burst=10,
            detailed_metrics_enabled=True,
            log_retention_days=30,
            physical_name="docprogress-test-documents",
        )
        args = DocumentResultsArgs(
            bucket=aws.s3.Bucket("documents-bucket"),
            table=ProgressTable("progress", ProgressTableArgs()),
            functions=FUNCTION_SETTINGS,
            api=DocumentsApi("documents-api", api),
            **{"shared_documents": False, **changes},
        )
        pulumi.export("url", DocumentResults("document-results", args).url)

    return run(program)


def test_a_link_is_asked_for_by_the_documents_id() -> None:
    graph = graph_of(authorization=IamAuthorization())
    route = graph.one("Route").inputs
    assert (route["routeKey"], route["authorizationType"]) == ("GET /results/{docId+}", "AWS_IAM")
    assert set(graph.names("RolePolicy")) <= graph.before(graph.one("Route"))
    assert graph.outputs["url"] == f"https://documents-api-api-id.execute-api.{REGION}.amazonaws.com.cn/results"


@pytest.mark.parametrize("shared", [False, True])
def test_the_function_knows_the_bucket_the_table_and_who_is_entitled(shared: bool) -> None:
    function = graph_of(shared_documents=shared).one("Function")
    assert function.inputs["handler"] == "document_results.handler"
    assert function.inputs["environment"]["variables"] == {
        "POWERTOOLS_SERVICE_NAME": "docprogress-test-document-results",
        "AUTHORIZATION": "NONE",
        "TABLE_NAME": f"progress-table-{SUFFIX}",
        "DOCUMENTS_BUCKET": BUCKET,
        **({"SHARED_DOCUMENTS": "true"} if shared else {}),
    }


def test_the_function_may_read_results_and_states_and_nothing_else() -> None:
    graph = graph_of()
    bucket = f"arn:{PARTITION}:s3:::{BUCKET}"
    read, use_of_keys, _ = policy(graph, "document-results-read-results")["Statement"]
    assert [read] == allowed((["s3:GetObject"], [f"{bucket}/results/*"]))["Statement"]
    assert use_of_keys["Condition"] == {
        "StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com.cn"},
        "StringLike": {"kms:EncryptionContext:aws:s3:arn": [bucket, f"{bucket}/results/*"]},
    }
    table = arn("dynamodb", f"table/progress-table-{SUFFIX}")
    assert policy(graph, "document-results-read-states-in-progress")["Statement"] == [
        of_documents("dynamodb:GetItem", table=table)
    ]
    assert graph.names("RolePolicy") == [
        "document-results-read-results",
        "document-results-read-states-in-progress",
        "document-results-use-keys-of-progress",
        "document-results-write-logs",
    ]


def test_where_nobody_is_known_only_a_disposable_stack_gives_results_away() -> None:
    config = {"documentPipeline": "true", "documentResults": "true", "authorization": "NONE"}
    assert "resultsUrl" in run_main("dev", {**config, "disposable": "true"}).outputs
    with pytest.raises(ConfigError, match="gives the text of a document to everyone who knows its id") as refused:
        run_main("prod", config)
    assert "pulumi config set docprogress:authorization JWT --stack prod" in str(refused.value)
