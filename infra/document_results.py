"""`GET /results/{docId}`: links to what documents came to."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from .documents_api import TIMEOUT_SECONDS, DocumentsApi
from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .policy import allow, use_keys_of
from .progress_table import ProgressTable

# Greedy, since an id may have slashes.
_ROUTE = "GET /results/{docId+}"


@dataclass(frozen=True, kw_only=True)
class DocumentResultsArgs:
    """
    Attributes:
        bucket: where the results are, below `results/`.
        table: where it is noted whose a document is, and which result it has.
        api: what the route is added to, and whose authorization is the results'.
        shared_documents: give every principal the results of documents without an owner.
    """

    bucket: aws.s3.Bucket
    table: ProgressTable
    api: DocumentsApi
    shared_documents: bool
    functions: FunctionSettings


class DocumentResults(pulumi.ComponentResource):
    """
    ```python
    results = DocumentResults("document-results", DocumentResultsArgs(bucket=pipeline.bucket, table=table, ...))
    pulumi.export("resultsUrl", results.url)
    ```

    Attributes:
        url: `https://…/results`, to which a document's id is added.
    """

    url: pulumi.Output[str]
    function: LambdaFunction

    def __init__(self, name: str, args: DocumentResultsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:DocumentResults", name, None, opts)
        self.function = LambdaFunction(
            name,
            LambdaFunctionArgs(
                handler_module="document_results",
                environment={
                    "AUTHORIZATION": args.api.authorization.mode,
                    "TABLE_NAME": args.table.table_name,
                    "DOCUMENTS_BUCKET": args.bucket.bucket,
                    **({"SHARED_DOCUMENTS": "true"} if args.shared_documents else {}),
                },
                timeout_seconds=TIMEOUT_SECONDS,
                settings=args.functions,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        results = pulumi.Output.concat(args.bucket.arn, "/results/*")
        # A link allows what its signer may do.
        self.function.grant(
            "read-results",
            allow(["s3:GetObject"], [results]),
            *use_keys_of("s3", self.function.arn, "aws:s3:arn", [args.bucket.arn, results]),
            parent=self,
        )
        args.table.grant_read_states(self.function)
        args.api.add_route(name, _ROUTE, self.function, parent=self)
        self.url = pulumi.Output.concat(args.api.endpoint, "/results")
        self.register_outputs({"url": self.url})
