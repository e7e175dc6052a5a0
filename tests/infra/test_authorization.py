"""Who may connect: the route, the authorizer and its function, and the right to connect with a signature.

Does not prove that a token is checked: tests/functions does, with tokens good and bad.
"""

from __future__ import annotations

import re

import pytest

from infra.authorization import IamAuthorization, TokenAuthorization
from infra.token_authorizer import TokenSource
from tests.infra.samples import FUNCTION_SETTINGS, allowed, lambda_function, policy, websocket_api
from tests.mock_engine import ACCOUNT, PARTITION, REGION, SUFFIX, Graph, arn, run

AUTHORIZER_ARN = arn("lambda", f"function:tokens-function-{SUFFIX}")
HANDLER_ARN = arn("lambda", f"function:handler-function-{SUFFIX}")


def authorized(**changes: str) -> Graph:
    def program() -> None:
        given = {"issuer": "https://issuer.example", "audience": "one,two", "token_source": "querystring"} | changes
        source = TokenSource(given.pop("token_source"))
        tokens = TokenAuthorization(name="tokens", token_source=source, functions=FUNCTION_SETTINGS, **given)
        api = websocket_api()
        api.configure_routes(lambda_function(), authorization=tokens)
        api.deploy()

    return run(program)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return authorized()


@pytest.mark.parametrize(
    ("token_source", "identity_source"),
    [
        ("querystring", "route.request.querystring.token"),
        ("subprotocol", "route.request.header.Sec-WebSocket-Protocol"),
    ],
)
def test_a_token_is_looked_for_where_a_browser_can_put_it(token_source: str, identity_source: str) -> None:
    graph = authorized(token_source=token_source)
    assert graph.one("Authorizer").inputs == {
        "apiId": "api-api-id",
        "name": "tokens",
        "authorizerType": "REQUEST",
        "authorizerUri": f"arn:{PARTITION}:apigateway:{REGION}:lambda:path/2015-03-31/functions/"
        f"{AUTHORIZER_ARN}/invocations",
        "authorizerCredentialsArn": f"arn:{PARTITION}:iam::{ACCOUNT}:role/api-invoke-role-{SUFFIX}",
        "identitySources": [identity_source],
    }, "what HTTP APIs have besides (JWT, simple responses, caching) is refused for a WebSocket API"


def test_only_connect_is_authorized_by_the_token(graph: Graph) -> None:
    routes = {route.inputs["routeKey"]: route.inputs for route in graph.of("Route")}
    assert {key: inputs["authorizationType"] for key, inputs in routes.items()} == {
        "$connect": "CUSTOM",
        "$disconnect": "NONE",
        "$default": "NONE",
        "progress": "NONE",
    }
    assert {key: inputs.get("authorizerId") for key, inputs in routes.items()} == {
        "$connect": graph.one("Authorizer").id,
        "$disconnect": None,
        "$default": None,
        "progress": None,
    }


def test_the_api_may_invoke_the_authorizer_too(graph: Graph) -> None:
    assert policy(graph, "api-invoke-functions") == allowed((["lambda:InvokeFunction"], [HANDLER_ARN, AUTHORIZER_ARN]))


def test_the_authorizer_s_function_may_do_nothing_but_log(graph: Graph) -> None:
    assert [name for name in graph.names("RolePolicy") if name.startswith("tokens-")] == ["tokens-write-logs"]


def test_the_authorizer_s_function_knows_whom_to_believe(graph: Graph) -> None:
    function = graph.one("Function", "tokens-function").inputs
    assert function["handler"] == "token_authorizer.handler"
    assert function["environment"]["variables"] == {
        "POWERTOOLS_SERVICE_NAME": "docprogress-test-tokens",
        "JWT_ISSUER": "https://issuer.example",
        "JWT_AUDIENCE": "one,two",
        "TOKEN_SOURCE": "querystring",
    }


def test_whom_the_function_believes_needs_no_deployment_but_where_the_token_is_does(graph: Graph) -> None:
    def triggers(graph: Graph) -> object:
        return graph.one("Deployment").inputs["triggers"]

    assert triggers(authorized(audience="other")) == triggers(graph)
    assert triggers(authorized(token_source="subprotocol")) != triggers(graph)


def test_the_deployment_comes_after_the_authorizer(graph: Graph) -> None:
    assert "api-authorizer" in graph.before(graph.one("Deployment"))


def signed() -> Graph:
    def program() -> None:
        api = websocket_api()
        api.configure_routes(lambda_function(), authorization=IamAuthorization())
        api.deploy()
        for name in ("caller", "other-caller"):
            api.grant_connect(lambda_function(name))

    return run(program)


def test_signed_connections_need_the_caller_s_own_policy() -> None:
    graph = signed()
    types = {route.inputs["routeKey"]: route.inputs["authorizationType"] for route in graph.of("Route")}
    assert types == {"$connect": "AWS_IAM", "$disconnect": "NONE", "$default": "NONE", "progress": "NONE"}
    assert graph.of("Authorizer") == []
    for caller in ("caller", "other-caller"):
        granted = graph.one("RolePolicy", f"{caller}-connect-to-api")
        assert granted.inputs["role"] == f"{caller}-role-{SUFFIX}"
        assert policy(graph, granted.name) == allowed(
            (["execute-api:Invoke"], [arn("execute-api", "api-api-id/live/$connect")])
        )


@pytest.mark.parametrize("route_key", ["$disconnect", "$default", "progress"])
def test_authorization_of_another_route_is_refused(route_key: str) -> None:
    sentence = f"The route {route_key!r} cannot have an authorization; API Gateway authorizes a WebSocket on $connect"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run(lambda: websocket_api().add_route(route_key, lambda_function(), authorization=IamAuthorization()))


@pytest.mark.parametrize(
    "identity_source", ["", "token", "route.request.body.token", "$request.header.Auth", "route.request.header."]
)
def test_an_identity_source_that_a_websocket_api_lacks_is_refused(identity_source: str) -> None:
    with pytest.raises(ValueError, match=r"identity_source is '.*'; it takes route\.request\.querystring\.NAME"):
        run(lambda: websocket_api().add_authorizer(lambda_function(), identity_source))


@pytest.mark.parametrize("missing", ["issuer", "audience"])
def test_tokens_that_could_not_be_checked_are_refused(missing: str) -> None:
    with pytest.raises(ValueError, match=f"{missing} is empty, so no token could be checked"):
        authorized(**{missing: ""})
