"""The README says what is true of the configuration. Does not prove its prose."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_the_readme_lists_every_configuration_key_with_its_default() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    expected = {
        key.removeprefix("docprogress:"): declaration["default"]
        if isinstance(declaration["default"], str)
        else json.dumps(declaration["default"])
        for key, declaration in declared.items()
    }
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {key: "" if default == '""' else default for key, default in rows} == expected


def test_the_readme_names_no_file_that_is_not_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
