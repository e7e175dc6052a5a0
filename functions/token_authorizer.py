"""The `$connect` authorizer: lets in who brings a good JWT, until that token expires.

A Lambda authorizer of type REQUEST, since a WebSocket API has no JWT authorizer of its own. It finds
the token in the event and answers; whether it is good, `tokens` decides. Its role needs only logs.
https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger

from sandbox import started
from tokens.settings import TokenSource, settings_from
from tokens.signing_keys import KeysUnavailable, SigningKeys, load_issuer_keys
from tokens.verification import Principal, Refusal, TokenRefused, verify

SUBPROTOCOL = "docprogress"

# No wildcard fits: what is allowed is one stage's $connect and nothing else.
_CONNECT_ARN = re.compile(r"arn:[\w-]+:execute-api:[\w-]+:\d+:[\w-]+/[\w$.-]+/\$connect", re.ASCII)

# Never `inject_lambda_context`: POWERTOOLS_LOGGER_LOG_EVENT makes it log the event, and with it the token.
logger = Logger(use_rfc3339=True)


class Authorizer(NamedTuple):
    token_source: TokenSource
    verify: Callable[[str], Principal]


@cache
def authorizer() -> Authorizer:
    """One for a sandbox, with the issuer's keys in it."""
    settings = settings_from(os.environ)
    keys = SigningKeys(partial(load_issuer_keys, settings.issuer, settings.jwks_url))
    return Authorizer(
        settings.token_source,
        partial(verify, issuer=settings.issuer, audiences=settings.audiences, find_key=keys.find),
    )


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Answers a policy for this very `$connect`, with `principal_id` and `expires_at` (epoch s) as context.

    Raises:
        Exception: with the text "Unauthorized", which API Gateway turns into 401.
        KeysUnavailable: the issuer cannot be asked; API Gateway turns it into 500, and a client tries again.
    """
    connection_id = _mapping(event.get("requestContext")).get("connectionId")
    try:
        arn = _connect_arn(event)
        principal = authorizer().verify(_token(event, authorizer().token_source))
    except TokenRefused as refused:
        reason = refused.reason
    except KeysUnavailable as error:
        logger.error("cannot authorize", reason=error.reason, connection_id=connection_id)
        raise
    else:
        logger.info("connection authorized", connection_id=connection_id, expires_at=principal.expires_at)
        return _allow(arn, principal)
    logger.warning("connection refused", reason=reason, connection_id=connection_id)
    raise Exception("Unauthorized")  # noqa: TRY002 - API Gateway answers 401 to this text, and 500 to any other


def _allow(connect_arn: str, principal: Principal) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": connect_arn}
    return {
        "principalId": principal.principal_id,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        # API Gateway hands on strings, numbers and booleans only, and all of them as strings.
        "context": {"principal_id": principal.principal_id, "expires_at": str(principal.expires_at)},
    }


def _connect_arn(event: Mapping[str, Any]) -> str:
    arn = event.get("methodArn")
    if not isinstance(arn, str) or not _CONNECT_ARN.fullmatch(arn):
        raise TokenRefused(Refusal.NOT_CONNECT)
    return arn


def _token(event: Mapping[str, Any], source: TokenSource) -> str:
    if source is TokenSource.QUERY_STRING:
        token = _mapping(event.get("queryStringParameters")).get("token")
    else:
        token = _subprotocol_token(_mapping(event.get("headers")))
    if not isinstance(token, str) or not token:
        raise TokenRefused(Refusal.MISSING_TOKEN)
    return token


def _subprotocol_token(headers: Mapping[str, Any]) -> str | None:
    """The second of exactly two offered subprotocols, the first being ours (RFC 6455, 11.3.4)."""
    values = [value for name, value in headers.items() if str(name).lower() == "sec-websocket-protocol"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    match [offer.strip() for offer in values[0].split(",")]:
        case [first, token] if first == SUBPROTOCOL:
            return token
        case _:
            return None


def _mapping(value: object) -> Mapping[str, Any]:
    """API Gateway sends null where there is nothing, such as for an empty query string."""
    return value if isinstance(value, Mapping) else {}


started(logger, authorizer)
