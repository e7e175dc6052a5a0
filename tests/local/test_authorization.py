"""Who may connect and watch, with tokens of a real issuer and signed URLs, on stacks of their own on the emulator.

Does not prove API Gateway's own part: the 401 for a token that is refused (the emulator answers 500), the echo
of a subprotocol, the invoke role that calls the authorizer.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from local.emulator import CREDENTIALS, REGION
from local.stack import local_stack
from progress.store import ProgressStore
from tests.functions.test_upload_presigner import post
from tests.local.conftest import DeployedStack
from tests.local.scenarios import ask, eventually, pdf, receive, receive_to_the_end, rows, upload
from tests.oidc_server import AUDIENCE, OidcServer, rsa_key

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcServer]:
    with OidcServer() as server:
        yield server


@pytest.fixture(scope="module")
def jwt_stack(issuer: OidcServer) -> Iterator[DeployedStack]:
    config = {
        "authorization": "JWT",
        "jwtIssuer": issuer.issuer,
        "jwtAudience": AUDIENCE,
        "jwtTokenSource": "querystring",
        "allowedOrigins": f'["{ORIGIN}"]',
        "documentUploads": "true",
    }
    with local_stack(config=config) as running, contextlib.ExitStack() as cleanup:
        yield DeployedStack(running.outputs, running.emulator, cleanup)


@pytest.fixture(scope="module")
def iam_stack() -> Iterator[DeployedStack]:
    with local_stack(config={"authorization": "AWS_IAM"}) as running, contextlib.ExitStack() as cleanup:
        yield DeployedStack(running.outputs, running.emulator, cleanup)


def connected(stack: DeployedStack, token: str, **options: Any) -> Any:
    return stack.connect(f"?token={token}", **{"origin": ORIGIN, **options})


@pytest.mark.emulator
def test_the_owner_watches_a_document_and_a_stranger_may_not(
    jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path
) -> None:
    with connected(jwt_stack, issuer.token(sub="alice")) as alice, connected(jwt_stack, issuer.token(sub="bob")) as bob:
        upload(jwt_stack, "hers", pdf(tmp_path), owner="alice")
        assert eventually(lambda: _status(jwt_stack, "hers") == "processing_complete")
        assert ask(alice, action="progress", docId="hers")["status"] == "processing_complete"
        refused = ask(bob, action="progress", docId="hers")
        unknown = ask(bob, action="progress", docId="nobody's")
        assert refused["errorCode"] == "FORBIDDEN"
        assert {**refused, "docId": ""} == {**unknown, "docId": ""}, "the answer must not tell what exists"
        assert [row["sk"]["S"] for row in rows(jwt_stack, "DOCUMENT#hers") if "bob" in str(row)] == []


@pytest.mark.emulator
def test_an_expected_document_is_heard_from_its_start_by_its_owner_alone(
    jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path
) -> None:
    _expect(jwt_stack, "expected", owner="alice")
    with connected(jwt_stack, issuer.token(sub="alice")) as alice, connected(jwt_stack, issuer.token(sub="bob")) as bob:
        assert ask(alice, action="progress", docId="expected")["status"] == "pending"
        assert ask(bob, action="progress", docId="expected")["errorCode"] == "FORBIDDEN"
        upload(jwt_stack, "expected", pdf(tmp_path))
        assert receive_to_the_end(alice)[0]["status"] == "processing_started"


@pytest.mark.emulator
def test_an_upload_belongs_to_whoever_made_it(jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _upload_form(jwt_stack, token=None)
    with refused.value:
        assert refused.value.code == 401
    form = _upload_form(jwt_stack, token=issuer.token(sub="dora"))
    with connected(jwt_stack, issuer.token(sub="dora")) as dora, connected(jwt_stack, issuer.token(sub="bob")) as bob:
        assert ask(dora, action="progress", docId=form["docId"])["status"] == "pending"
        assert post(form["url"], form["fields"], pdf(tmp_path)) == (204, "")
        assert receive_to_the_end(dora)[-1]["status"] == "processing_complete"
        assert ask(bob, action="progress", docId=form["docId"])["errorCode"] == "FORBIDDEN"


@pytest.mark.emulator
def test_a_token_of_another_issuer_does_not_connect(jwt_stack: DeployedStack, issuer: OidcServer) -> None:
    forged = issuer.token(rsa_key("forged"))
    for token in (forged, issuer.token(exp=int(time.time()) - 60), issuer.token(aud="other"), "garbage"):
        with pytest.raises(InvalidStatus):
            connected(jwt_stack, token)
        assert token not in jwt_stack.emulator.log(), "a token must not reach a log"


@pytest.mark.emulator
def test_without_a_token_the_connection_is_refused(jwt_stack: DeployedStack) -> None:
    with pytest.raises(InvalidStatus) as refused:
        jwt_stack.connect(origin=ORIGIN)
    assert refused.value.response.status_code == 401


@pytest.mark.emulator
@pytest.mark.parametrize("origin", ["https://evil.example.com", None])
def test_a_page_that_is_not_allowed_cannot_connect(
    jwt_stack: DeployedStack, issuer: OidcServer, origin: str | None
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connected(jwt_stack, issuer.token(), origin=origin)
    assert refused.value.response.status_code == 403


@pytest.mark.emulator
def test_a_connection_does_not_outlive_its_token(jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path) -> None:
    _expect(jwt_stack, "long", owner="carol")
    expires_at = int(time.time()) + 3
    with connected(jwt_stack, issuer.token(sub="carol", exp=expires_at)) as connection:
        assert ask(connection, action="progress", docId="long")["status"] == "pending"
        time.sleep(max(0.0, expires_at + 1 - time.time()))
        assert ask(connection, action="progress", docId="long")["errorCode"] == "FORBIDDEN"
        upload(jwt_stack, "long", pdf(tmp_path))
        with pytest.raises(ConnectionClosed):
            receive(connection)


@pytest.mark.emulator
def test_a_signed_url_connects_and_an_unsigned_one_does_not(iam_stack: DeployedStack) -> None:
    url = iam_stack.outputs["websocketUrl"]
    request = AWSRequest("GET", url.replace("ws://", "http://"))
    credentials = Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    SigV4QueryAuth(credentials, "execute-api", REGION, expires=60).add_auth(request)
    with connect(request.url.replace("http://", "ws://")) as connection:
        assert ask(connection, action="ping") == {"status": "pong"}
    with pytest.raises(InvalidStatus) as refused:
        connect(url)
    assert refused.value.response.status_code == 403


def _upload_form(stack: DeployedStack, *, token: str | None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(stack.outputs["uploadUrl"], b'{"fileName":"Report.pdf"}', headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        form: dict[str, Any] = json.load(response)
    return form


def _status(stack: DeployedStack, document_id: str) -> str | None:
    states = [row["status"]["S"] for row in rows(stack, f"DOCUMENT#{document_id}") if "status" in row]
    return states[0] if states else None


def _expect(stack: DeployedStack, document_id: str, *, owner: str) -> None:
    ProgressStore(stack.client("dynamodb"), stack.outputs["tableName"]).expect(document_id, owner=owner)
