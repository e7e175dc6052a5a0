"""Functions whose published versions are called: the whole program with SnapStart and with provisioned concurrency.

Does not prove that AWS takes a snapshot, nor that a function survives being restored: tests/functions/test_sandbox.py.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.infra.conftest import EVERYTHING
from tests.infra.samples import allowed, document_progress, policy
from tests.mock_engine import SUFFIX, Graph, arn, run, run_main

# What names the function that it calls, or whose calls it is about.
CALLERS = ("Integration", "Authorizer", "EventTarget", "EventSourceMapping", "BucketNotification", "RolePolicy")


@pytest.fixture(scope="module")
def snapshots() -> Graph:
    return run_main("dev", {**EVERYTHING, "snapStart": "true", "provisionedConcurrency": "3"})


def alias_of(function: str) -> str:
    return f"{function}-live-{SUFFIX}"


def test_every_function_starts_from_a_snapshot_but_the_one_with_provisioned_concurrency(snapshots: Graph) -> None:
    functions = snapshots.of("aws:lambda/function:Function")
    assert len(functions) >= 8
    for function in functions:
        assert function.inputs["publish"] is True, function.name
        snap_start = None if function.name == "connection-handler-function" else {"applyOn": "PublishedVersions"}
        assert function.inputs.get("snapStart") == snap_start, "Lambda takes one of the two for a version"


def test_whatever_calls_a_function_calls_its_published_version(snapshots: Graph) -> None:
    found: set[str] = set()
    for kind in CALLERS:
        for caller in snapshots.of(kind):
            named = re.findall(r":function:([a-z-]+)-function-1a2b3c4(:[\w-]+)?", json.dumps(caller.inputs))
            for function, qualifier in named:
                assert qualifier == f":{alias_of(function)}", f"{caller.name} calls what has no snapshot"
                found.add(f"{function}-function")
    assert found == set(snapshots.names("aws:lambda/function:Function"))
    for caller in (*snapshots.of("Permission"), *snapshots.of("FunctionEventInvokeConfig")):
        function = str(caller.inputs.get("function", caller.inputs.get("functionName")))
        assert caller.inputs["qualifier"] == alias_of(function.removesuffix(f"-function-{SUFFIX}")), caller.name


def test_the_api_may_invoke_the_published_versions_and_nothing_else(snapshots: Graph) -> None:
    called = [
        arn("lambda", f"function:{function}-function-{SUFFIX}:{alias_of(function)}")
        for function in ("token-authorizer", "connection-handler")
    ]
    granted = policy(snapshots, "api-invoke-functions")
    assert sorted(granted["Statement"][0].pop("Resource")) == sorted(called)
    expected = allowed((["lambda:InvokeFunction"], []))
    del expected["Statement"][0]["Resource"]
    assert granted == expected


def test_the_rest_of_the_program_stays_as_it_was(snapshots: Graph, everything: Graph) -> None:
    added = {each.name for each in snapshots} - {each.name for each in everything}
    functions = snapshots.names("aws:lambda/function:Function")
    assert added == {*(each.replace("-function", "-live") for each in functions), "connection-handler-provisioned"}
    assert {each.name for each in everything} <= {each.name for each in snapshots}
    kept = ("Table", "Bucket", "Api", "Stage", "Role", "LogGroup", "MetricAlarm", "Dashboard", "QueryDefinition")
    for kind in kept:
        assert [each.inputs for each in snapshots.of(kind)] == [each.inputs for each in everything.of(kind)], kind
    assert snapshots.outputs == everything.outputs


def test_an_alias_that_is_given_up_stays_for_the_events_that_lambda_holds_for_it(snapshots: Graph) -> None:
    assert all(each.retain_on_delete for each in snapshots.of("Alias"))


def test_provisioned_concurrency_is_the_connection_handlers_alone() -> None:
    graph = run(lambda: document_progress(provisioned_concurrency=3))
    assert graph.one("ProvisionedConcurrencyConfig").inputs == {
        "functionName": f"connection-handler-function-{SUFFIX}",
        "qualifier": alias_of("connection-handler"),
        "provisionedConcurrentExecutions": 3,
    }
    functions = graph.of("aws:lambda/function:Function")
    assert [each.name for each in functions if each.inputs.get("publish")] == ["connection-handler-function"]
    assert all("snapStart" not in each.inputs for each in functions)
