"""`make logs`: what is shown of a line, and that each is shown once, in time, with its document.

Does not prove that CloudWatch answers as the emulator does: it is slower, and not in order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local import running
from local.doctor.command import patient_of
from local.doctor.finding import Patient
from local.logs import Followed, line_of
from tests.local.conftest import DeployedStack
from tests.local.scenarios import eventually, pdf, status, upload
from tests.local.test_doctor import outputs_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "document_id", "shown"),
    [
        (
            '{"level":"INFO","location":"f:1","message":"Subscribed","service":"s","document_id":"a","principal":"p"}',
            "a",
            "INFO Subscribed principal=p",
        ),
        ('{"level":"ERROR","message":"Failed","document_id":7,"more":[1]}', None, "ERROR Failed more=[1]"),
        ("Traceback (most recent call last):", None, "Traceback (most recent call last):"),
        ("[1]", None, "[1]"),
    ],
)
def test_a_line_is_shown_as_a_person_reads_it(text: str, document_id: str | None, shown: str) -> None:
    line = line_of(0, "handler", text)
    assert line is not None
    assert (line.document_id, line.text) == (document_id, shown)


@pytest.mark.parametrize(
    "text",
    ['{"_aws":{},"PagesProcessed":[1]}', '{"type":"platform.report"}', "START RequestId: 1", "REPORT RequestId: 1", ""],
)
def test_metrics_and_lambda_s_own_lines_are_left_out(text: str) -> None:
    assert line_of(0, "handler", text) is None


def test_what_would_move_the_cursor_is_not_printed() -> None:
    line = line_of(0, "handler", json.dumps({"message": "a\x1b[2Jb", "document_id": "\x1b]0;x\x07"}))
    assert line is not None
    assert "\x1b" not in str(line)
    assert "\x07" not in str(line)


class Logs:
    """One group whose events come late, twice and out of order."""

    class exceptions:
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.asked_from: list[int] = []

    def get_paginator(self, _operation: str) -> Logs:
        return self

    def paginate(self, *, logGroupName: str, startTime: int) -> list[dict[str, Any]]:
        if logGroupName != "/aws/lambda/handler-1":
            raise self.exceptions.ResourceNotFoundException
        self.asked_from.append(startTime)
        return [{"events": [each for each in self.events if each["timestamp"] >= startTime]}]

    def say(self, at: int, text: str) -> None:
        self.events.append({"timestamp": at, "message": text, "eventId": f"{at}{text}"})


def test_each_line_is_shown_once_although_it_comes_late() -> None:
    logs = Logs()
    functions = {"functionNames": {"handler": "handler-1", "silent": "silent-1"}}
    followed = Followed(Patient(outputs=functions, client=lambda _: logs, region="us-east-1"), since_ms=1_000)
    logs.say(100_000, "second")
    logs.say(90_000, "first")
    assert [line.text for line in followed.new_lines()] == ["first", "second"]
    logs.say(95_000, "late")
    assert [line.text for line in followed.new_lines()] == ["late"]
    assert followed.new_lines() == []
    assert logs.asked_from[0] == 1_000
    assert logs.asked_from[-1] == 85_000, "what is older is not read again and again"


@pytest.mark.emulator
def test_all_functions_are_followed_with_the_document_that_they_speak_of(
    watched_stack: DeployedStack, tmp_path: Path
) -> None:
    followed = Followed(patient_of(outputs_of(watched_stack)), since_ms=0)
    upload(watched_stack, "followed", pdf(tmp_path))
    assert eventually(lambda: status(watched_stack, "followed") == "processing_complete")
    shown: list[Any] = []

    def has_come() -> bool:
        shown.extend(followed.new_lines())
        return any("processing_complete" in line.text for line in shown if line.document_id == "followed")

    assert eventually(has_come), shown
    assert {line.function for line in shown if line.document_id == "followed"} == {"documents-processor"}


def test_without_a_stack_there_is_nothing_to_follow_and_a_sentence_says_so(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from local import running; running.FOLDER = Path(sys.argv.pop())"
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}; from local.__main__ import main; sys.exit(main())", "logs", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: no `make up` runs here; name a stack with --stack, or its outputs with --outputs\n"


def test_a_running_stack_is_found_by_its_own_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FOLDER", tmp_path / "up")
    assert running.newest() is None
    with running.told({"apiId": "abc"}):
        found = running.newest()
        assert found is not None
        assert json.loads(found.read_text()) == {"apiId": "abc"}
        assert found.stat().st_mode & 0o777 == 0o600, "the credentials of the run are in it"
        (tmp_path / "up" / "1.json").write_text("{}")
        os.utime(tmp_path / "up" / "1.json", (1, 1))
        assert running.newest() == found, "the last one, whatever an earlier one left behind"
    assert not found.exists()
