"""What the documentation says of the repository is so: files, verbs, keys, figures. Does not prove its prose.

tests/docs runs its code and its commands.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tools.docs_from_code import configuration

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
]
VERBS = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_page_of_the_configuration_is_what_pulumi_yaml_declares() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == configuration(), (
        "write it anew with python -m tools.docs_from_code"
    )


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 180


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_links_only_to_headings_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#([^)\s]+)\)", page.read_text())
    assert [
        (file, anchor) for file, anchor in links if anchor not in anchors(page.parent / file if file else page)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_verbs_that_make_has(page: Path) -> None:
    named = set(re.findall(r"(?:^|`|\$ )make ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= VERBS, "make help lists the verbs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_sets_only_keys_that_the_configuration_has(page: Path) -> None:
    keys = set(re.findall(r"docprogress:([a-z][A-Za-z]+)\b(?!:)", page.read_text())) - {"index"}
    assert {key for key in keys if f"| `{key}` |" not in configuration()} == set()
