"""Deploys a Pulumi program onto the emulator, without the Pulumi CLI and without changing the program.

The work happens in a process of its own (`local.engine_process`); this is the caller's side of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from local.emulator import CREDENTIALS, NO_PROFILE

_STANDARD_ERROR = 2
_END_SECONDS = 2.0  # for the program's own exit handlers
_ROOT = Path(__file__).resolve().parent.parent


class DeployError(Exception):
    """The program could not be deployed: one message that names the resource, its type and what AWS said."""


@dataclass(frozen=True)
class ResourceCreated:
    """One resource stands. `number` counts from 1; how many follow is not known beforehand."""

    number: int
    type: str
    name: str
    seconds: float


class Deployment:
    """A deployment under way, for as long as the block runs.

    The engine takes longer to import Pulumi than the emulator to start, so both should be started first and
    awaited later.

    Args:
        endpoint_url: The emulator. Its socket must accept connections, it need not answer yet.
        stack: Whose `Pulumi.{stack}.yaml` is read.
        config: Overrides, as `pulumi up -c` takes them.
        project_dir: The folder of `Pulumi.yaml` and `__main__.py`.
        on_created: Called for every resource, from the thread that waits.
        on_log: Called with every line that the program prints or Pulumi logs, from a thread of its own.
            None lets them through to standard error.
    """

    def __init__(
        self,
        endpoint_url: str,
        *,
        stack: str = "local",
        config: Mapping[str, str] | None = None,
        project_dir: Path = _ROOT,
        on_created: Callable[[ResourceCreated], None] = lambda _: None,
        on_log: Callable[[str], None] | None = None,
    ) -> None:
        self._on_created = on_created
        self._on_log = on_log
        reports, report_descriptor = os.pipe()
        self._reports = os.fdopen(reports, encoding="utf-8")
        request = {
            "endpoint_url": endpoint_url,
            "credentials": CREDENTIALS,
            "stack": stack,
            "config": dict(config or {}),
            "project_dir": str(project_dir.resolve()),
            "report_descriptor": report_descriptor,
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local.engine_process"],
                cwd=_ROOT,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if on_log else _STANDARD_ERROR,
                stderr=subprocess.STDOUT,
                pass_fds=(report_descriptor,),
                start_new_session=True,
                text=True,
            )
        except BaseException:
            self._reports.close()
            raise
        finally:
            os.close(report_descriptor)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            json.dump(request, stdin)
        self._succeeded = False
        self._following = threading.Thread(target=self._follow, daemon=True)
        self._following.start()

    def wait(self) -> dict[str, Any]:
        """Returns the stack's outputs, secrets unwrapped.

        Raises:
            DeployError: When the program or one of its resources failed.
        """
        number = 0
        for line in self._reports:
            report = json.loads(line)
            if "created" in report:
                number += 1
                self._on_created(ResourceCreated(number, report["created"], report["name"], report["seconds"]))
            elif "outputs" in report:
                self._succeeded = True  # what is left is the interpreter's own end, for which nobody waits
                return dict(report["outputs"])
            elif "error" in report:
                raise DeployError(report["error"])
        code = self._process.wait()
        raise DeployError(f"the engine ended with exit code {code} and without a word")

    def stop(self) -> None:
        """Ends the engine's process if it still runs; what it has created so far goes with the emulator."""
        try:
            self._process.wait(_END_SECONDS if self._succeeded else 0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                # With whatever the program started, such as a packager.
                os.killpg(self._process.pid, signal.SIGKILL)
        self._following.join()
        self._reports.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _follow(self) -> None:
        if self._process.stdout is not None and self._on_log is not None:
            for line in self._process.stdout:
                self._on_log(line.rstrip("\n"))
        self._process.wait()  # or it would stay in the process table for as long as the stack is up


def deploy(
    endpoint_url: str,
    *,
    stack: str = "local",
    config: Mapping[str, str] | None = None,
    project_dir: Path = _ROOT,
    on_created: Callable[[ResourceCreated], None] = lambda _: None,
) -> dict[str, Any]:
    """Deploys a program and returns its stack outputs. See `Deployment` for the arguments.

    Raises:
        DeployError: When the program or one of its resources failed.
    """
    with Deployment(
        endpoint_url, stack=stack, config=config, project_dir=project_dir, on_created=on_created
    ) as deployment:
        return deployment.wait()


def _environment() -> dict[str, str]:
    # Nobody's AWS endpoint or Pulumi config may leak into a local deployment either.
    foreign = ("AWS_", "PULUMI_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | NO_PROFILE
