"""The account's role for the logs of API Gateway, alone and before a stage.

Does not prove that no other stack of the account sets the same role.
"""

from __future__ import annotations

from infra.account_logging import AccountLogging
from tests.infra.samples import deployed_api, document, trust
from tests.mock_engine import ACCOUNT, PARTITION, SUFFIX, run

PARTS = ("Role", "RolePolicyAttachment", "Account")


def test_api_gateway_may_push_logs_and_nothing_else() -> None:
    graph = run(lambda: AccountLogging("logging"))
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
    graph = run(lambda: AccountLogging("logging"))
    assert "logging-policy" in graph.before(graph.one("Account")), (
        "API Gateway tries the role when it is set, and refuses one that cannot write"
    )


def test_all_of_it_outlives_the_stack() -> None:
    graph = run(lambda: AccountLogging("logging"))
    assert {part: graph.one(part).retain_on_delete for part in PARTS} == dict.fromkeys(PARTS, True), (
        "without it no API of the account and region could write logs any more"
    )


def test_an_api_leaves_the_account_alone_unless_it_is_told_to_manage_it() -> None:
    graph = run(deployed_api)
    assert graph.of("Account") == []
    assert graph.of("RolePolicyAttachment") == []


def test_the_account_can_log_before_there_is_a_stage_that_does() -> None:
    graph = run(lambda: deployed_api(manage_account_logging=True))
    before = graph.before(graph.one("Stage"))
    assert {"api-account-logging-account", "api-account-logging-policy"} <= before, (
        "API Gateway refuses a stage with logs while the account has no role for them"
    )
