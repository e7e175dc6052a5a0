"""What single workflows promise: who may run them, and what their scripts do with what GitHub answers.

The scripts run in a shell with a `gh` that notes what it is asked. Not proved here: GitHub's own answers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.github.workflow_rules import triggers

WORKFLOWS = Path(__file__).parents[2] / ".github" / "workflows"


def workflow(name: str) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    return read


class Shell:
    """Runs a script as a runner would. `answers` are what gh prints for a call that begins with the key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, str] = {}
        self.artifact: str | None = None
        self.calls: list[str] = []

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        cases = "\n".join(f"{begin!r}*) echo {answer!r} ;;" for begin, answer in self.answers.items())
        get = f"printf %s {self.artifact!r} > comment.md" if self.artifact is not None else "exit 1"
        fake = self.folder / "bin" / "gh"
        fake.parent.mkdir(exist_ok=True)
        calls = self.folder / "calls"
        fake.write_text(f'#!/bin/sh\necho "$*" >> {calls}\ncase "$*" in\n"run download"*) {get} ;;\n{cases}\nesac\n')
        fake.chmod(0o755)
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            env={"PATH": f"{fake.parent}:{os.environ['PATH']}", "GITHUB_RUN_ID": "9", "GH_REPO": "o/r"} | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        self.calls = calls.read_text().splitlines() if calls.exists() else []
        return done


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def script(name: str, job: str) -> str:
    """The only script of a job."""
    (found,) = [step["run"] for step in workflow(name)["jobs"][job]["steps"] if "run" in step]
    return str(found)


# --- preview ---


def test_a_first_preview_is_a_new_comment(shell: Shell) -> None:
    shell.artifact = "text"
    done = shell.run(script("preview", "comment"), PULL_REQUEST="7")
    assert done.returncode == 0, done.stderr
    assert shell.calls[-1] == "api --method POST repos/o/r/issues/7/comments --field body=@comment.md --silent"


def test_a_later_preview_replaces_the_comment(shell: Shell) -> None:
    shell.artifact = "text"
    shell.answers["api --paginate"] = "41"
    done = shell.run(script("preview", "comment"), PULL_REQUEST="7")
    assert done.returncode == 0, done.stderr
    assert shell.calls[-1] == "api --method PATCH repos/o/r/issues/comments/41 --field body=@comment.md --silent"


def test_the_code_of_a_pull_request_runs_without_a_token_that_writes() -> None:
    jobs = workflow("preview")["jobs"]
    assert jobs["preview"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert not any("uses" in step for step in jobs["comment"]["steps"]), "no checkout beside the right to comment"
    for job in ("preview", "comment"):
        assert "github.event.pull_request.head.repo.full_name == github.repository" in jobs[job]["if"]


def test_a_fork_is_told_why_there_is_no_preview(shell: Shell, tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    done = shell.run(script("preview", "no-preview"), GITHUB_STEP_SUMMARY=str(summary))
    assert "::notice title=No preview::" in done.stdout
    assert "get no preview" in summary.read_text()
    assert workflow("preview")["jobs"]["no-preview"].get("permissions", {}) == {}


# --- deploy ---


@pytest.mark.parametrize(("stack", "rules"), [("dev", ""), ("prod", "wait_timer required_reviewers branch_policy")])
def test_dev_and_a_stack_with_reviewers_are_deployed(shell: Shell, stack: str, rules: str) -> None:
    shell.answers["api repos/o/r/environments/prod"] = rules
    done = shell.run(script("deploy", "reviewed"), STACK=stack)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("rules", ["", "wait_timer", "not_required_reviewers"])
def test_a_stack_that_nobody_reviews_is_refused(shell: Shell, rules: str) -> None:
    shell.answers["api repos/o/r/environments/prod"] = rules
    done = shell.run(script("deploy", "reviewed"), STACK="prod")
    assert done.returncode == 1
    assert "::error::Give the environment prod required reviewers" in done.stdout


@pytest.mark.parametrize("stack", ["../environments/dev", "prod?x", "a b", "$(id)"])
def test_a_name_that_is_no_stack_is_refused_before_anything_is_asked(shell: Shell, stack: str) -> None:
    done = shell.run(script("deploy", "reviewed"), STACK=stack)
    assert (done.returncode, shell.calls) == (1, [])


def test_only_main_is_deployed_and_only_after_the_check_of_its_environment() -> None:
    deploy = workflow("deploy")
    assert triggers(deploy) == {"push", "workflow_dispatch"}
    assert "github.ref == 'refs/heads/main'" in deploy["jobs"]["reviewed"]["if"]
    assert deploy["jobs"]["deploy"]["needs"] == "reviewed"
    assert "if" not in deploy["jobs"]["deploy"], "a condition of its own could pass over the check"
    assert deploy["jobs"]["deploy"]["environment"] == "${{ inputs.stack || 'dev' }}"
    assert deploy["concurrency"]["cancel-in-progress"] is False, "an update that is cut off leaves a lock behind"


def test_a_deployment_refreshes_first() -> None:
    (deployed,) = [step["run"] for step in workflow("deploy")["jobs"]["deploy"]["steps"] if "pulumi up" in str(step)]
    assert deployed.index("pulumi refresh") < deployed.index("pulumi up")


# --- drift ---

DRIFT = {"TITLE": "Stack dev is not what main says", "RUN": "https://example.com/9"}


def test_a_first_difference_opens_an_issue_that_names_the_run(shell: Shell, tmp_path: Path) -> None:
    shell.artifact = "text"
    done = shell.run(script("drift", "report"), RESULT="failure", **DRIFT)
    assert done.returncode == 0, done.stderr
    assert shell.calls[-1] == "issue create --title Stack dev is not what main says --body-file comment.md"
    assert "Found by https://example.com/9." in (tmp_path / "comment.md").read_text()


def test_a_difference_that_stays_is_told_in_the_same_issue(shell: Shell) -> None:
    shell.artifact = "text"
    shell.answers["api --paginate"] = "12"
    shell.run(script("drift", "report"), RESULT="failure", **DRIFT)
    assert shell.calls[-1] == "issue edit 12 --body-file comment.md"


def test_a_difference_that_is_gone_closes_its_issue(shell: Shell) -> None:
    shell.answers["api --paginate"] = "12"
    done = shell.run(script("drift", "report"), RESULT="success", **DRIFT)
    assert done.returncode == 0, done.stderr
    assert shell.calls[-1] == "issue close 12 --comment No difference any more: https://example.com/9"


def test_without_a_difference_or_an_issue_nothing_is_written(shell: Shell) -> None:
    done = shell.run(script("drift", "report"), RESULT="success", **DRIFT)
    assert done.returncode == 0, done.stderr
    assert len(shell.calls) == 1


def test_drift_is_looked_for_each_night_and_fails_on_any_change() -> None:
    drift = workflow("drift")
    assert len(drift[True]["schedule"]) == 1
    assert "--refresh --expect-no-changes --json" in str(drift["jobs"]["detect"]["steps"])
    assert drift["jobs"]["report"]["permissions"] == {"actions": "read", "issues": "write"}


# --- release ---


def test_a_release_holds_no_token_of_a_registry_and_runs_no_code_where_it_signs() -> None:
    release = workflow("release")
    assert "secrets." not in str(release), "a person publishes with a token of their own"
    assert release["jobs"]["build"]["permissions"] == {"contents": "read"}
    used = [step["uses"].split("@")[0] for step in release["jobs"]["publish"]["steps"] if "uses" in step]
    assert set(used) == {"actions/attest"}


@pytest.mark.parametrize(("tag", "code"), [("v0.1.0", 0), ("v0.1.1", 1)])
def test_a_tag_that_is_not_the_version_is_refused(shell: Shell, tmp_path: Path, tag: str, code: int) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n')
    scripts = [step["run"] for step in workflow("release")["jobs"]["build"]["steps"] if "run" in step]
    (compare,) = [script for script in scripts if "GITHUB_REF_NAME" in script]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert shell.run(compare, GITHUB_REF_NAME=tag).returncode == code
