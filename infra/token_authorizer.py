"""The function that checks tokens on `$connect`: from a Cognito user pool or any other OIDC issuer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pulumi

from .lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs


class TokenSource(StrEnum):
    """How a page sends its token. A browser can set no header of a WebSocket but the subprotocol's."""

    QUERYSTRING = "querystring"
    """`?token=…`, which ends up in logs of URLs."""
    SUBPROTOCOL = "subprotocol"
    """`docprogress`, then the token."""


_IDENTITY_SOURCES = {
    TokenSource.QUERYSTRING: "route.request.querystring.token",
    TokenSource.SUBPROTOCOL: "route.request.header.Sec-WebSocket-Protocol",
}


@dataclass(frozen=True, kw_only=True)
class TokenAuthorizerArgs:
    """
    Attributes:
        issuer: as the tokens' `iss` says it.
        audience: the audiences or client ids to accept, separated by commas.
    """

    issuer: pulumi.Input[str]
    audience: pulumi.Input[str]
    token_source: TokenSource
    functions: FunctionSettings


class TokenAuthorizer(pulumi.ComponentResource):
    """Its function may do nothing but log.

    Attributes:
        identity_source: where API Gateway finds the token. Without one, a connection gets 401 before the function runs.
    """

    function: LambdaFunction
    identity_source: str

    def __init__(self, name: str, args: TokenAuthorizerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:TokenAuthorizer", name, None, opts)
        self.identity_source = _IDENTITY_SOURCES[args.token_source]
        self.function = LambdaFunction(
            name,
            LambdaFunctionArgs(
                handler_module="token_authorizer",
                environment={
                    "JWT_ISSUER": args.issuer,
                    "JWT_AUDIENCE": args.audience,
                    "TOKEN_SOURCE": args.token_source.value,
                },
                # A cold start fetches the issuer's configuration and its keys, 2 s each at the most.
                timeout_seconds=10,
                settings=args.functions,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
