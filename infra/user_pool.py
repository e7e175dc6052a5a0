"""A Cognito user pool and an app client that a page can sign people in with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import pulumi
import pulumi_aws as aws

from .keeping import kept
from .rules import list_of, matching
from .sign_in import SignIn
from .urls import CALLBACK_URL

# https://docs.aws.amazon.com/cognito-user-identity-pools/latest/APIReference/API_CreateUserPoolDomain.html
DOMAIN_PREFIX = matching(
    "1 to 63 small letters, digits and -, without aws, amazon or cognito",
    r"(?!.*(aws|amazon|cognito))[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    "my-team-docprogress",
)
CALLBACK_URLS = list_of(CALLBACK_URL)
# Cognito's own limit.
_MAX_CALLBACK_URLS = 100


@dataclass(frozen=True, kw_only=True)
class UserPoolArgs:
    """
    Attributes:
        callback_urls: the pages that people come back to after they have signed in or out.
        domain_prefix: of the sign-in pages, `https://{prefix}.auth.{region}.amazoncognito.com`; no two pools of a
            region have the same one.
        self_sign_up: anybody with an email address may make an account. Else an administrator does.
        disposable: the pool may be deleted, and with it everybody's account.
    """

    callback_urls: Sequence[str]
    domain_prefix: str
    self_sign_up: bool
    disposable: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.callback_urls) <= _MAX_CALLBACK_URLS:
            raise ValueError(
                f"callback_urls has {len(self.callback_urls)} entries; Cognito needs 1 to {_MAX_CALLBACK_URLS}."
            )
        CALLBACK_URLS.check("callback_urls", self.callback_urls)
        if not self.domain_prefix:
            raise ValueError(f"domain_prefix is ''; it takes {DOMAIN_PREFIX.allowed}.")
        DOMAIN_PREFIX.check("domain_prefix", self.domain_prefix)


class Tokens(TypedDict):
    """Where a pool's tokens come from, as a DocumentProgress is told."""

    jwt_issuer: pulumi.Output[str]
    jwt_audience: pulumi.Output[str]


class UserPool(pulumi.ComponentResource):
    """
    ```python
    users = UserPool("users", UserPoolArgs(callback_urls=["https://app.example.com/"], ...))
    pulumi.export("userPoolIssuer", users.issuer)
    ```

    A page uses the authorization code grant with PKCE (RFC 7636), for which it needs `client_id` and either
    `issuer` or `domain_url`. Cognito takes a request without PKCE too: it is the page that must not send one.

    Attributes:
        issuer: the `iss` of the pool's tokens; the audience of an ID token and the `client_id` of an access token
            are both `client_id`.
        sign_in: how a page signs people in here.
        domain_url: of the sign-in pages; `/oauth2/authorize` and `/oauth2/token` are below it.
    """

    pool_id: pulumi.Output[str]
    client_id: pulumi.Output[str]
    issuer: pulumi.Output[str]
    jwks_url: pulumi.Output[str]
    domain_url: pulumi.Output[str]
    tokens: Tokens
    sign_in: SignIn

    def __init__(self, name: str, args: UserPoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("docprogress:infra:UserPool", name, None, opts)
        self._name = name
        self._args = args
        self._kept = kept(parent=self, disposable=args.disposable)
        pool = self._create_pool()
        client = self._create_client(pool)
        domain = aws.cognito.UserPoolDomain(
            f"{name}-domain",
            user_pool_id=pool.id,
            domain=args.domain_prefix,
            # The newer pages, 2, show nothing but an error until somebody gives them a style.
            managed_login_version=1,
            # A pool has one domain, so the old one goes first.
            opts=pulumi.ResourceOptions.merge(self._kept, pulumi.ResourceOptions(delete_before_replace=True)),
        )
        self.pool_id = pool.id
        self.client_id = client.id
        self.issuer = pulumi.Output.concat("https://", pool.endpoint)
        self.jwks_url = pulumi.Output.concat(self.issuer, "/.well-known/jwks.json")
        self.tokens = Tokens(jwt_issuer=self.issuer, jwt_audience=self.client_id)
        region = pool.arn.apply(lambda arn: arn.split(":")[3])
        self.domain_url = pulumi.Output.concat("https://", domain.domain, ".", region.apply(_sign_in_host))
        self.sign_in = SignIn(issuer=self.issuer, client_id=self.client_id, hosts=[self.domain_url])
        self.register_outputs(
            {
                "pool_id": self.pool_id,
                "client_id": self.client_id,
                "issuer": self.issuer,
                "jwks_url": self.jwks_url,
                "domain_url": self.domain_url,
            }
        )

    def _create_pool(self) -> aws.cognito.UserPool:
        return aws.cognito.UserPool(
            f"{self._name}-pool",
            # The lowest plan with rotating refresh tokens.
            user_pool_tier="ESSENTIALS",
            deletion_protection="INACTIVE" if self._args.disposable else "ACTIVE",
            admin_create_user_config={"allow_admin_create_user_only": not self._args.self_sign_up},
            username_attributes=["email"],
            username_configuration={"case_sensitive": False},
            auto_verified_attributes=["email"],
            # Until a new address is verified, people sign in with the old one.
            user_attribute_update_settings={"attributes_require_verification_before_updates": ["email"]},
            account_recovery_setting={"recovery_mechanisms": [{"name": "verified_email", "priority": 1}]},
            password_policy={
                "minimum_length": 12,
                "require_lowercase": True,
                "require_uppercase": True,
                "require_numbers": True,
                "require_symbols": True,
                "temporary_password_validity_days": 3,
            },
            mfa_configuration="OPTIONAL",
            software_token_mfa_configuration={"enabled": True},
            opts=self._kept,
        )

    def _create_client(self, pool: aws.cognito.UserPool) -> aws.cognito.UserPoolClient:
        return aws.cognito.UserPoolClient(
            f"{self._name}-client",
            user_pool_id=pool.id,
            # A page cannot keep a secret.
            generate_secret=False,
            supported_identity_providers=["COGNITO"],
            allowed_oauth_flows_user_pool_client=True,
            allowed_oauth_flows=["code"],
            allowed_oauth_scopes=["openid", "email"],
            callback_urls=list(self._args.callback_urls),
            logout_urls=list(self._args.callback_urls),
            # The one that keeps the password to itself; with none given, Cognito would allow more, and among
            # them ALLOW_REFRESH_TOKEN_AUTH, which rotation excludes.
            explicit_auth_flows=["ALLOW_USER_SRP_AUTH"],
            access_token_validity=60,
            id_token_validity=60,
            refresh_token_validity=30,
            token_validity_units={"access_token": "minutes", "id_token": "minutes", "refresh_token": "days"},
            # What a client without a secret must do: RFC 9700, 2.2.2. A page whose answer got lost may ask again
            # with the old token within the grace period.
            refresh_token_rotation={"feature": "ENABLED", "retry_grace_period_seconds": 60},
            enable_token_revocation=True,
            prevent_user_existence_errors="ENABLED",
            read_attributes=["email", "email_verified"],
            write_attributes=["email"],
            opts=self._kept,
        )


def _sign_in_host(region: str) -> str:
    # https://docs.aws.amazon.com/govcloud-us/latest/UserGuide/govcloud-cog.html
    return f"auth{'-fips' if region.startswith('us-gov-') else ''}.{region}.amazoncognito.com"
