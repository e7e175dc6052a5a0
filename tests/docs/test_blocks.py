"""The code and the data that the pages show: run against the local stack, or held to what reads it.

Commands are for test_commands.py. Not proved here: that GitHub draws the diagrams.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi_aws as aws
import pytest
import yaml
from websockets.sync.server import ServerConnection, serve

import docprogress
from docprogress.document import DocumentState, Failure, Status
from functions.end_events import entry
from infra.log_queries import LogQuery
from local.emulator import CREDENTIALS, REGION
from tests.docs.conftest import forget
from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.infra.samples import policy
from tests.infra.test_authorization import signed
from tests.infra.test_log_queries import fields_of
from tests.local.conftest import DeployedStack
from tests.local.scenarios import FINAL, PATIENCE_SECONDS, ask, eventually, rows, rows_of_watchers
from tests.mock_engine import run, run_main
from tests.npm_packages import command
from tests.wire import from_client, from_server

ALL = [block for page in PAGES for block in blocks(page) if block.language not in ("sh", "command")]
# By page and language, with the beginning of the block where there are others: what runs it instead.
ELSEWHERE = {
    ("README.md", "mermaid", ""): "GitHub draws it",
    ("web/client/README.md", "jsx", ""): "tests/browser/test_frameworks.py",
    ("web/client/README.md", "js", "// vue.js"): "tests/browser/test_frameworks.py",
    ("web/client/README.md", "js", "// svelte.js"): "tests/browser/test_frameworks.py",
}


def is_elsewhere(block: Block) -> bool:
    return any(
        (block.page, block.language) == (page, language) and block.text.startswith(beginning)
        for page, language, beginning in ELSEWHERE
    )


def of(*languages: str) -> list[Any]:
    found = [block for block in ALL if block.language in languages and not is_elsewhere(block)]
    return [pytest.param(block, id=str(block)) for block in found]


def test_each_block_has_a_test() -> None:
    tested = {"python", "js", "json", "yaml", ""}
    assert [str(block) for block in ALL if block.language not in tested and not is_elsewhere(block)] == []
    unused = [each for each in ELSEWHERE if not any(is_elsewhere(block) for block in ALL if block.page == each[0])]
    assert unused == [], "the block is gone: take its reason out"


# Python, in the order of its page


@contextlib.contextmanager
def begun(document_id: str) -> Iterator[dict[str, Any]]:
    """A run of one page that has begun, for a joined worker to count."""
    with docprogress.connect().track(document_id) as tracker:
        tracker.start(total=1)
        yield {"run_id": tracker.run_id, "attempt": tracker.attempt}


# What a block takes for given.
GIVEN: dict[str, Callable[[DeployedStack], Any]] = {
    "aws": lambda stack: aws,
    "json": lambda stack: json,
    "outputs": lambda stack: {REGION: stack.outputs},
    "pages": lambda stack: ["one", "two", "three"],
    "save_status": lambda stack: lambda document_id, page: None,
    "websocket_url": lambda stack: stack.outputs["websocketUrl"],
    "work_on": lambda stack: lambda page: None,
}


@pytest.fixture
def in_a_worker(worker: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in worker.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def jobs(stack: DeployedStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of somebody who migrates, with a document that is under way, and the rights to read it."""
    dynamodb = stack.client("dynamodb")
    key = {"AttributeName": "documentId"}
    dynamodb.create_table(
        TableName="jobs",
        KeySchema=[{**key, "KeyType": "HASH"}],
        AttributeDefinitions=[{**key, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for document_id, state in (("under-way", "running"), ("over", "done")):
        job = {"documentId": {"S": document_id}, "userId": {"S": "alice"}, "state": {"S": state}}
        dynamodb.put_item(TableName="jobs", Item=job)
    for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    # A process has one publisher for the same settings, and another page's has a worker's rights.
    monkeypatch.setenv("DOCUMENT_RETENTION_SECONDS", "90000")


@pytest.mark.emulator
@pytest.mark.usefixtures("in_a_worker")
@pytest.mark.parametrize("page", sorted({each.values[0].page for each in of("python")}))
def test_the_python_of_a_page_runs(page: str, stack: DeployedStack, request: pytest.FixtureRequest) -> None:
    if page == "docs/migrating.md":
        request.getfixturevalue("jobs")
    namespace: dict[str, Any] = {}
    for block in [block for block in ALL if (block.page, block.language) == (page, "python")]:
        code = compile(block.text, str(block), "exec")
        for name in GIVEN.keys() & set(code.co_names) - namespace.keys():
            namespace[name] = GIVEN[name](stack)
        if "aws" in code.co_names:
            assert list(run(lambda code=code, names=namespace: exec(code, names)))  # noqa: S102 - it is our own
            continue
        with contextlib.ExitStack() as cleanup:
            connection = cleanup.enter_context(stack.connect())
            watched = re.findall(r'track\("([^"]+)"', block.text)
            for document_id in watched:
                ask(connection, action="progress", docId=document_id)
            if "run_id" in code.co_names:
                namespace |= cleanup.enter_context(begun(watched[0]))
            exec(code, namespace)  # noqa: S102 - it is our own
            for _ in watched:
                assert _to_the_end(connection)["status"] == "processing_complete"
    if page == "docs/migrating.md":
        expected = {name: bool(rows(stack, f"DOCUMENT#{name}")) for name in ("under-way", "over")}
        assert expected == {"under-way": True, "over": False}


def _to_the_end(connection: Any) -> dict[str, Any]:
    """Messages of the page's own go by."""
    while True:
        message: dict[str, Any] = json.loads(connection.recv(timeout=PATIENCE_SECONDS))
        if message["status"] in FINAL:
            return message


# JavaScript, each block a module of its own, in Node


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder in which `import "docprogress"` finds the client."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "docprogress").symlink_to(ROOT / "web" / "client")
    return tmp_path


@functools.cache
def web_socket() -> list[str]:
    """Node.js 20 has one only if asked for."""
    version = subprocess.run([command("node"), "--version"], capture_output=True, text=True, check=True).stdout
    return ["--experimental-websocket"] if version.startswith(("v20.", "v21.")) else []


def in_node(folder: Path, block: Block, url: str, *, given: str = "", then: str = "") -> str:
    """What the block writes. `given` stands before it, `then` after it, in the same module."""
    code = re.sub(r"wss://…[^\"']*", url, block.text)
    if "show" in code:
        given += "const show = (update) => console.log(update.status);"
    if "ProgressClient" in code and "import" not in code:
        given = f'import {{ ProgressClient }} from "docprogress";\n{given}'
    module = folder / "block.mjs"
    module.write_text(f"const url = {json.dumps(url)};\n{given}\n{code}\n{then}\n")
    ran = subprocess.run(
        [command("node"), "--no-warnings", *web_socket(), str(module)],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, f"{block}\n{ran.stdout}"
    return ran.stdout


NOTE = {"status": "note", "text": "Page 2 is a scan."}


def on_a_stack(block: Block) -> bool:
    return block.page != "docs/authentication.md"


@pytest.mark.emulator
@pytest.mark.usefixtures("in_a_worker")
@pytest.mark.parametrize("block", [each for each in of("js") if on_a_stack(each.values[0])])
def test_the_javascript_of_a_page_hears_a_worker(block: Block, stack: DeployedStack, modules: Path) -> None:
    (document_id,) = re.findall(r'\.watch\("([^"]+)"', block.text)

    forget(stack, document_id)

    def work() -> None:
        assert eventually(lambda: rows_of_watchers(stack, document_id))
        publisher = docprogress.connect()
        with publisher.track(document_id) as tracker:
            tracker.start(total=2)
            publisher.post(document_id, NOTE)
            tracker.advance(2)

    with ThreadPoolExecutor() as pool:
        worked = pool.submit(work)
        said = in_node(modules, block, stack.outputs["websocketUrl"])
        worked.result()
    assert said.splitlines()[-1].startswith("processing_complete")
    if 'on("note"' in block.text:
        assert NOTE["text"] in said


@pytest.fixture
def asked() -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """A server that takes every connection and ends every document: its URL, and what connections came with."""
    came: list[tuple[str, list[str]]] = []

    def answer(connection: ServerConnection) -> None:
        assert connection.request
        offered = connection.request.headers.get("Sec-WebSocket-Protocol", "")
        came.append((connection.request.path, [each.strip() for each in offered.split(",") if each]))
        for text in connection:
            ended = {"status": "processing_complete", "docId": json.loads(text).get("docId"), "sequence": 1}
            connection.send(json.dumps(ended))

    with serve(answer, "127.0.0.1", 0, subprotocols=["docprogress"], select_subprotocol=_first) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", came


def _first(_connection: ServerConnection, offered: Any) -> Any:
    return offered[0] if offered else None


TOKEN = "a.b-c_d"
OF_A_PAGE = f"""
const token = "{TOKEN}";
const auth = {{ getAccessToken: async () => token }};
const opened = [];
globalThis.WebSocket = class extends WebSocket {{
  constructor(...given) {{ super(...given); opened.push(this); }}
}};
globalThis.fetch = async (path) => new Response(`${{url}}${{path}}`);
"""
TO_THE_END = """
for (const name of ["client", "other"]) {
  const made = eval(`typeof ${name} === "undefined" ? null : ${name}`);
  if (made) { await made.watch("report").done; made.close(); }
}
await Promise.all(opened.map((socket) => new Promise((resolve) => {
  if (socket.readyState === WebSocket.CONNECTING) socket.addEventListener("open", () => socket.close());
  socket.addEventListener("close", resolve);
  if (socket.readyState === WebSocket.CLOSED) resolve();
})));
"""
BY_SUBPROTOCOL, BY_QUERY = ("/", ["docprogress", TOKEN]), (f"/?token={TOKEN}", [])


@pytest.mark.parametrize("block", [each for each in of("js") if not on_a_stack(each.values[0])])
def test_the_javascript_of_a_page_brings_its_token(
    block: Block, modules: Path, asked: tuple[str, list[tuple[str, list[str]]]]
) -> None:
    url, came = asked
    in_node(modules, block, url, given=OF_A_PAGE, then=TO_THE_END)
    signed = "fetch(" in block.text
    assert sorted(came) == ([("/signed-websocket-url", [])] if signed else sorted([BY_SUBPROTOCOL, BY_QUERY]))


# Data


def values(text: str) -> list[Any]:
    """The JSON values of a block, one after the other."""
    found, decoder, rest = [], json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].lstrip()
    return found


@pytest.mark.parametrize("block", of("json"))
def test_the_json_of_a_page_is_what_is_sent_or_taken(block: Block) -> None:
    for value in values(block.text):
        if "status" in value:
            from_server(value)
        elif "action" in value:
            from_client(value)
        elif "detail-type" in value:
            is_an_event_of_an_end(value)
        elif "Statement" in value:
            is_the_policy_of_a_caller(value)
        else:
            pytest.fail(f"{block}: nothing here reads {value}")


def is_an_event_of_an_end(event: dict[str, Any]) -> None:
    detail = event["detail"]
    error = detail.get("error")
    made = entry(
        DocumentState(
            detail["docId"],
            Status(detail["status"]),
            detail["sequence"],
            detail["run"],
            owner=detail.get("owner"),
            result=detail.get("result"),
            failure=Failure(error["message"], error["errorCode"]) if error else None,
        )
    )
    assert (made["Source"], made["DetailType"], json.loads(made["Detail"])) == (
        event["source"],
        event["detail-type"],
        detail,
    )


def is_the_policy_of_a_caller(document: dict[str, Any]) -> None:
    """What `grant_connect` gives, for the placeholders of the page."""
    (granted,) = policy(signed(), "caller-connect-to-api")["Statement"]
    (shown,) = document["Statement"]
    expected = re.sub(r"\\{\w+\\}", "[^:/]+", re.escape(shown.pop("Resource")))
    (resource,) = granted.pop("Resource")
    assert re.fullmatch(expected, resource.replace("arn:aws-cn:", "arn:aws:"))
    assert {**shown, "Action": [shown["Action"]]} == granted


@pytest.mark.parametrize("block", of("yaml"))
def test_the_yaml_of_a_page_is_planned(block: Block) -> None:
    shown = yaml.safe_load(block.text)
    if shown.keys() == {"config"}:
        texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in shown["config"].items()}
        assert list(run_main("dev", texts))
    else:
        is_a_program(shown)


def is_a_program(shown: dict[str, Any]) -> None:
    """One of the examples, which tests/engine deploys, but for its name and the folder that it lies in."""
    assert (ROOT / shown["packages"]["docprogress"] / "PulumiPlugin.yaml").exists()
    examples = [yaml.safe_load(path.read_text()) for path in (ROOT / "examples").glob("*/Pulumi.yaml")]
    parts = ("runtime", "resources", "outputs")
    assert {part: shown[part] for part in parts} in [{part: each.get(part) for part in parts} for each in examples]


@pytest.mark.parametrize("block", of(""))
def test_a_query_of_a_page_asks_for_what_is_logged(block: Block) -> None:
    query = LogQuery(name="shown", of="functions", query=block.text)
    sources = "".join(file.read_text() for folder in ("functions", "library") for file in (ROOT / folder).rglob("*.py"))
    own = {"service", "level", "message", "exception_name"}  # written by the logger itself
    assert {
        name for name in fields_of(query) - own if f'"{name}"' not in sources and f"{name}=" not in sources
    } == set()
    said = re.findall(r'message = "([^"]+)"', block.text)
    assert {message for message in said if f'"{message}"' not in sources} == set()
