"""`/documents`: one HTTP API over which documents are asked for and uploaded, behind the stack's authorization."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pulumi
import pulumi_aws as aws

from .authorization import AuthorizationMode, NoAuthorization
from .custom_domain import CustomDomain, CustomDomainArgs, ip_address_type
from .keeping import kept
from .lambda_function import LambdaFunction
from .rules import THROTTLE_BURST, THROTTLE_RATE, list_of
from .urls import ORIGIN, is_every_origin

# The stage without a path of its own in the URL, which only HTTP APIs have in this sense.
_STAGE = "$default"
# Below API Gateway's 30 seconds, so that the function ends with a line in its log.
TIMEOUT_SECONDS = 29

# Every value is in quotes: API Gateway writes "-" for a variable that has no value. What a client can choose
# freely, such as its user agent, is left out, as it may have quotes of its own.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
ACCESS_LOG_FORMAT = json.dumps(
    {
        "requestId": "$context.requestId",
        "requestTime": "$context.requestTime",
        "routeKey": "$context.routeKey",
        "sourceIp": "$context.identity.sourceIp",
        "status": "$context.status",
        "responseLength": "$context.responseLength",
        "integrationStatus": "$context.integration.status",
        "integrationLatency": "$context.integration.latency",
        "authorizerError": "$context.authorizer.error",
        "errorMessage": "$context.error.message",
        "errorResponseType": "$context.error.responseType",
    }
)


@dataclass(frozen=True, kw_only=True)
class DocumentsApiArgs:
    """
    Attributes:
        authorization: who may ask. Everyone, signers with AWS credentials, or bearers of a token.
        allowed_origins: whose pages may ask, such as `https://app.example.com`. Any by default, and with a `*`.
        api_throttle_rate: steady requests per second; api_throttle_burst: requests at once.
        physical_name: what the API is called in AWS; its access logs too.
        domain: the name under which it is asked, other than the WebSocket API's. API Gateway's own by default.
        dual_stack: answer over IPv6 too.
        disable_execute_api_endpoint: answer under the domain's name alone.
        formerly: the name of the component of uploads that had this API before there was this component.
        disposable: the API may be deleted, and its URL with it.
    """

    authorization: AuthorizationMode = NoAuthorization()  # noqa: RUF009 - it is frozen and has no fields
    allowed_origins: Sequence[str] = ()
    api_throttle_rate: int
    api_throttle_burst: int
    detailed_metrics_enabled: bool
    log_retention_days: int
    physical_name: str
    domain: CustomDomainArgs | None = None
    dual_stack: bool = False
    disable_execute_api_endpoint: bool = False
    formerly: str | None = None
    disposable: bool = False

    def __post_init__(self) -> None:
        list_of(ORIGIN).check("allowed_origins", self.allowed_origins)
        THROTTLE_RATE.check("api_throttle_rate", self.api_throttle_rate)
        THROTTLE_BURST.check("api_throttle_burst", self.api_throttle_burst)
        if self.disable_execute_api_endpoint and self.domain is None:
            raise ValueError(
                "disable_execute_api_endpoint needs documents_domain_name too: the HTTP API of documents would have no"
                " address."
            )


class DocumentsApi(pulumi.ComponentResource):
    """
    ```python
    api = DocumentsApi("documents-api", DocumentsApiArgs(authorization=authorization, ...))
    api.add_route("uploads", "POST /documents", presigner, parent=self)
    ```

    Attributes:
        endpoint: what the paths of its routes are added to.
        domain_target: API Gateway's name for its domain name, to which DNS points. None without a domain.
        authorization: whom its routes let in.
    """

    endpoint: pulumi.Output[str]
    domain_target: pulumi.Output[str] | None
    authorization: AuthorizationMode

    def __init__(self, name: str, args: DocumentsApiArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:DocumentsApi", name, None, opts)
        self._name = name
        self._args = args
        self.authorization = args.authorization
        self._api = aws.apigatewayv2.Api(
            f"{name}-api",
            name=args.physical_name,
            description="Documents: uploads, and how they stand",
            protocol_type="HTTP",
            # With this, API Gateway answers preflights itself, before and without any authorization.
            cors_configuration={
                "allow_origins": self.allowed_origins,
                "allow_methods": ["GET", "POST"],
                # By name: a * would not stand for Authorization.
                "allow_headers": [
                    "authorization",
                    "content-type",
                    "if-none-match",
                    *args.authorization.request_headers,
                ],
                "expose_headers": ["etag", "retry-after"],
                "max_age": 3600,
            },
            ip_address_type=ip_address_type(dual_stack=args.dual_stack),
            disable_execute_api_endpoint=args.disable_execute_api_endpoint or None,
            opts=self._child("api", kept(parent=self, disposable=args.disposable)),
        )
        stage = self._create_stage()
        self.endpoint, self.domain_target = self._api.api_endpoint, None
        if args.domain:
            domain = CustomDomain(
                f"{name}-domain",
                args.domain,
                pulumi.ResourceOptions(parent=self),
                api_id=self._api.id,
                stage_name=stage.name,
            )
            self.endpoint = pulumi.Output.concat("https://", domain.address)
            self.domain_target = domain.target
        self.register_outputs({"endpoint": self.endpoint})

    def add_route(
        self,
        name: str,
        route_key: str,
        function: LambdaFunction,
        *,
        parent: pulumi.Resource,
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        """Serve a route, such as `GET /documents/{docId+}`, from the moment at which the function is ready.

        Args:
            name: of the route's parts.
            parent: the component that they belong to.
            after: what must be there before the first request.
        """
        permission = aws.lambda_.Permission(
            f"{name}-permission",
            action="lambda:InvokeFunction",
            function=function.function_name,
            qualifier=function.qualifier,
            principal="apigateway.amazonaws.com",
            source_arn=self.route_arn(route_key),
            opts=pulumi.ResourceOptions(parent=parent),
        )
        # The stage deploys it and each change of it at once.
        integration = aws.apigatewayv2.Integration(
            f"{name}-integration",
            api_id=self._api.id,
            integration_type="AWS_PROXY",
            # Lambda is always invoked by POST, whatever the route.
            integration_method="POST",
            integration_uri=function.invoke_arn,
            payload_format_version="2.0",
            timeout_milliseconds=TIMEOUT_SECONDS * 1000,
            opts=pulumi.ResourceOptions(parent=parent, depends_on=[permission, *function.grants, *after]),
        )
        aws.apigatewayv2.Route(
            f"{name}-route",
            api_id=self._api.id,
            route_key=route_key,
            target=pulumi.Output.concat("integrations/", integration.id),
            **self._authorized,
            opts=pulumi.ResourceOptions(parent=parent),
        )

    def route_arn(self, route_key: str) -> pulumi.Output[str]:
        """What a policy names to let an identity in with AWS_IAM (`execute-api:Invoke`)."""
        return pulumi.Output.concat(self._api.execution_arn, f"/{_STAGE}/", route_key.replace(" ", "", 1))

    @property
    def allowed_origins(self) -> list[str]:
        origins = list(self._args.allowed_origins)
        return ["*"] if is_every_origin(origins) else origins

    @cached_property
    def _authorized(self) -> Mapping[str, Any]:
        return self._args.authorization.bind_http(
            self._name, self._api.id, self._child("authorizer", pulumi.ResourceOptions(parent=self))
        )

    def _create_stage(self) -> aws.apigatewayv2.Stage:
        args = self._args
        access_log_group = aws.cloudwatch.LogGroup(
            f"{self._name}-access-logs",
            # With the API's id, since another owner may have a stack of the same name.
            name=pulumi.Output.concat("/aws/vendedlogs/apigateway/", self._api.name, "/", self._api.id),
            retention_in_days=args.log_retention_days,
            # That of an earlier version keeps its name: a new one would replace it.
            opts=self._child("access-logs", pulumi.ResourceOptions(parent=self, ignore_changes=["name"])),
        )
        return aws.apigatewayv2.Stage(
            f"{self._name}-stage",
            api_id=self._api.id,
            name=_STAGE,
            auto_deploy=True,
            # Both limits, since one that is not set is sent as 0; levels of logging are for WebSocket APIs only.
            default_route_settings={
                "throttling_rate_limit": args.api_throttle_rate,
                "throttling_burst_limit": args.api_throttle_burst,
                "detailed_metrics_enabled": args.detailed_metrics_enabled,
            },
            access_log_settings={"destination_arn": access_log_group.arn, "format": ACCESS_LOG_FORMAT},
            opts=self._child("stage", kept(parent=self, disposable=args.disposable)),
        )

    def _child(self, part: str, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        """A stack of the time when uploads had an API of their own keeps it, and its URL."""
        formerly = self._args.formerly
        if formerly is None:
            return opts
        component = (
            f"urn:pulumi:{pulumi.get_stack()}::{pulumi.get_project()}::docprogress:infra:DocumentUploads::{formerly}"
        )
        aliases = [pulumi.Alias(name=f"{formerly}-{part}", parent=component)]
        return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(aliases=aliases))
