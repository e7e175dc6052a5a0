"""Who asks an HTTP API, by what the route's authorizer left in the event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NamelessCaller(Exception):
    """An authorizer let in somebody without a name, who would share what is everybody's."""


def principal_of(context: Mapping[str, Any]) -> str | None:
    """The same principal as over a WebSocket. None where the route has no authorizer.

    JWT authorizers leave the token's claims. IAM leaves the caller's ARN, which all users of a Cognito identity pool
    share, and for those the id of the identity:
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html

    Args:
        context: the event's `requestContext`, of payload format 2.0.

    Raises:
        NamelessCaller
    """
    match context.get("authorizer"):
        case None:
            return None
        case {"jwt": {"claims": {"sub": principal}}}:
            pass
        case {"iam": {"cognitoIdentity": {"identityId": principal}}} if principal is not None:
            pass
        case {"iam": {"userArn": principal}}:
            pass
        case _:
            principal = None
    if isinstance(principal, str) and principal.strip():
        return principal
    raise NamelessCaller
