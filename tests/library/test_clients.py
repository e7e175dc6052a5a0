"""Clients of a session of this package's own are those that boto3 makes.

Not proved here: how much sooner they start (`python -m benchmarks --only cold-start`), and that services answer them
(the emulator's tests).
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config

import docprogress
from docprogress import clients
from tests.mock_engine import PROJECT_ROOT

REGION = "eu-west-1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(service, kind) for service in ("dynamodb", "s3", "events") for kind in ("service-2", "endpoint-rule-set-1")],
)
def test_a_service_is_described_to_the_last_letter_as_botocore_reads_it(name: str, kind: str) -> None:
    ours, botocores = (
        session.get_component("data_loader").load_service_model(name, kind)
        for session in (clients.new_session(), botocore.session.Session())
    )
    assert json.dumps(ours) == json.dumps(botocores), (
        "in the same order too: requests are written in that of the members"
    )


def test_a_service_is_called_at_the_address_at_which_boto3_calls_it() -> None:
    config = Config(signature_version="s3v4")
    ours, boto3s = (
        client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "a/ä.pdf"}).partition("&X-Amz-Date")[0]
        for client in (clients.client("s3", clients.new_session(), config), boto3.Session().client("s3", config=config))
    )
    assert ours.startswith("https://bucket.s3.")
    assert ours == boto3s


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_models_of_ones_own_are_found_where_botocore_looks_for_them(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = json.dumps({"metadata": {}, "operations": {}}).encode()
    place = tmp_path / "mine" / "2026-01-01" / f"service-2{suffix}"
    place.parent.mkdir(parents=True)
    place.write_bytes(gzip.compress(model) if suffix.endswith(".gz") else model)
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))

    loader = clients.new_session().get_component("data_loader")
    assert "mine" in loader.list_available_services("service-2")
    assert loader.load_service_model("mine", "service-2")["operations"] == {}


def test_data_in_a_form_that_only_botocore_knows_is_read_by_botocore() -> None:
    class Newer:
        def exists(self, path: str) -> bool:
            return True

        def load_file(self, path: str) -> Any:
            return {"read": path}

    loader = clients.new_session().get_component("data_loader")
    loader.file_loader = clients.InDicts(Newer())
    assert loader.load_data("something")["read"].endswith("something")


def test_the_region_given_goes_before_that_of_the_environment() -> None:
    assert clients.client("dynamodb", clients.new_session("us-west-2")).meta.region_name == "us-west-2"
    assert clients.client("dynamodb", clients.new_session()).meta.region_name == REGION


def test_a_session_of_the_workers_own_makes_its_clients_itself() -> None:
    assert hasattr(clients.client("s3", boto3.Session()), "upload_file")


def test_the_workers_session_and_its_clients_have_one_region_and_one_set_of_credentials() -> None:
    publisher = docprogress.connect(table_name="clients", callback_url="", region="us-west-2")
    session = publisher.session
    assert isinstance(session, boto3.Session)
    assert session is publisher.session
    assert publisher.client("s3").meta.region_name == session.client("s3").meta.region_name == "us-west-2"
    assert hasattr(session.client("s3"), "upload_file")
    given = boto3.Session(region_name="us-west-2")
    assert docprogress.connect(table_name="clients", callback_url="", session=given).session is given


def test_a_worker_that_asks_for_nothing_of_boto3_does_not_load_it() -> None:
    program = (
        "import docprogress, sys\n"
        "publisher = docprogress.connect(table_name='t', callback_url='https://a.example/dev')\n"
        "publisher.table.client, publisher.announcer, publisher.client('s3')\n"
        "print([name for name in ('boto3', 's3transfer', 'asyncio') if name in sys.modules])"
    )
    environment = {
        "PATH": "",
        "PYTHONPATH": str(PROJECT_ROOT / "library"),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")
