"""The rules that every workflow of this repository keeps, as a function from a workflow's text to what breaks them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

_USES = re.compile(r"^\s*(?:-\s*)?uses:\s*(?P<used>\S+)(?P<rest>.*)$")
_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
_VERSION = re.compile(r"\s+# v\d+\.\d+\.\d+\s*")
# They run with the repository's secrets and a token that writes, on what a stranger sent.
_DANGEROUS_TRIGGERS = ("pull_request_target", "workflow_run", "issue_comment")


def broken_rules(text: str) -> list[str]:
    """One sentence for each rule that a workflow breaks; none for a good one."""
    workflow: dict[Any, Any] = yaml.safe_load(text)
    return [*_unpinned(text, workflow), *_of_workflow(workflow), *_of_jobs(workflow)]


def pins(text: str) -> dict[str, str]:
    """Each action that a workflow uses, with its commit and version."""
    used = (match for line in text.splitlines() if (match := _USES.match(line)))
    return {match["used"].split("@")[0]: match["used"].split("@")[-1] + match["rest"] for match in used}


def triggers(workflow: dict[Any, Any]) -> set[str]:
    on = workflow[True]  # YAML 1.1 reads the key `on` so
    return {on} if isinstance(on, str) else set(on)


def steps(workflow: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", [])


def _unpinned(text: str, workflow: dict[Any, Any]) -> Iterator[str]:
    with_version = {
        match["used"] for line in text.splitlines() if (match := _USES.match(line)) and _says_version(match)
    }
    # As YAML reads it, so that no way of writing it is passed over.
    used = [part["uses"] for part in (*workflow["jobs"].values(), *steps(workflow)) if "uses" in part]
    for action in used:
        if action.startswith("./"):
            continue
        if not _PINNED.fullmatch(action):
            yield f"{action} is not pinned to a commit"
        if action not in with_version:
            yield f"{action} does not say its version as '# v1.2.3'"


def _says_version(match: re.Match[str]) -> bool:
    return _VERSION.fullmatch(match["rest"]) is not None


def _of_workflow(workflow: dict[Any, Any]) -> Iterator[str]:
    for trigger in sorted(triggers(workflow) & set(_DANGEROUS_TRIGGERS)):
        yield f"{trigger} gives a stranger's input the rights of this repository"
    if workflow.get("permissions") not in ({}, {"contents": "read"}):
        yield "the workflow's own permissions are neither {} nor contents: read"
    if _reads_secrets(workflow.get("env")):
        yield "the workflow gives secrets to all of its jobs"


def _of_jobs(workflow: dict[Any, Any]) -> Iterator[str]:
    for name, job in workflow["jobs"].items():
        if "timeout-minutes" not in job and "uses" not in job:
            yield f"job {name} may run for six hours: it has no timeout-minutes"
        permissions = job.get("permissions", {})
        if not isinstance(permissions, dict):
            yield f"job {name} takes {permissions}, not the rights that it needs"
        elif "write" in permissions.values() and _runs_on_pull_requests(workflow, job):
            yield f"job {name} writes on every pull request: it must leave out those of forks"
        for step in job.get("steps", []):
            if "${{" in step.get("run", "") + str(step.get("with", {}).get("script", "")):
                yield f"job {name} has an expression within a script: hand it over in env"
            if step.get("uses", "").startswith("actions/checkout@") and (
                step.get("with", {}).get("persist-credentials") is not False
            ):
                yield f"job {name} leaves the token in the checkout: it needs persist-credentials: false"
        if _reads_secrets(job) and _runs_on_pull_requests(workflow, job):
            yield f"job {name} reads secrets on every pull request: it must leave out those of forks"


def _reads_secrets(part: object) -> bool:
    return re.search(r"\bsecrets\b", str(part)) is not None


def _runs_on_pull_requests(workflow: dict[Any, Any], job: dict[str, Any]) -> bool:
    leaves_out_forks = "github.event.pull_request.head.repo.full_name == github.repository" in str(job.get("if", ""))
    follows = any(
        not _runs_on_pull_requests(workflow, workflow["jobs"][needed])
        and "always()" not in str(job.get("if", ""))
        and "cancelled()" not in str(job.get("if", ""))
        for needed in _needs(job)
    )
    return "pull_request" in triggers(workflow) and not leaves_out_forks and not follows


def _needs(job: dict[str, Any]) -> list[str]:
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)
