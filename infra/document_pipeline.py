"""The example worker: PDFs put in a bucket are read page by page, and every page is reported."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from infra.policy import allow, use_key
from infra.publishing import Publishing

# Lambda's longest: a document of thousands of pages.
_TIMEOUT_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class DocumentPipelineArgs:
    """
    Attributes:
        kms_key_arn: a customer key for the bucket; None for S3's own.
        force_destroy: delete the bucket with the documents in it. Else it has to be emptied first.
    """

    publishing: Publishing
    functions: FunctionSettings
    kms_key_arn: str | None = None
    force_destroy: bool = False


class DocumentPipeline(pulumi.ComponentResource):
    """
    ```python
    pipeline = DocumentPipeline("documents", DocumentPipelineArgs(publishing=publishing, ...))
    pulumi.export("documentsBucket", pipeline.bucket_name)
    ```
    """

    bucket: aws.s3.Bucket
    bucket_name: pulumi.Output[str]
    processor: LambdaFunction

    def __init__(self, name: str, args: DocumentPipelineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:DocumentPipeline", name, None, opts)
        self._name = name
        self._child = pulumi.ResourceOptions(parent=self)
        bucket = self._create_bucket(args)
        self.bucket = bucket
        self.bucket_name = bucket.bucket
        self.processor = LambdaFunction(
            f"{name}-processor",
            LambdaFunctionArgs(
                handler_module="document_processor",
                environment=args.publishing.worker_environment,
                timeout_seconds=_TIMEOUT_SECONDS,
                settings=args.functions,
            ),
            opts=self._child,
        )
        args.publishing.grant_worker(self.processor)
        self._grant_documents(bucket, args.kms_key_arn)
        # Lambda's own default, said because functions/document_processor.py counts on it.
        aws.lambda_.FunctionEventInvokeConfig(
            f"{name}-retries",
            function_name=self.processor.function_name,
            maximum_retry_attempts=2,
            opts=self._child,
        )
        self._notify_processor(bucket)
        self.register_outputs({"bucket_name": self.bucket_name})

    def _create_bucket(self, args: DocumentPipelineArgs) -> aws.s3.Bucket:
        bucket = aws.s3.Bucket(f"{self._name}-bucket", force_destroy=args.force_destroy, opts=self._child)
        # Deleted before the bucket, they would leave one that is not empty without its guards; so it takes them along.
        guard = pulumi.ResourceOptions(parent=self, retain_on_delete=True)
        aws.s3.BucketOwnershipControls(
            f"{self._name}-ownership",
            bucket=bucket.id,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=guard,
        )
        public_access_block = aws.s3.BucketPublicAccessBlock(
            f"{self._name}-no-public-access",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=guard,
        )
        aws.s3.BucketPolicy(
            f"{self._name}-tls-only",
            bucket=bucket.id,
            policy=pulumi.Output.json_dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Deny",
                            "Principal": "*",
                            "Action": "s3:*",
                            "Resource": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")],
                            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                        }
                    ],
                }
            ),
            # S3 refuses two changes of a bucket's policy and its public access at the same moment.
            opts=pulumi.ResourceOptions.merge(guard, pulumi.ResourceOptions(depends_on=[public_access_block])),
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{self._name}-encryption",
            bucket=bucket.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms" if args.kms_key_arn else "AES256",
                        "kms_master_key_id": args.kms_key_arn,
                    },
                    # One data key for many objects, or each upload would be a paid call of KMS.
                    "bucket_key_enabled": True if args.kms_key_arn else None,
                }
            ],
            opts=guard,
        )
        aws.s3.BucketLifecycleConfiguration(
            f"{self._name}-lifecycle",
            bucket=bucket.id,
            rules=[
                {
                    "id": "expire",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    # S3 counts in days; a document stays at least as long as its state.
                    "expiration": {"days": -(-args.publishing.document_retention_hours // 24)},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 1},
                }
            ],
            opts=guard,
        )
        return bucket

    def _grant_documents(self, bucket: aws.s3.Bucket, kms_key_arn: str | None) -> None:
        self.processor.grant(
            "read-documents",
            allow(["s3:GetObject"], [pulumi.Output.concat(bucket.arn, "/*")]),
            # Without it S3 answers 403 for an object that is not there, as if the grant were missing.
            allow(["s3:ListBucket"], [bucket.arn]),
            # Parts of a large result that failed half-way are the lifecycle's to remove.
            allow(["s3:PutObject"], [pulumi.Output.concat(bucket.arn, "/results/*")]),
            *([use_key(kms_key_arn, "s3")] if kms_key_arn else []),
            parent=self,
        )

    def _notify_processor(self, bucket: aws.s3.Bucket) -> None:
        permission = aws.lambda_.Permission(
            f"{self._name}-invoke-processor",
            action="lambda:InvokeFunction",
            function=self.processor.function_name,
            principal="s3.amazonaws.com",
            source_arn=bucket.arn,
            # A bucket's ARN names no account, and a deleted bucket's name can be taken by another one.
            source_account=self.processor.arn.apply(lambda arn: arn.split(":")[4]),
            opts=self._child,
        )
        aws.s3.BucketNotification(
            f"{self._name}-uploads",
            bucket=bucket.id,
            # S3 tells capitals from small letters, and people's files end in either.
            lambda_functions=[
                {
                    "id": f"pdf-{number}",
                    "lambda_function_arn": self.processor.arn,
                    "events": ["s3:ObjectCreated:*"],
                    "filter_suffix": suffix,
                }
                for number, suffix in enumerate((".pdf", ".PDF"))
            ],
            # No upload may find a processor that cannot do its work yet.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission, *self.processor.grants]),
        )
