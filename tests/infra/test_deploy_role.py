"""The roles of GitHub's workflows: who may take them, and that they have the rights of docs/deploy-role.json.

Does not prove that these rights are enough: a life on the real engine does (tests/engine).
"""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from infra.deploy_role import DeployRole, DeployRoleArgs
from tests.infra.samples import allowed, document, policy
from tests.mock_engine import ACCOUNT, PARTITION, PROJECT_ROOT, Graph, run, run_main
from tools.deployer_rights import EVERYTHING

PROVIDER = f"arn:{PARTITION}:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
ARGS: DeployRoleArgs = {"repository": "example/docs", "oidc_provider_arn": PROVIDER}


def roles(**changes: Any) -> Graph:
    def program() -> None:
        made = DeployRole("github", {**ARGS, **changes})  # type: ignore[typeddict-item]
        pulumi.export("preview", made.preview_role_arn)
        pulumi.export("deploy", made.deploy_role_arn)

    return run(program)


def trusted(graph: Graph, kind: str) -> Any:
    (statement,) = document(graph.one("Role", f"github-{kind}"), "assumeRolePolicy")["Statement"]
    return statement


def statements(graph: Graph, kind: str) -> list[Any]:
    """All that a role may do by the policies that are attached to it."""
    attached = {each.name for each in graph.of("RolePolicyAttachment") if each.name.endswith(f"-by-{kind}")}
    return [
        statement
        for each in graph.of("Policy")
        if f"{each.name}-by-{kind}" in attached
        for statement in document(each, "policy")["Statement"]
    ]


def test_a_role_is_taken_by_the_runs_of_one_repository_alone() -> None:
    graph = roles(environments=["dev", "prod"], branch="trunk")
    github = "token.actions.githubusercontent.com"
    subjects = {
        "preview": ["repo:example/docs:pull_request", "repo:example/docs:ref:refs/heads/trunk"],
        "deploy": ["repo:example/docs:environment:dev", "repo:example/docs:environment:prod"],
    }
    for kind, taken_by in subjects.items():
        assert trusted(graph, kind) == {
            "Effect": "Allow",
            "Principal": {"Federated": PROVIDER},
            "Action": "sts:AssumeRoleWithWebIdentity",
            # Without aud, a token for another service would do; with a * in sub, one of another repository.
            "Condition": {"StringEquals": {f"{github}:aud": "sts.amazonaws.com", f"{github}:sub": taken_by}},
        }
    assert set(graph.outputs) == {"preview", "deploy"}


def test_who_previews_reads_and_who_deploys_does_both() -> None:
    graph = roles(region="cn-north-1", project="invoices")
    rights = json.loads((PROJECT_ROOT / "docs/deploy-role.json").read_text())
    text = json.dumps([rights["preview"]["Statement"], rights["deploy"]["Statement"]])
    for word, value in (
        ("PARTITION", PARTITION),
        ("ACCOUNT", ACCOUNT),
        ("REGION", "cn-north-1"),
        ("PROJECT", "invoices"),
    ):
        text = text.replace(word, value)
    read, write = json.loads(text)
    assert statements(graph, "preview") == read
    assert statements(graph, "deploy") == read + write


def test_without_a_region_the_roles_work_in_any() -> None:
    graph = roles()
    arns = [arn for each in statements(graph, "deploy") for arn in each["Resource"]]
    assert f"arn:{PARTITION}:lambda:*:{ACCOUNT}:function:*-function-*" in arns
    assert not [arn for arn in arns if "REGION" in arn or "PROJECT" in arn]


def test_no_policy_is_longer_than_iam_takes() -> None:
    lengths = {each.name: len(each.inputs["policy"]) for each in roles(region="ap-southeast-10").of("Policy")}
    assert max(lengths.values()) <= 6144, lengths
    assert len(lengths) <= 10, "a role takes no more"


def test_the_state_in_s3_is_read_for_a_preview_and_written_by_a_deployment() -> None:
    graph = roles(state_bucket="my-state")
    bucket = f"arn:{PARTITION}:s3:::my-state"
    listing = (["s3:ListBucket"], [bucket])
    assert policy(graph, "github-preview-state") == allowed(listing, (["s3:GetObject"], [f"{bucket}/.pulumi/*"]))
    assert policy(graph, "github-deploy-state") == allowed(
        listing, (["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], [f"{bucket}/.pulumi/*"])
    )
    assert roles().of("RolePolicy") == []


def test_an_account_that_has_no_provider_yet_gets_one_that_outlives_the_roles() -> None:
    graph = roles(oidc_provider_arn=None)
    provider = graph.one("OpenIdConnectProvider")
    assert provider.inputs == {
        "url": "https://token.actions.githubusercontent.com",
        "clientIdLists": ["sts.amazonaws.com"],
    }
    assert provider.retain_on_delete, "every other workflow of the account takes it too"
    assert trusted(graph, "deploy")["Principal"] == {"Federated": provider.outputs["arn"]}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"repository": ""}, "anybody's workflows"),
        ({"repository": "example"}, "it takes OWNER/NAME"),
        ({"repository": "example/*"}, "it takes OWNER/NAME"),
        ({"environments": ["*"]}, "environments"),
        ({"environments": []}, "nobody could take"),
        ({"branch": "*"}, "branch"),
    ],
)
def test_whom_it_would_let_in_or_keep_out_by_mistake_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        roles(**wrong)


def test_the_life_whose_rights_are_recorded_has_every_kind_of_resource(everything: Graph) -> None:
    settings = {**EVERYTHING, "hostedZoneId": "Z1"}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    lived = {each.type for each in run_main("dev", texts)}
    missing = {each.type for each in everything if each.type.startswith("aws:")} - lived
    assert not missing, "add the option to EVERYTHING, and run python -m tools.deployer_rights"
