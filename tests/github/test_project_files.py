"""The files that a host of repositories reads: licence, citation, templates, Dependabot."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
# What each ecosystem of Dependabot looks for in a folder.
MANIFESTS = {
    "docker": "Dockerfile",
    "github-actions": ".github/workflows/*.yml",
    "npm": "package.json",
    "pip": "*requirements*.txt",
}


def _python(folder: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return project


def _sources() -> dict[str, dict[str, Any]]:
    """Whatever says the version and the licence."""
    return {
        "the program": _python("."),
        "the library": _python("library"),
        "the browser client": json.loads((ROOT / "web" / "client" / "package.json").read_text()),
        "the citation": yaml.safe_load((ROOT / "CITATION.cff").read_text()),
    }


def test_the_licence_is_the_same_wherever_it_is_named() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "[name of copyright owner]" not in text, "the licence names its owner"
    assert {source: said["license"] for source, said in _sources().items()} == dict.fromkeys(_sources(), "Apache-2.0")


def test_one_tag_is_the_version_of_everything_that_a_release_has() -> None:
    schema = json.loads((ROOT / "plugin" / "schema.json").read_text())
    said = {source: said["version"] for source, said in ({"the component": schema} | _sources()).items()}
    assert said == dict.fromkeys(said, _python(".")["version"])


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name)
def test_an_issue_form_has_what_github_asks_for(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def _dependabot() -> dict[str, set[Path]]:
    """The folders that each ecosystem is looked for in."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    return {
        update["package-ecosystem"]: {
            ROOT.joinpath(folder.lstrip("/")) for folder in update.get("directories", [update.get("directory")])
        }
        for update in updates
    }


def test_dependabot_looks_where_there_is_something_to_update() -> None:
    for ecosystem, folders in _dependabot().items():
        assert [folder for folder in folders if not list(folder.glob(MANIFESTS[ecosystem]))] == [], ecosystem


def test_dependabot_looks_wherever_a_version_is_written_down() -> None:
    pinned = {
        "npm": {path for path in _sources_named("package.json") if "ependencies" in path.read_text()},
        "docker": set(_sources_named("Dockerfile")),
        "pip": {path for path in _sources_named("*requirements*.txt") if "==" in path.read_text()},
    }
    assert all(pinned.values())
    for ecosystem, paths in pinned.items():
        assert {path.parent for path in paths} <= _dependabot()[ecosystem], ecosystem


def _sources_named(pattern: str) -> Iterator[Path]:
    """Without what the verbs and npm make."""
    for path in ROOT.rglob(pattern):
        if not any(part.startswith(".") or part in ("node_modules", "dist") for part in path.relative_to(ROOT).parts):
            yield path
