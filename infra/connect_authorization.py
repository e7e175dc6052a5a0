"""Who may connect. API Gateway asks only on `$connect`; a connection that is made stays until it ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from infra.lambda_function import LambdaFunction

# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html
_IDENTITY_SOURCE = re.compile(r"route\.request\.(querystring|header)\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class IamAuthorization:
    """A caller signs the URL, and its own policy must allow `execute-api:Invoke`; see `grant_connect`."""


@dataclass(frozen=True, kw_only=True)
class TokenAuthorization:
    """A function is shown a token and answers with a policy.

    Attributes:
        identity_source: where the token is, such as `route.request.querystring.token` or
            `route.request.header.Sec-WebSocket-Protocol`, the two that a browser can send. Where it is missing,
            the connection gets 401 before the function runs.
    """

    function: LambdaFunction
    identity_source: str

    def __post_init__(self) -> None:
        if not _IDENTITY_SOURCE.fullmatch(self.identity_source):
            raise ValueError(
                f"identity_source is {self.identity_source!r}; it takes route.request.querystring.NAME"
                " or route.request.header.NAME."
            )


ConnectAuthorization = IamAuthorization | TokenAuthorization
