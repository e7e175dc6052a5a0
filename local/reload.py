"""`make up ARGS=--watch`: takes a changed file up while the stack runs.

A function gets its new code, as a deployment would give it. What runs ends with the code that it began with. The page
is read from its files anyway. Nothing else is touched, so connections, subscriptions and documents stay.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.document_kinds import kind_of
from infra.lambda_package import PROJECT, Packaging, PackagingError, handler_path, lambda_package

_CODE = (PROJECT / "functions", PROJECT / "library" / "docprogress")
_PAGE = (PROJECT / "web",)
# What the stack is made of: only a deployment takes it up.
_PROGRAM = (PROJECT / "infra", PROJECT / "__main__.py", PROJECT / "Pulumi.yaml", PROJECT / "Pulumi.local.yaml")
_SUFFIXES = {".py", ".js", ".css", ".html", ".svg", ".yaml"}


class Reload:
    """Compares what is deployed with what the files say now; `look` again and again.

    Args:
        lambda_: the boto3 client of the stack's functions.
        kinds: the stack's documentKinds, whose handlers may stand anywhere.
        say: gets a line for people.
    """

    def __init__(self, lambda_: Any, kinds: Iterable[str], say: Callable[[str], None]) -> None:
        self._lambda = lambda_
        self._say = say
        elsewhere = {handler_path(module): module for module in (kind_of(text)["handler_module"] for text in kinds)}
        self._code = (*_CODE, *(handler.parent for handler in elsewhere))
        modules = {handler.stem: module for handler, module in elsewhere.items()}
        self._modules: dict[str, str] = {}
        self._deployed: dict[str, str] = {}
        for page in lambda_.get_paginator("list_functions").paginate():
            for function in page["Functions"]:
                name, stem = function["FunctionName"], function["Handler"].removesuffix(".handler")
                if stem in modules or (PROJECT / "functions" / f"{stem}.py").is_file():  # not somebody's own
                    self._modules[name] = modules.get(stem, stem)
                    self._deployed[name] = function["CodeSha256"]
        # A change during the deployment counts: the first look compares everything.
        self._seen: dict[Path, tuple[int, int]] = {}
        self._latest: dict[Path, tuple[int, int]] = {}

    def look(self) -> None:
        """Take up what has changed, once two looks in a row see the same: an editor may be in the middle of a file."""
        before, now = self._latest, self._stamps()
        self._latest = now
        if now != before:
            return
        changed = {path for path in now.keys() | self._seen.keys() if now.get(path) != self._seen.get(path)}
        is_first, self._seen = not self._seen, now
        if is_first:
            self._take_up("what changed meanwhile")
            self._say("watching the functions, the library and the page")
            return
        for tops, advice in (
            (_PROGRAM, "changes the stack itself; end this, and make up again"),
            (_PAGE, "the page has it; reload it in the browser"),
        ):
            if names := _names(changed, tops):
                self._say(f"{names}: {advice}")
        if names := _names(changed, self._code):
            self._take_up(names)

    def _take_up(self, names: str) -> None:
        started_at = time.monotonic()
        try:
            taken = sorted(self._update())
        # A file that is no Python is told as a SyntaxError or, with a null byte, as a ValueError.
        except (PackagingError, SyntaxError, ValueError, OSError, BotoCoreError, ClientError) as error:
            self._say(f"{names}: not taken up, and the stack goes on with what it had: {error}")
            return
        if taken:
            self._say(f"{names}: taken up in {time.monotonic() - started_at:.1f} s by {', '.join(taken)}")

    def _update(self) -> Iterator[str]:
        """The modules of the functions that got new code."""
        # All of them first: code that cannot be packaged goes to none.
        archives = {name: lambda_package(module, target=Packaging.HOST) for name, module in self._modules.items()}
        for name, archive in archives.items():
            code = archive.read_bytes()
            digest = base64.b64encode(hashlib.sha256(code).digest()).decode()
            if digest != self._deployed[name]:
                aliases = self._lambda.list_aliases(FunctionName=name)["Aliases"]
                made = self._lambda.update_function_code(FunctionName=name, ZipFile=code, Publish=bool(aliases))
                for alias in aliases:  # through which the stack calls it, with snapStart
                    self._lambda.update_alias(FunctionName=name, Name=alias["Name"], FunctionVersion=made["Version"])
                self._deployed[name] = digest
                yield Path(self._modules[name]).stem

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for top in (*self._code, *_PAGE, *_PROGRAM):
            for path in top.rglob("*") if top.is_dir() else [top]:
                if path.suffix in _SUFFIXES and "node_modules" not in path.parts:
                    try:
                        status = path.stat()
                    except FileNotFoundError:
                        continue  # gone between the listing and the look, or an editor's own
                    found[path] = (status.st_mtime_ns, status.st_size)
        return found


def _names(changed: Iterable[Path], tops: tuple[Path, ...]) -> str:
    """Those of the changed files that are below one of these folders."""
    below = (path for path in changed if any(path == top or path.is_relative_to(top) for top in tops))
    return ", ".join(sorted(str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path) for path in below))
