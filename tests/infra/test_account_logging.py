"""The account's role for the logs of API Gateway, alone and before a stage.

Does not prove that no other stack of the account sets the same role.
"""

from __future__ import annotations

from typing import Any

from infra.account_logging import AccountLogging
from tests.infra.samples import deployed_api, document, trust
from tests.mock_engine import ACCOUNT, PARTITION, SUFFIX, Graph, run

PARTS = ("Role", "RolePolicyAttachment", "Account")


def test_api_gateway_may_push_logs_and_nothing_else() -> None:
    graph = run(lambda: AccountLogging("logging", "/ours/"))
    role = graph.one("Role")
    assert document(role, "assumeRolePolicy") == trust("apigateway.amazonaws.com")
    assert graph.one("RolePolicyAttachment").inputs == {
        "role": f"logging-role-{SUFFIX}",
        "policyArn": f"arn:{PARTITION}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs",
    }
    assert graph.one("Account").inputs == {
        "cloudwatchRoleArn": f"arn:{PARTITION}:iam::{ACCOUNT}:role/logging-role-{SUFFIX}"
    }
    assert graph.of("RolePolicy") == []


def test_the_role_can_write_before_the_account_names_it() -> None:
    graph = run(lambda: AccountLogging("logging", "/ours/"))
    assert "logging-policy" in graph.before(graph.one("Account")), (
        "API Gateway tries the role when it is set, and refuses one that cannot write"
    )


def test_all_of_it_outlives_the_stack() -> None:
    graph = run(lambda: AccountLogging("logging", "/ours/"))
    assert {part: graph.one(part).retain_on_delete for part in PARTS} == dict.fromkeys(PARTS, True), (
        "without it no API of the account and region could write logs any more"
    )


def having(role_arn: str) -> Graph:
    """An API in an account whose role for logs is that one."""
    return run(deployed_api, answers={"api-account-logging-found": {"cloudwatchRoleArn": role_arn}})


def parts(graph: Graph) -> dict[str, Any]:
    return {each.urn: each.inputs for each in graph if "account-logging" in each.name}


def test_a_role_that_the_account_has_is_left_alone() -> None:
    graph = having(f"arn:{PARTITION}:iam::{ACCOUNT}:role/docprogress/another-api-id/api-account-logging-role-5f6a7b8")
    assert (graph.of("Account"), graph.of("RolePolicyAttachment")) == ([], []), "every API of the region uses it"


def test_an_account_without_a_role_gets_one_before_there_is_a_stage_with_logs() -> None:
    graph = having("")
    before = graph.before(graph.one("Stage"))
    assert {"api-account-logging-account", "api-account-logging-policy"} <= before, (
        "API Gateway refuses a stage with logs while the account has no role for them"
    )


def test_the_role_that_an_api_made_stays_in_its_stack() -> None:
    made = having("")
    role_arn = f"arn:{PARTITION}:iam::{ACCOUNT}:role{made.one('Role', 'api-account-logging-role').inputs['path']}made"
    assert parts(having(role_arn)) == parts(made), "the next plan would drop it"
    assert len(parts(made)) == 1 + len(PARTS)


def test_an_account_that_is_not_managed_is_not_even_looked_at() -> None:
    graph = run(
        lambda: deployed_api(manage_account_logging=False),
        answers={"api-account-logging-found": {"cloudwatchRoleArn": ""}},
    )
    assert graph.of("Account") == []
