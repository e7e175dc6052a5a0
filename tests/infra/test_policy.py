"""The parts of IAM policies that more than one component writes.

Does not prove that IAM takes them, nor where they are used: the components' own tests do.
"""

from __future__ import annotations

import pytest

from infra.policy import use_key


@pytest.mark.parametrize(
    ("key_arn", "via"),
    [
        ("arn:aws:kms:eu-west-1:123456789012:key/0a-1", "s3.eu-west-1.amazonaws.com"),
        ("arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/0a-1", "s3.us-gov-west-1.amazonaws.com"),
        ("arn:aws-cn:kms:cn-northwest-1:123456789012:key/0a-1", "s3.cn-northwest-1.amazonaws.com.cn"),
    ],
)
def test_a_key_is_used_through_one_service_of_its_own_region_only(key_arn: str, via: str) -> None:
    statement = use_key(key_arn, "s3")
    assert (statement["Effect"], statement["Resource"]) == ("Allow", [key_arn])
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": via}}


def test_a_key_is_used_by_name_of_each_action_and_never_managed() -> None:
    actions = set(use_key("arn:aws:kms:eu-west-1:123456789012:key/0a-1", "dynamodb")["Action"])
    assert actions == {
        f"kms:{action}"
        for action in ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo")
    }
