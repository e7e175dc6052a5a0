"""Reads a Pulumi project's settings as `pulumi up` does: the project's defaults, the stack's file, then overrides.

Config values are strings to a program; objects and arrays are JSON. See
https://www.pulumi.com/docs/iac/concepts/config/ and https://www.pulumi.com/docs/iac/concepts/projects/project-file/.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_TYPES: dict[str, type[object] | tuple[type[object], ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


class ProjectError(Exception):
    """A Pulumi.yaml or a stack's file that cannot be used. The message is meant for people."""


@dataclass(frozen=True)
class Project:
    """What the engine tells a program about itself.

    Attributes:
        program: The folder of `__main__.py`.
        config: Every value by its full key (`namespace:key`), as text.
        secret_keys: The keys that are declared secret.
    """

    name: str
    program: Path
    config: Mapping[str, str]
    secret_keys: list[str]


def read_project(directory: Path, stack: str, overrides: Mapping[str, str]) -> Project:
    """Reads `Pulumi.yaml` and, when there is one, `Pulumi.{stack}.yaml`.

    Args:
        overrides: What `-c key=value` gives; a key without a namespace is the project's own.

    Raises:
        ProjectError: For a missing or malformed file, a value of another type than declared, a declared key that
            has no value, and encrypted values, which only the Pulumi CLI can read.
    """
    project = _mapping(directory / "Pulumi.yaml")
    name = project.get("name")
    if not isinstance(name, str):
        raise ProjectError(f"{directory / 'Pulumi.yaml'} has no name")
    stack_file = directory / f"Pulumi.{stack}.yaml"
    stack_config = _mapping(stack_file).get("config") or {} if stack_file.exists() else {}

    def full(key: str) -> str:
        return key if ":" in key else f"{name}:{key}"

    declarations = {full(key): value for key, value in (project.get("config") or {}).items()}
    values: dict[str, Any] = {}
    for key, declaration in declarations.items():
        if not isinstance(declaration, dict):
            values[key] = declaration  # the short form, `key: value`
        elif "value" in declaration or "default" in declaration:
            values[key] = declaration.get("value", declaration.get("default"))
    values |= {full(key): _as_declared(value, declarations.get(full(key))) for key, value in stack_config.items()}
    values |= {full(key): _typed(value, declarations.get(full(key))) for key, value in overrides.items()}

    for key, declaration in declarations.items():
        declared_type = declaration.get("type") if isinstance(declaration, dict) else None
        if key not in values:
            raise ProjectError(f"stack {stack!r} is missing a value for the config key {key!r}")
        if declared_type:
            _check_type(key, values[key], declaration, stack)
    return Project(
        name=name,
        program=(directory / project.get("main", ".")).resolve(),
        config={key: _text(key, value) for key, value in values.items()},
        secret_keys=[
            key
            for key, declaration in declarations.items()
            if isinstance(declaration, dict) and declaration.get("secret")
        ],
    )


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProjectError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ProjectError(f"{path} is not a YAML mapping")
    return content


def _typed(text: str, declaration: Any) -> Any:
    """An override as the declared type, or as it is where that does not fit: `_check_type` refuses it then."""
    declared_type = declaration.get("type", "string") if isinstance(declaration, dict) else "string"
    if declared_type == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _as_declared(value: Any, declaration: Any) -> Any:
    """A value of the stack's file: `pulumi config set` keeps numbers and booleans as text, and the engine reads it."""
    declared_type = declaration.get("type") if isinstance(declaration, dict) else None
    if declared_type == "boolean" and value in ("true", "false"):
        return value == "true"
    if declared_type == "integer" and isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value):
        return int(value)
    return value


def _check_type(key: str, value: Any, declaration: Mapping[str, Any], stack: str) -> None:
    declared_type = declaration["type"]
    expected = _TYPES.get(declared_type)
    if expected is None:
        raise ProjectError(f"config key {key!r} is declared as {declared_type!r}; allowed: {', '.join(_TYPES)}")
    # True and False are ints to Python, not to Pulumi.
    if not isinstance(value, expected) or (isinstance(value, bool) and declared_type != "boolean"):
        default = declaration.get("default")
        cure = f"rm {key}" if default in (None, "", []) else f"set {key} {shlex.quote(_text(key, default))}"
        raise ProjectError(
            f"config key {key!r} of stack {stack!r} must be of type {declared_type}, not {value!r}\n"
            f"  pulumi config {cure} --stack {stack}"
        )


def _text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"secure"}:
        raise ProjectError(f"config key {key!r} is encrypted, which only the Pulumi CLI can read; give it with -c")
    return json.dumps(value)
