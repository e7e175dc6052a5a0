"""What MiniStack does otherwise than AWS where a real Pulumi engine looks: mended in its own process, at its own seams.

Each gap is a function that is named for what it mends; its test is in tests/local/test_emulator_gaps.py. One that
MiniStack closes itself can go. Nothing of the program's own behaviour is here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import h11
from hypercorn.events import RawData
from hypercorn.protocol.h11 import H11Protocol
from ministack import app as ministack
from ministack.core import iam_evaluator, lambda_runtime, router
from ministack.core.responses import json_response
from ministack.services import apigateway, cloudwatch_logs, lambda_svc, sts

Response = tuple[int, dict[str, str], bytes]

# What a new one has on AWS only if it was asked for; MiniStack fills it in, and the engine would take it out for ever.
_AUTHORIZER_DEFAULTS = (
    "authorizerCredentialsArn",
    "authorizerPayloadFormatVersion",
    "authorizerResultTtlInSeconds",
    "authorizerUri",
    "enableSimpleResponses",
    "jwtConfiguration",
)


def mend() -> None:
    """Mends all of them; to be called once, before the first request."""
    _answers_in_one_piece()
    _urls_that_resolve()
    _apis_that_keep_their_ip_address_type()
    _route_settings_deleted_alone()
    _integrations_that_keep_their_role()
    _authorizers_without_defaults()
    _event_ages_only_if_given()
    _user_pool_clients_that_keep_their_rotation()
    _saved_queries()
    _role_sessions_that_nobody_can_guess()
    _callers_of_signed_connections()
    _code_updates_that_let_calls_end()


def _wrap(module: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(module, name)
    setattr(module, name, lambda *arguments, **named: around(original, *arguments, **named))


def _answered(response: Response) -> dict[str, Any]:
    return dict(json.loads(response[2])) if response[0] < 300 and response[2] else {}


def _answers_in_one_piece() -> None:
    """Head and body of an answer together, as ASGI asks; hypercorn sends the head ahead.

    AWS's SDK for Go closes the body of its request once it has a head. If its writer is still there, net/http takes
    the write for failed and drops the connection. The body of the answer is lost where it is still on its way, and the
    SDK asks again for what is done (aws/aws-sdk-go-v2#2737). AWS is too far away to answer that soon.
    """

    async def send(self: H11Protocol, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            heads[self] = data
        else:
            await self.send(RawData(data=heads.pop(self, b"") + data))

    heads: WeakKeyDictionary[H11Protocol, bytes] = WeakKeyDictionary()
    H11Protocol._send_h11_event = send  # type: ignore[method-assign]


def _urls_that_resolve() -> None:
    """`apiEndpoint` by path, and `ws://` for WebSockets: a name under localhost resolves in browsers only."""

    def create(original: Callable[..., Response], data: dict[str, Any]) -> Response:
        response = original(data)
        made = _answered(response)
        if not made:
            return response
        api = apigateway._apis[made["apiId"]]
        scheme = "ws" if api["protocolType"] == "WEBSOCKET" else "http"
        api["apiEndpoint"] = f"{scheme}://127.0.0.1:{os.environ['GATEWAY_PORT']}/_aws/execute-api/{api['apiId']}"
        answer: Response = apigateway._apigw_response(api, 201)
        return answer

    _wrap(apigateway, "_create_api", create)


def _apis_that_keep_their_ip_address_type() -> None:
    def keep(original: Callable[..., Response], *arguments: Any) -> Response:
        response, data = original(*arguments), arguments[-1]
        made = _answered(response)
        if not made:
            return response
        api = apigateway._apis[made["apiId"]]
        api["ipAddressType"] = data.get("ipAddressType", api.get("ipAddressType", "ipv4"))
        answer: Response = apigateway._apigw_response(api, response[0])
        return answer

    _wrap(apigateway, "_create_api", keep)
    _wrap(apigateway, "_update_api", keep)


def _route_settings_deleted_alone() -> None:
    """`DELETE …/stages/{stage}/routesettings/{key}` and `…/accesslogsettings`, which would delete the stage."""

    async def handle(original: Any, method: str, path: str, *rest: Any) -> Any:
        words = path.strip("/").split("/", 6)
        if method == "DELETE" and words[3:4] == ["stages"] and len(words) > 5:
            stage = (apigateway._stages.get(words[2]) or {}).get(words[4])
            if stage is None:
                return apigateway._apigw_error("NotFoundException", f"Stage '{words[4]}' not found", 404)
            if words[5] == "routesettings" and len(words) > 6:
                stage["routeSettings"].pop(words[6], None)
            elif words[5] == "accesslogsettings":
                stage.pop("accessLogSettings", None)
            return 204, {}, b""
        return await original(method, path, *rest)

    _wrap(apigateway, "handle_request", handle)


def _integrations_that_keep_their_role() -> None:
    def keep(original: Callable[..., Response], api_id: str, *rest: Any) -> Response:
        response, data = original(api_id, *rest), rest[-1]
        made = _answered(response)
        if not made or "credentialsArn" not in data:
            return response
        integration = apigateway._integrations[api_id][made["integrationId"]]
        integration["credentialsArn"] = data["credentialsArn"]
        answer: Response = apigateway._apigw_response(integration, response[0])
        return answer

    _wrap(apigateway, "_create_integration", keep)
    _wrap(apigateway, "_update_integration", keep)


def _authorizers_without_defaults() -> None:
    """The defaults are those of an HTTP API; a WebSocket API has none of them."""

    def create(original: Callable[..., Response], api_id: str, data: dict[str, Any]) -> Response:
        response = original(api_id, data)
        made = _answered(response)
        if not made:
            return response
        authorizer = apigateway._authorizers[api_id][made["authorizerId"]]
        for name in _AUTHORIZER_DEFAULTS:
            if name not in data and not (name == "jwtConfiguration" and data.get("authorizerType") == "JWT"):
                authorizer.pop(name)
        answer: Response = apigateway._apigw_response(authorizer, 201)
        return answer

    _wrap(apigateway, "_create_authorizer", create)


def _event_ages_only_if_given() -> None:
    def put(original: Callable[..., Response], name: str, qualifier: str | None, data: dict[str, Any]) -> Response:
        response = original(name, qualifier, data)
        if _answered(response) and "MaximumEventAgeInSeconds" not in data:
            configuration = lambda_svc._functions[name]["event_invoke_configs"][qualifier or ""]
            configuration.pop("MaximumEventAgeInSeconds")
            return 200, response[1], json.dumps(configuration).encode()
        return response

    _wrap(lambda_svc, "_put_event_invoke_config", put)


def _user_pool_clients_that_keep_their_rotation() -> None:
    def keep(original: Callable[..., Response], data: dict[str, Any]) -> Response:
        response = original(data)
        made = _answered(response)
        if made and "RefreshTokenRotation" in data:
            pool, _ = ministack._get_module("cognito")._resolve_pool(data["UserPoolId"])
            pool["_clients"][made["UserPoolClient"]["ClientId"]]["RefreshTokenRotation"] = data["RefreshTokenRotation"]
            made["UserPoolClient"]["RefreshTokenRotation"] = data["RefreshTokenRotation"]
            return 200, response[1], json.dumps(made).encode()
        return response

    mended = set()

    def loaded(original: Callable[[str], Any], name: str) -> Any:
        module = original(name)
        if name == "cognito" and name not in mended:  # a tenth of a second, which most stacks do without
            mended.add(name)
            _wrap(module, "_create_user_pool_client", keep)
            _wrap(module, "_update_user_pool_client", keep)
        return module

    _wrap(ministack, "_get_module", loaded)


def _saved_queries() -> None:
    """CloudWatch's query definitions, which MiniStack has not."""
    kept: dict[str, dict[str, Any]] = {}

    async def handle(
        original: Any, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> Any:
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        data = json.loads(body or b"{}")
        if action == "PutQueryDefinition":
            query_id = data.get("queryDefinitionId") or str(uuid.uuid4())
            kept[query_id] = {"logGroupNames": [], **data, "queryDefinitionId": query_id, "lastModified": 0}
            return json_response({"queryDefinitionId": query_id})
        if action == "DescribeQueryDefinitions":
            prefix = data.get("queryDefinitionNamePrefix", "")
            return json_response({"queryDefinitions": [e for e in kept.values() if e["name"].startswith(prefix)]})
        if action == "DeleteQueryDefinition":
            return json_response({"success": kept.pop(data["queryDefinitionId"], None) is not None})
        return await original(method, path, headers, body, query)

    _wrap(cloudwatch_logs, "handle_request", handle)


def _role_sessions_that_nobody_can_guess() -> None:
    """A function's secret is made of its ARNs alone, which anybody on this machine may know or guess."""
    run = secrets.token_bytes(32)

    def issue(original: Callable[..., dict[str, str]], config: dict[str, Any]) -> dict[str, str]:
        issued = original(config)
        for variable, name in (("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"), ("AWS_SESSION_TOKEN", "SessionToken")):
            issued[variable] = hmac.new(run, issued[variable].encode(), hashlib.sha256).hexdigest()
            sts._sessions[issued["AWS_ACCESS_KEY_ID"]][name] = issued[variable]
        return issued

    _wrap(lambda_runtime, "execution_credentials", issue)
    lambda_svc.execution_credentials = lambda_runtime.execution_credentials


def _callers_of_signed_connections() -> None:
    """`identity` in a $connect event says who signed; MiniStack checks the signature and forgets the caller."""
    # A connection is served by one task from its handshake to its end, so it has a context of its own.
    caller: ContextVar[dict[str, Any] | None] = ContextVar("caller", default=None)

    def authorize(
        original: Callable[..., Any], scope: Any, arn: str, headers: dict[str, str], query: dict[str, Any], region: str
    ) -> Any:
        refusal = original(scope, arn, headers, query, region)
        if refusal is None:
            caller.set(iam_evaluator.resolve_caller_identity(router.extract_access_key_id(headers, query)))
        return refusal

    def describe(original: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        context = original(*arguments)
        if (known := caller.get()) and context["eventType"] == "CONNECT":
            session = known["session"] or {}
            context["identity"] |= {
                "accountId": known["accountId"],
                "userArn": known["userArn"],
                "cognitoIdentityId": session.get("_identity_id"),
            }
        return context

    _wrap(apigateway, "_authorize_ws_iam", authorize)
    _wrap(apigateway, "_ws_request_context", describe)


def _code_updates_that_let_calls_end() -> None:
    """A call that runs ends with the code that it began with, and the next one has the new code.

    MiniStack kills the worker in the middle of a call, and goes on with those of an alias that was moved.
    """
    retired: set[Any] = set()

    def retire(name: str, qualifier: str) -> None:
        with lambda_runtime._lock:
            for key, workers in lambda_runtime._workers.items():
                if key.split(":")[-2:] == [name, qualifier]:
                    retired.update(worker for worker in workers if worker.in_use)
                    workers[:] = [worker for worker in workers if not worker.in_use]

    def update(original: Callable[..., Response], name: str, data: dict[str, Any]) -> Response:
        retire(name, "$LATEST")
        return original(name, data)

    def move(original: Callable[..., Response], name: str, alias: str, data: dict[str, Any]) -> Response:
        response = original(name, alias, data)
        if _answered(response):
            retire(name, alias)
            lambda_runtime.invalidate_worker(name, qualifier=alias)
        return response

    def release(original: Callable[..., None], worker: Any) -> None:
        original(worker)
        if worker in retired:
            retired.remove(worker)
            lambda_runtime.kill_workers([worker])

    _wrap(lambda_svc, "_update_code", update)
    _wrap(lambda_svc, "_update_alias", move)
    _wrap(lambda_svc, "release_worker", release)
