"""Not proven here: that a real engine meets no other gap (tests/engine)."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from websockets.sync.client import connect

from local.emulator import REGION, Emulator
from tests.local.scenarios import PATIENCE_SECONDS

TRUST = '{"Version":"2012-10-17","Statement":[]}'


@pytest.fixture
def api(aws: Any) -> Iterator[str]:
    gateway = aws("apigatewayv2")
    made: str = gateway.create_api(Name="gaps", ProtocolType="WEBSOCKET")["ApiId"]
    yield made
    gateway.delete_api(ApiId=made)


@pytest.fixture
def function(aws: Any) -> Iterator[dict[str, Any]]:
    role = aws("iam").create_role(RoleName="gaps", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    code = {"ZipFile": b"PK\x05\x06" + b"\0" * 18}
    made = aws("lambda").create_function(FunctionName="gaps", Role=role, Runtime="python3.13", Handler="a.b", Code=code)
    yield made
    aws("lambda").delete_function(FunctionName="gaps")
    aws("iam").delete_role(RoleName="gaps")


def test_an_answer_comes_whole_so_that_no_client_drops_the_connection_before_its_body(emulator: Emulator) -> None:
    with socket.create_connection(("127.0.0.1", emulator.port), PATIENCE_SECONDS) as connection:
        for _ in range(50):  # of the answers in two pieces, some arrive as one
            connection.sendall(f"GET /_ministack/health HTTP/1.1\r\nHost: 127.0.0.1:{emulator.port}\r\n\r\n".encode())
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
            assert len(body) == int(length)


def test_the_endpoint_of_an_api_resolves_and_speaks_its_protocol(emulator: Emulator, aws: Any, api: str) -> None:
    gateway = aws("apigatewayv2")
    endpoint = gateway.get_api(ApiId=api)["ApiEndpoint"]
    assert endpoint == f"ws://127.0.0.1:{emulator.port}/_aws/execute-api/{api}"
    with connect(f"{endpoint}/dev", ping_interval=None):
        pass
    http = gateway.create_api(Name="http", ProtocolType="HTTP")
    assert http["ApiEndpoint"] == f"http://127.0.0.1:{emulator.port}/_aws/execute-api/{http['ApiId']}"
    gateway.delete_api(ApiId=http["ApiId"])


@pytest.mark.parametrize("route", ["$connect", "POST /documents/{id}"])
def test_deleting_the_settings_of_a_route_leaves_the_stage(aws: Any, api: str, route: str) -> None:
    gateway = aws("apigatewayv2")
    settings = {"ThrottlingRateLimit": 5.0, "ThrottlingBurstLimit": 2}
    logs = {"DestinationArn": "arn:aws:logs:us-east-1:000000000000:log-group:a", "Format": "$context.requestId"}
    gateway.create_stage(
        ApiId=api, StageName="dev", RouteSettings={route: settings, "other": settings}, AccessLogSettings=logs
    )
    gateway.delete_route_settings(ApiId=api, StageName="dev", RouteKey=route)
    assert gateway.get_stage(ApiId=api, StageName="dev")["RouteSettings"] == {"other": settings}
    gateway.delete_access_log_settings(ApiId=api, StageName="dev")
    assert "AccessLogSettings" not in gateway.get_stage(ApiId=api, StageName="dev")
    with pytest.raises(ClientError, match="NotFound"):
        gateway.delete_route_settings(ApiId=api, StageName="prod", RouteKey=route)
    gateway.delete_stage(ApiId=api, StageName="dev")
    with pytest.raises(ClientError, match="NotFound"):
        gateway.get_stage(ApiId=api, StageName="dev")


def test_an_api_keeps_the_type_of_its_addresses(aws: Any, api: str) -> None:
    gateway = aws("apigatewayv2")
    assert gateway.get_api(ApiId=api)["IpAddressType"] == "ipv4"
    assert gateway.update_api(ApiId=api, IpAddressType="dualstack")["IpAddressType"] == "dualstack"
    gateway.update_api(ApiId=api, Description="another")
    assert gateway.get_api(ApiId=api)["IpAddressType"] == "dualstack"


def test_an_integration_keeps_the_role_that_it_is_invoked_through(aws: Any, api: str) -> None:
    gateway, first, second = aws("apigatewayv2"), "arn:aws:iam::000000000000:role/a", "arn:aws:iam::000000000000:role/b"
    made = gateway.create_integration(ApiId=api, IntegrationType="AWS_PROXY", CredentialsArn=first)
    named = {"ApiId": api, "IntegrationId": made["IntegrationId"]}
    assert made["CredentialsArn"] == gateway.get_integration(**named)["CredentialsArn"] == first
    gateway.update_integration(**named, CredentialsArn=second)
    gateway.update_integration(**named, Description="another")
    assert gateway.get_integration(**named)["CredentialsArn"] == second
    plain = gateway.create_integration(ApiId=api, IntegrationType="AWS_PROXY")
    assert "CredentialsArn" not in plain


def test_an_authorizer_has_only_what_it_was_given(aws: Any, api: str) -> None:
    gateway = aws("apigatewayv2")
    given = {"Name": "a", "AuthorizerType": "REQUEST", "IdentitySource": ["route.request.querystring.token"]}
    made = gateway.create_authorizer(ApiId=api, **given, AuthorizerUri="arn:aws:lambda:a")
    kept = gateway.get_authorizer(ApiId=api, AuthorizerId=made["AuthorizerId"])
    for each in (made, kept):
        each.pop("ResponseMetadata")
        assert each == {**given, "AuthorizerUri": "arn:aws:lambda:a", "AuthorizerId": made["AuthorizerId"]}


def test_an_event_age_is_there_only_if_it_was_given(aws: Any, function: dict[str, Any]) -> None:
    client = aws("lambda")
    client.put_function_event_invoke_config(FunctionName="gaps", MaximumRetryAttempts=1)
    kept = client.get_function_event_invoke_config(FunctionName="gaps")
    assert (kept["MaximumRetryAttempts"], "MaximumEventAgeInSeconds" in kept) == (1, False)
    client.put_function_event_invoke_config(FunctionName="gaps", MaximumEventAgeInSeconds=60)
    assert client.get_function_event_invoke_config(FunctionName="gaps")["MaximumEventAgeInSeconds"] == 60


def test_a_user_pool_client_keeps_its_rotation(aws: Any) -> None:
    cognito, rotation = aws("cognito-idp"), {"Feature": "ENABLED", "RetryGracePeriodSeconds": 10}
    pool = cognito.create_user_pool(PoolName="gaps")["UserPool"]["Id"]
    made = cognito.create_user_pool_client(UserPoolId=pool, ClientName="page", RefreshTokenRotation=rotation)
    named = {"UserPoolId": pool, "ClientId": made["UserPoolClient"]["ClientId"]}
    assert made["UserPoolClient"]["RefreshTokenRotation"] == rotation
    assert cognito.describe_user_pool_client(**named)["UserPoolClient"]["RefreshTokenRotation"] == rotation
    off = {"Feature": "DISABLED"}
    cognito.update_user_pool_client(**named, RefreshTokenRotation=off)
    assert cognito.describe_user_pool_client(**named)["UserPoolClient"]["RefreshTokenRotation"] == off
    cognito.delete_user_pool(UserPoolId=pool)


def test_a_saved_query_stands_until_it_is_deleted(aws: Any) -> None:
    logs = aws("logs")
    made = logs.put_query_definition(name="gaps/slow", queryString="fields @message", logGroupNames=["/a"])
    (kept,) = logs.describe_query_definitions(queryDefinitionNamePrefix="gaps/")["queryDefinitions"]
    assert (kept["queryDefinitionId"], kept["logGroupNames"]) == (made["queryDefinitionId"], ["/a"])
    logs.put_query_definition(**{**made_of(kept), "queryString": "fields @timestamp"})
    (kept,) = logs.describe_query_definitions(queryDefinitionNamePrefix="gaps/")["queryDefinitions"]
    assert kept["queryString"] == "fields @timestamp"
    assert logs.delete_query_definition(queryDefinitionId=made["queryDefinitionId"])["success"] is True
    assert logs.describe_query_definitions(queryDefinitionNamePrefix="gaps/")["queryDefinitions"] == []


def made_of(kept: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kept.items() if key != "lastModified"}


def test_the_credentials_of_a_function_are_not_made_of_its_name(
    emulator: Emulator, aws: Any, function: dict[str, Any]
) -> None:
    with suppress(ClientError):  # it has no code; its session is issued all the same
        aws("lambda").invoke(FunctionName="gaps", Payload=b"{}")
    digest = hashlib.sha256(f"{function['FunctionArn']}:{function['Role']}".encode()).hexdigest()
    session: Any = boto3.Session(
        f"ASIA{digest[:16].upper()}",
        hashlib.sha256(f"secret:{digest}".encode()).hexdigest(),
        hashlib.sha256(f"token:{digest}".encode()).hexdigest(),
        region_name=REGION,
    )
    client = session.client("sts", endpoint_url=emulator.endpoint_url)
    with pytest.raises(ClientError, match="The provided token is malformed"):
        client.get_caller_identity()
    client.close()


SLOW = "import time\ndef handler(event, context):\n    time.sleep(event['seconds'])\n    return {word!r}\n"


def zipped(source: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.py", source)
    return target.getvalue()


def test_an_update_of_its_code_lets_a_call_end_with_the_code_that_it_began_with(aws: Any) -> None:
    client = aws("lambda")
    role = aws("iam").create_role(RoleName="slow", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]

    def invoke(seconds: float, name: str = "slow") -> str:
        answer = client.invoke(FunctionName=name, Payload=json.dumps({"seconds": seconds}))
        return str(json.load(answer["Payload"]))

    client.create_function(
        FunctionName="slow",
        Role=role,
        Runtime="python3.13",
        Handler="a.handler",
        Timeout=60,
        Code={"ZipFile": zipped(SLOW.format(word="old"))},
    )
    assert invoke(0) == "old"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(invoke, 1.5)
        assert not wait([running], timeout=0.5).done
        client.update_function_code(FunctionName="slow", ZipFile=zipped(SLOW.format(word="new")))
        assert invoke(0) == "new"
        assert running.result(timeout=60) == "old"
    version = client.publish_version(FunctionName="slow")["Version"]
    client.create_alias(FunctionName="slow", Name="live", FunctionVersion=version)
    assert invoke(0, "slow:live") == "new"
    made = client.update_function_code(FunctionName="slow", ZipFile=zipped(SLOW.format(word="newest")), Publish=True)
    assert invoke(0, "slow:live") == "new", "an alias goes on with its version"
    client.update_alias(FunctionName="slow", Name="live", FunctionVersion=made["Version"])
    assert invoke(0, "slow:live") == "newest"
    client.delete_function(FunctionName="slow")
    aws("iam").delete_role(RoleName="slow")
