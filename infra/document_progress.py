"""Live progress of documents as one component: the table, the WebSocket API, who may connect and who tells.

No `from __future__ import annotations` here: Pulumi reads the annotations of the arguments to make the SDKs of other
languages, and a text is no type to it. For the same reason a choice is an enum.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, cast

import pulumi

from .authorization import (
    Authorization,
    AuthorizationMode,
    IamAuthorization,
    NoAuthorization,
    TokenAuthorization,
)
from .custom_domain import CustomDomainArgs
from .document_status import DocumentStatus, DocumentStatusArgs
from .documents_api import DocumentsApi, DocumentsApiArgs
from .end_events import EndEvents, EndEventsArgs
from .grants import Grantee
from .lambda_function import SETTINGS_RULES, FunctionSettings, LambdaFunction, LambdaFunctionArgs
from .lambda_package import Packaging
from .progress_table import ProgressTable, ProgressTableArgs
from .publishing import FanOut, Publishing
from .rules import Rule, boolean, checked, integer, list_of, matching, one_of
from .stall_watchdog import StallWatchdog, StallWatchdogArgs
from .stream_fan_out import StreamFanOut, StreamFanOutArgs
from .token_authorizer import TokenSource
from .urls import ISSUER, ORIGIN, domain_name, is_every_origin
from .websocket_api import STAGE_DEFAULTS, STAGE_RULES, WebSocketApi, WebSocketApiArgs
from .websocket_stage import LoggingLevel

# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
_LONGEST_CONNECTION_SECONDS = 7200

# What a component of this name makes is called as it was before there was this component.
_FIRST_NAME = "progress"


class DocumentProgressArgs(TypedDict, total=False):
    """Every argument may be left out."""

    stage_name: str
    """The end of the URL. By default the stack's name, with - for each dot."""
    api_throttle_rate: int
    """Steady requests per second for the whole WebSocket stage. At least 1; 1000 by default."""
    api_throttle_burst: int
    """Requests at once for the whole WebSocket stage. At least 1; 500 by default."""
    logging_level: LoggingLevel
    """Execution logs of the WebSocket stage. INFO by default. Access logs are written in any case."""
    data_trace_enabled: bool
    """Write whole events into the execution logs, tokens included. Off by default."""
    detailed_metrics_enabled: bool
    """Metrics for each route, not only for the stage. On by default."""
    integration_timeout_milliseconds: int
    """How long API Gateway waits for the connection handler. 50 to 29000, the default."""
    manage_account_logging: bool
    """Where the account has no role through which API Gateway writes logs, make one. It serves the whole account and
    region, and stays when the stack is destroyed. On by default; off, the account is not even looked at."""
    log_retention_days: int
    """How long the logs are kept: one of CloudWatch's values, such as 7, 90 or 365. 30 by default."""
    lambda_memory_megabytes: int
    """Memory of each function. Lambda gives processor time with it. 128 to 10240; 512 by default."""
    lambda_packaging: Packaging
    """What the functions' archives are built for. Lambda by default."""
    tracing: bool
    """Trace the calls of the functions with X-Ray, which is charged. Off by default."""
    snap_start: bool
    """Start functions from snapshots of published versions, which are charged. Off by default."""
    provisioned_concurrency: int
    """Sandboxes of the connection handler that are kept ready, and charged. It then has no SnapStart. 0 by default."""
    authorization: Authorization
    """Who may connect. Everyone by default."""
    jwt_issuer: pulumi.Input[str]
    """The issuer of the tokens, as their `iss` says it. With JWT."""
    jwt_audience: pulumi.Input[str]
    """The audiences or client ids to accept, separated by commas. With JWT."""
    jwt_token_source: TokenSource
    """How a page sends its token. In the subprotocol by default, which keeps it out of URLs."""
    shared_documents: bool
    """Show a document that names no owner to every principal. Off by default: with JWT and AWS_IAM it is nobody's."""
    cancellation: bool
    """Let a document be cancelled over a connection, by its owner; without authorization by anyone. On by default."""
    allowed_origins: list[str]
    """The origins whose pages may connect, such as https://app.example.com. Any by default."""
    connection_max_age_seconds: int
    """How long a connection may last. 60 to 7200, the default, at which API Gateway ends it."""
    fan_out: FanOut
    """Who tells the watchers. Each worker itself by default."""
    max_messages_per_second: int
    """Progress messages for each document and second. Start, end and errors always go out. 1 to 20; 4 by default."""
    stall_timeout_seconds: int
    """How long a started document may be silent before it ends as PROCESSING_STALLED. 60 to 86400; 120 by default."""
    document_retention_hours: int
    """How long the state of a document is kept after its last change. 3 to 8760; 24 by default."""
    domain_name: str
    """A domain name of one's own for the WebSocket API, such as live.example.com. It takes hosted_zone_id or
    certificate_arn."""
    domain_path: str
    """What follows domain_name in the URL. Nothing by default."""
    documents_domain_name: str
    """Another one for the HTTP API of documents, which cannot share that of a WebSocket API."""
    hosted_zone_id: pulumi.Input[str]
    """The hosted zone in Route 53 in which records lead to the domain names. Without it, CNAME records of your own must
    lead to domain_target and documents_domain_target."""
    certificate_arn: pulumi.Input[str]
    """The ACM certificate of the domain names, in their region. By default, one for each is made and validated in the
    zone."""
    dual_stack: bool
    """Answer over IPv6 too. Off by default."""
    disable_execute_api_endpoint: bool
    """Answer under the domain names alone. Off by default. Workers then post through domain_name too."""
    status_api: bool
    """Answer GET {documentsUrl}/{docId} with how a document stands, behind the same authorization. Off by default."""
    events: bool
    """Put an event on EventBridge for every end of every run. Off by default; the table's stream is on with it."""
    kms_key_arn: str
    """A customer key for the table. AWS owns the key by default."""
    disposable: bool
    """The table and the URL may be deleted. Off by default: plans refuse that."""


PROGRESS_RULES: Mapping[str, Rule] = {
    **STAGE_RULES,
    **SETTINGS_RULES,
    "documents_domain_name": domain_name("documents.example.com"),
    "authorization": one_of(Authorization),
    "jwt_issuer": ISSUER,
    "jwt_audience": matching("audiences separated by commas, without spaces", r"[^\s,]+(,[^\s,]+)*", "my-client-id"),
    "jwt_token_source": one_of(TokenSource),
    "shared_documents": boolean(),
    "cancellation": boolean(),
    "allowed_origins": list_of(ORIGIN),
    "connection_max_age_seconds": integer(
        60, _LONGEST_CONNECTION_SECONDS, why=" (API Gateway ends a connection after 2 hours)"
    ),
    "fan_out": one_of(FanOut),
    "max_messages_per_second": integer(1, 20),
    # A living worker writes at least every 20 seconds.
    "stall_timeout_seconds": integer(60, 86_400),
    # Longer than any connection, so that a page never outlives what it watches.
    "document_retention_hours": integer(3, 8760),
    "status_api": boolean(),
    "events": boolean(),
    "provisioned_concurrency": integer(0, 10_000),
    "kms_key_arn": matching(
        "the ARN of a KMS key, not of an alias",
        r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+",
        "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
    ),
}
PROGRESS_DEFAULTS: Mapping[str, Any] = {
    **STAGE_DEFAULTS,
    "documents_domain_name": "",
    "lambda_memory_megabytes": 512,
    "lambda_packaging": Packaging.LAMBDA,
    "tracing": False,
    "snap_start": False,
    "provisioned_concurrency": 0,
    "authorization": Authorization.NONE,
    "jwt_issuer": "",
    "jwt_audience": "",
    "jwt_token_source": TokenSource.SUBPROTOCOL,
    "shared_documents": False,
    "cancellation": True,
    "allowed_origins": [],
    "connection_max_age_seconds": _LONGEST_CONNECTION_SECONDS,
    "fan_out": FanOut.DIRECT,
    "max_messages_per_second": 4,
    "stall_timeout_seconds": 120,
    "document_retention_hours": 24,
    "status_api": False,
    "events": False,
    "kms_key_arn": "",
}


class DocumentProgress(pulumi.ComponentResource):
    """Live progress of documents: browsers connect to `url`, workers report with `worker_environment`.

    ```python
    progress = DocumentProgress("progress", {"api_throttle_rate": 100})
    worker = LambdaFunction("worker", LambdaFunctionArgs(environment=progress.worker_environment, ...))
    progress.grant_worker(worker)
    ```
    """

    url: pulumi.Output[str]
    """Where browsers connect: `wss://…/{stage}`, or the domain name."""
    callback_url: pulumi.Output[str]
    """Where messages to connections are posted: `https://…/{stage}`; the domain name where there is no other way."""
    api_id: pulumi.Output[str]
    """The id of the WebSocket API."""
    stage_name: pulumi.Output[str]
    """The name of its stage."""
    table_name: pulumi.Output[str]
    """The table of connections, subscriptions and states."""
    connection_handler_name: pulumi.Output[str]
    """The function behind the routes."""
    worker_environment: pulumi.Output[dict[str, str]]
    """The environment variables of a worker, in Lambda or anywhere else."""
    worker_policy: pulumi.Output[str]
    """The policy document, as JSON, of a worker's role: what it takes to report progress, and nothing else."""
    documents_url: pulumi.Output[str] | None
    """Where documents are asked for: `https://…/documents`. With status_api."""
    domain_target: pulumi.Output[str] | None
    """API Gateway's name for domain_name, to which your DNS points where it is not in Route 53."""
    documents_domain_target: pulumi.Output[str] | None
    """The same for documents_domain_name."""

    def __init__(
        self,
        name: str,
        args: DocumentProgressArgs = {},  # noqa: B006 - Pulumi reads the type, and nothing writes to the value
        opts: pulumi.ResourceOptions | None = None,
        *,
        routes: Callable[[Publishing], Mapping[str, LambdaFunction | pulumi.Input[str]]] | None = None,
    ) -> None:
        """
        Args:
            routes: called once it is known what posting takes: `announcer_environment` and `grant_announcer`. Returns
                the function behind each action of one's own: one of ours, or the name or ARN of another one.
        """
        super().__init__("docprogress:index:DocumentProgress", name, None, opts)
        self._args = args = checked(args, PROGRESS_RULES, PROGRESS_DEFAULTS)
        if args["domain_name"] and args["domain_name"] == args["documents_domain_name"]:
            raise ValueError(
                "domain_name and documents_domain_name are one; a WebSocket API shares its name with none."
            )
        self._prefix = "" if name == _FIRST_NAME else f"{name}-"
        self.functions = FunctionSettings.of(args)
        self.table = ProgressTable(
            f"{self._prefix}progress",
            ProgressTableArgs(
                with_stream=args["fan_out"] == FanOut.STREAM or args["events"],
                kms_key_arn=args["kms_key_arn"] or None,
                disposable=args["disposable"],
            ),
            self._child(),
        )
        self.handler = self._create_handler()
        self.authorization = self._authorization()
        self.api = api = self._create_api(self.handler)
        self.publishing = Publishing(
            table=self.table,
            api=api,
            fan_out=args["fan_out"],
            authorization=args["authorization"],
            shared_documents=args["shared_documents"],
            close_expired=(
                self.authorization.expires or args["connection_max_age_seconds"] < _LONGEST_CONNECTION_SECONDS
            ),
            max_messages_per_second=args["max_messages_per_second"],
            document_retention_hours=args["document_retention_hours"],
        )
        for route_key, function in (routes(self.publishing) if routes else {}).items():
            api.add_route(route_key, function)
        api.deploy()
        self.watchdog = StallWatchdog(
            f"{self._prefix}stall-watchdog",
            StallWatchdogArgs(
                stall_timeout_seconds=args["stall_timeout_seconds"],
                publishing=self.publishing,
                functions=self.functions,
            ),
            self._child(),
        ).function
        self.stream_fan_out: LambdaFunction | None = None
        if args["fan_out"] == FanOut.STREAM:
            self.stream_fan_out = StreamFanOut(
                f"{self._prefix}stream-fan-out",
                StreamFanOutArgs(publishing=self.publishing, functions=self.functions),
                self._child(),
            ).function
        self.end_events: LambdaFunction | None = None
        if args["events"]:
            self.end_events = EndEvents(
                f"{self._prefix}end-events",
                EndEventsArgs(table=self.table, functions=self.functions),
                pulumi.ResourceOptions(parent=self),
            ).function
        self._documents_api: DocumentsApi | None = None
        self.documents_url: pulumi.Output[str] | None = None
        self.documents_domain_target: pulumi.Output[str] | None = None
        self.document_status: LambdaFunction | None = None
        if args["status_api"]:
            self.document_status = DocumentStatus(
                f"{self._prefix}document-status",
                DocumentStatusArgs(
                    table=self.table,
                    api=self.serve_documents(),
                    shared_documents=args["shared_documents"],
                    functions=self.functions,
                ),
                pulumi.ResourceOptions(parent=self),
            ).function
        self.url, self.callback_url, self.domain_target = api.url, api.callback_url, api.domain_target
        self.api_id, self.stage_name = api.api_id, api.stage_name
        self.table_name = self.table.table_name
        self.connection_handler_name = self.handler.function_name
        self.worker_environment = pulumi.Output.all(**self.publishing.worker_environment)
        self.worker_policy = self.publishing.worker_policy
        self.register_outputs({each: getattr(self, each) for each in DocumentProgress.__annotations__})

    def grant_worker(self, worker: Grantee) -> None:
        """Let a function or a role report progress, and do nothing else."""
        self.publishing.grant_worker(worker)

    def serve_documents(self) -> DocumentsApi:
        """The HTTP API of documents, behind the same authorization; made when it is first asked for."""
        if self._documents_api is None:
            args = self._args
            shared = (
                *("allowed_origins", "api_throttle_rate", "api_throttle_burst", "detailed_metrics_enabled"),
                *("dual_stack", "disable_execute_api_endpoint"),
            )
            own_name = {**args, "domain_name": args["documents_domain_name"], "domain_path": ""}
            self._documents_api = DocumentsApi(
                f"{self._prefix}documents-api",
                DocumentsApiArgs(
                    authorization=self.authorization,
                    log_retention_days=args["log_retention_days"],
                    physical_name=f"{pulumi.get_project()}-{pulumi.get_stack()}-{self._prefix}documents",
                    domain=CustomDomainArgs.of(own_name),
                    formerly=None if self._prefix else "uploads",
                    disposable=args["disposable"],
                    **{key: args[key] for key in shared},
                ),
                pulumi.ResourceOptions(parent=self),
            )
            self.documents_url = pulumi.Output.concat(self._documents_api.endpoint, "/documents")
            self.documents_domain_target = self._documents_api.domain_target
        return self._documents_api

    def _create_handler(self) -> LambdaFunction:
        origins = self._args["allowed_origins"]
        handler = LambdaFunction(
            f"{self._prefix}connection-handler",
            LambdaFunctionArgs(
                handler_module="connection_handler",
                environment={
                    "AUTHORIZATION": self._args["authorization"],
                    "TABLE_NAME": self.table.table_name,
                    "CONNECTION_MAX_AGE_SECONDS": str(self._args["connection_max_age_seconds"]),
                    "ALLOWED_ORIGINS": "" if is_every_origin(origins) else " ".join(origins),
                    **({"SHARED_DOCUMENTS": "true"} if self._args["shared_documents"] else {}),
                    **({} if self._args["cancellation"] else {"CANCELLATION": "false"}),
                },
                # Once API Gateway has given up, nobody hears the answer.
                timeout_seconds=math.ceil(self._args["integration_timeout_milliseconds"] / 1000),
                settings=self.functions,
                provisioned_concurrency=self._args["provisioned_concurrency"],
            ),
            self._child(),
        )
        self.table.grant_connections(handler)
        return handler

    def _create_api(self, handler: LambdaFunction) -> WebSocketApi:
        settings = {key: value for key, value in self._args.items() if key in WebSocketApiArgs.__annotations__}
        api = WebSocketApi(
            f"{self._prefix}api",
            cast(WebSocketApiArgs, settings),
            self._child(formerly="docprogress:infra:WebSocketApi"),
            physical_name=None if self._prefix else f"{pulumi.get_project()}-{pulumi.get_stack()}",
        )
        api.configure_routes(handler, authorization=self.authorization)
        return api

    def _authorization(self) -> AuthorizationMode:
        match Authorization(self._args["authorization"]):
            case Authorization.NONE:
                return NoAuthorization()
            case Authorization.AWS_IAM:
                return IamAuthorization()
            case Authorization.JWT:
                return TokenAuthorization(
                    issuer=self._args["jwt_issuer"],
                    audience=self._args["jwt_audience"],
                    token_source=TokenSource(self._args["jwt_token_source"]),
                    functions=self.functions,
                    name=f"{self._prefix}token-authorizer",
                    opts=self._child(),
                )

    def _child(self, *, formerly: str | None = None) -> pulumi.ResourceOptions:
        """
        Args:
            formerly: the type that the child had when it stood at the top of the stack, if that was another one.
        """
        # There it stood before this component was: a stack of that time keeps its table and its URLs.
        former = pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE, **({"type_": formerly} if formerly else {}))
        return pulumi.ResourceOptions(parent=self, aliases=[] if self._prefix else [former])
