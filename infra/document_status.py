"""`GET /documents/{docId}`: how a document stands, for what has no WebSocket."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from .documents_api import TIMEOUT_SECONDS, DocumentsApi
from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .progress_table import ProgressTable

# Greedy, since an id may have slashes.
_ROUTE = "GET /documents/{docId+}"


@dataclass(frozen=True, kw_only=True)
class DocumentStatusArgs:
    """
    Attributes:
        shared_documents: tell every principal of documents without an owner.
    """

    table: ProgressTable
    api: DocumentsApi
    shared_documents: bool
    functions: FunctionSettings


class DocumentStatus(pulumi.ComponentResource):
    """
    ```python
    DocumentStatus("document-status", DocumentStatusArgs(table=table, api=documents_api, ...))
    ```
    """

    function: LambdaFunction

    def __init__(self, name: str, args: DocumentStatusArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:DocumentStatus", name, None, opts)
        self.function = LambdaFunction(
            name,
            LambdaFunctionArgs(
                handler_module="document_status",
                environment={
                    "AUTHORIZATION": args.api.authorization.mode,
                    "TABLE_NAME": args.table.table_name,
                    **({"SHARED_DOCUMENTS": "true"} if args.shared_documents else {}),
                },
                timeout_seconds=TIMEOUT_SECONDS,
                settings=args.functions,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        args.table.grant_read_states(self.function)
        args.api.add_route(name, _ROUTE, self.function, parent=self)
        self.register_outputs({})
