"""`POST /documents`: hands out forms to upload a document from a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from .document_kinds import PDF, media_types_of
from .documents_api import TIMEOUT_SECONDS, DocumentsApi
from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .policy import allow, use_keys_of
from .progress_table import ProgressTable

_ROUTE = "POST /documents"
# As the first stacks have it.
_FIRST_ROUTE = "POST /uploads"
_PDFS = media_types_of([PDF])


@dataclass(frozen=True, kw_only=True)
class DocumentUploadsArgs:
    """
    Attributes:
        bucket: where the documents go; its CORS configuration is set here.
        table: where the owner of an expected document is noted.
        api: what the route is added to, and whose authorization and allowed origins are the uploads'.
        media_types: of the documents that are taken, by suffix.
    """

    bucket: aws.s3.Bucket
    table: ProgressTable
    functions: FunctionSettings
    api: DocumentsApi
    media_types: Mapping[str, str] = field(default_factory=lambda: _PDFS)


class DocumentUploads(pulumi.ComponentResource):
    """
    ```python
    uploads = DocumentUploads("uploads", DocumentUploadsArgs(bucket=pipeline.bucket, table=table, ...))
    pulumi.export("uploadUrl", uploads.url)
    ```

    Attributes:
        url: where pages ask for a form: `https://…/uploads`; `https://…/documents` answers the same.
        page_settings: what the page's config.json has to say of the documents that are taken; nothing of PDFs alone.
        route_arn: what a policy names to let an identity upload with AWS_IAM (`execute-api:Invoke`).
    """

    url: pulumi.Output[str]
    route_arn: pulumi.Output[str]
    page_settings: dict[str, Any]
    presigner: LambdaFunction
    bucket: aws.s3.Bucket

    def __init__(self, name: str, args: DocumentUploadsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:DocumentUploads", name, None, opts)
        self._name = name
        self._args = args
        self.bucket = args.bucket
        self._child = pulumi.ResourceOptions(parent=self)
        self.presigner = LambdaFunction(
            f"{name}-presigner",
            LambdaFunctionArgs(
                handler_module="upload_presigner",
                environment={
                    "AUTHORIZATION": args.api.authorization.mode,
                    "TABLE_NAME": args.table.table_name,
                    "DOCUMENTS_BUCKET": args.bucket.bucket,
                    **({"MEDIA_TYPES": json.dumps(args.media_types)} if args.media_types != _PDFS else {}),
                },
                timeout_seconds=TIMEOUT_SECONDS,
                settings=args.functions,
            ),
            opts=self._child,
        )
        self._grant_presigner()
        bucket_cors = self._allow_origins_in_bucket()
        for part, route_key in ((name, _FIRST_ROUTE), (f"{name}-documents", _ROUTE)):
            args.api.add_route(part, route_key, self.presigner, parent=self, after=[bucket_cors])
        self.url = pulumi.Output.concat(args.api.endpoint, "/uploads")
        self.route_arn = args.api.route_arn(_FIRST_ROUTE)
        self.page_settings = {"mediaTypes": args.media_types} if args.media_types != _PDFS else {}
        self.register_outputs({"url": self.url, "route_arn": self.route_arn})

    def _grant_presigner(self) -> None:
        bucket_arn = self._args.bucket.arn
        endings = list(self._args.media_types)
        # A signed form allows what its signer may do.
        self.presigner.grant(
            "put-documents",
            allow(["s3:PutObject"], [pulumi.Output.concat(bucket_arn, "/uploads/*", each) for each in endings]),
            *use_keys_of("s3", self.presigner.arn, "aws:s3:arn", [bucket_arn, pulumi.Output.concat(bucket_arn, "/*")]),
            parent=self,
        )
        # Without principals there are no owners to note.
        if self._args.api.authorization.knows_callers:
            self._args.table.grant_expect(self.presigner)

    def _allow_origins_in_bucket(self) -> aws.s3.BucketCorsConfiguration:
        return aws.s3.BucketCorsConfiguration(
            f"{self._name}-bucket-cors",
            bucket=self._args.bucket.id,
            # A form needs no header of its own; a page that shows how far an upload is sends a preflight all the same.
            cors_rules=[
                {
                    "allowed_methods": ["POST"],
                    "allowed_origins": self._args.api.allowed_origins,
                    "max_age_seconds": 3600,
                }
            ],
            opts=self._child,
        )
