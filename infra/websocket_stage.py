"""The stage of a WebSocket API: its throttle, its logs, and what must be there before a client connects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import pulumi
import pulumi_aws as aws

from .account_logging import account_logging_role
from .keeping import kept

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
        # Whose connection it is: a token's subject, or who signed.
        "principalId": "$context.authorizer.principalId",
        "userArn": "$context.identity.userArn",
        "status": "$context.status",
        "integrationStatus": "$context.integration.status",
        "integrationLatency": "$context.integrationLatency",
        "errorMessage": "$context.error.message",
        "errorResponseType": "$context.error.responseType",
    }
)


class LoggingLevel(StrEnum):
    """What the execution logs hold."""

    OFF = "OFF"
    """Nothing."""
    ERROR = "ERROR"
    """Failed requests."""
    INFO = "INFO"
    """Every request."""


def create_stage(
    name: str,
    args: Mapping[str, Any],
    api: aws.apigatewayv2.Api,
    deployment: aws.apigatewayv2.Deployment,
    *,
    route_keys: Iterable[str],
    before: Sequence[pulumi.Resource],
    parent: pulumi.Resource,
) -> aws.apigatewayv2.Stage:
    """
    Args:
        args: the checked arguments of a WebSocketApi.
        before: what a client needs from its first message on.
    """
    child = pulumi.ResourceOptions(parent=parent)
    access_log_group = aws.cloudwatch.LogGroup(
        f"{name}-access-logs",
        # With the API's id, since another owner may have a stack of the same name.
        name=pulumi.Output.concat("/aws/apigateway/", api.name, "/", api.id, "/", args["stage_name"]),
        retention_in_days=args["log_retention_days"],
        # That of an earlier version keeps its name: a new one would replace it.
        opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(ignore_changes=["name"])),
    )
    # API Gateway makes this group itself if it is not there, and then keeps its events for ever.
    execution_log_group = aws.cloudwatch.LogGroup(
        f"{name}-execution-logs",
        name=pulumi.Output.concat("/aws/apigateway/", api.id, "/", args["stage_name"]),
        retention_in_days=args["log_retention_days"],
        opts=child,
    )
    destination = access_log_group.arn
    if args["manage_account_logging"]:
        # API Gateway refuses a stage with logs while the account has no role for them.
        role = account_logging_role(f"{name}-account-logging", api.id, parent=parent)
        destination = pulumi.Output.all(destination, role).apply(lambda known: known[0])
    routes = set(route_keys)
    return aws.apigatewayv2.Stage(
        f"{name}-stage",
        api_id=api.id,
        name=args["stage_name"],
        deployment_id=deployment.id,
        default_route_settings=aws.apigatewayv2.StageDefaultRouteSettingsArgs(**_route_settings(args)),
        # Neither a storm of reconnects nor one of requests may use up the stage.
        route_settings=[
            aws.apigatewayv2.StageRouteSettingArgs(route_key=key, **_route_settings(args, _ROUTE_SHARE))
            for key in _THROTTLED_ROUTES
            if key in routes
        ],
        access_log_settings={"destination_arn": destination, "format": ACCESS_LOG_FORMAT},
        opts=pulumi.ResourceOptions.merge(
            kept(parent=parent, disposable=args["disposable"]),
            pulumi.ResourceOptions(depends_on=[execution_log_group, *before]),
        ),
    )


def _route_settings(args: Mapping[str, Any], share: float = 1) -> dict[str, Any]:
    """Every field, always: what a route's settings leave out falls back to AWS's defaults, not to the stage's."""
    return {
        "throttling_rate_limit": args["api_throttle_rate"] * share,
        "throttling_burst_limit": max(1, int(args["api_throttle_burst"] * share)),
        "logging_level": args["logging_level"],
        "data_trace_enabled": args["data_trace_enabled"],
        "detailed_metrics_enabled": args["detailed_metrics_enabled"],
    }
