"""The lives of the stacks, each on an emulator of its own and several at once: most of an `up` is waiting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _missing() if items else None
    if reason and os.environ.get("DOCPROGRESS_REQUIRE_ENGINE"):
        raise pytest.UsageError(f"DOCPROGRESS_REQUIRE_ENGINE is set, and {reason}")
    for item in items:
        if "/engine/" in item.path.as_posix():
            item.add_marker(pytest.mark.engine)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def _missing() -> str | None:
    if not shutil.which("pulumi"):
        return "there is no pulumi on the PATH: https://www.pulumi.com/docs/iac/download-install/"
    if shutil.which("pulumi-resource-aws"):
        return None
    listed = subprocess.run(["pulumi", "plugin", "ls", "--json"], capture_output=True, text=True, check=False)
    plugins = json.loads(listed.stdout) if listed.returncode == 0 else []
    if any(each["name"] == "aws" for each in plugins):
        return None
    return "pulumi has no aws plugin: pulumi plugin install resource aws"
