"""IAM policy documents as the components write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pulumi


def allow(actions: Sequence[str], resources: Sequence[pulumi.Input[str]]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def use_keys_of(
    service: str, regional_arn: pulumi.Output[str], encryption_context: str, values: Sequence[pulumi.Input[str]]
) -> list[dict[str, Any]]:
    """Let a role use the customer keys of one table or bucket through its service, and in no other way.

    The keys are named by what they encrypt. So the grant is there before a key is, it follows the resource to another
    key, and it goes on to open what was written under an earlier one. Without a customer key it allows nothing.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html

    Args:
        service: `dynamodb` or `s3`.
        regional_arn: of anything in the same region.
        encryption_context: what the service tells KMS about the resource, such as `aws:s3:arn`.
        values: of the encryption context, with * for any characters.
    """
    keys = regional_arn.apply(lambda arn: "arn:{1}:kms:{3}:*:key/*".format(*arn.split(":")))
    # In every partition but China's the domain is the same.
    via = regional_arn.apply(
        lambda arn: f"{service}.{arn.split(':')[3]}.amazonaws.com" + (".cn" if arn.startswith("arn:aws-cn:") else "")
    )
    through_service = {"StringEquals": {"kms:ViaService": via}}
    return [
        {
            **allow(
                ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"], [keys]
            ),
            "Condition": {
                **through_service,
                "StringLike": {f"kms:EncryptionContext:{encryption_context}": list(values)},
            },
        },
        # It tells KMS of no encryption context.
        {**allow(["kms:DescribeKey"], [keys]), "Condition": through_service},
    ]


def policy_document(*statements: dict[str, Any]) -> pulumi.Output[str]:
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def service_trust(service: str) -> str:
    """The trust policy of a role that one AWS service assumes, such as `lambda.amazonaws.com`."""
    return json.dumps({"Version": "2012-10-17", "Statement": [_trust(service)]})


def service_trust_of(service: str, own_arn: pulumi.Output[str]) -> pulumi.Output[str]:
    """The same for a service that tells IAM on whose behalf it comes: on behalf of the account of own_arn alone.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
    """
    account = own_arn.apply(lambda arn: arn.split(":")[4])
    return policy_document({**_trust(service), "Condition": {"StringEquals": {"aws:SourceAccount": account}}})


def _trust(service: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
