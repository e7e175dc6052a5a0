"""Reads variables of the environment. Which ones there are is said beside their users."""

from __future__ import annotations

from collections.abc import Mapping

from docprogress.errors import SettingsError


def text(environment: Mapping[str, str], name: str) -> str:
    """Raises SettingsError."""
    value = environment.get(name)
    if not value:
        raise SettingsError(f"The environment variable {name} is not set.")
    return value


def callers_are_known(environment: Mapping[str, str]) -> bool:
    """Whether those who connect have proved who they are, by AUTHORIZATION: NONE, AWS_IAM or JWT.

    Where nothing says so they have: a variable that got lost opens nothing.
    """
    return environment.get("AUTHORIZATION") != "NONE"


def are_documents_shared(environment: Mapping[str, str]) -> bool:
    """Whether SHARED_DOCUMENTS says that documents without an owner are for every principal."""
    return environment.get("SHARED_DOCUMENTS") == "true"


def positive(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number from 1 up. Raises SettingsError."""
    value = environment.get(name, str(default))
    if not value.isdecimal() or int(value) == 0:
        raise SettingsError(f"The environment variable {name} is {value!r}; it takes a whole number from 1 up.")
    return int(value)
