"""`make up ARGS=--watch`: what is taken up, what is said, and that nobody is cut off meanwhile.

In a copy of the project, whose files are nobody else's. Not proved here: that an update lets a call end
(test_emulator_gaps).
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.local.scenarios import PATIENCE_SECONDS, ask, pdf, receive_to_the_end

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.emulator


class Watched:
    """A running `up --watch`, and what it says."""

    def __init__(self, project: Path, process: subprocess.Popen[str]) -> None:
        self.project = project
        self._lines: queue.Queue[str] = queue.Queue()
        assert process.stdout is not None
        assert process.stderr is not None
        self._following = threading.Thread(target=self._follow, args=(process.stderr,), daemon=True)
        self._following.start()
        self.outputs: dict[str, Any] = json.loads(process.stdout.readline())
        self.says("^watching")

    def _follow(self, stream: Any) -> None:
        for line in stream:
            self._lines.put(line)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.project / path
        text = file.read_text()
        assert text.count(old) == 1, (path, old)
        file.write_text(text.replace(old, new))

    def close(self) -> None:
        """Once the process has ended: what it said is read to its end."""
        self._following.join()

    def says(self, pattern: str) -> str:
        while True:
            line = self._lines.get(timeout=PATIENCE_SECONDS)
            if re.search(pattern, line):
                return line


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    project = tmp_path_factory.mktemp("project")
    for name in ("infra", "functions", "library", "web", "local", "__main__.py", "Pulumi.yaml", "Pulumi.local.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, project / name)
    command = [sys.executable, "-m", "local", "up", "--port", "0", "--watch"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=project, env=os.environ | {"PYTHONPATH": ""}, **pipes) as process:
        watched = Watched(project, process)
        try:
            yield watched
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
            watched.close()


def test_a_changed_library_is_taken_up_and_connections_and_documents_stay(watched: Watched, tmp_path: Path) -> None:
    with connect(watched.outputs["websocketUrl"], open_timeout=PATIENCE_SECONDS, ping_interval=None) as connection:
        assert ask(connection, action="ping") == {"status": "pong"}
        request = urllib.request.Request(f"{watched.outputs['pageUrl']}upload?name=a.pdf", pdf(tmp_path))
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            document_id = json.load(answer)["docId"]
        first = ask(connection, action="progress", docId=document_id)
        messages = [first] if first["status"] == "processing_complete" else receive_to_the_end(connection)
        assert messages[-1]["status"] == "processing_complete"

        watched.edit(
            "library/docprogress/messages.py", '{"status": "pong"}', '{"status": "pong", "since": "the change"}'
        )
        said = watched.says("messages.py: taken up")
        assert "connection_handler" in said
        assert "document_processor" in said

        connection.send('{"action":"ping"}')
        assert json.loads(connection.recv(timeout=PATIENCE_SECONDS)) == {"status": "pong", "since": "the change"}
        again = ask(connection, action="progress", docId=document_id)
        assert again["sequence"] == messages[-1]["sequence"], "what was known of the document is known"


def test_what_cannot_be_taken_up_is_said(watched: Watched) -> None:
    watched.edit("functions/stall_watchdog.py", "from __future__ import annotations\n", "def (\n")
    assert "goes on with what it had: invalid syntax (stall_watchdog.py" in watched.says(
        "stall_watchdog.py: not taken up"
    )
    watched.edit("functions/stall_watchdog.py", "def (\n", "from __future__ import annotations\n\n")
    watched.says(r"stall_watchdog.py: taken up in .* by stall_watchdog$")
    watched.edit("web/styles.css", (text := (ROOT / "web" / "styles.css").read_text()), text + "\n")
    watched.says("web/styles.css: the page has it")
    watched.edit("Pulumi.local.yaml", "docprogress:stallTimeoutSeconds: 60", "docprogress:stallTimeoutSeconds: 70")
    watched.says("Pulumi.local.yaml: changes the stack itself")
