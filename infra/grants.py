"""Gives a policy to any worker: a function of ours, one of anybody else's, a role, or a role known by name."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws

from .lambda_function import LambdaFunction
from .policy import policy_document

Grantee = LambdaFunction | aws.iam.Role | aws.lambda_.Function | str


def grant(grantee: Grantee, intent: str, *statements: dict[str, Any], parent: pulumi.Resource) -> aws.iam.RolePolicy:
    """Add a policy to the grantee's role, as a child of the component that grants.

    Args:
        grantee: a text is the name of a role.
        intent: names the policy, together with the grantee's name.
        parent: the component that grants.
    """
    role: pulumi.Input[str]
    match grantee:
        case LambdaFunction():
            return grantee.grant(intent, *statements, parent=parent)
        case aws.iam.Role():
            role = grantee.id
        case aws.lambda_.Function():
            # A function knows its role by ARN, which ends with the name, after a path perhaps.
            role = grantee.role.apply(lambda arn: arn.rpartition("/")[2])
        case str() if grantee and not {":", "/"} & set(grantee):
            role = grantee
        case _:
            raise ValueError(
                f"A grant goes to {grantee!r}; it takes a LambdaFunction, an aws.iam.Role, an aws.lambda_.Function, or"
                " the name of a role (not its ARN)."
            )
    return aws.iam.RolePolicy(
        f"{name_of(grantee)}-{intent}",
        role=role,
        policy=policy_document(*statements),
        opts=pulumi.ResourceOptions(parent=parent),
    )


def name_of(grantee: Grantee) -> str:
    """What a grantee is called in the program."""
    match grantee:
        case str():
            return grantee
        case LambdaFunction():
            return grantee.name
        case _:
            return grantee.pulumi_resource_name
