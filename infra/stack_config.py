"""What a stack's configuration says, checked before anything is planned. The one reader of `pulumi.Config`.

The keys, their types and defaults are declared in Pulumi.yaml; what a value may be is decided here.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, cast

import pulumi
import yaml
from pulumi.runtime.config import CONFIG, get_config_env

from infra.config_rules import BadEntry, Rule, boolean, integer, list_of, matching, one_of, retention
from infra.lambda_package import Packaging
from infra.publishing import FanOut
from infra.token_authorizer import TokenSource
from infra.websocket_api import LoggingLevel

NAMESPACE = "docprogress"

Authorization = Literal["NONE", "AWS_IAM", "JWT"]


_EXAMPLE_ISSUER = "https://issuer.example.com"
_EXAMPLE_AUDIENCE = "my-client-id"
_EXAMPLE_ORIGIN = "https://app.example.com"
_EXAMPLE_CALLBACK_URL = "https://app.example.com/"
_EXAMPLE_DOMAIN_PREFIX = "my-team-docprogress"


class ConfigError(pulumi.RunError):
    """The configuration cannot be deployed; the message has a sentence and a cure for each wrong key."""


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """The checked configuration of one stack; the attributes are the keys of Pulumi.yaml in snake case."""

    api_throttle_rate: int
    api_throttle_burst: int
    logging_level: LoggingLevel
    data_trace_enabled: bool
    detailed_metrics_enabled: bool
    integration_timeout_milliseconds: int
    log_retention_days: int
    manage_account_logging: bool
    document_pipeline: bool
    fan_out: FanOut
    max_messages_per_second: int
    stall_timeout_seconds: int
    connection_max_age_seconds: int
    document_retention_hours: int
    authorization: Authorization
    jwt_issuer: str
    jwt_audience: str
    jwt_token_source: TokenSource
    create_user_pool: bool
    user_pool_callback_urls: tuple[str, ...]
    user_pool_domain_prefix: str
    allowed_origins: tuple[str, ...]
    protected: bool
    allow_unauthenticated: bool
    document_uploads: bool
    kms_key_arn: str
    lambda_memory_megabytes: int
    lambda_packaging: Packaging

    @classmethod
    def load(cls) -> Self:
        """Read the configuration of the current stack.

        Raises:
            ConfigError: a value is not allowed, or a key of this namespace is not known.
        """
        config = pulumi.Config(NAMESPACE)
        problems = [_unknown_key(key) for key in _given_keys() if key not in _RULES]
        values: dict[str, Any] = {}
        for key, rule in _RULES.items():
            text = config.get(key)
            try:
                values[_snake_case(key)] = rule.parse(declared_defaults()[key] if text is None else text)
            except ValueError as error:
                index = error.index if isinstance(error, BadEntry) else None
                problems.append(_bad_value(key, cast(str, text), rule, index))
        if problems:
            raise ConfigError("\n".join(problems))
        loaded = cls(**values)
        if contradictions := [_with_cure(*found) for found in loaded._contradictions()]:
            raise ConfigError("\n".join(contradictions))
        loaded._warn()
        return loaded

    @property
    def is_production(self) -> bool:
        return self.protected or pulumi.get_stack() == "prod"

    @property
    def closes_connections_early(self) -> bool:
        """Whether a connection may end before API Gateway ends it by itself."""
        return self.authorization == "JWT" or self.connection_max_age_seconds < _LONGEST_CONNECTION_SECONDS

    def _contradictions(self) -> Iterator[tuple[str, str, str]]:
        """Values that are fine alone and not together: a sentence, and the key (or entry) and value that cure it."""
        if self.authorization == "JWT" and not self.create_user_pool:
            for key, value, example in (
                ("jwtIssuer", self.jwt_issuer, _EXAMPLE_ISSUER),
                ("jwtAudience", self.jwt_audience, _EXAMPLE_AUDIENCE),
            ):
                if not value:
                    yield f"authorization is JWT and {key} is empty, so no token could be checked.", key, example
        if self.create_user_pool and self.authorization != "JWT":
            yield (
                "createUserPool makes a pool whose tokens nobody would check; they take authorization JWT.",
                "authorization",
                "JWT",
            )
        if self.create_user_pool and (self.jwt_issuer or self.jwt_audience):
            yield "createUserPool and jwtIssuer or jwtAudience both say who issues tokens.", "createUserPool", "false"
        if self.create_user_pool:
            for path, given, example in (
                ("userPoolCallbackUrls[0]", self.user_pool_callback_urls, _EXAMPLE_CALLBACK_URL),
                ("userPoolDomainPrefix", self.user_pool_domain_prefix, _EXAMPLE_DOMAIN_PREFIX),
            ):
                if not given:
                    yield f"createUserPool needs {path.partition('[')[0]}, or nobody could sign in.", path, example
        if self.document_uploads and not self.document_pipeline:
            yield "documentUploads needs the bucket of the document pipeline.", "documentPipeline", "true"
        if self.is_production and "*" in self.allowed_origins:
            yield (
                "allowedOrigins is *, which lets every page on the web connect in the name of whoever visits it.",
                f"allowedOrigins[{self.allowed_origins.index('*')}]",
                _EXAMPLE_ORIGIN,
            )
        if self.protected and self.authorization == "NONE" and not self.allow_unauthenticated:
            yield (
                "This stack is protected and has no authorization, so everyone could connect. Choose one, or set"
                " allowUnauthenticated.",
                "authorization",
                "AWS_IAM",
            )
        if self.is_production and self.authorization != "NONE" and self.data_trace_enabled:
            yield (
                "Data trace would write tokens and signed URLs into the execution logs, where whoever reads logs"
                " could use them.",
                "dataTraceEnabled",
                "false",
            )

        if self.jwt_issuer.startswith("http://") and self.lambda_packaging == "lambda":
            yield "jwtIssuer is on this machine, where no function on AWS can ask it.", "jwtIssuer", _EXAMPLE_ISSUER
        region = pulumi.Config("aws").get("region")
        if region and self.kms_key_arn and self.kms_key_arn.split(":")[3] != region:
            yield f"kmsKeyArn is a key of another region than {region}, where it cannot be used.", "kmsKeyArn", ""

    def _warn(self) -> None:
        if self.is_production and self.authorization == "NONE":
            pulumi.warn(
                f"Stack {pulumi.get_stack()} has no authorization: everyone who knows the URL may connect and"
                " watch any document. See docs/security.md.\n"
                f"  pulumi config set {NAMESPACE}:authorization JWT --stack {pulumi.get_stack()}"
            )
        if self.authorization != "JWT" and (self.jwt_issuer or self.jwt_audience):
            pulumi.warn(
                f"jwtIssuer or jwtAudience is set, but authorization is {self.authorization}: stack"
                f" {pulumi.get_stack()} checks no token.\n"
                f"  pulumi config set {NAMESPACE}:authorization JWT --stack {pulumi.get_stack()}"
            )
        if self.authorization != "NONE" and self.data_trace_enabled:
            pulumi.warn(
                f"Data trace writes the tokens and signed URLs of stack {pulumi.get_stack()} into its execution logs.\n"
                f"  pulumi config set {NAMESPACE}:dataTraceEnabled false --stack {pulumi.get_stack()}"
            )


@cache
def declared_defaults() -> Mapping[str, str]:
    """The defaults of Pulumi.yaml. The Pulumi engine fills them in; mocked tests have no engine."""
    project = yaml.safe_load((Path(__file__).parent.parent / "Pulumi.yaml").read_text())
    return {
        key.removeprefix(f"{NAMESPACE}:"): _as_config_text(declaration["default"])
        for key, declaration in project["config"].items()
    }


_HOST = r"[a-z0-9.-]+(:[0-9]{1,5})?"
# A page that is being written has no certificate yet.
_LOOPBACK = r"http://(localhost|127\.0\.0\.1)(:[0-9]{1,5})?"
# Browsers leave the usual port out, and the handler compares letter by letter.
_ORIGIN = matching(
    "origins (https://HOST in small letters, no path, no usual port)",
    rf"\*|https://{_HOST}(?<!:443)|{_LOOPBACK}(?<!:80)",
    _EXAMPLE_ORIGIN,
)
# Cognito takes localhost by name alone.
_CALLBACK_URL = matching(
    "https URLs",
    rf"(https://{_HOST}|http://localhost(:[0-9]{{1,5}})?)(/[^\s#*]*)?",
    _EXAMPLE_CALLBACK_URL,
)

# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
_LONGEST_CONNECTION_SECONDS = 7200

_RULES: Mapping[str, Rule] = {
    "apiThrottleRate": integer(1, why=" (0 would refuse every connection with 429)"),
    # API Gateway takes 32 bits, and the provider cuts off what is above: of 2**32 that leaves 0.
    "apiThrottleBurst": integer(1, 2**31 - 1, why=" (0 would refuse every connection with 429)"),
    "loggingLevel": one_of(("OFF", "ERROR", "INFO")),
    "dataTraceEnabled": boolean(),
    "detailedMetricsEnabled": boolean(),
    "integrationTimeoutMilliseconds": integer(50, 29_000, why=" (API Gateway's limits)"),
    "logRetentionDays": retention(),
    "manageAccountLogging": boolean(),
    "documentPipeline": boolean(),
    "fanOut": one_of(("direct", "stream")),
    "maxMessagesPerSecond": integer(1, 20),
    # A living worker writes at least every 20 seconds.
    "stallTimeoutSeconds": integer(60, 86_400),
    "connectionMaxAgeSeconds": integer(
        60, _LONGEST_CONNECTION_SECONDS, why=" (API Gateway ends a connection after 2 hours)"
    ),
    # Longer than any connection, so that a page never outlives what it watches.
    "documentRetentionHours": integer(3, 8760),
    "authorization": one_of(("NONE", "AWS_IAM", "JWT")),
    # To the letter, so capital letters stay.
    "jwtIssuer": matching(
        "an https URL without a user, ? and #", rf"(https://(?i:{_HOST})|{_LOOPBACK})(/[^\s?#]*)?", _EXAMPLE_ISSUER
    ),
    "jwtAudience": matching("audiences separated by commas, without spaces", r"[^\s,]+(,[^\s,]+)*", _EXAMPLE_AUDIENCE),
    "jwtTokenSource": one_of(("querystring", "subprotocol")),
    "createUserPool": boolean(),
    "userPoolCallbackUrls": list_of(_CALLBACK_URL),
    "userPoolDomainPrefix": matching(
        "1 to 63 small letters, digits and -, without aws, amazon or cognito",
        r"(?!.*(aws|amazon|cognito))[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        _EXAMPLE_DOMAIN_PREFIX,
    ),
    "allowedOrigins": list_of(_ORIGIN),
    "protected": boolean(),
    "allowUnauthenticated": boolean(),
    "documentUploads": boolean(),
    "kmsKeyArn": matching(
        "the ARN of a KMS key, not of an alias",
        r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+",
        "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
    ),
    "lambdaMemoryMegabytes": integer(128, 10_240, why=" (Lambda's limits)"),
    "lambdaPackaging": one_of(("lambda", "host")),
}


def _given_keys() -> list[str]:
    # pulumi.Config answers for a key, but lists none; these two are where it looks.
    given = {**get_config_env(), **CONFIG.get()}
    return sorted(key.removeprefix(f"{NAMESPACE}:") for key in given if key.startswith(f"{NAMESPACE}:"))


def _unknown_key(key: str) -> str:
    by_small_letters = {known.lower(): known for known in _RULES}
    near = difflib.get_close_matches(key.lower(), by_small_letters, n=1, cutoff=0.5)
    hint = (
        f"did you mean {NAMESPACE}:{by_small_letters[near[0]]}?" if near else f"the known keys are {', '.join(_RULES)}."
    )
    return (
        f"{NAMESPACE}:{key} is not a configuration key of this program; {hint}\n"
        f"  pulumi config rm {shlex.quote(f'{NAMESPACE}:{key}')} --stack {pulumi.get_stack()}"
    )


def _bad_value(key: str, text: str, rule: Rule, index: int | None) -> str:
    sentence = f'{NAMESPACE}:{key} is "{text}"; it takes {rule.allowed}.'
    if index is not None:
        # Never to take the whole list away: without allowedOrigins every page could connect.
        return _with_cure(sentence, f"{key}[{index}]", rule.example)
    default = declared_defaults()[key]
    # What is no list can be given no entry.
    return _with_cure(sentence, key, "" if default == "[]" else default or rule.example)


def _with_cure(sentence: str, path: str, value: str) -> str:
    """path: a key, or an entry of a list, such as `allowedOrigins[0]`. value: empty to take it away."""
    full_path = f"{NAMESPACE}:{path}"
    if not value:
        command = f"rm {full_path}"
    elif path.endswith("]"):
        command = f"set --path {shlex.quote(full_path)} {shlex.quote(value)}"
    else:
        command = f"set {full_path} {shlex.quote(value)}"
    return f"{sentence}\n  pulumi config {command} --stack {pulumi.get_stack()}"


def _as_config_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _snake_case(key: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", key)
