"""IAM, KMS and Cognito."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.creators.creation import Creation, Kind, translate

_SECOND_FACTOR = "mfaConfiguration softwareTokenMfaConfiguration"


def _role(creation: Creation, name: str, _answer: Mapping[str, Any]) -> None:
    iam = creation.aws["iam"]
    for policy in creation.inputs.get("inlinePolicies", []):
        iam.put_role_policy(RoleName=name, PolicyName=policy["name"], PolicyDocument=policy["policy"])
    for policy_arn in creation.inputs.get("managedPolicyArns", []):
        iam.attach_role_policy(RoleName=name, PolicyArn=policy_arn)


def _key(creation: Creation, _name: str, answer: Mapping[str, Any]) -> None:
    kms, inputs, key_id = creation.aws["kms"], creation.inputs, answer["KeyId"]
    if inputs.get("enableKeyRotation"):
        period = inputs.get("rotationPeriodInDays")
        kms.enable_key_rotation(KeyId=key_id, **({"RotationPeriodInDays": period} if period else {}))
    if inputs.get("isEnabled") is False:
        kms.disable_key(KeyId=key_id)


def _alias(creation: Creation, _name: str, _answer: Mapping[str, Any]) -> Mapping[str, Any]:
    key = creation.aws["kms"].describe_key(KeyId=creation.inputs["targetKeyId"])["KeyMetadata"]
    return {"targetKeyArn": key["Arn"]}


def _user_pool(creation: Creation, _name: str, answer: Mapping[str, Any]) -> None:
    # As the provider does: CreateUserPool knows no second factor but SMS.
    cognito = creation.aws["cognito-idp"]
    shape = cognito.meta.service_model.operation_model("SetUserPoolMfaConfig").input_shape
    inputs = {key: creation.inputs[key] for key in _SECOND_FACTOR.split() if key in creation.inputs}
    cognito.set_user_pool_mfa_config(UserPoolId=answer["Id"], **translate(inputs, shape, {}))


KINDS = {
    "aws:iam/role:Role": Kind(
        "iam.CreateRole",
        "{name}",
        name="RoleName",
        fields={"assumeRolePolicy": "AssumeRolePolicyDocument"},
        handled="inlinePolicies managedPolicyArns",
        outputs={"uniqueId": "{RoleId}"},
        then=_role,
    ),
    "aws:iam/rolePolicy:RolePolicy": Kind(
        "iam.PutRolePolicy", "{role}:{name}", name="PolicyName", fields={"policy": "PolicyDocument", "role": "RoleName"}
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Kind(
        "iam.AttachRolePolicy", "{role}/{policyArn}", fields={"role": "RoleName"}
    ),
    "aws:kms/key:Key": Kind(
        "kms.CreateKey",
        "{KeyId}",
        fields={"customerMasterKeySpec": "KeySpec"},
        handled="enableKeyRotation rotationPeriodInDays isEnabled",
        then=_key,
    ),
    "aws:kms/alias:Alias": Kind(
        "kms.CreateAlias",
        "{name}",
        name="AliasName",
        outputs={"arn": "arn:aws:kms:{region}:{account}:{name}"},
        then=_alias,
    ),
    "aws:cognito/userPool:UserPool": Kind(
        "cognito-idp.CreateUserPool",
        "{Id}",
        name="PoolName",
        fields={"passwordPolicy": "Policies.PasswordPolicy", "tags": "UserPoolTags"},
        handled=_SECOND_FACTOR,
        outputs={"endpoint": "cognito-idp.{region}.amazonaws.com/{Id}"},
        then=_user_pool,
    ),
    "aws:cognito/userPoolClient:UserPoolClient": Kind(
        "cognito-idp.CreateUserPoolClient", "{ClientId}", name="ClientName"
    ),
    "aws:cognito/userPoolDomain:UserPoolDomain": Kind(
        "cognito-idp.CreateUserPoolDomain",
        "{domain}",
        fields={"certificateArn": "CustomDomainConfig.CertificateArn"},
        outputs={"awsAccountId": "{account}", "version": "1"},
    ),
}
