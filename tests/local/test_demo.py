"""Not proven here: how the bars look on a terminal, nor any rule of the wire protocol beyond what the demo shows."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from websockets.asyncio.server import ServerConnection, serve

from local.display import documents_display
from local.sample_pdf import write_sample_pdf
from local.watch import WATCHED_AT_ONCE, WatchedDocument, document_ids, watch, watch_all

ROOT = Path(__file__).resolve().parents[2]


def demo(leftovers: Any, *files: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local", "demo", *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(leftovers.folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.emulator
def test_the_demo_needs_no_file_and_nothing_of_the_shell(leftovers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of-somebody")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PULUMI_CONFIG", '{"docprogress:loggingLevel": "bad"}')
    run = demo(leftovers)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert "sample.pdf: waiting\n" in run.stdout
    assert "sample.pdf: completed\n" in run.stdout
    assert [line for line in run.stdout.splitlines() if "│ sample.pdf │   150 │" in line and "completed" in line]
    leftovers.assert_none()


@pytest.mark.emulator
def test_every_file_gets_its_own_outcome_and_one_failure_fails_the_demo(leftovers: Any, tmp_path: Path) -> None:
    first, second, broken = tmp_path / "a" / "report.pdf", tmp_path / "b" / "report.pdf", tmp_path / "no [pdf].pdf"
    first.parent.mkdir()
    second.parent.mkdir()
    write_sample_pdf(first, pages=3)
    write_sample_pdf(second, pages=5)
    broken.write_text("this is no PDF")
    run = demo(leftovers, first, second, broken)
    assert run.returncode == 1
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in run.stdout.splitlines() if "│" in line]
    assert [(row[0], row[1], row[4].split(":")[0]) for row in rows] == [
        ("report.pdf", "3", "completed"),
        ("report.pdf", "5", "completed"),
        ("no [pdf].pdf", "0", "DOCUMENT_DAMAGED"),
    ]
    leftovers.assert_none()


def test_a_name_that_the_terminal_cannot_show_is_shown_as_far_as_it_can(
    leftovers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    run = demo(leftovers, tmp_path / "Größe 文書.pdf")
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.endswith("Gr??e ??.pdf: No such file or directory\n")


def test_a_missing_file_is_told_before_anything_starts(leftovers: Any, tmp_path: Path) -> None:
    run = demo(leftovers, tmp_path / "missing.pdf", tmp_path)
    assert run.returncode == 1
    assert run.stdout.splitlines() == [
        f"error: cannot read {tmp_path / 'missing.pdf'}: No such file or directory",
        f"error: cannot read {tmp_path}: Is a directory",
    ]


def test_a_bad_file_is_the_last_word_of_make_demo(tmp_path: Path) -> None:
    command = ["make", "--silent", "--old-file=.venv/.local", "demo", f"RUN={sys.executable}"]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PDF": str(tmp_path / "missing.pdf")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = f"error: cannot read {tmp_path / 'missing.pdf'}: No such file or directory\n"
    assert (run.returncode, run.stdout, run.stderr) == (0, said, "")


def test_a_pipe_is_refused_instead_of_waited_for(leftovers: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pdf")
    run = demo(leftovers, tmp_path / "pipe.pdf")
    assert run.returncode == 1
    assert run.stdout.startswith(f"error: cannot read {tmp_path / 'pipe.pdf'}: a pipe has no end")


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ("{}/My report (1).pdf", ["{}/My report (1).pdf"]),
        ("{}/it's $5 & more.pdf", ["{}/it's $5 & more.pdf"]),
        ("{}/a.pdf {}/b.pdf", ["{}/a.pdf", "{}/b.pdf"]),
        ("'{}/My report (1).pdf' {}/a.pdf", ["{}/My report (1).pdf", "{}/a.pdf"]),
        ("{}/a.pdf\n{}/b.pdf\n", ["{}/a.pdf", "{}/b.pdf"]),
        ("-a.pdf", ["-a.pdf"]),
        ("{}/?.pdf", ["{}/a.pdf", "{}/b.pdf"]),
        ("{}/missing (1).pdf", ["{}/missing (1).pdf"]),
        ("", []),
    ],
)
def test_make_takes_one_file_of_any_name_and_several_as_the_shell_does(
    given: str, files: list[str], tmp_path: Path
) -> None:
    for name in ("a.pdf", "b.pdf", "My report (1).pdf", "it's $5 & more.pdf"):
        (tmp_path / name).touch()
    program = tmp_path / "program"
    program.write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))")
    # make reads a $ of its own in what it is given; what comes from the shell's environment it leaves alone.
    environment = {**os.environ, "PDF": given.replace("{}", str(tmp_path))}
    command = ["make", "--silent", "--old-file=.venv/.local", "demo", f"RUN={sys.executable} {program}"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=10, check=False)
    shown = [file.replace("{}", str(tmp_path)) for file in files]
    assert (run.stdout, run.stderr) == (json.dumps(["-m", "local", "demo", "--", *shown]) + "\n", "")


@pytest.mark.emulator
def test_the_demo_can_be_ended_at_any_time(leftovers: Any, tmp_path: Path) -> None:
    write_sample_pdf(tmp_path / "long.pdf", pages=2000)  # takes longer to read than it takes to end the demo
    with subprocess.Popen(
        [sys.executable, "-m", "local", "demo", str(tmp_path / "long.pdf")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(leftovers.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " of 2000 pages" in line:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    leftovers.assert_none()


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a/x.pdf", "b/x.pdf", "c/x.PDF"], ["x", "x-2", "x-3"]),
        (["x-2.pdf", "x.pdf", "d/x.pdf"], ["x-2", "x", "x-3"]),
        (["Ä b.c.pdf", "noending", ".pdf"], ["Ä b.c", "noending", ".pdf"]),
        (["a\nb.pdf"], ["a_b"]),
        ([os.fsdecode(b"caf\xe9.pdf")], ["caf\N{REPLACEMENT CHARACTER}"]),
        ([f"{'x' * 250}.pdf"], ["x" * 200]),
    ],
)
def test_each_file_has_a_valid_document_id_of_its_own(names: list[str], ids: list[str]) -> None:
    assert document_ids([Path(name) for name in names]) == ids


def document() -> WatchedDocument:
    return WatchedDocument(Path("some [x].pdf"), "some")


def test_a_message_that_is_not_newer_changes_nothing() -> None:
    watched = document()
    for message in (
        {"status": "processing_started", "docId": "some", "totalPages": 10, "sequence": 1},
        {"status": "progress", "docId": "some", "pagesProcessed": 7, "totalPages": 10, "sequence": 5},
        {"status": "progress", "docId": "some", "pagesProcessed": 3, "totalPages": 10, "sequence": 4},
        {"status": "progress", "docId": "some", "pagesProcessed": 3, "totalPages": 10, "sequence": 5},
    ):
        watched.receive(message)
    assert (watched.pages_processed, watched.messages_received, watched.ended) == (7, 4, False)


@pytest.mark.parametrize("recoverable", [True, False])
def test_an_error_is_the_end_unless_a_retry_is_coming(recoverable: bool) -> None:
    watched = document()
    error = {"status": "error", "errorCode": "PROCESSING_FAILED", "message": "Broken.", "recoverable": recoverable}
    watched.receive({**error, "docId": "some", "sequence": 2})
    assert watched.ended is not recoverable
    assert watched.failure == (None if recoverable else "PROCESSING_FAILED: Broken.")


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[int, str | None]] = []

    def update(self, document: WatchedDocument) -> None:
        self.seen.append((document.pages_processed, document.failure))


Talk = Callable[[ServerConnection, asyncio.Event], Awaitable[None]]


def watched_against(
    talk: Talk, upload_error: Exception | None = None, silence_seconds: float = 60.0
) -> tuple[WatchedDocument, Recorder]:
    """Watches one document against a server that talks as told; it learns of the upload by an event."""
    watched, recorder = document(), Recorder()

    async def run() -> None:
        uploaded = asyncio.Event()

        async def upload(_: WatchedDocument) -> None:
            if upload_error:
                raise upload_error
            uploaded.set()

        async def handle(connection: ServerConnection) -> None:
            assert json.loads(await connection.recv()) == {"action": "progress", "docId": "some"}
            assert not uploaded.is_set(), "a subscription after the upload could miss messages"
            await talk(connection, uploaded)

        async with serve(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await watch(watched, f"ws://127.0.0.1:{port}", upload, recorder, silence_seconds=silence_seconds)

    asyncio.run(run())
    return watched, recorder


async def send(connection: ServerConnection, **message: Any) -> None:
    await connection.send(json.dumps(message))


def test_a_document_is_followed_from_its_subscription_to_its_end() -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await send(connection, status="pending", docId="some")
        await uploaded.wait()
        await send(connection, status="processing_started", docId="some", totalPages=2, sequence=1)
        await send(connection, status="processing_complete", docId="some", sequence=2)

    watched, recorder = watched_against(talk)
    assert watched.completed
    assert watched.messages_received == 3
    assert watched.first_push_at is not None
    assert recorder.seen[-1] == (2, None)


def test_a_document_of_which_nothing_is_heard_has_failed() -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await send(connection, status="pending", docId="some")
        await connection.wait_closed()

    watched, recorder = watched_against(talk, silence_seconds=0.3)
    assert watched.failure == "nothing was heard of it for 0.3 s"
    assert recorder.seen[-1] == (0, watched.failure)


def test_a_page_may_take_longer_than_a_document_may_be_silent_before_its_start() -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await send(connection, status="pending", docId="some")
        await uploaded.wait()
        await send(connection, status="processing_started", docId="some", totalPages=1, sequence=1)
        await asyncio.sleep(4)  # more than the silence that is taken otherwise
        await send(connection, status="processing_complete", docId="some", sequence=2)

    watched, _ = watched_against(talk, silence_seconds=3)
    assert watched.completed


def test_a_document_whose_worker_was_given_up_and_not_replaced_has_failed() -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await send(connection, status="pending", docId="some")
        await send(connection, status="processing_started", docId="some", totalPages=1, sequence=1)
        stalled = {"errorCode": "PROCESSING_STALLED", "message": "It stopped.", "recoverable": True}
        await send(connection, status="error", docId="some", sequence=2, **stalled)
        await connection.wait_closed()

    watched, _ = watched_against(talk, silence_seconds=0.3)
    assert watched.failure == "nothing was heard of it for 0.3 s"


def test_many_documents_are_watched_a_few_at_a_time() -> None:
    documents = [WatchedDocument(Path(f"{number}.pdf"), str(number)) for number in range(3 * WATCHED_AT_ONCE)]
    open_now, most_open = 0, 0

    async def run() -> None:
        async def upload(_: WatchedDocument) -> None:
            pass

        async def handle(connection: ServerConnection) -> None:
            nonlocal open_now, most_open
            open_now += 1
            most_open = max(most_open, open_now)
            document_id = json.loads(await connection.recv())["docId"]
            await send(connection, status="pending", docId=document_id)
            await asyncio.sleep(0.05)
            open_now -= 1
            await send(connection, status="processing_complete", docId=document_id, sequence=1)

        async with serve(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await watch_all(documents, f"ws://127.0.0.1:{port}", upload, Recorder())

    asyncio.run(run())
    assert all(document.completed for document in documents)
    assert most_open == WATCHED_AT_ONCE, "the emulator keeps the last of many waiting for too long"


def test_a_closed_connection_is_told() -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await connection.close(1011, "broken")

    watched, _ = watched_against(talk)
    assert watched.failure is not None
    assert watched.failure.startswith("the connection was closed: received 1011 (internal error) broken")


def test_an_upload_that_fails_is_told() -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await send(connection, status="pending", docId="some")
        await connection.wait_closed()

    watched, _ = watched_against(talk, upload_error=OSError("no space"))
    assert watched.failure == "no space"


def test_a_refused_subscription_is_told_and_nothing_is_uploaded() -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await send(connection, status="error", errorCode="FORBIDDEN", message="Not yours.", recoverable=False)
        await connection.wait_closed()
        assert not uploaded.is_set()

    watched, _ = watched_against(talk)
    assert watched.failure == "FORBIDDEN: Not yours."


@pytest.mark.parametrize("message", ["no JSON", "[]", '{"docId":"some"}', '{"status":"error"}'])
def test_a_message_outside_the_protocol_is_told(message: str) -> None:
    async def talk(connection: ServerConnection, uploaded: asyncio.Event) -> None:
        await connection.send(message)
        await connection.wait_closed()

    watched, _ = watched_against(talk)
    assert watched.failure is not None
    assert watched.failure.startswith("a message does not follow the protocol: ")


def shown(watched: WatchedDocument, *, terminal: bool) -> str:
    """The last that is shown; what is drawn before it is up to a thread of the terminal's display."""
    console = Console(force_terminal=terminal, width=120, color_system=None, record=True, file=io.StringIO())
    with documents_display(console, [watched]) as display:
        display.update(watched)
    return console.export_text().rstrip().splitlines()[-1]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failure_is_shown_in_the_place_of_the_bar(terminal: bool) -> None:
    watched = document()
    watched.failure = "PROCESSING_FAILED: [not markup]"
    text = shown(watched, terminal=terminal)
    assert "some [x].pdf" in text
    assert "PROCESSING_FAILED: [not markup]" in text
    assert "━" not in text


def test_a_bar_shows_its_pages() -> None:
    watched = document()
    watched.receive({"status": "progress", "docId": "some", "pagesProcessed": 3, "totalPages": 10, "sequence": 5})
    text = shown(watched, terminal=True)
    assert "3/10 pages" in text
    assert "━" in text
