"""IAM policy documents as the components write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pulumi


def allow(actions: Sequence[str], resources: Sequence[pulumi.Input[str]]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def use_key(key_arn: str, service: str) -> dict[str, Any]:
    """Let a role use a customer key through one service, such as `dynamodb`, and in no other way.

    The actions are those that DynamoDB names; S3 needs fewer.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
    """
    _, partition, _, region, *_ = key_arn.split(":")
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    return {
        **allow(
            [
                "kms:Decrypt",
                "kms:DescribeKey",
                "kms:Encrypt",
                "kms:GenerateDataKey",
                "kms:ReEncryptFrom",
                "kms:ReEncryptTo",
            ],
            [key_arn],
        ),
        "Condition": {"StringEquals": {"kms:ViaService": f"{service}.{region}.{suffix}"}},
    }


def policy_document(*statements: dict[str, Any]) -> pulumi.Output[str]:
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def service_trust(service: str) -> str:
    """The trust policy of a role that one AWS service assumes, such as `lambda.amazonaws.com`."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
        }
    )
