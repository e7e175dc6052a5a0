"""What the environment of a function or worker says; all but the token authorizer read it here alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(Exception):
    """An environment variable is missing or malformed."""


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """For the connection handler.

    Attributes:
        connection_max_age_seconds: how long a connection may last; API Gateway ends it after 7,200.
        allowed_origins: the pages that may connect, as `https://host[:port]`; empty for any.
    """

    table_name: str
    connection_max_age_seconds: int
    allowed_origins: frozenset[str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ConnectionSettings:
        return cls(
            table_name=_text(environment, "TABLE_NAME"),
            connection_max_age_seconds=_positive(environment, "CONNECTION_MAX_AGE_SECONDS", 7200),
            allowed_origins=frozenset(environment.get("ALLOWED_ORIGINS", "").split()),
        )


@dataclass(frozen=True, kw_only=True)
class PublisherSettings:
    """For whatever reports progress.

    Attributes:
        callback_url: the stage's `https://…/{stage}`, through which connections are posted to. None where a
            function behind the table's stream does that, so that the worker only writes states.
        document_retention_seconds: how long a state is kept after its last change.
        max_messages_per_second: progress updates per document; start, end and errors are always sent.
        close_expired: disconnect watchers whose connection has expired, with its token or of age.
    """

    table_name: str
    callback_url: str | None
    region: str
    document_retention_seconds: int
    max_messages_per_second: int
    close_expired: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> PublisherSettings:
        return cls(
            table_name=_text(environment, "TABLE_NAME"),
            callback_url=environment.get("CALLBACK_URL") or None,
            region=environment.get("AWS_REGION") or _text(environment, "AWS_DEFAULT_REGION"),
            document_retention_seconds=_positive(environment, "DOCUMENT_RETENTION_SECONDS", 24 * 3600),
            max_messages_per_second=_positive(environment, "MAX_MESSAGES_PER_SECOND", 4),
            close_expired=environment.get("CLOSE_EXPIRED_CONNECTIONS") == "true",
        )


@dataclass(frozen=True, kw_only=True)
class WatchdogSettings:
    """
    Attributes:
        stall_timeout_seconds: how long a started document may be silent.
    """

    stall_timeout_seconds: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WatchdogSettings:
        return cls(stall_timeout_seconds=_positive(environment, "STALL_TIMEOUT_SECONDS", 120))


@dataclass(frozen=True, kw_only=True)
class UploadSettings:
    """For the function that lets pages upload.

    Attributes:
        max_upload_bytes: what S3 takes at most; no more than the document processor reads.
    """

    table_name: str
    documents_bucket: str
    max_upload_bytes: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> UploadSettings:
        return cls(
            table_name=_text(environment, "TABLE_NAME"),
            documents_bucket=_text(environment, "DOCUMENTS_BUCKET"),
            max_upload_bytes=_positive(environment, "MAX_UPLOAD_BYTES", 100 * 1024 * 1024),
        )


def _text(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise SettingsError(f"The environment variable {name} is not set.")
    return value


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal() or int(value) == 0:
        raise SettingsError(f"The environment variable {name} is {value!r}; it takes a whole number from 1 up.")
    return int(value)
