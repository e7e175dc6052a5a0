"""The one role of an account and region through which API Gateway writes logs: the one that is set, or a new one."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from .policy import service_trust

# There is one for the account and region, so it needs no name; Terraform's provider calls it this.
_ACCOUNT_ID = "api-gateway-account"


def account_logging_role(
    name: str, api_id: pulumi.Output[str], *, parent: pulumi.Resource
) -> pulumi.Output[str | None]:
    """The ARN of the account's role, known once API Gateway can write logs.

    A role that is set already is left alone. One that this API set stays in its stack.

    Args:
        api_id: names the roles that are made for this API.
    """
    found = aws.apigateway.Account.get(f"{name}-found", _ACCOUNT_ID, opts=pulumi.ResourceOptions(parent=parent))
    path = pulumi.Output.concat("/docprogress/", api_id, "/")

    def made() -> pulumi.Output[str | None]:
        return AccountLogging(name, path, pulumi.ResourceOptions(parent=parent)).role_arn

    def kept_or_made(role_arn: str | None) -> pulumi.Output[str | None]:
        if not role_arn:
            return made()
        # The next `up` finds the role that this one made, and would drop it from the stack if it did not declare it.
        return path.apply(lambda ours: made() if f":role{ours}" in role_arn else pulumi.Output.from_input(role_arn))

    return found.cloudwatch_role_arn.apply(kept_or_made)


class AccountLogging(pulumi.ComponentResource):
    """Sets the role for the whole account and region.

    All of it stays behind when the stack is destroyed: deleting the setting would stop the logs of every
    other API in the region, and so would deleting the role that the setting names.
    """

    role_arn: pulumi.Output[str | None]
    """The ARN of the role, known once the account names it."""

    def __init__(self, name: str, path: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None) -> None:
        """
        Args:
            path: stands in the ARN of the role, before its name.
        """
        super().__init__("docprogress:infra:AccountLogging", name, None, opts)
        retained = pulumi.ResourceOptions(parent=self, retain_on_delete=True)
        role = aws.iam.Role(
            f"{name}-role",
            path=path,
            description="Through which API Gateway writes logs, for the whole account and region",
            assume_role_policy=service_trust("apigateway.amazonaws.com"),
            opts=retained,
        )
        attachment = aws.iam.RolePolicyAttachment(
            f"{name}-policy",
            role=role.name,
            policy_arn=role.arn.apply(_push_to_logs_policy_arn),
            opts=retained,
        )
        account = aws.apigateway.Account(
            f"{name}-account",
            cloudwatch_role_arn=role.arn,
            opts=pulumi.ResourceOptions.merge(retained, pulumi.ResourceOptions(depends_on=[attachment])),
        )
        self.role_arn = account.cloudwatch_role_arn
        self.register_outputs({})


def _push_to_logs_policy_arn(role_arn: str) -> str:
    # AWS's own policies live in the partition of the account: aws, aws-cn or aws-us-gov.
    partition = role_arn.split(":")[1]
    return f"arn:{partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
