"""One Lambda function with its role, its log group and its grants.

Does not prove that the handler runs: test_lambda_package imports it, the emulator's tests call it.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pulumi
import pytest

from infra.policy import allow
from tests.infra.samples import FUNCTION_ARGS, FUNCTION_SETTINGS, allowed, document, lambda_function, policy, trust
from tests.mock_engine import ACCOUNT, PARTITION, SUFFIX, Graph, arn, run

FUNCTION_NAME = f"handler-function-{SUFFIX}"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return run(lambda: lambda_function(environment={"TABLE_NAME": pulumi.Output.from_input("table")}))


def test_a_function_has_every_setting(graph: Graph) -> None:
    inputs = dict(graph.one("Function").inputs)
    archive = inputs.pop("code")
    assert inputs == {
        "role": f"arn:{PARTITION}:iam::{ACCOUNT}:role/handler-role-{SUFFIX}",
        "runtime": "python3.13",
        "architectures": ["arm64"],
        "handler": "connection_handler.handler",
        "timeout": 29,
        "memorySize": 512,
        "environment": {"variables": {"POWERTOOLS_SERVICE_NAME": "docprogress-test-handler", "TABLE_NAME": "table"}},
        "loggingConfig": {
            "logFormat": "JSON",
            "applicationLogLevel": "INFO",
            "systemLogLevel": "WARN",
        },
        "tracingConfig": {"mode": "PassThrough"},
    }
    assert isinstance(archive, pulumi.FileArchive)
    assert Path(archive.path).is_file()


def test_the_log_group_is_named_after_the_function_and_expires(graph: Graph) -> None:
    assert graph.one("LogGroup").inputs == {"name": f"/aws/lambda/{FUNCTION_NAME}", "retentionInDays": 30}


def test_only_lambda_takes_the_role(graph: Graph) -> None:
    assert document(graph.one("Role"), "assumeRolePolicy") == trust("lambda.amazonaws.com")


def test_a_function_may_write_its_own_logs_and_nothing_else(graph: Graph) -> None:
    assert graph.names("RolePolicy") == ["handler-write-logs"]
    assert policy(graph, "handler-write-logs") == allowed(
        (["logs:CreateLogStream", "logs:PutLogEvents"], [arn("logs", f"log-group:/aws/lambda/{FUNCTION_NAME}:*")])
    )
    assert graph.one("RolePolicy").inputs["role"] == f"handler-role-{SUFFIX}"


def test_who_waits_for_the_grants_waits_for_the_log_group() -> None:
    def program() -> None:
        function = lambda_function()
        pulumi.ComponentResource("test:index:Caller", "caller", opts=pulumi.ResourceOptions(depends_on=function.grants))

    graph = run(program)
    assert "handler-logs" in graph.before(graph.one("test:index:Caller")), (
        "at its first call Lambda makes a missing log group itself, and keeps its events for ever"
    )


def test_all_parts_are_children_of_the_function(graph: Graph) -> None:
    component = graph.one("docprogress:infra:LambdaFunction")
    assert {each.parent for each in graph if each != component} == {component.urn}


def test_a_grant_is_a_child_of_who_grants_it() -> None:
    def program() -> None:
        bucket = pulumi.ComponentResource("test:index:Bucket", "bucket")
        lambda_function().grant("read-bucket", allow(["s3:GetObject"], ["arn:bucket/*"]), parent=bucket)

    graph = run(program)
    grant = graph.one("RolePolicy", "handler-read-bucket")
    assert document(grant, "policy") == allowed((["s3:GetObject"], ["arn:bucket/*"]))
    assert grant.parent == graph.one("test:index:Bucket").urn


def test_whoever_lets_a_function_be_called_can_wait_for_all_its_grants() -> None:
    def program() -> None:
        function = lambda_function()
        for intent in ("read", "write"):
            function.grant(intent, allow(["s3:GetObject"], ["arn:bucket/*"]))
        pulumi.ComponentResource("test:index:Caller", "caller", opts=pulumi.ResourceOptions(depends_on=function.grants))

    graph = run(program)
    assert set(graph.names("RolePolicy")) == {"handler-write-logs", "handler-read", "handler-write"}
    assert set(graph.names("RolePolicy")) <= graph.before(graph.one("test:index:Caller"))


@pytest.mark.parametrize("seconds", [0, -1, 901])
def test_a_timeout_that_lambda_refuses_is_refused_first(seconds: int) -> None:
    with pytest.raises(ValueError, match=rf"timeout_seconds is {seconds}; Lambda allows 1 to 900\."):
        dataclasses.replace(FUNCTION_ARGS, timeout_seconds=seconds)


@pytest.mark.parametrize("seconds", [1, 900])
def test_a_timeout_at_the_limits_is_taken(seconds: int) -> None:
    assert dataclasses.replace(FUNCTION_ARGS, timeout_seconds=seconds).timeout_seconds == seconds


def test_a_name_that_is_too_long_for_lambda_is_refused_first() -> None:
    name = "n" * 48
    sentence = (
        f"The name '{name}-function' has 57 characters; Lambda allows 56 and Pulumi's ending. Choose a shorter name"
    )
    with pytest.raises(ValueError, match=rf"^{re.escape(sentence)}"):
        run(lambda: lambda_function(name))
    assert run(lambda: lambda_function(name[1:])).of("Function")


@pytest.mark.parametrize("stack", ["dev.eu.1", "s" * 100])
def test_a_stack_of_any_name_has_functions(stack: str) -> None:
    graph = run(lambda_function, stack=stack)
    assert graph.one("LogGroup").inputs["name"] == f"/aws/lambda/{FUNCTION_NAME}"


def test_settings_reach_the_function_and_its_logs() -> None:
    settings = dataclasses.replace(FUNCTION_SETTINGS, lambda_memory_megabytes=1024, log_retention_days=365)
    graph = run(lambda: lambda_function(settings=settings))
    assert graph.one("Function").inputs["memorySize"] == 1024
    assert graph.one("LogGroup").inputs["retentionInDays"] == 365


def test_tracing_is_turned_on_with_the_right_to_write_traces_and_nothing_else() -> None:
    traced = dataclasses.replace(FUNCTION_SETTINGS, tracing=True)
    graph = run(lambda: lambda_function(settings=traced))
    assert graph.one("aws:lambda/function:Function").inputs["tracingConfig"] == {"mode": "Active"}
    assert policy(graph, "handler-write-traces") == allowed(
        (["xray:PutTelemetryRecords", "xray:PutTraceSegments"], ["*"])
    )
