"""The one role of an AWS account and region through which API Gateway writes logs."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from .policy import service_trust


class AccountLogging(pulumi.ComponentResource):
    """Sets the role for the whole account and region, replacing one that is set.

    All of it stays behind when the stack is destroyed: deleting the setting would stop the logs of every
    other API in the region, and so would deleting the role that the setting names.
    """

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:AccountLogging", name, None, opts)
        retained = pulumi.ResourceOptions(parent=self, retain_on_delete=True)
        role = aws.iam.Role(
            f"{name}-role",
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
        aws.apigateway.Account(
            f"{name}-account",
            cloudwatch_role_arn=role.arn,
            opts=pulumi.ResourceOptions.merge(retained, pulumi.ResourceOptions(depends_on=[attachment])),
        )
        self.register_outputs({})


def _push_to_logs_policy_arn(role_arn: str) -> str:
    # AWS's own policies live in the partition of the account: aws, aws-cn or aws-us-gov.
    partition = role_arn.split(":")[1]
    return f"arn:{partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
