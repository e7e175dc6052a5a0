"""The parts of IAM policies that more than one component writes.

Does not prove that IAM takes them, nor where they are used: the components' own tests do.
"""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from infra.policy import policy_document, use_keys_of
from tests.mock_engine import run


def statements(regional_arn: str) -> list[dict[str, Any]]:
    def program() -> None:
        keys = use_keys_of("s3", pulumi.Output.concat(regional_arn), "aws:s3:arn", ["arn:aws:s3:::documents"])
        pulumi.export("policy", policy_document(*keys))

    parsed: list[dict[str, Any]] = json.loads(run(program).outputs["policy"])["Statement"]
    return parsed


@pytest.mark.parametrize(
    ("function_arn", "keys", "via"),
    [
        (
            "arn:aws:lambda:eu-west-1:123456789012:function:f",
            "arn:aws:kms:eu-west-1:*:key/*",
            "s3.eu-west-1.amazonaws.com",
        ),
        (
            "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f",
            "arn:aws-us-gov:kms:us-gov-west-1:*:key/*",
            "s3.us-gov-west-1.amazonaws.com",
        ),
        (
            "arn:aws-cn:lambda:cn-northwest-1:123456789012:function:f",
            "arn:aws-cn:kms:cn-northwest-1:*:key/*",
            "s3.cn-northwest-1.amazonaws.com.cn",
        ),
    ],
)
def test_a_key_is_used_for_one_bucket_through_s3_of_its_region_only(function_arn: str, keys: str, via: str) -> None:
    using, describing = statements(function_arn)
    assert using == {
        "Effect": "Allow",
        "Action": [f"kms:{each}" for each in ("Decrypt", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo")],
        "Resource": [keys],
        "Condition": {
            "StringEquals": {"kms:ViaService": via},
            "StringLike": {"kms:EncryptionContext:aws:s3:arn": ["arn:aws:s3:::documents"]},
        },
    }
    assert describing == {
        "Effect": "Allow",
        "Action": ["kms:DescribeKey"],
        "Resource": [keys],
        "Condition": {"StringEquals": {"kms:ViaService": via}},
    }
