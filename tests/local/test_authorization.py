"""Who may connect and watch, with tokens of a real issuer and signed URLs, on stacks of their own on the emulator.

Does not prove API Gateway's own part: the 401 for a token that is refused (the emulator answers 500), the echo
of a subprotocol, the invoke role that calls the authorizer.
"""

from __future__ import annotations

import time
import urllib.error
from pathlib import Path

import pytest
from botocore.credentials import Credentials
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from local.emulator import CREDENTIALS
from tests.functions.test_upload_presigner import post
from tests.local.conftest import ORIGIN, DeployedStack
from tests.local.scenarios import (
    PATIENCE_SECONDS,
    ask,
    eventually,
    expect,
    expire,
    pdf,
    receive,
    receive_to_the_end,
    rows,
    rows_of_connections,
    rows_of_watchers,
    signed,
    status,
    upload,
    upload_form,
)
from tests.oidc_server import OidcServer, rsa_key


def test_the_owner_watches_a_document_and_a_stranger_may_not(
    jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path
) -> None:
    with (
        jwt_stack.connect_with(issuer.token(sub="alice")) as alice,
        jwt_stack.connect_with(issuer.token(sub="bob")) as bob,
    ):
        upload(jwt_stack, "hers", pdf(tmp_path), owner="alice")
        assert eventually(lambda: status(jwt_stack, "hers") == "processing_complete")
        assert ask(alice, action="progress", docId="hers")["status"] == "processing_complete"
        refused = ask(bob, action="progress", docId="hers")
        unknown = ask(bob, action="progress", docId="nobody's")
        assert refused["errorCode"] == "FORBIDDEN"
        assert {**refused, "docId": ""} == {**unknown, "docId": ""}, "the answer must not tell what exists"
        assert [row["sk"]["S"] for row in rows(jwt_stack, "DOCUMENT#hers") if "bob" in str(row)] == []


def test_an_expected_document_is_heard_from_its_start_by_its_owner_alone(
    jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path
) -> None:
    expect(jwt_stack, "expected", owner="alice")
    with (
        jwt_stack.connect_with(issuer.token(sub="alice")) as alice,
        jwt_stack.connect_with(issuer.token(sub="bob")) as bob,
    ):
        assert ask(alice, action="progress", docId="expected")["status"] == "pending"
        assert ask(bob, action="progress", docId="expected")["errorCode"] == "FORBIDDEN"
        upload(jwt_stack, "expected", pdf(tmp_path))
        assert receive_to_the_end(alice)[0]["status"] == "processing_started"


def test_an_upload_belongs_to_whoever_made_it(jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        upload_form(jwt_stack, token=None)
    with refused.value:
        assert refused.value.code == 401
    form = upload_form(jwt_stack, token=issuer.token(sub="dora"))
    with (
        jwt_stack.connect_with(issuer.token(sub="dora")) as dora,
        jwt_stack.connect_with(issuer.token(sub="bob")) as bob,
    ):
        assert ask(dora, action="progress", docId=form["docId"])["status"] == "pending"
        assert post(form["url"], form["fields"], pdf(tmp_path)) == (204, "")
        assert receive_to_the_end(dora)[-1]["status"] == "processing_complete"
        assert ask(bob, action="progress", docId=form["docId"])["errorCode"] == "FORBIDDEN"


def test_a_token_of_another_issuer_does_not_connect(jwt_stack: DeployedStack, issuer: OidcServer) -> None:
    forged = issuer.token(rsa_key("forged"))
    for token in (forged, issuer.token(exp=int(time.time()) - 60), issuer.token(aud="other"), "garbage"):
        with pytest.raises(InvalidStatus):
            jwt_stack.connect_with(token)
        assert token not in jwt_stack.emulator.log(), "a token must not reach a log"


def test_without_a_token_the_connection_is_refused(jwt_stack: DeployedStack) -> None:
    with pytest.raises(InvalidStatus) as refused:
        jwt_stack.connect(origin=ORIGIN)
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example.com", None])
def test_a_page_that_is_not_allowed_cannot_connect(
    jwt_stack: DeployedStack, issuer: OidcServer, origin: str | None
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        jwt_stack.connect_with(issuer.token(), origin=origin)
    assert refused.value.response.status_code == 403


def test_a_connection_does_not_outlive_its_token(jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path) -> None:
    expect(jwt_stack, "long", owner="carol")
    expires_at = int(time.time()) + 300
    with jwt_stack.connect_with(issuer.token(sub="carol", exp=expires_at)) as connection:
        assert ask(connection, action="progress", docId="long")["status"] == "pending"
        kept = rows_of_watchers(jwt_stack, "long")
        assert [row["expires_at"]["N"] for row in kept] == [str(expires_at)] * 2, "its subscription and itself"
        expire(jwt_stack, kept)
        refused = ask(connection, action="progress", docId="long")
        assert (refused["errorCode"], refused["recoverable"]) == ("FORBIDDEN", True)
        upload(jwt_stack, "long", pdf(tmp_path))
        with pytest.raises(ConnectionClosed):
            receive(connection)


def test_a_signed_url_connects_and_an_unsigned_one_does_not(iam_stack: DeployedStack) -> None:
    url = iam_stack.outputs["websocketUrl"]
    credentials = Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    with connect(signed(url, credentials), open_timeout=PATIENCE_SECONDS, ping_interval=None) as connection:
        assert ask(connection, action="ping") == {"status": "pong"}
        principals = {row["principal_id"]["S"] for row in rows_of_connections(iam_stack)}
        assert principals == {"arn:aws:iam::000000000000:root"}, "a connection belongs to the caller who signed it"
    with pytest.raises(InvalidStatus) as refused:
        connect(url)
    assert refused.value.response.status_code == 403
