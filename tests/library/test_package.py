"""The library as others get it: installed into an empty environment, and what importing it costs.

Not proved here: that watchers hear (the emulator tests), and the extra `lambda` (the functions' tests).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import uv

import docprogress
from local.emulator import CREDENTIALS, REGION, Emulator

LIBRARY = Path(__file__).parents[2] / "library"

WORKER = """
import docprogress
publisher = docprogress.connect(table_name="progress", callback_url="")
with publisher.track("report") as tracker:
    tracker.start(total=3)
    for _ in range(3):
        tracker.advance()
print(publisher.states.read("report").status)
"""


def run(*command: str, **environment: str) -> str:
    """Without this project's own environment and import path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AWS_", "VIRTUAL_"))}
    ended = subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=250, cwd="/")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_library_installs_into_an_empty_environment_and_a_plain_process_reports_with_it(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    run(uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(tmp_path))
    try:
        run(uv.find_uv_bin(), "pip", "install", "--quiet", "-p", str(python), str(LIBRARY))
    except AssertionError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no package index: {str(error)[-300:]}")
    installed = run(uv.find_uv_bin(), "pip", "list", "--quiet", "--format", "freeze", "-p", str(python))
    assert "aws-lambda-powertools" not in installed
    assert (next(tmp_path.glob("lib/*/site-packages/docprogress")) / "py.typed").exists()
    with Emulator() as emulator:
        environment = {**CREDENTIALS, "AWS_REGION": REGION, "AWS_ENDPOINT_URL_DYNAMODB": emulator.endpoint_url}
        client = boto3.Session(region_name=REGION, **as_keywords(CREDENTIALS)).client(
            "dynamodb", endpoint_url=emulator.endpoint_url
        )
        client.create_table(
            TableName="progress",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
        )
        client.close()
        assert run(str(python), "-c", WORKER, **environment) == "processing_complete\n"


def as_keywords(credentials: dict[str, str]) -> dict[str, str]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return {name.lower(): credentials[name] for name in names if name in credentials}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import docprogress", ("boto3", "botocore", "asyncio", "ssl")),
        ("import docprogress; docprogress.connect(table_name='t', region='eu-west-1')", ("boto3", "botocore")),
        ("import docprogress; docprogress.Failure('No.')", ("boto3", "botocore", "asyncio", "ssl")),
    ],
)
def test_what_is_not_used_is_not_imported(statement: str, absent: tuple[str, ...]) -> None:
    loaded = run(sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)", PYTHONPATH=str(LIBRARY)).split()
    assert [name for name in absent if name in loaded] == []


def test_every_name_of_the_front_door_leads_somewhere() -> None:
    assert docprogress.__all__ == sorted(docprogress.__all__)
    for name in docprogress.__all__:
        assert getattr(docprogress, name).__name__ == name
        assert name in dir(docprogress)
    with pytest.raises(AttributeError, match="has no attribute 'tracker_of'"):
        _ = docprogress.tracker_of


def test_settings_come_from_the_environment_unless_a_keyword_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"TABLE_NAME": "env", "CALLBACK_URL": "https://a.example/dev", "AWS_REGION": "eu-west-1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert docprogress.connect().table.name == "env"
    by_keyword = docprogress.connect(table_name="mine", callback_url="", max_messages_per_second=2)
    assert (by_keyword.table.name, by_keyword.announcer) == ("mine", None)
    with pytest.raises(docprogress.SettingsError, match="MAX_MESSAGES_PER_SECOND is '0'"):
        docprogress.connect(max_messages_per_second=0)
