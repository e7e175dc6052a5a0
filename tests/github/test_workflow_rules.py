"""The rules of the workflows, and that each of them is seen when it is broken.

Does not prove that GitHub takes the workflows: actionlint and zizmor read them in CI, and only a run shows the rest.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.github.workflow_rules import broken_rules, pins, steps

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
GOOD = """
on: pull_request
permissions: {}
jobs:
  test:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      contents: read
    steps:
      - uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2
        with:
          persist-credentials: false
      - run: echo "$TITLE"
        env:
          TITLE: ${{ github.event.pull_request.title }}
"""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_breaks_no_rule(path: Path) -> None:
    assert broken_rules(path.read_text()) == []


def test_an_action_has_one_version_in_all_workflows() -> None:
    versions: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action, pin in pins(path.read_text()).items():
            versions.setdefault(action, set()).add(pin)
    assert {action: found for action, found in versions.items() if len(found) > 1} == {}


def test_a_good_workflow_breaks_none() -> None:
    assert broken_rules(GOOD) == []


@pytest.mark.parametrize(
    ("was", "becomes", "seen"),
    [
        ("@de0fac2e4500dabe0009e67214ff5f5447ce83dd", "@v6", "not pinned"),
        ("@de0fac2e4500dabe0009e67214ff5f5447ce83dd", "@de0fac2", "not pinned"),
        (" # v6.0.2", "", "does not say its version"),
        (" # v6.0.2", " # main", "does not say its version"),
        ("      - run: echo", "      - {uses: actions/cache@v4}\n      - run: echo", "actions/cache@v4 is not pinned"),
        ("      - run: echo", "      - uses: docker://alpine:3\n      - run: echo", "docker://alpine:3 is not pinned"),
        (
            'run: echo "$TITLE"',
            "uses: ./here\n        with: {script: '${{ github.head_ref }}'}",
            "expression within a script",
        ),
        ("persist-credentials: false", "fetch-depth: 1", "token in the checkout"),
        ("persist-credentials: false", "persist-credentials: true", "token in the checkout"),
        ('echo "$TITLE"', 'echo "${{ github.event.pull_request.title }}"', "expression within a script"),
        ('echo "$TITLE"', "echo ${{github.head_ref}}", "expression within a script"),
        ("permissions: {}", "permissions: write-all", "own permissions"),
        ("permissions: {}", "env: {}", "own permissions"),
        ("permissions: {}", "permissions: {contents: write}", "own permissions"),
        ("permissions:\n      contents: read", "permissions: read-all", "takes read-all"),
        ("contents: read", "pull-requests: write", "writes on every pull request"),
        ("contents: read", "id-token: write", "writes on every pull request"),
        ("${{ github.event.pull_request.title }}", "${{ secrets.TOKEN }}", "reads secrets on every pull request"),
        ("${{ github.event.pull_request.title }}", "${{ toJSON(secrets) }}", "reads secrets on every pull request"),
        ("permissions: {}", "permissions: {}\nenv: {A: '${{ secrets.A }}'}", "gives secrets to all of its jobs"),
        ("timeout-minutes: 5", "name: test", "six hours"),
        ("on: pull_request", "on: pull_request_target", "pull_request_target"),
        ("on: pull_request", "on: {workflow_run: {workflows: [CI]}}", "workflow_run"),
        ("on: pull_request", "on: [push, issue_comment]", "issue_comment"),
    ],
)
def test_a_broken_rule_is_seen(was: str, becomes: str, seen: str) -> None:
    assert was in GOOD
    assert any(seen in broken for broken in broken_rules(GOOD.replace(was, becomes)))


def test_a_job_that_leaves_out_forks_may_write_and_read_secrets() -> None:
    job = GOOD.replace("contents: read", "id-token: write").replace("github.event.pull_request.title", "secrets.TOKEN")
    condition = "    if: github.event.pull_request.head.repo.full_name == github.repository\n    runs-on"
    assert broken_rules(job.replace("    runs-on", condition)) == []


def test_the_verbs_that_workflows_call_are_verbs_of_the_makefile() -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    scripts = [step.get("run", "") for path in WORKFLOWS for step in steps(yaml.safe_load(path.read_text()))]
    called = {verb for script in scripts for verb in re.findall(r"^\s*make(?: -\S+)* ([a-z]+)", script, re.MULTILINE)}
    assert called, "CI runs the verbs that people use"
    assert called <= verbs
