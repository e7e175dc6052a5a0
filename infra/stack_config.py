"""What a stack's configuration says, checked before anything is planned. The one reader of `pulumi.Config`.

The keys, their types and defaults are declared in Pulumi.yaml; what a value may be is decided here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, cast

import pulumi
import yaml
from pulumi.runtime.config import CONFIG, get_config_env

NAMESPACE = "docprogress"

LoggingLevel = Literal["OFF", "ERROR", "INFO"]
FanOut = Literal["direct", "stream"]
LambdaPackaging = Literal["lambda", "host"]

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


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
    lambda_memory_megabytes: int
    lambda_packaging: LambdaPackaging

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
            except ValueError:
                problems.append(_bad_value(key, cast(str, text), rule.allowed))
        if problems:
            raise ConfigError("\n".join(problems))
        return cls(**values)


@cache
def declared_defaults() -> Mapping[str, str]:
    """The defaults of Pulumi.yaml. The Pulumi engine fills them in; mocked tests have no engine."""
    project = yaml.safe_load((Path(__file__).parent.parent / "Pulumi.yaml").read_text())
    return {
        key.removeprefix(f"{NAMESPACE}:"): _as_config_text(declaration["default"])
        for key, declaration in project["config"].items()
    }


@dataclass(frozen=True)
class _Rule:
    """What a key takes. parse raises ValueError."""

    allowed: str
    parse: Callable[[str], object]


def _integer(minimum: int, maximum: int | None = None, why: str = "") -> _Rule:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", text) or not minimum <= int(text) <= (maximum or int(text)):
            raise ValueError(text)
        return int(text)

    limits = f"from {minimum} up" if maximum is None else f"from {minimum} to {maximum}"
    return _Rule(f"a whole number {limits}{why}", parse)


def _one_of(allowed: Iterable[str]) -> _Rule:
    choices = tuple(allowed)

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return _Rule(f"one of {', '.join(choices)}", parse)


def _boolean() -> _Rule:
    choices = _one_of(("true", "false"))
    return _Rule("true or false", lambda text: choices.parse(text) == "true")


def _retention() -> _Rule:
    choices = _one_of(map(str, RETENTION_DAYS))
    return _Rule(f"{choices.allowed} (CloudWatch knows no other)", lambda text: int(cast(str, choices.parse(text))))


_RULES: Mapping[str, _Rule] = {
    "apiThrottleRate": _integer(1, why=" (0 would refuse every connection with 429)"),
    "apiThrottleBurst": _integer(1, why=" (0 would refuse every connection with 429)"),
    "loggingLevel": _one_of(("OFF", "ERROR", "INFO")),
    "dataTraceEnabled": _boolean(),
    "detailedMetricsEnabled": _boolean(),
    "integrationTimeoutMilliseconds": _integer(50, 29_000, why=" (API Gateway's limits)"),
    "logRetentionDays": _retention(),
    "manageAccountLogging": _boolean(),
    "documentPipeline": _boolean(),
    "fanOut": _one_of(("direct", "stream")),
    "maxMessagesPerSecond": _integer(1, 20),
    # A living worker writes at least every 20 seconds.
    "stallTimeoutSeconds": _integer(60, 86_400),
    "connectionMaxAgeSeconds": _integer(60, 7200, why=" (API Gateway ends a connection after 2 hours)"),
    # Longer than any connection, so that a page never outlives what it watches.
    "documentRetentionHours": _integer(3, 8760),
    "lambdaMemoryMegabytes": _integer(128, 10_240, why=" (Lambda's limits)"),
    "lambdaPackaging": _one_of(("lambda", "host")),
}


def _given_keys() -> list[str]:
    # pulumi.Config answers for a key, but lists none; these two are where it looks.
    given = {**get_config_env(), **CONFIG.get()}
    return sorted(key.removeprefix(f"{NAMESPACE}:") for key in given if key.startswith(f"{NAMESPACE}:"))


def _unknown_key(key: str) -> str:
    near = difflib.get_close_matches(key, _RULES, n=1, cutoff=0.5)
    hint = f"did you mean {NAMESPACE}:{near[0]}?" if near else f"the known keys are {', '.join(_RULES)}."
    return (
        f"{NAMESPACE}:{key} is not a configuration key of this program; {hint}\n"
        f"  pulumi config rm {NAMESPACE}:{key} --stack {pulumi.get_stack()}"
    )


def _bad_value(key: str, text: str, allowed: str) -> str:
    return (
        f'{NAMESPACE}:{key} is "{text}"; it takes {allowed}.\n'
        f"  pulumi config set {NAMESPACE}:{key} {declared_defaults()[key]} --stack {pulumi.get_stack()}"
    )


def _as_config_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _snake_case(key: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", key)
