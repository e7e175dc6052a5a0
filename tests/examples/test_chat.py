"""The example of a chat, deployed on the emulator as it stands, between two browser clients in Node.

Does not prove that its page looks like anything, nor that pip installs the components (test_python).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from infra.lambda_package import PackagingError, lambda_package
from local.emulator import Emulator
from local.engine import deploy
from tests.local.scenarios import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
CHAT = ROOT / "examples" / "chat"
NODE = shutil.which("node")

pytestmark = pytest.mark.emulator

TALK = """
import { ProgressClient } from "%(root)s/web/client/index.js";
import { chat } from "%(root)s/examples/chat/chat.js";
const clients = [0, 1].map(() => new ProgressClient(process.argv[2]));
const seen = [];
const shown = Promise.all(clients.map((client, number) => new Promise((done) => {
  const say = chat(client, "invoice-7", (text) => { seen.push([number, text]); done(); });
  // Who subscribes while something is said may miss it.
  const stop = client.on("pending", () => { stop(); if (++ready === 2) say("Look at page 3"); });
})));
let ready = 0;
await shown;
clients.forEach((client) => client.close());
console.log(JSON.stringify(seen.sort()));
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        lambda_package("connection_handler")
    except PackagingError as error:
        pytest.skip(f"no package index: {error}")
    program = tmp_path_factory.mktemp("chat")
    shutil.copytree(CHAT, program, dirs_exist_ok=True)
    # As pip installs it.
    (program / "docprogress_infra").symlink_to(ROOT / "infra")
    with Emulator() as emulator:
        yield str(deploy(emulator.endpoint_url, stack="dev", project_dir=program)["websocketUrl"])


def ask(connection: ClientConnection, **message: object) -> dict[str, object]:
    connection.send(json.dumps(message))
    answer: dict[str, object] = json.loads(connection.recv(timeout=PATIENCE_SECONDS))
    return answer


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_whoever_watches_hears_what_is_said(url: str, tmp_path: Path) -> None:
    assert NODE is not None
    script = tmp_path / "talk.mjs"
    script.write_text(TALK % {"root": ROOT.as_uri()})
    ended = subprocess.run(
        [NODE, "--experimental-websocket", script, url], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [[0, "Look at page 3"], [1, "Look at page 3"]]


def test_a_line_is_for_its_document_and_a_bad_one_for_nobody(url: str) -> None:
    with connect(url, open_timeout=PATIENCE_SECONDS) as speaker, connect(url, open_timeout=PATIENCE_SECONDS) as other:
        ask(other, action="progress", docId="invoice-8")
        for bad in (
            {},
            {"docId": "invoice-8"},
            {"docId": "x" * 300, "text": "hello"},
            {"docId": ["invoice-8"], "text": 1},
        ):
            assert ask(speaker, action="say", **bad)["status"] == "refused", bad
        assert ask(speaker, action="say", docId="invoice-7", text="elsewhere") == {"status": "said"}
        assert ask(speaker, action="say", docId="invoice-8", text="y" * 900) == {"status": "said"}
        heard = json.loads(other.recv(timeout=PATIENCE_SECONDS))
        assert (heard["docId"], heard["text"]) == ("invoice-8", "y" * 500), "what is said elsewhere is not heard here"
