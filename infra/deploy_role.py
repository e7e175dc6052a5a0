"""The roles with which GitHub's workflows preview and deploy: docs/deploy-role.json, behind GitHub's OIDC provider.

No `from __future__ import annotations` here: Pulumi reads the annotations of the arguments to make the SDKs of other
languages, and a text is no type to it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import pulumi
import pulumi_aws as aws

from .lambda_package import PROJECT
from .policy import allow, policy_document
from .rules import Rule, checked, list_of, matching

_RIGHTS = PROJECT / "docs" / "deploy-role.json"
_GITHUB = "token.actions.githubusercontent.com"
_AUDIENCE = "sts.amazonaws.com"
# IAM takes 6,144, and accounts and regions are longer than the words that stand for them.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
_PORTION_CHARACTERS = 5000
# What is taken of a name in an ARN, and by GitHub.
_WORD = r"[A-Za-z0-9_.-]+"


class DeployRoleArgs(TypedDict, total=False):
    """Every argument but repository may be left out."""

    repository: str
    """The repository whose workflows take the roles: OWNER/NAME."""
    environments: list[str]
    """GitHub's environments that may deploy; each is named after its stack. Only dev by default."""
    branch: str
    """The branch whose nightly runs may preview, besides all pull requests. main by default."""
    project: str
    """The name in Pulumi.yaml, with which names of alarms and dashboards begin. docprogress by default."""
    region: str
    """The only region to deploy to. Any by default."""
    state_bucket: pulumi.Input[str]
    """The bucket with Pulumi's state, where it is in S3."""
    oidc_provider_arn: pulumi.Input[str]
    """The account's provider for GitHub's tokens, of which there can be one. It is made by default."""


_RULES: Mapping[str, Rule] = {
    "repository": matching("OWNER/NAME", rf"{_WORD}/{_WORD}", "example/docprogress"),
    "environments": list_of(matching("names of environments", rf"{_WORD}", "prod")),
    "branch": matching("the name of a branch", r"[A-Za-z0-9_./-]+", "main"),
    "project": matching("the name of a Pulumi project", _WORD, "docprogress"),
    "region": matching("a region", r"[a-z]{2}(-[a-z]+)+-[0-9]+", "eu-central-1"),
    "oidc_provider_arn": matching(
        "the ARN of a provider for GitHub's tokens",
        rf"arn:aws[a-z-]*:iam::[0-9]{{12}}:oidc-provider/{_GITHUB}",
        f"arn:aws:iam::123456789012:oidc-provider/{_GITHUB}",
    ),
    "state_bucket": matching("the name of a bucket", r"[a-z0-9.-]{3,63}", "my-state-bucket"),
}
_DEFAULTS: Mapping[str, Any] = {
    "repository": "",
    "environments": ["dev"],
    "branch": "main",
    "project": "docprogress",
    "region": "",
    "state_bucket": "",
    "oidc_provider_arn": "",
}


class DeployRole(pulumi.ComponentResource):
    """What GitHub's workflows may do in the account: one role that only reads, for previews, and one that deploys.

    ```python
    roles = DeployRole("github", {"repository": "example/docprogress", "environments": ["dev", "prod"]})
    pulumi.export("deployRoleArn", roles.deploy_role_arn)
    ```
    """

    preview_role_arn: pulumi.Output[str]
    """The role of pull requests and of the nightly preview."""
    deploy_role_arn: pulumi.Output[str]
    """The role of the environments."""

    def __init__(
        self,
        name: str,
        args: DeployRoleArgs = {},  # noqa: B006 - Pulumi reads the type, and nothing writes to the value
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("docprogress:index:DeployRole", name, None, opts)
        self._name = name
        self._args = given = checked(args, _RULES, _DEFAULTS)
        if not given["repository"]:
            raise ValueError("repository is empty; it takes OWNER/NAME, or anybody's workflows could take the roles.")
        if not given["environments"]:
            raise ValueError("environments is empty; without one, nobody could take the role that deploys.")
        self._child = pulumi.ResourceOptions(parent=self)
        self._provider_arn = self._oidc_provider()
        repository = f"repo:{given['repository']}"
        rights = json.loads(_RIGHTS.read_text())
        read, write = self._policies("read", rights["preview"]), self._policies("write", rights["deploy"])
        self.preview_role_arn = self._role(
            "preview",
            [f"{repository}:pull_request", f"{repository}:ref:refs/heads/{given['branch']}"],
            read,
            state_actions=["s3:GetObject"],
        )
        self.deploy_role_arn = self._role(
            "deploy",
            [f"{repository}:environment:{environment}" for environment in given["environments"]],
            [*read, *write],
            state_actions=["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        )
        self.register_outputs({"preview_role_arn": self.preview_role_arn, "deploy_role_arn": self.deploy_role_arn})

    def _oidc_provider(self) -> pulumi.Output[str]:
        if self._args["oidc_provider_arn"] != "":
            return pulumi.Output.from_input(self._args["oidc_provider_arn"])
        # Whoever deletes it locks every workflow of the account out.
        return aws.iam.OpenIdConnectProvider(
            f"{self._name}-provider",
            url=f"https://{_GITHUB}",
            client_id_lists=[_AUDIENCE],
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        ).arn

    def _policies(self, part: str, document: Mapping[str, Any]) -> list[aws.iam.Policy]:
        return [
            aws.iam.Policy(
                f"{self._name}-{part}-{number}",
                policy=pulumi.Output.all(self._provider_arn, statements).apply(lambda known: self._filled_in(*known)),
                opts=self._child,
            )
            for number, statements in enumerate(_in_portions(document["Statement"]), 1)
        ]

    def _role(
        self, kind: str, subjects: Sequence[str], policies: Sequence[aws.iam.Policy], *, state_actions: Sequence[str]
    ) -> pulumi.Output[str]:
        """
        Args:
            subjects: the runs that may take the role, as the `sub` of their tokens says.
            state_actions: on Pulumi's state.
        """
        trust = {
            "Effect": "Allow",
            "Principal": {"Federated": self._provider_arn},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {f"{_GITHUB}:aud": _AUDIENCE, f"{_GITHUB}:sub": list(subjects)}},
        }
        role = aws.iam.Role(
            f"{self._name}-{kind}",
            description=f"With which the workflows of {self._args['repository']} {kind} docprogress",
            assume_role_policy=policy_document(trust),
            opts=self._child,
        )
        for policy in policies:
            aws.iam.RolePolicyAttachment(
                f"{policy.pulumi_resource_name}-by-{kind}", role=role.name, policy_arn=policy.arn, opts=self._child
            )
        if (bucket := self._args["state_bucket"]) != "":
            partition = self._provider_arn.apply(lambda arn: arn.split(":")[1])
            bucket_arn = pulumi.Output.concat("arn:", partition, ":s3:::", bucket)
            aws.iam.RolePolicy(
                f"{self._name}-{kind}-state",
                role=role.id,
                policy=policy_document(
                    allow(["s3:ListBucket"], [bucket_arn]),
                    allow(state_actions, [pulumi.Output.concat(bucket_arn, "/.pulumi/*")]),
                ),
                opts=self._child,
            )
        return role.arn

    def _filled_in(self, provider_arn: str, statements: Sequence[Any]) -> str:
        """A policy for this account, without blanks."""
        _, partition, _, _, account, *_ = provider_arn.split(":")
        text = _as_text({"Version": "2012-10-17", "Statement": statements})
        for word, value in (
            ("PARTITION", partition),
            ("ACCOUNT", account),
            ("REGION", self._args["region"] or "*"),
            ("PROJECT", self._args["project"]),
        ):
            text = text.replace(word, value)
        return text


def _in_portions(statements: Sequence[Any]) -> list[list[Any]]:
    """What fits into one policy each."""
    portions: list[list[Any]] = [[]]
    for statement in statements:
        if len(_as_text([*portions[-1], statement])) > _PORTION_CHARACTERS:
            portions.append([])
        portions[-1].append(statement)
    return portions


def _as_text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
