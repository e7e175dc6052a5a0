"""The WebSocket API: routes, integrations, the deployment and its stage, and who may post to connections."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_aws as aws

from infra.account_logging import AccountLogging
from infra.connect_authorization import ConnectAuthorization, IamAuthorization, TokenAuthorization
from infra.lambda_function import LambdaFunction
from infra.policy import allow, policy_document, service_trust

LoggingLevel = Literal["OFF", "ERROR", "INFO"]
ManageConnectionsVerb = Literal["POST", "GET", "DELETE"]

ROUTE_SELECTION_EXPRESSION = "$request.body.action"
# The routes of a connection's life answer with a status, never with a message.
_LIFECYCLE_ROUTES = ("$connect", "$disconnect")
_RESERVED_ROUTES = (*_LIFECYCLE_ROUTES, "$default")

# The routes that cost table writes, each with its own share of the stage's throttle.
_THROTTLED_ROUTES = ("$connect", "progress")
_ROUTE_SHARE = 0.5

# Every value is in quotes: API Gateway writes "-" for a variable that has no value. These are the variables
# that a WebSocket API has; $context.protocol, httpMethod and responseLength are not among them.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-logging.html
ACCESS_LOG_FORMAT = json.dumps(
    {
        "requestId": "$context.requestId",
        "extendedRequestId": "$context.extendedRequestId",
        "requestTime": "$context.requestTime",
        "eventType": "$context.eventType",
        "routeKey": "$context.routeKey",
        "connectionId": "$context.connectionId",
        "messageId": "$context.messageId",
        "sourceIp": "$context.identity.sourceIp",
        "status": "$context.status",
        "integrationStatus": "$context.integration.status",
        "integrationLatency": "$context.integrationLatency",
        "errorMessage": "$context.error.message",
        "errorResponseType": "$context.error.responseType",
    }
)


@dataclass(frozen=True, kw_only=True)
class WebSocketApiArgs:
    """
    Attributes:
        throttle_rate: requests per second in the long run; throttle_burst: requests at once. Both apply to
            the whole stage and are always set, since an unset one is sent as 0, which refuses everyone.
        integration_timeout_milliseconds: 50 to 29000.
        manage_account_logging: create the account's CloudWatch role. Without it, it must be set already
            wherever there are logs.
    """

    stage_name: str
    throttle_rate: float
    throttle_burst: int
    logging_level: LoggingLevel
    data_trace_enabled: bool
    detailed_metrics_enabled: bool
    integration_timeout_milliseconds: int
    log_retention_days: int
    manage_account_logging: bool

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", self.stage_name):
            raise ValueError(
                f"stage_name is {self.stage_name!r}; it takes 1 to 128 letters, digits, - and _."
                " ($default has no execution logs on a WebSocket API.)"
            )
        for name, value in (("throttle_rate", self.throttle_rate), ("throttle_burst", self.throttle_burst)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be above 0, or every connection gets 429.")
        if self.logging_level not in ("OFF", "ERROR", "INFO"):
            raise ValueError(f"logging_level is {self.logging_level!r}; it takes OFF, ERROR or INFO.")
        if not 50 <= self.integration_timeout_milliseconds <= 29_000:
            raise ValueError(
                f"integration_timeout_milliseconds is {self.integration_timeout_milliseconds};"
                " API Gateway allows 50 to 29000."
            )


class WebSocketApi(pulumi.ComponentResource):
    """
    ```python
    api = WebSocketApi("api", WebSocketApiArgs(stage_name="dev", ...))
    api.configure_routes(connection_handler)
    api.deploy()
    api.grant_manage_connections(worker)
    ```

    Routes come first, then `deploy()`, then whatever needs the URLs: so a function behind a route cannot
    need them, and there is no cycle.
    """

    api_id: pulumi.Output[str]
    execution_arn: pulumi.Output[str]

    def __init__(self, name: str, args: WebSocketApiArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:WebSocketApi", name, None, opts)
        self._name = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self._api = aws.apigatewayv2.Api(
            f"{name}-api",
            name=f"{pulumi.get_project()}-{pulumi.get_stack()}",
            description="Live progress of documents",
            protocol_type="WEBSOCKET",
            route_selection_expression=ROUTE_SELECTION_EXPRESSION,
            opts=self._child,
        )
        self._invoke_role = aws.iam.Role(
            f"{name}-invoke-role",
            description="Through which API Gateway invokes the functions behind its routes",
            assume_role_policy=service_trust("apigateway.amazonaws.com"),
            opts=self._child,
        )
        self._functions: dict[str, LambdaFunction] = {}
        self._integrations: dict[str, aws.apigatewayv2.Integration] = {}
        self._routes: dict[str, aws.apigatewayv2.Route] = {}
        self._route_responses: list[aws.apigatewayv2.RouteResponse] = []
        # Everything a deployment takes a picture of, as it was given to the resources.
        self._deployed: list[dict[str, Any]] = [{"routeSelectionExpression": self._api.route_selection_expression}]
        self._stage: aws.apigatewayv2.Stage | None = None
        self.api_id = self._api.id
        self.execution_arn = self._api.execution_arn

    def add_route(
        self, route_key: str, function: LambdaFunction, *, authorization: ConnectAuthorization | None = None
    ) -> None:
        """Send messages whose `action` is route_key to a function, and its reply back to the sender.

        Args:
            route_key: an action, or one of $connect, $disconnect and $default.
            authorization: who may connect, for $connect alone. None: everyone.

        Raises:
            ValueError: the key is empty, taken, or an unknown one that starts with $; or authorization is
                given for another route than $connect.
            RuntimeError: the API is deployed already.
        """
        if self._stage is not None:
            raise RuntimeError(
                f"add_route({route_key!r}) comes after deploy(), so the stage would not have it; add it before."
            )
        if route_key in self._routes:
            raise ValueError(f"The route {route_key!r} is there already; a route has one function.")
        if not route_key or (route_key.startswith("$") and route_key not in _RESERVED_ROUTES):
            raise ValueError(
                f"The route key is {route_key!r}; it takes the value of a message's action, which does not"
                f" start with $, or one of {', '.join(_RESERVED_ROUTES)}."
            )
        if authorization is not None and route_key != "$connect":
            raise ValueError(
                f"The route {route_key!r} cannot have an authorization; API Gateway authorizes a WebSocket"
                " on $connect alone, and its messages are as trusted as the connection."
            )
        integration = self._integration(function)
        replies = route_key not in _LIFECYCLE_ROUTES
        inputs: dict[str, Any] = {
            "route_key": route_key,
            "target": pulumi.Output.concat("integrations/", integration.id),
            **self._authorization(authorization),
            # With this and the route response below, the function's body reaches the client; else it is dropped.
            "route_response_selection_expression": "$default" if replies else None,
        }
        route = aws.apigatewayv2.Route(
            f"{self._name}-{route_key}-route", api_id=self._api.id, **inputs, opts=self._child
        )
        self._routes[route_key] = route
        self._deployed.append({"route": inputs})
        if replies:
            self._route_responses.append(
                aws.apigatewayv2.RouteResponse(
                    f"{self._name}-{route_key}-response",
                    api_id=self._api.id,
                    route_id=route.id,
                    route_response_key="$default",
                    opts=self._child,
                )
            )
            self._deployed.append({"routeResponse": {"routeKey": route_key, "key": "$default"}})

    def configure_routes(
        self, connection_handler: LambdaFunction, *, authorization: ConnectAuthorization | None = None
    ) -> None:
        """Give the four routes of the progress protocol to one function."""
        self.add_route("$connect", connection_handler, authorization=authorization)
        for route_key in ("$disconnect", "$default", "progress"):
            self.add_route(route_key, connection_handler)

    def deploy(self) -> None:
        """Deploy the routes to the stage. Once, after the last route.

        Raises:
            RuntimeError: there is no route, or the API is deployed already.
        """
        if self._stage is not None:
            raise RuntimeError("deploy() was called twice; one stage has one deployment.")
        if not self._routes:
            raise RuntimeError("deploy() needs at least one route; call configure_routes() or add_route() first.")
        invoke_policy = aws.iam.RolePolicy(
            f"{self._name}-invoke-functions",
            role=self._invoke_role.id,
            policy=policy_document(
                allow(["lambda:InvokeFunction"], [function.arn for function in self._functions.values()])
            ),
            opts=self._child,
        )
        deployment = aws.apigatewayv2.Deployment(
            f"{self._name}-deployment",
            api_id=self._api.id,
            description="Made by Pulumi whenever something deployed has changed",
            # A deployment is a picture: without a new one, changed routes stay unseen.
            triggers={"deployed": pulumi.Output.json_dumps(self._deployed, sort_keys=True).apply(_digest)},
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*self._integrations.values(), *self._routes.values(), *self._route_responses],
            ),
        )
        self._stage = self._create_stage(deployment, invoke_policy)
        self.register_outputs(
            {
                "url": self.url,
                "callback_url": self.callback_url,
                "api_id": self.api_id,
                "stage_name": self.stage_name,
                "execution_arn": self.execution_arn,
            }
        )

    @property
    def url(self) -> pulumi.Output[str]:
        """Where browsers connect: `wss://…/{stage}`."""
        return pulumi.Output.concat(self._api.api_endpoint, "/", self.stage_name)

    @property
    def callback_url(self) -> pulumi.Output[str]:
        """Through which connections are posted to: `https://…/{stage}`."""
        return self.url.apply(lambda url: re.sub("^ws", "http", url))

    @property
    def stage_name(self) -> pulumi.Output[str]:
        return self._deployed_stage("stage_name").name

    def grant_connect(self, grantee: LambdaFunction | aws.iam.Role) -> aws.iam.RolePolicy:
        """Let a caller connect to a stage with IamAuthorization, and to no other."""
        connect = allow(
            ["execute-api:Invoke"],
            [pulumi.Output.concat(self.execution_arn, "/", self._deployed_stage("the grant").name, "/$connect")],
        )
        if isinstance(grantee, LambdaFunction):
            return grantee.grant(f"connect-to-{self._name}", connect, parent=self)
        return aws.iam.RolePolicy(
            f"{grantee.pulumi_resource_name}-connect-to-{self._name}",
            role=grantee.id,
            policy=policy_document(connect),
            opts=self._child,
        )

    def grant_manage_connections(
        self, grantee: LambdaFunction, verbs: Sequence[ManageConnectionsVerb] | None = None
    ) -> aws.iam.RolePolicy:
        """Let a worker use the @connections API of this stage, and of no other.

        Args:
            verbs: POST sends, GET looks up, DELETE disconnects. None: all of them.

        Raises:
            ValueError: verbs is empty or names an unknown one.
        """
        stage = pulumi.Output.concat(self.execution_arn, "/", self._deployed_stage("the grant").name)
        if verbs is None:
            resources = [pulumi.Output.concat(stage, "/*")]
        else:
            unknown = set(verbs) - {"POST", "GET", "DELETE"}
            if unknown or not verbs:
                raise ValueError(f"verbs is {list(verbs)}; it takes one or more of POST, GET and DELETE.")
            resources = [pulumi.Output.concat(stage, f"/{verb}/@connections/*") for verb in sorted(set(verbs))]
        return grantee.grant(
            f"manage-connections-of-{self._name}",
            allow(["execute-api:ManageConnections"], resources),
            parent=self,
        )

    def _authorization(self, authorization: ConnectAuthorization | None) -> dict[str, Any]:
        match authorization:
            case None:
                return {"authorization_type": "NONE"}
            case IamAuthorization():
                return {"authorization_type": "AWS_IAM"}
            case TokenAuthorization():
                function = authorization.function
                inputs: dict[str, Any] = {
                    # The only type a WebSocket API has, answered with an IAM policy and never cached.
                    "authorizer_type": "REQUEST",
                    "authorizer_uri": function.invoke_arn,
                    "authorizer_credentials_arn": self._invoke_role.arn,
                    "identity_sources": [authorization.identity_source],
                }
                authorizer = aws.apigatewayv2.Authorizer(
                    f"{self._name}-authorizer",
                    api_id=self._api.id,
                    name=function.name,
                    **inputs,
                    opts=self._child,
                )
                self._functions[function.name] = function
                self._deployed.append({"authorizer": inputs})
                return {"authorization_type": "CUSTOM", "authorizer_id": authorizer.id}

    def _integration(self, function: LambdaFunction) -> aws.apigatewayv2.Integration:
        if function.name not in self._integrations:
            inputs: dict[str, Any] = {
                "integration_type": "AWS_PROXY",
                # Lambda is always invoked by POST, whatever the route.
                "integration_method": "POST",
                "integration_uri": function.invoke_arn,
                "credentials_arn": self._invoke_role.arn,
                "timeout_milliseconds": self._args.integration_timeout_milliseconds,
            }
            self._functions[function.name] = function
            self._integrations[function.name] = aws.apigatewayv2.Integration(
                f"{self._name}-{function.name}-integration", api_id=self._api.id, **inputs, opts=self._child
            )
            self._deployed.append({"integration": inputs})
        return self._integrations[function.name]

    def _create_stage(
        self, deployment: aws.apigatewayv2.Deployment, invoke_policy: aws.iam.RolePolicy
    ) -> aws.apigatewayv2.Stage:
        args = self._args
        access_log_group = aws.cloudwatch.LogGroup(
            f"{self._name}-access-logs",
            name=pulumi.Output.concat("/aws/apigateway/", self._api.name, "/", args.stage_name),
            retention_in_days=args.log_retention_days,
            opts=self._child,
        )
        # API Gateway makes this group itself if it is not there, and then keeps its events for ever.
        execution_log_group = aws.cloudwatch.LogGroup(
            f"{self._name}-execution-logs",
            name=pulumi.Output.concat("/aws/apigateway/", self._api.id, "/", args.stage_name),
            retention_in_days=args.log_retention_days,
            opts=self._child,
        )
        before: list[pulumi.Resource] = [execution_log_group, invoke_policy]
        for function in self._functions.values():
            before += function.grants
        if args.manage_account_logging:
            before.append(AccountLogging(f"{self._name}-account-logging", opts=self._child))
        return aws.apigatewayv2.Stage(
            f"{self._name}-stage",
            api_id=self._api.id,
            name=args.stage_name,
            deployment_id=deployment.id,
            default_route_settings=aws.apigatewayv2.StageDefaultRouteSettingsArgs(**self._route_settings()),
            # Neither a storm of reconnects nor one of requests may use up the stage.
            route_settings=[
                aws.apigatewayv2.StageRouteSettingArgs(route_key=key, **self._route_settings(_ROUTE_SHARE))
                for key in _THROTTLED_ROUTES
                if key in self._routes
            ],
            access_log_settings={"destination_arn": access_log_group.arn, "format": ACCESS_LOG_FORMAT},
            opts=pulumi.ResourceOptions(parent=self, depends_on=before),
        )

    def _route_settings(self, share: float = 1) -> dict[str, Any]:
        """Every field, always: what a route's settings leave out falls back to AWS's defaults, not to the stage's."""
        args = self._args
        return {
            "throttling_rate_limit": args.throttle_rate * share,
            "throttling_burst_limit": max(1, int(args.throttle_burst * share)),
            "logging_level": args.logging_level,
            "data_trace_enabled": args.data_trace_enabled,
            "detailed_metrics_enabled": args.detailed_metrics_enabled,
        }

    def _deployed_stage(self, wanted: str) -> aws.apigatewayv2.Stage:
        if self._stage is None:
            raise RuntimeError(f"{wanted} needs a stage; call deploy() first, after the last route.")
        return self._stage


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
