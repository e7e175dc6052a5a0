"""Emulators for the tests of the local stack, and the real program deployed on them: once with each configuration."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from websockets.sync.client import ClientConnection, connect

from infra.document_kinds import KIND
from local.emulator import CREDENTIALS, NO_PROFILE, REGION, Emulator
from local.stack import local_stack
from tests.local.scenarios import PATIENCE_SECONDS
from tests.oidc_server import AUDIENCE, OidcServer

ORIGIN = "https://app.example.com"


@dataclass(frozen=True)
class DeployedStack:
    """The real program on an emulator.

    Attributes:
        outputs: The program's stack outputs.
        emulator: What it stands on; `emulator.log()` shows why something failed.
        issuer: Whose tokens it takes; None: it asks for no token.
    """

    outputs: Mapping[str, Any]
    emulator: Emulator
    _cleanup: contextlib.ExitStack = field(repr=False)
    issuer: OidcServer | None = None
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)

    def client(self, service: str) -> Any:
        """The boto3 client of a service with root credentials, closed with the stack."""
        if service not in self._clients:  # with its model of the service it is slow to make, and never small
            self._clients[service] = boto3_client(service, self.emulator.endpoint_url, self._cleanup)
        return self._clients[service]

    def connect(self, query: str = "", **options: Any) -> ClientConnection:
        """A WebSocket connection, to be closed by the caller: `with stack.connect() as connection`."""
        # No pings: how long a busy machine may be silent is for each test to say.
        patient = {"open_timeout": PATIENCE_SECONDS, "ping_interval": None}
        return connect(self.outputs["websocketUrl"] + query, **{**patient, **options})

    def connect_with(self, token: str, **options: Any) -> ClientConnection:
        """A connection of a page that is allowed, for whom the token was issued to."""
        return self.connect(f"?token={token}", **{"origin": ORIGIN, **options})


def boto3_client(service: str, endpoint_url: str, cleanup: contextlib.ExitStack) -> Any:
    session: Any = boto3.Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    client = session.client(service, endpoint_url=endpoint_url, region_name=REGION)
    cleanup.callback(client.close)  # an unclosed socket is a warning, and warnings are errors
    return client


@pytest.fixture(scope="session", autouse=True)
def _no_profile() -> Iterator[None]:
    """A developer's own AWS profile or endpoint must not decide how these tests end."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in NO_PROFILE.items():
            patch.setenv(name, value)
        yield


@contextlib.contextmanager
def deployed(config: Mapping[str, str], issuer: OidcServer | None = None) -> Iterator[DeployedStack]:
    with local_stack(config=config) as running, contextlib.ExitStack() as cleanup:
        stack = DeployedStack(running.outputs, running.emulator, cleanup, issuer)
        # AWS may take days to delete what has expired; the emulator would each minute, in the middle of any test.
        stack.client("dynamodb").update_time_to_live(
            TableName=running.outputs["tableName"],
            TimeToLiveSpecification={"AttributeName": "expires_at", "Enabled": False},
        )
        yield stack


@pytest.fixture(scope="session")
def stack() -> Iterator[DeployedStack]:
    with deployed({}) as stack:
        yield stack


@pytest.fixture(scope="session")
def watched_stack() -> Iterator[DeployedStack]:
    """One with alarms, which tests break and mend again: no other test may depend on it meanwhile."""
    with deployed({"alarmEmail": "on-call@example.com"}) as stack:
        yield stack


@pytest.fixture(scope="session")
def stream_stack() -> Iterator[DeployedStack]:
    with deployed({"fanOut": "stream", "events": "true", "snapStart": "true"}) as stack:
        yield stack


@pytest.fixture(scope="session")
def iam_stack() -> Iterator[DeployedStack]:
    with deployed({"authorization": "AWS_IAM", "statusApi": "true"}) as stack:
        yield stack


@pytest.fixture(scope="session")
def issuer() -> Iterator[OidcServer]:
    with OidcServer() as server:
        yield server


@pytest.fixture(scope="session")
def jwt_stack(issuer: OidcServer) -> Iterator[DeployedStack]:
    config = {
        "authorization": "JWT",
        "jwtIssuer": issuer.issuer,
        "jwtAudience": AUDIENCE,
        "jwtTokenSource": "querystring",
        "allowedOrigins": f'["{ORIGIN}"]',
        "documentKinds": f'["{KIND.example}"]',
        "documentUploads": "true",
        "documentResults": "true",
        "statusApi": "true",
        "snapStart": "true",
        "provisionedConcurrency": "1",
    }
    with deployed(config, issuer) as stack:
        yield stack


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def aws(emulator: Emulator) -> Iterator[Any]:
    """Gives the boto3 client of a service on the bare emulator: `aws("s3")`."""
    with contextlib.ExitStack() as cleanup:
        yield lambda service: boto3_client(service, emulator.endpoint_url, cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"stack", "watched_stack", "stream_stack", "iam_stack", "jwt_stack", "emulator"} & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker("emulator")


class Leftovers:
    """What processes started under `folder`, as their TMPDIR, have left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def processes(self) -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"TMPDIR={self.folder}".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def files(self) -> list[Path]:
        return list(self.folder.iterdir())

    def assert_none(self) -> None:
        # What was killed is gone when the machine gets round to it; what was forgotten stays.
        deadline = time.monotonic() + 30.0
        while (self.processes() or self.files()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.processes() == []
        assert self.files() == []


@pytest.fixture
def leftovers(tmp_path: Path) -> Leftovers:
    """For a child process with `env={"TMPDIR": str(leftovers.folder)}`."""
    folder = tmp_path / "tmpdir"
    folder.mkdir()
    return Leftovers(folder)
