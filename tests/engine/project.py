"""A copy of this project in a folder of its own, which the real Pulumi CLI deploys on an emulator."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.emulator import CREDENTIALS, NO_PROFILE, REGION, Emulator

ROOT = Path(__file__).resolve().parents[2]
_COUNT = re.compile(r"^\s+(?:[-+~]+\s*)?(\d+) (?:to )?(create|update|replace|delete|unchanged|errored)d?\b", re.M)


@dataclass(frozen=True)
class Outcome:
    """What one command of the CLI did.

    Attributes:
        counts: By what became of a resource: create, update, replace, delete, unchanged, errored.
    """

    code: int
    output: str
    counts: Mapping[str, int]

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.output}"


class EngineProject:
    """The tree of this repository under `folder`, one stack of it, and the CLI with a state of its own.

    Args:
        program: The folder of the `Pulumi.yaml` to deploy, from the root.
        stack: Its settings are those of the file in the repository, if there is one.
    """

    def __init__(
        self,
        folder: Path,
        emulator: Emulator,
        *,
        stack: str,
        program: str = ".",
    ) -> None:
        self.stack = stack
        self.emulator = emulator
        self.root = folder / "tree"
        self.program = self.root / program
        _copy_tree(self.root)
        # As the CLI makes it by `pulumi install`, but for the time that takes.
        (self.root / ".venv").symlink_to(sys.prefix)
        (folder / "state").mkdir()
        self._environment = _environment(folder)
        self._file = self.program / f"Pulumi.{stack}.yaml"
        given: dict[str, Any] = yaml.safe_load(self._file.read_text())["config"] if self._file.exists() else {}
        self._config = given | _provider_settings(emulator.endpoint_url)
        self._package_here()
        self._write()
        self.run("stack", "init", stack)
        # What `stack init` adds, the salt of the stack's secrets, must outlive the next change of the settings.
        self._salt = yaml.safe_load(self._file.read_text()).get("encryptionsalt")
        self._write()

    def _package_here(self) -> None:
        """With this machine's wheels: those of Lambda are the subject of test_lambda_package."""
        if self.program == self.root:
            self._config["docprogress:lambdaPackaging"] = "host"
        else:
            program = self.program / "Pulumi.yaml"
            text = program.read_text()
            assert "disposable: true" in text or "DocumentProgress" not in text
            program.write_text(text.replace("disposable: true", "disposable: true, lambdaPackaging: host"))

    def set(self, **changes: Any) -> None:
        """Sets the program's own keys as `pulumi config set` does; None takes one out."""
        for key, value in changes.items():
            self._config.pop(f"docprogress:{key}", None)
            if value is not None:
                self._config[f"docprogress:{key}"] = value
        self._write()

    def act_as(self, credentials: Mapping[str, str]) -> None:
        """Who asks from now on: the variables of a role's session, in place of the emulator's root user."""
        self._environment |= credentials

    def rename(self, stack: str) -> Outcome:
        """The stack and its settings file, as the CLI does."""
        outcome = self.run("stack", "rename", stack)
        self.stack, self._file = stack, self.program / f"Pulumi.{stack}.yaml"
        return outcome

    def preview(self) -> Outcome:
        return self.run("preview")

    def up(self) -> Outcome:
        return self.run("up", "--yes", "--skip-preview")

    def up_until_killed(self, resource_type: str, made: Callable[[], bool]) -> None:
        """Kills an `up` outright as soon as `made` says so, once the CLI has said that it creates such a resource.

        With its plugins and the program, which would outlive it, as where a machine is switched off.
        """
        command = ["pulumi", "up", "--yes", "--skip-preview", "--stack", self.stack, "--non-interactive"]
        with subprocess.Popen(
            [*command, "--color", "never"],
            cwd=self.program,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as started:
            assert started.stdout is not None
            said = []
            for line in started.stdout:
                said.append(line)
                if resource_type in line and "creating" in line:
                    while started.poll() is None and not made():
                        time.sleep(0.02)
                    self._stop_between_writes(started.pid)
                    _kill_session(started.pid)
                    said += started.stdout
        assert started.returncode == -signal.SIGKILL, "".join(said)

    def _stop_between_writes(self, pid: int) -> None:
        """The CLI writes its state in place; killed meanwhile it leaves half a file, of which it says only `EOF`."""
        state = Path(self._environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
        while True:
            os.kill(pid, signal.SIGSTOP)
            os.waitpid(pid, os.WUNTRACED)
            try:
                for file in state.rglob("stacks/**/*.json"):
                    json.loads(file.read_text())
            except ValueError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.02)
            else:
                return

    def refresh(self) -> Outcome:
        return self.run("refresh", "--yes", "--skip-preview")

    def destroy(self, *, previewed: bool = False) -> Outcome:
        return self.run("destroy", "--yes", *(() if previewed else ("--skip-preview",)))

    def outputs(self) -> dict[str, Any]:
        return dict(json.loads(self.run("stack", "output", "--json").output))

    def run(self, *command: str) -> Outcome:
        on_stack = () if command[:2] == ("stack", "init") else ("--stack", self.stack)
        done = subprocess.run(
            ["pulumi", *command, *on_stack, "--non-interactive", "--color", "never"],
            cwd=self.program,
            env=self._environment,
            stdout=subprocess.PIPE,
            # The CLI writes what it warns of there; outputs are read from the other.
            stderr=subprocess.PIPE if "--json" in command else subprocess.STDOUT,
            text=True,
            timeout=400,
            check=False,
        )
        return _outcome(done)

    def shell(self, script: str) -> Outcome:
        """Commands as a page has them, in the folder of the program and about its stack."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.program,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
            check=False,
        )
        return _outcome(done)

    def _write(self) -> None:
        salt = {"encryptionsalt": self._salt} if getattr(self, "_salt", None) else {}
        self._file.write_text(yaml.safe_dump({**salt, "config": self._config}))


def _outcome(done: subprocess.CompletedProcess[str]) -> Outcome:
    counts = {word: int(number) for number, word in _COUNT.findall(done.stdout)}
    return Outcome(done.returncode, done.stdout, counts)


def _kill_session(session: int) -> None:
    # The CLI gives each plugin a process group of its own.
    listed = subprocess.run(["ps", "-A", "-o", "pid=,sess="], capture_output=True, text=True, check=True).stdout
    for pid, its_session in (line.split() for line in listed.splitlines()):
        if its_session == str(session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _copy_tree(to: Path) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        is_shown = name.startswith(("tests/", "docs/", "web/node_modules/")) and name != "docs/deploy-role.json"
        if (ROOT / name).is_file() and not is_shown:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def _provider_settings(endpoint_url: str) -> dict[str, Any]:
    """Those of Pulumi.local.yaml, for the port that the emulator took."""
    text = (ROOT / "Pulumi.local.yaml").read_text().replace("http://localhost:4566", endpoint_url)
    return {key: value for key, value in yaml.safe_load(text)["config"].items() if key.startswith("aws:")}


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PULUMI_"))}
    engine = {
        "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "of no use to anyone",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    if shutil.which("pulumi-resource-aws"):  # else the plugin is where the CLI installed it
        engine["PULUMI_HOME"] = str(folder / "home")
    elif "PULUMI_HOME" in os.environ:
        engine["PULUMI_HOME"] = os.environ["PULUMI_HOME"]
    return kept | engine | CREDENTIALS | NO_PROFILE | {"AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}
