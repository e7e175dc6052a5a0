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


def positive(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number from 1 up. Raises SettingsError."""
    value = environment.get(name, str(default))
    if not value.isdecimal() or int(value) == 0:
        raise SettingsError(f"The environment variable {name} is {value!r}; it takes a whole number from 1 up.")
    return int(value)
