"""The components as programs in other languages see them.

Does not prove that the Pulumi CLI starts the plugin: the example in YAML does, on the real engine.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from pulumi.provider.experimental.component import ComponentProvider

PLUGIN = Path(__file__).parents[2] / "plugin"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("plugin_main", PLUGIN / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    host = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(host)
    inferred = json.loads(ComponentProvider(host.COMPONENTS, "docprogress", None, host.VERSION).schema)
    return as_the_cli_writes(inferred)


def as_the_cli_writes(schema: Any, name: str = "") -> Any:
    """Without what is empty, and with a description of a list or a map only where it stands."""
    if isinstance(schema, dict):
        left_out = {"description"} if name in ("items", "additionalProperties") else set()
        return {
            key: as_the_cli_writes(value, key)
            for key, value in schema.items()
            if value not in ({}, [], None) and key not in left_out
        }
    return [as_the_cli_writes(each) for each in schema] if isinstance(schema, list) else schema


def test_the_committed_schema_is_the_inferred_one(schema: dict[str, Any]) -> None:
    assert as_the_cli_writes(json.loads((PLUGIN / "schema.json").read_text())) == schema, (
        "write it anew: pulumi package get-schema ./plugin | sed -n '/^{/,$p' > plugin/schema.json"
    )


def test_every_component_argument_output_and_choice_is_described(schema: dict[str, Any]) -> None:
    assert set(schema["resources"]) == {
        f"docprogress:index:{name}" for name in ("DocumentProgress", "WebSocketApi", "DocumentPipeline", "DeployRole")
    }
    for resource in schema["resources"].values():
        assert resource["description"]
        assert "requiredInputs" not in resource, "every argument may be left out"
        for described in (*resource["inputProperties"].items(), *resource["properties"].items()):
            assert described[1].get("description"), described[0]
    for each in schema["types"].values():
        parts = each["enum"] if "enum" in each else each["properties"].values()
        assert all(part.get("description") for part in parts), each


def test_a_program_that_only_names_the_component_gets_all_outputs(schema: dict[str, Any]) -> None:
    assert set(schema["resources"]["docprogress:index:DocumentProgress"]["required"]) == {
        *("url", "callbackUrl", "apiId", "stageName", "tableName", "connectionHandlerName"),
        *("workerEnvironment", "workerPolicy"),
    }
