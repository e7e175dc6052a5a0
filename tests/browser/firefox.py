"""Debian's Firefox, over WebDriver BiDi by npm's puppeteer-core: Playwright drives only a Firefox of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.npm_packages import PUPPETEER, command, installed, skip_or_fail

DRIVER = Path(__file__).parent / "apps" / "firefox.mjs"


class Firefox:
    """One page of a browser of its own, until the context ends.

    with Firefox() as firefox:
        firefox.goto(url)
        firefox.wait("document.title === 'Ready'")
    """

    def __init__(self) -> None:
        program = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
        if program is None or not Path(program).exists():
            skip_or_fail("no Firefox: install Debian's package `firefox-esr`, or name one in FIREFOX")
        modules = installed(PUPPETEER)
        self._process = subprocess.Popen(
            [command("node"), str(DRIVER), str(modules), str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version = ""

    def __enter__(self) -> Self:
        self.version = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # the driver closes the browser, then ends
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.__exit__(kind, error, trace)

    def goto(self, url: str) -> None:
        self._ask("goto", url)

    def evaluate(self, expression: str) -> Any:
        return self._ask("evaluate", expression)

    def wait(self, expression: str) -> None:
        """Until it is true, for a minute at most."""
        self._ask("wait", expression)

    def faults(self) -> list[str]:
        """What the page threw, and what it reported as errors."""
        faults: list[str] = self._ask("faults", "")
        return faults

    def _ask(self, action: str, argument: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({action: argument}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the driver of Firefox has ended; its errors are above"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["answer"]
