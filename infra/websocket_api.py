"""The WebSocket API: routes, integrations, the deployment, and who may post to connections.

No `from __future__ import annotations` here: Pulumi reads the annotations of the arguments to make the SDKs of other
languages, and a text is no type to it. For the same reason a choice is an enum.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pulumi
import pulumi_aws as aws

from .authorization import AuthorizationMode, NoAuthorization
from .custom_domain import DOMAIN_DEFAULTS, DOMAIN_RULES, CustomDomain, CustomDomainArgs, ip_address_type
from .grants import Grantee, grant
from .keeping import kept
from .lambda_function import LambdaFunction
from .policy import allow, policy_document, service_trust_of
from .rules import THROTTLE_BURST, THROTTLE_RATE, Rule, boolean, checked, integer, matching, one_of, retention
from .websocket_stage import LoggingLevel, create_stage

ManageConnectionsVerb = Literal["POST", "GET", "DELETE"]

ROUTE_SELECTION_EXPRESSION = "$request.body.action"
# The routes of a connection's life answer with a status, never with a message.
_LIFECYCLE_ROUTES = ("$connect", "$disconnect")
_RESERVED_ROUTES = (*_LIFECYCLE_ROUTES, "$default")
# Of an API, whose name is a label and need not be its own.
_MAX_NAME_CHARACTERS = 128
_IDENTITY_SOURCE = re.compile(r"route\.request\.(querystring|header)\.[A-Za-z0-9_-]+")


class WebSocketApiArgs(TypedDict, total=False):
    """Every argument may be left out."""

    routes: dict[str, pulumi.Input[str]]
    """The name or ARN of the function behind each route key: a message's `action`, or $connect, $disconnect or
    $default. With it the API is deployed at once; a Python program may call add_route and deploy instead. A route that
    is removed is served until the next deployment: run `pulumi up --replace` with the URN of the deployment."""
    stage_name: str
    """The end of the URL. By default the stack's name, with - for each dot."""
    api_throttle_rate: int
    """Steady requests per second for the whole stage. At least 1; 1000 by default."""
    api_throttle_burst: int
    """Requests at once for the whole stage. At least 1; 500 by default."""
    logging_level: LoggingLevel
    """Execution logs. INFO by default. Access logs are written in any case."""
    data_trace_enabled: bool
    """Write whole events into the execution logs, tokens included. Off by default."""
    detailed_metrics_enabled: bool
    """Metrics for each route, not only for the stage. On by default."""
    integration_timeout_milliseconds: int
    """How long API Gateway waits for a function. 50 to 29000, the default."""
    log_retention_days: int
    """How long the logs are kept: one of CloudWatch's values, such as 7, 90 or 365. 30 by default."""
    manage_account_logging: bool
    """Where the account has no role through which API Gateway writes logs, make one. It serves the whole account and
    region, and stays when the stack is destroyed. On by default; off, the account is not even looked at."""
    domain_name: str
    """A domain name of one's own, such as live.example.com. It takes hosted_zone_id or certificate_arn."""
    domain_path: str
    """What follows domain_name in the URL. Nothing by default."""
    hosted_zone_id: pulumi.Input[str]
    """The hosted zone in Route 53 in which records lead to domain_name. Without it, a CNAME record of your own must
    lead to domain_target."""
    certificate_arn: pulumi.Input[str]
    """The ACM certificate of domain_name, in the API's region. By default one is made and validated in the zone."""
    dual_stack: bool
    """Answer over IPv6 too. Off by default."""
    disable_execute_api_endpoint: bool
    """Answer under domain_name alone. Off by default. What is posted then goes through domain_name too."""
    disposable: bool
    """The API may be deleted, and its URL with it. Off by default: plans refuse that."""


STAGE_RULES: Mapping[str, Rule] = {
    "stage_name": matching(
        "1 to 128 letters, digits, - and _ ($default has no execution logs on a WebSocket API)",
        r"[A-Za-z0-9_-]{1,128}",
        "live",
    ),
    "api_throttle_rate": THROTTLE_RATE,
    "api_throttle_burst": THROTTLE_BURST,
    "logging_level": one_of(LoggingLevel),
    "data_trace_enabled": boolean(),
    "detailed_metrics_enabled": boolean(),
    "integration_timeout_milliseconds": integer(50, 29_000, why=" (API Gateway's limits)"),
    "log_retention_days": retention(),
    "manage_account_logging": boolean(),
    **DOMAIN_RULES,
    "disposable": boolean(),
}
STAGE_DEFAULTS: Mapping[str, Any] = {
    "stage_name": "",
    "api_throttle_rate": 1000,
    "api_throttle_burst": 500,
    "logging_level": LoggingLevel.INFO,
    "data_trace_enabled": False,
    "detailed_metrics_enabled": True,
    "integration_timeout_milliseconds": 29_000,
    "log_retention_days": 30,
    "manage_account_logging": True,
    **DOMAIN_DEFAULTS,
    "disposable": False,
}


class WebSocketApi(pulumi.ComponentResource):
    """A WebSocket API with one deployed stage.

    ```python
    api = WebSocketApi("api", {"stage_name": "dev"})
    api.configure_routes(connection_handler)
    api.deploy()
    api.grant_manage_connections(worker)
    ```

    Routes come first, then `deploy()`, then whatever needs `url`. `callback_url` and grants are there from the
    beginning, since they need the stage's name alone: so a function behind a route may post too, and there is no cycle.
    """

    api_id: pulumi.Output[str]
    """The id of the API."""
    execution_arn: pulumi.Output[str]
    """The ARN that policies name, without the stage."""
    url: pulumi.Output[str]
    """Where browsers connect: `wss://…/{stage}`, or the domain name. Known once the API is deployed."""
    callback_url: pulumi.Output[str]
    """Where messages to connections are posted: `https://…/{stage}`; the domain name where there is no other way."""
    stage_name: pulumi.Output[str]
    """The name of the stage. Known once the API is deployed."""
    access_log_group: pulumi.Output[str]
    """The log group of its access log. Known once the API is deployed."""
    domain_target: pulumi.Output[str] | None
    """API Gateway's name for domain_name, to which your DNS points where it is not in Route 53."""

    def __init__(
        self,
        name: str,
        args: WebSocketApiArgs = {},  # noqa: B006 - Pulumi reads the type, and nothing writes to the value
        opts: pulumi.ResourceOptions | None = None,
        *,
        physical_name: str | None = None,
    ) -> None:
        """
        Args:
            physical_name: what the API is called in AWS. None: after the project, the stack and this component.
        """
        super().__init__("docprogress:index:WebSocketApi", name, None, opts)
        self._name = name
        self._args = checked(args, STAGE_RULES, {**STAGE_DEFAULTS, "routes": {}})
        # A stack may be named with dots, a stage may not.
        self._args["stage_name"] = self._args["stage_name"] or pulumi.get_stack().replace(".", "-")
        self._domain = CustomDomainArgs.of(self._args)
        only_domain = self._args["disable_execute_api_endpoint"]
        if only_domain and not self._domain:
            raise ValueError("disable_execute_api_endpoint needs domain_name, or the API would have no address.")
        self._child = pulumi.ResourceOptions(parent=self)
        self._api = aws.apigatewayv2.Api(
            f"{name}-api",
            name=(physical_name or f"{pulumi.get_project()}-{pulumi.get_stack()}-{name}")[:_MAX_NAME_CHARACTERS],
            description="Live progress of documents",
            protocol_type="WEBSOCKET",
            route_selection_expression=ROUTE_SELECTION_EXPRESSION,
            ip_address_type=ip_address_type(dual_stack=self._args["dual_stack"]),
            disable_execute_api_endpoint=only_domain or None,
            opts=kept(parent=self, disposable=self._args["disposable"]),
        )
        self._invoke_role = aws.iam.Role(
            f"{name}-invoke-role",
            description="Through which API Gateway invokes the functions behind its routes",
            assume_role_policy=service_trust_of("apigateway.amazonaws.com", self._api.execution_arn),
            opts=self._child,
        )
        # By what names them in the program: the ARNs that may be invoked.
        self._function_arns: dict[str, pulumi.Output[str]] = {}
        self._functions: list[LambdaFunction] = []
        self._integrations: dict[str, aws.apigatewayv2.Integration] = {}
        self._routes: dict[str, aws.apigatewayv2.Route] = {}
        self._route_responses: list[aws.apigatewayv2.RouteResponse] = []
        # Everything a deployment takes a picture of, as it was given to the resources.
        self._deployed: list[dict[str, Any]] = [{"routeSelectionExpression": self._api.route_selection_expression}]
        if only_domain:
            # Of a WebSocket API, this takes effect when it is deployed.
            # https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-disable-default-endpoint.html
            self._deployed.append({"disableExecuteApiEndpoint": True})
        self._stage: aws.apigatewayv2.Stage | None = None
        self.domain_target = None
        self.api_id = self._api.id
        self.execution_arn = self._api.execution_arn
        # API Gateway's own name needs no DNS of anybody's, so it is the way for as long as it is one.
        self.callback_url = (
            pulumi.Output.from_input(f"https://{self._domain.address}")
            if self._domain and only_domain
            else pulumi.Output.concat(
                self._api.api_endpoint.apply(lambda endpoint: re.sub("^ws", "http", endpoint)),
                f"/{self._args['stage_name']}",
            )
        )
        for route_key, function in self._args["routes"].items():
            self.add_route(route_key, function)
        if self._args["routes"]:
            self.deploy()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("url", "stage_name"):
                raise RuntimeError(f"{name} needs a stage; call deploy() first, after the last route.")
            raise AttributeError(name)

    def add_route(
        self,
        route_key: str,
        function: LambdaFunction | pulumi.Input[str],
        *,
        authorization: AuthorizationMode | None = None,
    ) -> None:
        """Send messages whose `action` is route_key to a function, and its reply back to the sender.

        A route that is removed here, or given another key, goes on being served: Pulumi deletes it after it made the
        deployment, which still has it. Deploy once more after that `pulumi up`, with the deployment's URN:
        `pulumi up --replace "$(pulumi stack --show-urns | grep -o 'urn:.*api-deployment')"`.

        Args:
            route_key: an action, or one of $connect, $disconnect and $default.
            function: one of ours, or the name or ARN of another one.
            authorization: who may connect, for $connect alone. Everyone by default.

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
        integration = self._integration(route_key, function)
        replies = route_key not in _LIFECYCLE_ROUTES
        inputs: dict[str, Any] = {
            "route_key": route_key,
            "target": pulumi.Output.concat("integrations/", integration.id),
            **(authorization or NoAuthorization()).bind_connect(self),
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
        self, connection_handler: LambdaFunction, *, authorization: AuthorizationMode | None = None
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
            policy=policy_document(allow(["lambda:InvokeFunction"], list(self._function_arns.values()))),
            # The stage calls what it called before until it has its new deployment; what is replaced goes last.
            opts=pulumi.ResourceOptions(parent=self, replace_on_changes=["policy"]),
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
        self._stage = create_stage(
            self._name,
            self._args,
            self._api,
            deployment,
            route_keys=self._routes,
            before=[invoke_policy, *(each for function in self._functions for each in function.grants)],
            parent=self,
        )
        self.stage_name = self._stage.name
        self.access_log_group = self._stage.access_log_settings.apply(
            lambda settings: settings.destination_arn.partition(":log-group:")[2] if settings else ""
        )
        self.url = pulumi.Output.concat(self._api.api_endpoint, "/", self.stage_name)
        if self._domain:
            domain = CustomDomain(
                f"{self._name}-domain", self._domain, self._child, api_id=self._api.id, stage_name=self.stage_name
            )
            self.url = pulumi.Output.concat("wss://", domain.address)
            self.domain_target = domain.target
        self.register_outputs(
            {
                "url": self.url,
                "callback_url": self.callback_url,
                "api_id": self.api_id,
                "stage_name": self.stage_name,
                "execution_arn": self.execution_arn,
                "domain_target": self.domain_target,
            }
        )

    @property
    def functions(self) -> Sequence[LambdaFunction]:
        """Those of this program behind its routes, and its authorizer."""
        return tuple(self._functions)

    def add_authorizer(self, function: LambdaFunction, identity_source: str) -> aws.apigatewayv2.Authorizer:
        """Let a function decide about `$connect`; it is shown a token and answers with a policy.

        Args:
            identity_source: where the token is, such as `route.request.querystring.token`. A connection without
                one gets 401 before the function runs.
        """
        # https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html
        if not _IDENTITY_SOURCE.fullmatch(identity_source):
            raise ValueError(
                f"identity_source is {identity_source!r}; it takes route.request.querystring.NAME"
                " or route.request.header.NAME."
            )
        inputs: dict[str, Any] = {
            # The only type a WebSocket API has, answered with an IAM policy and never cached.
            "authorizer_type": "REQUEST",
            "authorizer_uri": function.invoke_arn,
            "authorizer_credentials_arn": self._invoke_role.arn,
            "identity_sources": [identity_source],
        }
        authorizer = aws.apigatewayv2.Authorizer(
            f"{self._name}-authorizer", api_id=self._api.id, name=function.name, **inputs, opts=self._child
        )
        self._call(function.name, function)
        self._deployed.append({"authorizer": inputs})
        return authorizer

    def grant_connect(self, grantee: Grantee) -> aws.iam.RolePolicy:
        """Let a caller connect to a stage with IamAuthorization, and to no other."""
        connect = pulumi.Output.concat(self.execution_arn, f"/{self._args['stage_name']}/$connect")
        return grant(grantee, f"connect-to-{self._name}", allow(["execute-api:Invoke"], [connect]), parent=self)

    def grant_manage_connections(
        self, grantee: Grantee, verbs: Sequence[ManageConnectionsVerb] | None = None
    ) -> aws.iam.RolePolicy:
        """Let a worker use the @connections API of this stage, and of no other.

        Args:
            verbs: POST sends, GET looks up, DELETE disconnects. All of them by default.

        Raises:
            ValueError: verbs is empty or names an unknown one.
        """
        return grant(grantee, f"manage-connections-of-{self._name}", self.managing_connections(verbs), parent=self)

    def managing_connections(self, verbs: Sequence[ManageConnectionsVerb] | None = None) -> dict[str, Any]:
        """The statement that grant_manage_connections adds to a role."""
        stage = pulumi.Output.concat(self.execution_arn, f"/{self._args['stage_name']}")
        if verbs is None:
            resources = [pulumi.Output.concat(stage, "/*")]
        else:
            unknown = set(verbs) - {"POST", "GET", "DELETE"}
            if unknown or not verbs:
                raise ValueError(f"verbs is {list(verbs)}; it takes one or more of POST, GET and DELETE.")
            resources = [pulumi.Output.concat(stage, f"/{verb}/@connections/*") for verb in sorted(set(verbs))]
        return allow(["execute-api:ManageConnections"], resources)

    def _integration(
        self, route_key: str, function: LambdaFunction | pulumi.Input[str]
    ) -> aws.apigatewayv2.Integration:
        # One for all routes of a function of ours; who the others are is known only when they are there.
        name = function.name if isinstance(function, LambdaFunction) else f"{route_key}-route"
        if name not in self._integrations:
            inputs: dict[str, Any] = {
                "integration_type": "AWS_PROXY",
                # Lambda is always invoked by POST, whatever the route.
                "integration_method": "POST",
                "integration_uri": self._call(name, function),
                "credentials_arn": self._invoke_role.arn,
                "timeout_milliseconds": self._args["integration_timeout_milliseconds"],
            }
            self._integrations[name] = aws.apigatewayv2.Integration(
                f"{self._name}-{name}-integration", api_id=self._api.id, **inputs, opts=self._child
            )
            self._deployed.append({"integration": inputs})
        return self._integrations[name]

    def _call(self, name: str, function: LambdaFunction | pulumi.Input[str]) -> pulumi.Output[str]:
        """Let the API invoke a function, and return the address by which it does."""
        if isinstance(function, LambdaFunction):
            self._function_arns[name] = function.arn
            self._functions.append(function)
            return function.invoke_arn
        arn = pulumi.Output.all(self.execution_arn, function).apply(lambda known: _function_arn(*known))
        self._function_arns[name] = arn
        return arn.apply(_invoke_arn)


def _function_arn(api_arn: str, name_or_arn: str) -> str:
    if name_or_arn.startswith("arn:"):
        return name_or_arn
    _, partition, _, region, account, *_ = api_arn.split(":")
    return f"arn:{partition}:lambda:{region}:{account}:function:{name_or_arn}"


def _invoke_arn(function_arn: str) -> str:
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions-integration.html
    _, partition, _, region, *_ = function_arn.split(":")
    return f"arn:{partition}:apigateway:{region}:lambda:path/2015-03-31/functions/{function_arn}/invocations"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
