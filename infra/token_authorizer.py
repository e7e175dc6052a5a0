"""The function that checks tokens on `$connect`: from a Cognito user pool or any other OIDC issuer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi

from infra.connect_authorization import TokenAuthorization
from infra.lambda_function import FunctionSettings, LambdaFunction, LambdaFunctionArgs

TokenSource = Literal["querystring", "subprotocol"]

_IDENTITY_SOURCES = {
    "querystring": "route.request.querystring.token",
    "subprotocol": "route.request.header.Sec-WebSocket-Protocol",
}


@dataclass(frozen=True, kw_only=True)
class TokenAuthorizerArgs:
    """
    Attributes:
        issuer: as the tokens' `iss` says it.
        audience: the audiences or client ids to accept, separated by commas.
        token_source: how a page sends its token.
    """

    issuer: pulumi.Input[str]
    audience: pulumi.Input[str]
    token_source: TokenSource
    functions: FunctionSettings


class TokenAuthorizer(pulumi.ComponentResource):
    """
    ```python
    authorizer = TokenAuthorizer("token-authorizer", TokenAuthorizerArgs(...))
    api.configure_routes(connection_handler, authorization=authorizer.authorization)
    ```

    Its function may do nothing but log.
    """

    authorization: TokenAuthorization

    def __init__(self, name: str, args: TokenAuthorizerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:TokenAuthorizer", name, None, opts)
        function = LambdaFunction(
            name,
            LambdaFunctionArgs(
                handler_module="token_authorizer",
                environment={
                    "JWT_ISSUER": args.issuer,
                    "JWT_AUDIENCE": args.audience,
                    "TOKEN_SOURCE": args.token_source,
                },
                # A cold start fetches the issuer's configuration and its keys, 2 s each at the most.
                timeout_seconds=10,
                settings=args.functions,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.authorization = TokenAuthorization(function=function, identity_source=_IDENTITY_SOURCES[args.token_source])
        self.register_outputs({})
