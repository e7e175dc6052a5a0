"""Who may connect and upload. A mode is one class that binds itself to a WebSocket route and to an HTTP route.

API Gateway asks a WebSocket on `$connect` alone; a connection that is made stays until it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import pulumi
import pulumi_aws as aws

from .lambda_function import FunctionSettings, LambdaFunction
from .token_authorizer import TokenAuthorizer, TokenAuthorizerArgs, TokenSource


class Authorization(StrEnum):
    """The modes by name."""

    NONE = "NONE"
    """Everyone may connect."""
    AWS_IAM = "AWS_IAM"
    """A caller signs its requests, and its policy must allow them."""
    JWT = "JWT"
    """A caller brings a JSON Web Token of Cognito or of any other OIDC issuer."""


class TakesAuthorizer(Protocol):
    """What a mode needs of a WebSocket API."""

    def add_authorizer(self, function: LambdaFunction, identity_source: str) -> aws.apigatewayv2.Authorizer: ...


class AuthorizationMode(Protocol):
    """
    Attributes:
        mode: its name, which functions are told.
        knows_callers: callers have a principal, so documents can have owners.
        expires: a connection may outlive its caller's right to it, so it is closed early.
        request_headers: the headers that a page sends with an HTTP request, besides Authorization.
    """

    @property
    def mode(self) -> Authorization: ...
    @property
    def knows_callers(self) -> bool: ...
    @property
    def expires(self) -> bool: ...
    @property
    def request_headers(self) -> Sequence[str]: ...

    def bind_connect(self, api: TakesAuthorizer) -> dict[str, Any]:
        """Return the inputs of `$connect` that let API Gateway ask this mode."""

    def bind_http(self, name: str, api_id: pulumi.Input[str], opts: pulumi.ResourceOptions) -> dict[str, Any]:
        """Return the same for a route of an HTTP API."""


@dataclass(frozen=True)
class NoAuthorization:
    mode = Authorization.NONE
    knows_callers = False
    expires = False
    request_headers = ()

    def bind_connect(self, _api: TakesAuthorizer) -> dict[str, Any]:
        return {"authorization_type": "NONE"}

    def bind_http(self, _name: str, _api_id: pulumi.Input[str], _opts: pulumi.ResourceOptions) -> dict[str, Any]:
        return {"authorization_type": "NONE"}


@dataclass(frozen=True)
class IamAuthorization:
    """The caller's own policy must allow `execute-api:Invoke`; see `WebSocketApi.grant_connect`."""

    mode = Authorization.AWS_IAM
    knows_callers = True
    expires = False
    request_headers = ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token")

    def bind_connect(self, _api: TakesAuthorizer) -> dict[str, Any]:
        return {"authorization_type": "AWS_IAM"}

    def bind_http(self, _name: str, _api_id: pulumi.Input[str], _opts: pulumi.ResourceOptions) -> dict[str, Any]:
        return {"authorization_type": "AWS_IAM"}


@dataclass(frozen=True, kw_only=True)
class TokenAuthorization:
    """A function checks tokens on `$connect`, since JWT authorizers are for HTTP APIs only.

    Of an HTTP API, API Gateway checks them itself. Unlike the function, it takes RSA signatures only.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html

    Attributes:
        issuer: as the tokens' `iss` says it.
        audience: the audiences or client ids to accept, separated by commas.
        token_source: how a page sends its token on `$connect`.
        name: of the authorizer's function.
    """

    issuer: pulumi.Input[str]
    audience: pulumi.Input[str]
    functions: FunctionSettings
    token_source: TokenSource = TokenSource.SUBPROTOCOL
    name: str = "token-authorizer"
    opts: pulumi.ResourceOptions | None = field(default=None, compare=False)

    mode = Authorization.JWT
    knows_callers = True
    expires = True
    request_headers = ()

    def __post_init__(self) -> None:
        for name, value in (("issuer", self.issuer), ("audience", self.audience)):
            # Only text can be empty now; an Output has no value yet.
            if value == "":
                raise ValueError(f"{name} is empty, so no token could be checked.")

    def bind_connect(self, api: TakesAuthorizer) -> dict[str, Any]:
        authorizer = TokenAuthorizer(
            self.name,
            TokenAuthorizerArgs(
                issuer=self.issuer, audience=self.audience, token_source=self.token_source, functions=self.functions
            ),
            self.opts,
        )
        bound = api.add_authorizer(authorizer.function, authorizer.identity_source)
        return {"authorization_type": "CUSTOM", "authorizer_id": bound.id}

    def bind_http(self, name: str, api_id: pulumi.Input[str], opts: pulumi.ResourceOptions) -> dict[str, Any]:
        authorizer = aws.apigatewayv2.Authorizer(
            f"{name}-authorizer",
            api_id=api_id,
            name="jwt",
            authorizer_type="JWT",
            identity_sources=["$request.header.Authorization"],
            jwt_configuration={
                "issuer": self.issuer,
                "audiences": pulumi.Output.concat(self.audience).apply(lambda text: text.split(",")),
            },
            opts=opts,
        )
        return {"authorization_type": "JWT", "authorizer_id": authorizer.id}
