"""The Cognito user pool alone: its sign-in rules, the page's app client, its domain and what it tells a page.

Does not prove that Cognito takes these inputs, nor that anybody can sign in.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pulumi
import pytest

from infra.user_pool import UserPool, UserPoolArgs
from tests.mock_engine import Graph, run

POOL_ID = "eu-west-1_AbCdEfGhI"
CLIENT_ID = "4tbq2u0n3k5example"
ANSWERS = {
    "users-pool": {
        "id": POOL_ID,
        "arn": f"arn:aws:cognito-idp:eu-west-1:123456789012:userpool/{POOL_ID}",
        "endpoint": f"cognito-idp.eu-west-1.amazonaws.com/{POOL_ID}",
    },
    "users-client": {"id": CLIENT_ID},
}
ARGS = UserPoolArgs(
    callback_urls=["https://app.example.com/"],
    domain_prefix="docprogress-test",
    self_sign_up=False,
)


def user_pool(**changes: Any) -> UserPool:
    return UserPool("users", dataclasses.replace(ARGS, **changes))


def graph_of(**changes: Any) -> Graph:
    return run(lambda: user_pool(**changes), answers=ANSWERS)


def test_people_sign_in_with_a_verified_address_and_a_good_password() -> None:
    assert graph_of().one("aws:cognito/userPool:UserPool").inputs == {
        "userPoolTier": "ESSENTIALS",
        "deletionProtection": "ACTIVE",
        "adminCreateUserConfig": {"allowAdminCreateUserOnly": True},
        "usernameAttributes": ["email"],
        "usernameConfiguration": {"caseSensitive": False},
        "autoVerifiedAttributes": ["email"],
        "userAttributeUpdateSettings": {"attributesRequireVerificationBeforeUpdates": ["email"]},
        "accountRecoverySetting": {"recoveryMechanisms": [{"name": "verified_email", "priority": 1}]},
        "passwordPolicy": {
            "minimumLength": 12,
            "requireLowercase": True,
            "requireUppercase": True,
            "requireNumbers": True,
            "requireSymbols": True,
            "temporaryPasswordValidityDays": 3,
        },
        "mfaConfiguration": "OPTIONAL",
        "softwareTokenMfaConfiguration": {"enabled": True},
    }


def test_anybody_may_make_an_account_where_that_is_wanted() -> None:
    pool = graph_of(self_sign_up=True).one("aws:cognito/userPool:UserPool")
    assert pool.inputs["adminCreateUserConfig"] == {"allowAdminCreateUserOnly": False}


def test_a_pool_that_may_go_with_its_stack_is_not_protected() -> None:
    pool = graph_of(disposable=True).one("aws:cognito/userPool:UserPool")
    assert pool.inputs["deletionProtection"] == "INACTIVE"


def test_the_app_client_is_one_of_a_page() -> None:
    urls = ["https://app.example.com/", "http://localhost:5173/"]
    client = graph_of(callback_urls=urls).one("UserPoolClient").inputs
    assert client == {
        "userPoolId": POOL_ID,
        "generateSecret": False,
        "supportedIdentityProviders": ["COGNITO"],
        "allowedOauthFlowsUserPoolClient": True,
        "allowedOauthFlows": ["code"],
        "allowedOauthScopes": ["openid", "email"],
        "callbackUrls": urls,
        "logoutUrls": urls,
        "explicitAuthFlows": ["ALLOW_USER_SRP_AUTH"],
        "accessTokenValidity": 60,
        "idTokenValidity": 60,
        "refreshTokenValidity": 30,
        "tokenValidityUnits": {"accessToken": "minutes", "idToken": "minutes", "refreshToken": "days"},
        "refreshTokenRotation": {"feature": "ENABLED", "retryGracePeriodSeconds": 60},
        "enableTokenRevocation": True,
        "preventUserExistenceErrors": "ENABLED",
        "readAttributes": ["email", "email_verified"],
        "writeAttributes": ["email"],
    }


def test_the_sign_in_pages_have_a_domain_of_the_pool() -> None:
    assert graph_of().one("UserPoolDomain").inputs == {
        "userPoolId": POOL_ID,
        "domain": "docprogress-test",
        "managedLoginVersion": 1,
    }


def test_a_page_and_an_authorizer_are_told_what_they_need() -> None:
    outputs: dict[str, Any] = {}

    def program() -> None:
        users = user_pool()
        pulumi.Output.all(
            pool_id=users.pool_id,
            client_id=users.client_id,
            issuer=users.issuer,
            jwks_url=users.jwks_url,
            domain_url=users.domain_url,
        ).apply(outputs.update)

    run(program, answers=ANSWERS)
    assert outputs == {
        "pool_id": POOL_ID,
        "client_id": CLIENT_ID,
        "issuer": f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL_ID}",
        "jwks_url": f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL_ID}/.well-known/jwks.json",
        "domain_url": "https://docprogress-test.auth.eu-west-1.amazoncognito.com",
    }


def test_everything_belongs_to_the_component() -> None:
    graph = graph_of()
    component = graph.one("docprogress:infra:UserPool")
    children = {each.name for each in graph if graph.parent(each) is component}
    assert children == {"users-pool", "users-client", "users-domain"}


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com",
        "https://app.example.com:8443/signed-in?from=cognito",
        "http://localhost/",
        "http://localhost:5173/callback",
    ],
)
def test_a_page_may_be_served_over_https_or_by_this_machine(url: str) -> None:
    assert graph_of(callback_urls=[url]).one("UserPoolClient").inputs["callbackUrls"] == [url]


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com/",
        "http://localhost.example.com/",
        "http://127.0.0.1:5173/",
        "https://",
        "https:///callback",
        "https://app.example.com/#signed-in",
        "https://app.example.com/#",
        "https://*.example.com/",
        "https://app.example.com@evil.example/",
        "https://app.example.com\\@evil.example/",
        "https://app.example.com/ ",
        "https://app.example.com/\n",
        "https://äpp.example.com/",
        "https://app.example.com:port/",
        "https://app.example.com:0/",
        "https://[app.example.com/",
        "app.example.com",
        "myapp://callback",
        "javascript:alert(1)",
        "",
        f"https://app.example.com/{'a' * 1001}",
    ],
)
def test_any_other_callback_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"callback_urls is \[.*\]; it takes a JSON list of https URLs"):
        dataclasses.replace(ARGS, callback_urls=["https://app.example.com/", url])


@pytest.mark.parametrize("count", [0, 101])
def test_a_client_has_as_many_callback_urls_as_cognito_takes(count: int) -> None:
    with pytest.raises(ValueError, match=f"callback_urls has {count} entries; Cognito needs 1 to 100"):
        dataclasses.replace(ARGS, callback_urls=[f"https://app.example.com/{n}" for n in range(count)])


@pytest.mark.parametrize("prefix", ["", "-docs", "docs-", "Docs", "docs.example", "docs_example", "d" * 64, "docs\n"])
def test_a_domain_prefix_is_one_label_of_a_host_name(prefix: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"domain_prefix is {prefix!r}; it takes 1 to 63 small letters")):
        dataclasses.replace(ARGS, domain_prefix=prefix)


@pytest.mark.parametrize("prefix", ["my-aws-app", "amazonas", "cognito-docs"])
def test_a_domain_prefix_has_none_of_cognito_s_own_words(prefix: str) -> None:
    with pytest.raises(ValueError, match="without aws, amazon or cognito"):
        dataclasses.replace(ARGS, domain_prefix=prefix)


def test_what_people_know_of_the_pool_is_protected_unless_the_stack_is_disposable() -> None:
    kept = {"users-pool", "users-client", "users-domain"}
    assert {each.name for each in graph_of() if each.protect} == kept, "a plan refuses to lose everybody's account"
    assert {each.name for each in graph_of(disposable=True) if each.protect} == set()


def test_in_govcloud_people_sign_in_where_govcloud_has_it() -> None:
    arn = f"arn:aws-us-gov:cognito-idp:us-gov-west-1:123456789012:userpool/{POOL_ID}"
    answers = ANSWERS | {"users-pool": ANSWERS["users-pool"] | {"arn": arn}}
    graph = run(lambda: pulumi.export("url", user_pool().domain_url), answers=answers)
    assert graph.outputs["url"] == "https://docprogress-test.auth-fips.us-gov-west-1.amazoncognito.com"
