"""Builds `post.c`, the limit that the engine is measured against, where there is what it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.clients import CREDENTIALS, MESSAGE, REGION

NAME = "C, epoll and OpenSSL"
ENVIRONMENT: dict[str, str] = {
    "AWS_ACCESS_KEY_ID": str(CREDENTIALS.access_key),
    "AWS_SECRET_ACCESS_KEY": str(CREDENTIALS.secret_key),
    "AWS_SESSION_TOKEN": str(CREDENTIALS.token),
    "AWS_REGION": REGION,
    "MESSAGE": MESSAGE.decode(),
}


class CannotBuild(Exception):
    """Says what is missing."""


def build(directory: Path) -> Path:
    """Return the program, compiled into `directory`, or raise CannotBuild."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise CannotBuild("there is no C compiler")
    program = directory / "post"
    source = Path(__file__).with_name("post.c")
    built = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(source), "-lssl", "-lcrypto"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        errors = [line for line in built.stderr.splitlines() if "error" in line] or ["cc failed"]
        raise CannotBuild(f"it needs Linux and OpenSSL's headers: {errors[0]}")
    return program


def server(url: str) -> list[str]:
    """The arguments that name it."""
    parts = urlsplit(url)
    return [str(parts.hostname), str(parts.port), parts.path]
