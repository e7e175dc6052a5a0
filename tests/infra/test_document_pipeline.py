"""The example worker: its bucket, who may do what with it, and what wakes the processor.

Does not prove that S3 sends the notification: the emulator's tests put a file in.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from infra.document_kinds import DocumentKind
from infra.document_pipeline import DocumentPipeline, DocumentPipelineArgs
from infra.lambda_package import Packaging
from tests.infra.samples import KMS_KEY_ARN, allowed, document, document_progress, policy
from tests.mock_engine import ACCOUNT, PARTITION, REGION, SUFFIX, Graph, Resource, arn, run

BUCKET = f"documents-bucket-{SUFFIX}"
BUCKET_ARN = f"arn:{PARTITION}:s3:::{BUCKET}"
PROCESSOR_ARN = arn("lambda", f"function:documents-processor-function-{SUFFIX}")


def pipeline(**changes: Any) -> Graph:
    def program() -> None:
        args = DocumentPipelineArgs(lambda_packaging=Packaging.HOST, **changes)
        documents = DocumentPipeline("documents", args, progress=document_progress())
        pulumi.export("bucket", documents.bucket_name)

    return run(program)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return pipeline()


def child(graph: Graph, resource_type: str) -> Resource:
    resource = graph.one(resource_type)
    assert resource.parent == graph.one("docprogress:index:DocumentPipeline").urn
    return resource


def test_the_bucket_has_a_name_of_its_own(graph: Graph) -> None:
    assert child(graph, "Bucket").inputs == {"forceDestroy": False}, (
        "a bucket's name is the world's, so Pulumi makes one up"
    )
    assert graph.outputs == {"bucket": BUCKET}


def test_the_bucket_is_closed_to_the_public(graph: Graph) -> None:
    assert child(graph, "BucketPublicAccessBlock").inputs == {
        "bucket": BUCKET,
        "blockPublicAcls": True,
        "blockPublicPolicy": True,
        "ignorePublicAcls": True,
        "restrictPublicBuckets": True,
    }


def test_the_bucket_takes_no_acls(graph: Graph) -> None:
    assert child(graph, "BucketOwnershipControls").inputs == {
        "bucket": BUCKET,
        "rule": {"objectOwnership": "BucketOwnerEnforced"},
    }


def test_the_guards_of_a_bucket_outlive_it(graph: Graph) -> None:
    retained = {each.type.rpartition(":")[2] for each in graph if each.retain_on_delete}
    assert retained == {
        "BucketOwnershipControls",
        "BucketPublicAccessBlock",
        "BucketPolicy",
        "BucketServerSideEncryptionConfiguration",
        "BucketLifecycleConfiguration",
    }, "a bucket that is not empty is not deleted, and must still be private"


def test_the_bucket_refuses_what_is_not_encrypted_on_the_way(graph: Graph) -> None:
    bucket_policy = child(graph, "BucketPolicy")
    assert bucket_policy.inputs["bucket"] == BUCKET
    assert document(bucket_policy, "policy") == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [BUCKET_ARN, f"{BUCKET_ARN}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def test_policy_and_public_access_are_not_set_at_the_same_moment(graph: Graph) -> None:
    assert "documents-no-public-access" in graph.before(graph.one("BucketPolicy")), (
        "S3 answers one of the two with OperationAborted"
    )


def test_documents_are_encrypted_at_rest(graph: Graph) -> None:
    assert child(graph, "BucketServerSideEncryptionConfiguration").inputs == {
        "bucket": BUCKET,
        "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}],
    }


def test_a_customer_s_key_encrypts_documents_and_the_processor_may_use_it() -> None:
    graph = pipeline(kms_key_arn=KMS_KEY_ARN)
    assert graph.one("BucketServerSideEncryptionConfiguration").inputs["rules"] == [
        {
            "applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KMS_KEY_ARN},
            "bucketKeyEnabled": True,
        }
    ]
    without_key = policy(pipeline(), "documents-processor-read-documents")
    assert policy(graph, "documents-processor-read-documents") == without_key, (
        "what was written under an earlier key is read after it, too"
    )
    use_of_keys = without_key["Statement"][-2]
    assert {"kms:Decrypt", "kms:GenerateDataKey"} <= set(use_of_keys["Action"])
    assert use_of_keys["Condition"] == {
        "StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com.cn"},
        "StringLike": {"kms:EncryptionContext:aws:s3:arn": [BUCKET_ARN, f"{BUCKET_ARN}/*"]},
    }


@pytest.mark.parametrize(("hours", "days"), [(3, 1), (24, 1), (25, 2), (48, 2), (8760, 365)])
def test_documents_stay_at_least_as_long_as_their_state(hours: int, days: int) -> None:
    assert child(pipeline(document_retention_hours=hours), "BucketLifecycleConfiguration").inputs == {
        "bucket": BUCKET,
        "rules": [
            {
                "id": "expire",
                "status": "Enabled",
                "filter": {"prefix": ""},
                "expiration": {"days": days},
                "abortIncompleteMultipartUpload": {"daysAfterInitiation": 1},
            }
        ],
    }


def test_a_pdf_wakes_the_processor_however_its_ending_is_written(graph: Graph) -> None:
    assert child(graph, "BucketNotification").inputs == {
        "bucket": BUCKET,
        "lambdaFunctions": [
            {
                "id": f"pdf-{number}",
                "lambdaFunctionArn": PROCESSOR_ARN,
                "events": ["s3:ObjectCreated:*"],
                "filterSuffix": suffix,
            }
            for number, suffix in enumerate([".pdf", ".PDF", ".Pdf"])
        ],
    }


def test_a_result_wakes_nobody(graph: Graph) -> None:
    suffixes = [each["filterSuffix"] for each in graph.one("BucketNotification").inputs["lambdaFunctions"]]
    assert not "results/invoice-7.json".endswith(tuple(suffixes)), "the processor would call itself for ever"


def test_only_this_bucket_of_this_account_may_call_the_processor(graph: Graph) -> None:
    permission = graph.one("Permission", "documents-invoke-processor")
    assert permission.parent == graph.one("docprogress:index:DocumentPipeline").urn
    assert permission.inputs == {
        "action": "lambda:InvokeFunction",
        "function": f"documents-processor-function-{SUFFIX}",
        "principal": "s3.amazonaws.com",
        "sourceArn": BUCKET_ARN,
        "sourceAccount": ACCOUNT,
    }


def test_no_upload_finds_a_processor_that_may_not_work_yet(graph: Graph) -> None:
    needed = {"documents-invoke-processor", "documents-processor-function"}
    needed |= {each.name for each in graph.of("RolePolicy") if each.inputs["role"].startswith("documents-processor")}
    assert len(needed) > 3
    assert needed <= graph.before(graph.one("BucketNotification"))


def test_the_processor_reads_documents_and_writes_results(graph: Graph) -> None:
    *statements, _use_of_keys, _description = policy(graph, "documents-processor-read-documents")["Statement"]
    assert {"Version": "2012-10-17", "Statement": statements} == allowed(
        (["s3:GetObject"], [f"{BUCKET_ARN}/*{suffix}" for suffix in (".pdf", ".PDF", ".Pdf")]),
        (["s3:ListBucket"], [BUCKET_ARN]),
        (["s3:GetObject", "s3:PutObject"], [f"{BUCKET_ARN}/results/*"]),
    ), "without s3:ListBucket a document that is gone looks like a missing grant: 403 in place of 404"


def test_the_processor_is_a_worker_like_any_other(graph: Graph) -> None:
    granted = {
        each.name for each in graph.of("RolePolicy") if each.inputs["role"] == f"documents-processor-role-{SUFFIX}"
    }
    assert granted == {
        "documents-processor-write-logs",
        "documents-processor-read-documents",
        "documents-processor-report-failures",
        "documents-processor-write-states-in-progress",
        "documents-processor-use-keys-of-progress",
        "documents-processor-find-watchers-in-progress",
        "documents-processor-manage-connections-of-api",
    }
    variables = graph.one("Function", "documents-processor-function").inputs["environment"]["variables"]
    assert {"TABLE_NAME", "CALLBACK_URL", "DOCUMENT_RETENTION_SECONDS"} <= set(variables)


def test_the_processor_has_lambda_s_longest_time(graph: Graph) -> None:
    function = graph.one("Function", "documents-processor-function").inputs
    assert (function["handler"], function["timeout"]) == ("document_processor.handler", 900)


def test_an_upload_that_was_given_up_is_kept_with_its_reason(graph: Graph) -> None:
    queue = child(graph, "Queue")
    assert queue.inputs == {"messageRetentionSeconds": 14 * 24 * 3600, "sqsManagedSseEnabled": True}
    config = child(graph, "FunctionEventInvokeConfig")
    assert config.inputs["destinationConfig"] == {"onFailure": {"destination": queue.outputs["arn"]}}
    assert policy(graph, "documents-processor-report-failures") == allowed(
        (["sqs:SendMessage"], [queue.outputs["arn"]])
    )
    assert "documents-processor-report-failures" in graph.before(config), "Lambda refuses a queue it may not send to"


def test_the_processor_is_tried_twice_more(graph: Graph) -> None:
    assert child(graph, "FunctionEventInvokeConfig").inputs["maximumRetryAttempts"] == 2, (
        "so many tries are announced to watchers (functions/document_processor.py)"
    )


def test_the_processor_has_memory_and_a_limit_of_its_own() -> None:
    inputs = pipeline().one("Function", "documents-processor-function").inputs
    assert (inputs["memorySize"], inputs.get("reservedConcurrentExecutions")) == (2048, None)
    inputs = (
        pipeline(document_memory_megabytes=3008, document_concurrency=50)
        .one("Function", "documents-processor-function")
        .inputs
    )
    assert (inputs["memorySize"], inputs["reservedConcurrentExecutions"]) == (3008, 50)


# --- other kinds of documents ---


DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
WORD = DocumentKind(suffixes=[".docx"], handler_module="examples/docx/docx_processor.py", media_type=DOCX)


def test_a_kind_of_its_own_has_a_bucket_of_its_own() -> None:
    graph = pipeline(**WORD)
    function = graph.one("Function", "documents-processor-function").inputs
    assert function["handler"] == "docx_processor.handler"
    assert function["environment"]["variables"]["DOCUMENT_SUFFIXES"] == ".docx"
    [first, *_] = policy(graph, "documents-processor-read-documents")["Statement"]
    assert first["Resource"] == [f"{BUCKET_ARN}/*{suffix}" for suffix in (".docx", ".DOCX", ".Docx")]
    notified = graph.one("BucketNotification").inputs["lambdaFunctions"]
    assert [(each["id"], each["filterSuffix"]) for each in notified] == [
        ("docx-0", ".docx"),
        ("docx-1", ".DOCX"),
        ("docx-2", ".Docx"),
    ]


def test_kinds_share_a_bucket_with_one_notification_and_a_function_each() -> None:
    alone, graph = pipeline(), pipeline(more_kinds=[WORD, {**WORD, "suffixes": [".odt", ".rtf"]}])
    assert len(graph.of("Bucket")) == 1
    assert len(graph.of("Queue")) == 1
    notification = graph.one("BucketNotification")
    notified = notification.inputs["lambdaFunctions"]
    before = alone.one("BucketNotification").inputs["lambdaFunctions"]
    assert notified[:3] == before, "what woke the PDFs' processor goes on to"
    assert [(each["id"], each["lambdaFunctionArn"].rpartition(":")[2]) for each in notified[3::3]] == [
        ("docx-0", f"documents-docx-processor-function-{SUFFIX}"),
        ("odt-0", f"documents-odt-processor-function-{SUFFIX}"),
        ("rtf-0", f"documents-odt-processor-function-{SUFFIX}"),
    ]
    assert {f"documents-{kind}-invoke-processor" for kind in ("docx", "odt")} <= graph.before(notification)
    assert {each.urn for each in alone} <= {each.urn for each in graph}, "what was there is not made anew"
    for name in ("documents-processor-function", "documents-docx-processor-function"):
        variables = graph.one("Function", name).inputs["environment"]["variables"]
        assert variables["DOCUMENT_SUFFIXES"] == ".pdf .docx .odt .rtf", "or a.docx.pdf would be the document a.docx"
    [first, *_] = policy(graph, "documents-docx-processor-read-documents")["Statement"]
    assert first["Resource"] == [f"{BUCKET_ARN}/*{suffix}" for suffix in (".docx", ".DOCX", ".Docx")]
    granted = [each.inputs["role"] for each in graph.of("RolePolicy")]
    worker = granted.count(f"documents-processor-role-{SUFFIX}")
    assert granted.count(f"documents-docx-processor-role-{SUFFIX}") == worker, "a worker like any other"
    assert len(graph.of("FunctionEventInvokeConfig")) == 3


def test_each_processor_is_traced_where_that_is_asked_for() -> None:
    graph = pipeline(tracing=True, more_kinds=[WORD])
    for name in ("documents-processor-function", "documents-docx-processor-function"):
        assert graph.one("Function", name).inputs["tracingConfig"] == {"mode": "Active"}


def test_pdfs_alone_need_no_word_of_it() -> None:
    variables = pipeline().one("Function", "documents-processor-function").inputs["environment"]["variables"]
    assert "DOCUMENT_SUFFIXES" not in variables


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"suffixes": [".docx"]}, "needs handler_module and media_type too"),
        ({"suffixes": []}, "suffixes"),
        ({**WORD, "suffixes": ["docx"]}, r"it takes a JSON list of suffixes in small letters"),
        ({**WORD, "suffixes": [".DOCX"]}, r"it takes a JSON list of suffixes in small letters"),
        ({**WORD, "handler_module": "no_such_processor"}, r"There is no functions/no_such_processor\.py"),
        ({**WORD, "handler_module": "examples/docx/none.py"}, r"There is no .*/examples/docx/none\.py"),
        ({**WORD, "handler_module": "examples/docx/docx-processor.py"}, "handler_module is"),
        ({**WORD, "media_type": "Word"}, "media_type is 'Word'"),
        ({**WORD, "media_type": ""}, "media_type"),
        ({**WORD, "suffixes": [".json"]}, "would read its own results"),
        ({**WORD, "suffixes": [".result.json"]}, "would read its own results"),
        ({"more_kinds": [{**WORD, "suffixes": [".pdf"]}]}, r"\.pdf and \.pdf end alike"),
        ({"more_kinds": [{**WORD, "suffixes": [".signed.pdf"]}]}, r"\.signed\.pdf and \.pdf end alike"),
        ({"more_kinds": [WORD, WORD]}, r"\.docx and \.docx end alike"),
        ({"more_kinds": [{"suffixes": [".docx"]}]}, r"more_kinds\[0\] is .* it takes suffixes, handler_module, media"),
        ({"more_kinds": [{**WORD, "media_type": ""}]}, r"more_kinds\[0\]\.media_type is ''"),
    ],
)
def test_a_kind_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipeline(**changes)
