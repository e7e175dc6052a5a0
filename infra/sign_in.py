"""Where a page signs people in: an OpenID Connect issuer, by the authorization code grant with PKCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """
    Attributes:
        issuer: as the tokens' `iss` says it. It publishes where it signs people in.
        client_id: of the page, at the issuer.
        audience: whom the tokens are for. The client_id: ID tokens are sent, which are for nobody else. Any other:
            access tokens for it are asked for. None: the access tokens that the issuer gives by itself are sent.
        hosts: what the page asks for tokens, where that is not the issuer's own host.
    """

    issuer: pulumi.Input[str]
    client_id: pulumi.Input[str]
    audience: str | None = None
    hosts: Sequence[pulumi.Input[str]] = ()

    @property
    def settings(self) -> dict[str, pulumi.Input[str]]:
        """As the page's config.json has it."""
        audience: dict[str, pulumi.Input[str]] = {"audience": self.audience} if self.audience else {}
        return {"issuer": self.issuer, "clientId": self.client_id, **audience}
