"""IAM, KMS and Cognito."""

from .creation import (
    ACCOUNT,
    REGION,
    Created,
    Creation,
    Creator,
    arn,
    json_text,
    pascal,
    record,
    records,
    tag_list,
)


def role(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal("description maxSessionDuration path permissionsBoundary")
        | {
            "name": "RoleName",
            "assumeRolePolicy": ("AssumeRolePolicyDocument", json_text),
            "tags": ("Tags", tag_list),
        },
        handled="namePrefix inlinePolicies managedPolicyArns",
        ignored={"forceDetachPolicies": "nothing is destroyed one by one"},
    )
    iam = creation.aws["iam"]
    answer = iam.create_role(**{**request, "RoleName": name})["Role"]
    for policy in creation.inputs.get("inlinePolicies", []):
        iam.put_role_policy(RoleName=name, PolicyName=policy["name"], PolicyDocument=json_text(policy["policy"]))
    for policy_arn in creation.inputs.get("managedPolicyArns", []):
        iam.attach_role_policy(RoleName=name, PolicyArn=policy_arn)
    return creation.created(
        name,
        name=name,
        arn=answer["Arn"],
        uniqueId=answer["RoleId"],
        createDate=answer["CreateDate"].isoformat(),
    )


def role_policy(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        {"name": "PolicyName", "policy": ("PolicyDocument", json_text), "role": "RoleName"},
        handled="namePrefix",
    )
    creation.aws["iam"].put_role_policy(**{**request, "PolicyName": name})
    return creation.created(f"{request['RoleName']}:{name}", name=name)


def role_policy_attachment(creation: Creation) -> Created:
    request = creation.request({"policyArn": "PolicyArn", "role": "RoleName"})
    creation.aws["iam"].attach_role_policy(**request)
    return creation.created(f"{request['RoleName']}/{request['PolicyArn']}")


def key(creation: Creation) -> Created:
    request = creation.request(
        pascal("bypassPolicyLockoutSafetyCheck description keyUsage multiRegion")
        | {
            "customerMasterKeySpec": "KeySpec",
            "policy": ("Policy", json_text),
            "tags": (
                "Tags",
                lambda tags: [{"TagKey": name, "TagValue": value} for name, value in tags.items()],
            ),
        },
        handled="enableKeyRotation rotationPeriodInDays isEnabled",
        ignored={"deletionWindowInDays": "nothing is destroyed one by one"},
    )
    kms = creation.aws["kms"]
    answer = kms.create_key(**request)["KeyMetadata"]
    key_id = answer["KeyId"]
    if creation.inputs.get("enableKeyRotation"):
        period = creation.inputs.get("rotationPeriodInDays")
        kms.enable_key_rotation(KeyId=key_id, **({"RotationPeriodInDays": period} if period else {}))
    if creation.inputs.get("isEnabled") is False:
        kms.disable_key(KeyId=key_id)
    return creation.created(key_id, keyId=key_id, arn=answer["Arn"])


def alias(creation: Creation) -> Created:
    name = creation.physical_name()
    if not name.startswith("alias/"):
        name = f"alias/{name}"
    request = creation.request({"name": "AliasName", "targetKeyId": "TargetKeyId"}, handled="namePrefix")
    kms = creation.aws["kms"]
    kms.create_alias(**{**request, "AliasName": name})
    target = kms.describe_key(KeyId=request["TargetKeyId"])["KeyMetadata"]["Arn"]
    return creation.created(name, name=name, arn=arn("kms", name), targetKeyArn=target)


def user_pool(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal(
            "aliasAttributes autoVerifiedAttributes deletionProtection emailVerificationMessage "
            "emailVerificationSubject smsAuthenticationMessage smsVerificationMessage "
            "usernameAttributes userPoolTier"
        )
        | {
            "name": "PoolName",
            "tags": "UserPoolTags",
            "accountRecoverySetting": (
                "AccountRecoverySetting",
                record({"recoveryMechanisms": ("RecoveryMechanisms", records(pascal("name priority")))}),
            ),
            "adminCreateUserConfig": (
                "AdminCreateUserConfig",
                record(
                    pascal("allowAdminCreateUserOnly")
                    | {
                        "inviteMessageTemplate": (
                            "InviteMessageTemplate",
                            record(
                                {
                                    "emailMessage": "EmailMessage",
                                    "emailSubject": "EmailSubject",
                                    "smsMessage": "SMSMessage",
                                }
                            ),
                        )
                    }
                ),
            ),
            "passwordPolicy": ("Policies", lambda policy: {"PasswordPolicy": _PASSWORD_POLICY(policy)}),
            "schemas": (
                "Schema",
                records(
                    pascal("attributeDataType developerOnlyAttribute mutable name required")
                    | {
                        "numberAttributeConstraints": (
                            "NumberAttributeConstraints",
                            record(pascal("maxValue minValue")),
                        ),
                        "stringAttributeConstraints": (
                            "StringAttributeConstraints",
                            record(pascal("maxLength minLength")),
                        ),
                    }
                ),
            ),
            "usernameConfiguration": ("UsernameConfiguration", record(pascal("caseSensitive"))),
            "userAttributeUpdateSettings": (
                "UserAttributeUpdateSettings",
                record({"attributesRequireVerificationBeforeUpdates": "AttributesRequireVerificationBeforeUpdate"}),
            ),
            "verificationMessageTemplate": (
                "VerificationMessageTemplate",
                record(
                    pascal(
                        "defaultEmailOption emailMessage emailMessageByLink emailSubject emailSubjectByLink smsMessage"
                    )
                ),
            ),
        },
        handled="mfaConfiguration softwareTokenMfaConfiguration",
    )
    cognito = creation.aws["cognito-idp"]
    answer = cognito.create_user_pool(**{**request, "PoolName": name})["UserPool"]
    # As the provider does: CreateUserPool knows no second factor but SMS.
    mfa = creation.request(
        {
            "mfaConfiguration": "MfaConfiguration",
            "softwareTokenMfaConfiguration": ("SoftwareTokenMfaConfiguration", record(pascal("enabled"))),
        },
        handled=" ".join(creation.inputs.keys() - {"mfaConfiguration", "softwareTokenMfaConfiguration"}),
    )
    cognito.set_user_pool_mfa_config(UserPoolId=answer["Id"], **mfa)
    return creation.created(
        answer["Id"],
        name=name,
        arn=answer["Arn"],
        endpoint=f"cognito-idp.{REGION}.amazonaws.com/{answer['Id']}",
        creationDate=answer["CreationDate"].isoformat(),
        lastModifiedDate=answer["LastModifiedDate"].isoformat(),
    )


_PASSWORD_POLICY = record(
    pascal("minimumLength passwordHistorySize requireLowercase requireNumbers requireSymbols requireUppercase")
    | pascal("temporaryPasswordValidityDays")
)


def user_pool_client(creation: Creation) -> Created:
    name = creation.physical_name()
    request = creation.request(
        pascal(
            "accessTokenValidity allowedOauthFlows allowedOauthScopes authSessionValidity defaultRedirectUri "
            "enablePropagateAdditionalUserContextData enableTokenRevocation explicitAuthFlows generateSecret "
            "idTokenValidity preventUserExistenceErrors readAttributes refreshTokenValidity "
            "supportedIdentityProviders userPoolId writeAttributes"
        )
        | {
            "name": "ClientName",
            "allowedOauthFlows": "AllowedOAuthFlows",
            "allowedOauthFlowsUserPoolClient": "AllowedOAuthFlowsUserPoolClient",
            "allowedOauthScopes": "AllowedOAuthScopes",
            "callbackUrls": "CallbackURLs",
            "defaultRedirectUri": "DefaultRedirectURI",
            "logoutUrls": "LogoutURLs",
            "refreshTokenRotation": (
                "RefreshTokenRotation",
                record(pascal("feature retryGracePeriodSeconds")),
            ),
            "tokenValidityUnits": ("TokenValidityUnits", record(pascal("accessToken idToken refreshToken"))),
        }
    )
    cognito = creation.aws["cognito-idp"]
    answer = cognito.create_user_pool_client(**{**request, "ClientName": name})["UserPoolClient"]
    return creation.created(answer["ClientId"], name=name, clientSecret=answer.get("ClientSecret"))


def user_pool_domain(creation: Creation) -> Created:
    request = creation.request(
        pascal("domain managedLoginVersion userPoolId")
        | {"certificateArn": ("CustomDomainConfig", lambda value: {"CertificateArn": value})}
    )
    answer = creation.aws["cognito-idp"].create_user_pool_domain(**request)
    distribution = answer.get("CloudFrontDomain", "")
    return creation.created(request["Domain"], awsAccountId=ACCOUNT, cloudfrontDistribution=distribution, version="1")


CREATORS: dict[str, Creator] = {
    "aws:iam/role:Role": role,
    "aws:iam/rolePolicy:RolePolicy": role_policy,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": role_policy_attachment,
    "aws:kms/key:Key": key,
    "aws:kms/alias:Alias": alias,
    "aws:cognito/userPool:UserPool": user_pool,
    "aws:cognito/userPoolClient:UserPoolClient": user_pool_client,
    "aws:cognito/userPoolDomain:UserPoolDomain": user_pool_domain,
}
