"""What a worker outside of the stack is given: the output `workerEnvironment`, and a role with `workerPolicy` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import boto3

from local.emulator import REGION
from tests.local.conftest import DeployedStack

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
)


def worker_credentials(stack: DeployedStack, role_name: str, policy: str | None = None) -> Mapping[str, str]:
    """Of a new role that may do what the policy says, `workerPolicy` if none is given."""
    iam = stack.client("iam")
    role = iam.create_role(RoleName=role_name, AssumeRolePolicyDocument=TRUST)["Role"]
    iam.put_role_policy(RoleName=role_name, PolicyName="worker", PolicyDocument=policy or stack.outputs["workerPolicy"])
    session = stack.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="worker")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }


def worker_environment(stack: DeployedStack, role_name: str, policy: str | None = None) -> dict[str, str]:
    return {
        **stack.outputs["workerEnvironment"],
        **worker_credentials(stack, role_name, policy),
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": stack.emulator.endpoint_url,
    }


def session_of(environment: Mapping[str, str]) -> Any:
    return boto3.Session(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        environment["AWS_SESSION_TOKEN"],
        region_name=REGION,
    )
