"""What functions and workers read from their environment.

Not proved here: that the program sets these variables (graph tests).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from connection_handler import ConnectionSettings
from docprogress.errors import SettingsError
from docprogress.publisher import PublisherSettings
from stall_watchdog import WatchdogSettings

PUBLISHER = {"TABLE_NAME": "progress", "CALLBACK_URL": "https://a.example/dev", "AWS_REGION": "eu-west-1"}


def test_the_connection_handlers_settings_are_read() -> None:
    settings = ConnectionSettings.from_environment(
        {
            "CONNECTION_MAX_AGE_SECONDS": "600",
            "ALLOWED_ORIGINS": "https://a.example https://b.example:8443",
            "AUTHORIZATION": "NONE",
            "CANCELLATION": "false",
        }
    )

    assert settings == ConnectionSettings(
        connection_max_age_seconds=600,
        allowed_origins=frozenset({"https://a.example", "https://b.example:8443"}),
        callers_are_known=False,
        shared_documents=False,
        cancellation=False,
    )


def test_a_connection_lasts_as_long_as_the_gateway_lets_it_and_any_page_may_connect_unless_said_otherwise() -> None:
    settings = ConnectionSettings.from_environment({})

    assert settings.connection_max_age_seconds == 7200
    assert settings.allowed_origins == frozenset()
    assert settings.callers_are_known, "what forgets to say who may connect must not be open"


def test_a_publishers_settings_are_read() -> None:
    settings = PublisherSettings.from_environment(
        PUBLISHER
        | {
            "DOCUMENT_RETENTION_SECONDS": "60",
            "MAX_MESSAGES_PER_SECOND": "2",
            "CLOSE_EXPIRED_CONNECTIONS": "true",
            "SHARED_DOCUMENTS": "true",
            "EMIT_METRICS": "true",
            "POWERTOOLS_SERVICE_NAME": "reader",
        }
    )

    assert settings == PublisherSettings(
        table_name="progress",
        callback_url="https://a.example/dev",
        region="eu-west-1",
        document_retention_seconds=60,
        max_messages_per_second=2,
        close_expired=True,
        shared_documents=True,
        emit_metrics=True,
        service="reader",
    )


def test_a_publisher_has_defaults_for_what_a_worker_of_ones_own_will_not_set() -> None:
    settings = PublisherSettings.from_environment(PUBLISHER)

    assert settings == PublisherSettings(
        table_name="progress",
        callback_url="https://a.example/dev",
        region="eu-west-1",
        document_retention_seconds=86400,
        max_messages_per_second=4,
        close_expired=False,
        shared_documents=False,
        emit_metrics=False,
        service="worker",
    )


@pytest.mark.parametrize("missing", [{}, {"CALLBACK_URL": ""}])
def test_a_publisher_without_a_callback_url_leaves_announcing_to_the_stream(missing: dict[str, str]) -> None:
    environment = {name: value for name, value in PUBLISHER.items() if name != "CALLBACK_URL"} | missing

    assert PublisherSettings.from_environment(environment).callback_url is None


def test_the_region_may_come_from_either_variable_and_lambdas_own_comes_first() -> None:
    default = {"TABLE_NAME": "progress", "AWS_DEFAULT_REGION": "eu-central-1"}

    assert PublisherSettings.from_environment(default).region == "eu-central-1"
    assert PublisherSettings.from_environment(default | PUBLISHER).region == "eu-west-1"


@pytest.mark.parametrize(
    ("kind", "environment", "name"),
    [
        (PublisherSettings, {}, "TABLE_NAME"),
        (PublisherSettings, {"TABLE_NAME": ""}, "TABLE_NAME"),
        (PublisherSettings, {"TABLE_NAME": "progress"}, "AWS_DEFAULT_REGION"),
    ],
)
def test_a_variable_that_is_missing_is_named(kind: Any, environment: Mapping[str, str], name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        kind.from_environment(environment)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "many", " 4", "²", "1e3"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ConnectionSettings, "CONNECTION_MAX_AGE_SECONDS"),
        (PublisherSettings, "DOCUMENT_RETENTION_SECONDS"),
        (PublisherSettings, "MAX_MESSAGES_PER_SECOND"),
        (WatchdogSettings, "STALL_TIMEOUT_SECONDS"),
    ],
)
def test_a_number_that_is_none_is_refused_with_its_name_and_value(kind: Any, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        kind.from_environment(PUBLISHER | {name: value})

    assert repr(value) in str(caught.value)


def test_the_environment_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTION_MAX_AGE_SECONDS", "77")

    assert ConnectionSettings.from_environment().connection_max_age_seconds == 77
