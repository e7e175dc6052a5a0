"""docs/deploy-role.json: that it splits reading from writing, names what can be named, and fits into policies.

Does not prove that it is enough, or that nothing is too much: `python -m tools.deployer_rights` writes it from what the
real provider asked for, and a life on the real engine is lived with it (tests/engine).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools.deployer_rights import FILE, policies

RIGHTS: dict[str, Any] = json.loads(FILE.read_text())


def actions(kind: str) -> set[str]:
    return {action for each in RIGHTS[kind]["Statement"] for action in each["Action"]}


def test_who_previews_changes_nothing() -> None:
    reading = ("Get", "List", "Describe")
    assert [each for each in actions("preview") if not each.partition(":")[2].startswith(reading)] == ["apigateway:GET"]


def test_nobody_but_the_stack_reads_documents() -> None:
    for kind in RIGHTS:
        for statement in RIGHTS[kind]["Statement"]:
            if "s3:GetObject" in statement["Action"]:
                assert statement["Resource"] == ["arn:PARTITION:s3:::*site-bucket-*/*"], "a pull request's code would"


def test_what_both_may_is_said_once() -> None:
    assert actions("preview") & actions("deploy") == {"kms:DescribeKey"}, "for DynamoDB, of a key of somebody's own"


def test_every_action_is_named_and_every_resource_that_has_a_name() -> None:
    for kind in RIGHTS:
        for statement in RIGHTS[kind]["Statement"]:
            assert not [each for each in statement["Action"] if "*" in each]
            for resource in statement["Resource"]:
                assert resource == "*" or resource.startswith("arn:PARTITION:"), resource


def test_a_role_is_passed_to_the_two_services_that_take_one_and_to_no_other() -> None:
    (passing,) = [each for each in RIGHTS["deploy"]["Statement"] if "iam:PassRole" in each["Action"]]
    assert passing["Action"] == ["iam:PassRole"]
    assert passing["Condition"] == {
        "StringEquals": {"iam:PassedToService": ["apigateway.amazonaws.com", "lambda.amazonaws.com"]}
    }
    assert "*" not in passing["Resource"]


def test_a_record_becomes_both_policies() -> None:
    made = policies({"sqs:GetQueueAttributes", "iam:GetUser"}, {"sqs:GetQueueAttributes", "sqs:CreateQueue"})
    queues = ["arn:PARTITION:sqs:REGION:ACCOUNT:*-failures-*"]
    (read,) = made["preview"]["Statement"]
    assert read == {"Effect": "Allow", "Action": ["sqs:GetQueueAttributes"], "Resource": queues}
    # AWS asks for the right to tag as well, where something is made with tags.
    assert made["deploy"]["Statement"][0] == {
        "Effect": "Allow",
        "Action": ["sqs:CreateQueue", "sqs:SetQueueAttributes", "sqs:TagQueue", "sqs:UntagQueue"],
        "Resource": queues,
    }


def test_a_service_that_is_new_must_be_placed() -> None:
    with pytest.raises(ValueError, match="ecs:CreateCluster is new"):
        policies(set(), {"ecs:CreateCluster"})
