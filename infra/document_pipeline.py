"""The example worker: documents put in a bucket are read page by page, and every page is reported. PDFs by default.

No `from __future__ import annotations` here: Pulumi reads the annotations of the arguments to make the SDKs of other
languages, and a text is no type to it.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import pulumi
import pulumi_aws as aws

from .document_kinds import KIND_RULES, PDF, DocumentKind, fault_of, media_types_of, name_of, spellings
from .document_progress import PROGRESS_DEFAULTS, PROGRESS_RULES, DocumentProgress
from .keeping import kept
from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .lambda_package import Packaging
from .policy import allow, use_keys_of
from .private_bucket import keep_private
from .rules import Rule, checked, integer

# Lambda's longest: a document of thousands of pages.
_TIMEOUT_SECONDS = 900


class DocumentPipelineArgs(TypedDict, total=False):
    """Every argument may be left out but the worker's environment and policy."""

    worker_environment: pulumi.Input[dict[str, str]]
    """The output workerEnvironment of a DocumentProgress."""
    worker_policy: pulumi.Input[str]
    """The output workerPolicy of the same DocumentProgress."""
    suffixes: list[str]
    """What documents end in, in small letters: .pdf by default. Capitals are found too. Any other needs handler_module
    and media_type."""
    handler_module: str
    """The module in functions/ that reads them, or the path of one elsewhere, which ends in .py. By default
    document_processor, which reads PDFs."""
    media_type: str
    """As what they are uploaded. application/pdf by default."""
    more_kinds: list[DocumentKind]
    """Other kinds of documents in the same bucket, each with a function of its own. A kind that has a bucket of its own
    has a DocumentPipeline of its own."""
    document_retention_hours: int
    """How long a document is kept, in whole days rounded up. 24 by default; no less than the DocumentProgress has."""
    disposable: bool
    """The bucket may be deleted together with its documents. Off by default: plans refuse that."""
    kms_key_arn: str
    """A customer key for the bucket. S3's own key by default."""
    log_retention_days: int
    """How long the logs are kept: one of CloudWatch's values, such as 7, 90 or 365. 30 by default."""
    document_memory_megabytes: int
    """Memory of the processor, enough for a document of 100 MB. 512 to 10240; 2048 by default."""
    document_concurrency: int
    """Documents read at once; more wait. Reserved of the account's concurrency, of which a new account has 10 in all.
    0, the default, for no limit."""
    lambda_packaging: Packaging
    """What the processor's archive is built for. Lambda by default."""
    tracing: bool
    """Trace the calls of the functions with X-Ray, which is charged. Off by default."""
    snap_start: bool
    """Start the processor from snapshots of a published version, which are charged. Off by default."""


PIPELINE_RULES: Mapping[str, Rule] = {
    **KIND_RULES,
    "document_memory_megabytes": integer(512, 10_240, why=" (Lambda's upper limit, and what two ordinary files took)"),
    # A reservation of a thousand is an account's whole quota, unless it was raised.
    "document_concurrency": integer(0, 10_000),
}
_DEFAULTS: Mapping[str, Any] = {
    **{key: PROGRESS_DEFAULTS[key] for key in DocumentPipelineArgs.__annotations__ if key in PROGRESS_DEFAULTS},
    "document_memory_megabytes": 2048,
    "document_concurrency": 0,
    "worker_environment": None,
    "worker_policy": None,
    **PDF,
    "more_kinds": [],
}


class DocumentPipeline(pulumi.ComponentResource):
    """A bucket whose documents are read page by page, and the function that reads them: PDFs, or any other kind.

    ```python
    pipeline = DocumentPipeline("documents", progress=progress)
    pulumi.export("documentsBucket", pipeline.bucket_name)
    ```
    """

    bucket_name: pulumi.Output[str]
    """Where documents are put. Results are written below `results/`."""
    processor_name: pulumi.Output[str]
    """The function that reads them; of several kinds, the first."""

    def __init__(
        self,
        name: str,
        args: DocumentPipelineArgs = {},  # noqa: B006 - Pulumi reads the type, and nothing writes to the value
        opts: pulumi.ResourceOptions | None = None,
        *,
        progress: DocumentProgress | None = None,
    ) -> None:
        """
        Args:
            progress: reported to, in place of worker_environment and worker_policy.
        """
        formerly = pulumi.ResourceOptions(aliases=[pulumi.Alias(type_="docprogress:infra:DocumentPipeline")])
        super().__init__("docprogress:index:DocumentPipeline", name, None, pulumi.ResourceOptions.merge(formerly, opts))
        self._name = name
        is_other_kind = args.get("suffixes") not in (None, PDF["suffixes"])
        if is_other_kind and not (args.get("handler_module") and args.get("media_type")):
            raise ValueError(
                f"suffixes is {args['suffixes']!r}, which needs handler_module and media_type too: without them, such"
                " documents would be read and uploaded as PDFs."
            )
        self._args = args = checked(args, {**PROGRESS_RULES, **PIPELINE_RULES}, _DEFAULTS)
        self.kinds = _kinds(args)
        if progress is None and not (args["worker_environment"] and args["worker_policy"]):
            raise ValueError(
                "worker_environment and worker_policy are needed: give the outputs of a DocumentProgress, so that the"
                " processor knows where to report and may do so."
            )
        self._child = pulumi.ResourceOptions(parent=self)
        self._environment = progress.publishing.worker_environment if progress else args["worker_environment"]
        self.bucket = self._create_bucket()
        self.processors = [self._create_processor(kind) for kind in self.kinds]
        # Uploads that Lambda gave up on, with the reason; it forgets them otherwise.
        self.failures = aws.sqs.Queue(
            f"{name}-failures",
            message_retention_seconds=14 * 24 * 3600,
            sqs_managed_sse_enabled=True,
            opts=self._child,
        )
        for kind, processor in zip(self.kinds, self.processors, strict=True):
            if progress:
                progress.grant_worker(processor)
            else:
                processor.grant_document("report-progress", args["worker_policy"])
            self._grant_documents(kind, processor)
            self._keep_failures(kind, processor)
        self._notify_processors()
        self.bucket_name = self.bucket.bucket
        self.processor_name = self.processors[0].function_name
        self.register_outputs({"bucket_name": self.bucket_name, "processor_name": self.processor_name})

    @property
    def media_types(self) -> dict[str, str]:
        """As what its documents are uploaded, by suffix."""
        return media_types_of(self.kinds)

    def _named(self, kind: DocumentKind, part: str) -> str:
        # The first kind's parts are called as they were when there was one.
        return f"{self._name}-{part}" if kind is self.kinds[0] else f"{self._name}-{name_of(kind)}-{part}"

    def _create_processor(self, kind: DocumentKind) -> LambdaFunction:
        args = self._args
        return LambdaFunction(
            self._named(kind, "processor"),
            LambdaFunctionArgs(
                handler_module=kind["handler_module"],
                environment=_with_suffixes(self._environment, list(self.media_types)),
                timeout_seconds=_TIMEOUT_SECONDS,
                settings=FunctionSettings(
                    lambda_memory_megabytes=args["document_memory_megabytes"],
                    log_retention_days=args["log_retention_days"],
                    lambda_packaging=args["lambda_packaging"],
                    tracing=args["tracing"],
                    snap_start=args["snap_start"],
                ),
                concurrency=args["document_concurrency"] or None,
            ),
            opts=self._child,
        )

    def _create_bucket(self) -> aws.s3.Bucket:
        bucket = aws.s3.Bucket(
            f"{self._name}-bucket",
            force_destroy=self._args["disposable"],
            opts=kept(parent=self, disposable=self._args["disposable"]),
        )
        keep_private(self._name, bucket, parent=self, kms_key_arn=self._args["kms_key_arn"] or None)
        aws.s3.BucketLifecycleConfiguration(
            f"{self._name}-lifecycle",
            bucket=bucket.id,
            rules=[
                {
                    "id": "expire",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    # S3 counts in days; a document stays at least as long as its state.
                    "expiration": {"days": -(-self._args["document_retention_hours"] // 24)},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 1},
                }
            ],
            # It goes with the bucket, as what keeps that private does.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        return bucket

    def _grant_documents(self, kind: DocumentKind, processor: LambdaFunction) -> None:
        bucket = self.bucket
        endings = [each for suffix in kind["suffixes"] for each in spellings(suffix)]
        processor.grant(
            "read-documents",
            allow(["s3:GetObject"], [pulumi.Output.concat(bucket.arn, "/*", ending) for ending in endings]),
            # Without it S3 answers 403 for an object that is not there, as if the grant were missing.
            allow(["s3:ListBucket"], [bucket.arn]),
            # It looks whether a result is there already. Parts of a large one that failed half-way are the lifecycle's
            # to remove.
            allow(["s3:GetObject", "s3:PutObject"], [pulumi.Output.concat(bucket.arn, "/results/*")]),
            *use_keys_of("s3", processor.arn, "aws:s3:arn", [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")]),
            parent=self,
        )

    def _keep_failures(self, kind: DocumentKind, processor: LambdaFunction) -> None:
        reporting = processor.grant("report-failures", allow(["sqs:SendMessage"], [self.failures.arn]), parent=self)
        aws.lambda_.FunctionEventInvokeConfig(
            self._named(kind, "retries"),
            function_name=processor.function_name,
            qualifier=processor.qualifier,
            # Lambda's own default, said because functions/document_processor.py counts on it.
            maximum_retry_attempts=2,
            destination_config={"on_failure": {"destination": self.failures.arn}},
            # Lambda asks whether the function may send there.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[reporting]),
        )

    def _notify_processors(self) -> None:
        """One notification for all kinds: a bucket has no more, and another one would replace it."""
        bucket = self.bucket
        # No upload may find a processor that cannot do its work yet.
        ready = [grant for processor in self.processors for grant in processor.grants]
        permissions = [
            aws.lambda_.Permission(
                self._named(kind, "invoke-processor"),
                action="lambda:InvokeFunction",
                function=processor.function_name,
                qualifier=processor.qualifier,
                principal="s3.amazonaws.com",
                source_arn=bucket.arn,
                # A bucket's ARN names no account, and a deleted bucket's name can be taken by another one.
                source_account=processor.arn.apply(lambda arn: arn.split(":")[4]),
                opts=self._child,
            )
            for kind, processor in zip(self.kinds, self.processors, strict=True)
        ]
        aws.s3.BucketNotification(
            f"{self._name}-uploads",
            bucket=bucket.id,
            lambda_functions=[
                {
                    "id": f"{suffix[1:]}-{number}",
                    "lambda_function_arn": processor.arn,
                    "events": ["s3:ObjectCreated:*"],
                    "filter_suffix": ending,
                }
                for kind, processor in zip(self.kinds, self.processors, strict=True)
                for suffix in kind["suffixes"]
                for number, ending in enumerate(spellings(suffix))
            ],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*permissions, *ready]),
        )


def _kinds(args: Mapping[str, Any]) -> list[DocumentKind]:
    """Raises ValueError."""
    first = DocumentKind(
        suffixes=args["suffixes"], handler_module=args["handler_module"], media_type=args["media_type"]
    )
    needed = {*KIND_RULES}
    for number, kind in enumerate(args["more_kinds"]):
        if {*kind} != needed:
            raise ValueError(f"more_kinds[{number}] is {kind!r}; it takes {', '.join(KIND_RULES)}.")
        for name, rule in KIND_RULES.items():
            rule.check(f"more_kinds[{number}].{name}", kind[name])
    kinds = [first, *args["more_kinds"]]
    if fault := fault_of(kinds):
        raise ValueError(fault[0])
    return kinds


def _with_suffixes(
    environment: pulumi.Input[Mapping[str, pulumi.Input[str]]], suffixes: list[str]
) -> pulumi.Input[Mapping[str, pulumi.Input[str]]]:
    """What a processor needs to know of a bucket that does not have PDFs alone: which keys are documents."""
    if suffixes == PDF["suffixes"]:
        return environment
    return pulumi.Output.all(environment).apply(lambda known: {**known[0], "DOCUMENT_SUFFIXES": " ".join(suffixes)})
