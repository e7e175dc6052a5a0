"""What the origins, issuers and addresses of web pages look like, as browsers and Cognito compare them."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import Rule, matching

EXAMPLE_ORIGIN = "https://app.example.com"

_HOST = r"[a-z0-9.-]+(:[1-9][0-9]{0,4})?"
# A page that is being written has no certificate yet.
_LOOPBACK = r"http://(localhost|127\.0\.0\.1)(:[1-9][0-9]{0,4})?"

# Browsers leave the usual port out, and the handler compares letter by letter.
ORIGIN = matching(
    "origins (https://HOST in small letters, no path, no usual port)",
    rf"\*|https://{_HOST}(?<!:443)|{_LOOPBACK}(?<!:80)",
    EXAMPLE_ORIGIN,
)
# Cognito takes localhost by name alone, compares an address as it is, and knows no patterns. 1024 is its limit.
CALLBACK_URL = matching(
    "https URLs",
    rf"(?!.{{1025}}|.*[^!-~])(https://{_HOST}|http://localhost(:[1-9][0-9]{{0,4}})?)(/[^#*\\]*)?",
    f"{EXAMPLE_ORIGIN}/",
)
# To the letter, so capital letters stay.
ISSUER = matching(
    "an https URL without a user, ? and #",
    rf"(https://(?i:{_HOST})|{_LOOPBACK})(/[^\s?#]*)?",
    "https://issuer.example.com",
)


def domain_name(example: str) -> Rule:
    """Of one host, at least two labels, without a `*`."""
    return matching(
        "a domain name in small letters",
        r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]",
        example,
    )


def is_every_origin(origins: Sequence[str]) -> bool:
    """Whether pages of any origin are let in: none is named, or one of them is `*`."""
    return not origins or "*" in origins
