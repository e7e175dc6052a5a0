"""The worker of this program, made of plain AWS resources."""

import json

import pulumi
import pulumi_aws as aws


class InvoiceReader(pulumi.ComponentResource):
    role: aws.iam.Role
    function_name: pulumi.Output[str]

    def __init__(self, name: str, environment: pulumi.Input[dict[str, str]]) -> None:
        super().__init__("invoices:infra:InvoiceReader", name)
        child = pulumi.ResourceOptions(parent=self)
        self.role = aws.iam.Role(
            f"{name}-role",
            assume_role_policy=json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "lambda.amazonaws.com"},
                            "Action": "sts:AssumeRole",
                        }
                    ],
                }
            ),
            opts=child,
        )
        function = aws.lambda_.Function(
            f"{name}-function",
            role=self.role.arn,
            runtime="python3.13",
            handler="handler.handler",
            code=pulumi.AssetArchive(
                {
                    "handler.py": pulumi.FileAsset("worker/handler.py"),
                    "docprogress": pulumi.FileArchive("../../library/docprogress"),
                }
            ),
            timeout=60,
            memory_size=256,
            environment={"variables": environment},
            opts=child,
        )
        self.function_name = function.name
        self.register_outputs({"function_name": self.function_name})
