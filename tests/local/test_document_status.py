"""How a document stands, asked over HTTP, on the emulator: paths, headers and tokens.

Does not prove that API Gateway decodes a path as the emulator does, nor what CORS says (the emulator lets in pages of
this machine only), nor what the function answers in each case.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest

from docprogress.table.client import Table
from docprogress.table.states import States
from tests.local.conftest import DeployedStack
from tests.local.scenarios import PATIENCE_SECONDS, ask, expect, upload_form
from tests.oidc_server import OidcServer

pytestmark = pytest.mark.emulator


def get(stack: DeployedStack, document_id: str, **headers: str) -> tuple[int, Any, Any]:
    """The status, the headers and the message."""
    url = f"{stack.outputs['documentsUrl']}/{quote(document_id, safe='')}"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=sent), timeout=PATIENCE_SECONDS) as response:
            return response.status, response.headers, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read() or b"null")


@pytest.mark.parametrize("document_id", ["asked/for/by path", "100%25 asked", "gefragt №7", "a+b&c=d?e#f"])
def test_an_owner_asks_over_http_what_the_websocket_says(
    jwt_stack: DeployedStack, issuer: OidcServer, document_id: str
) -> None:
    expect(jwt_stack, document_id, owner="alice")
    token = issuer.token(sub="alice")
    status, headers, message = get(jwt_stack, document_id, Authorization=f"Bearer {token}")
    assert (status, message) == (404, {"status": "pending", "docId": document_id})
    states = States(Table(jwt_stack.outputs["tableName"], lambda: jwt_stack.client("dynamodb")))
    states.cancel(document_id, principal_id="alice")
    status, headers, message = get(jwt_stack, document_id, Authorization=f"Bearer {token}")
    with jwt_stack.connect_with(token) as connection:
        assert (status, message) == (200, ask(connection, action="progress", docId=document_id, subscribe=False))
    assert headers["ETag"] == f'"{message["sequence"]}"'
    assert headers["Cache-Control"] == "no-store"
    again = get(jwt_stack, document_id, Authorization=f"Bearer {token}", If_None_Match=headers["ETag"])
    assert (again[0], again[2]) == (304, None)


def test_a_stranger_is_told_nothing(jwt_stack: DeployedStack, issuer: OidcServer) -> None:
    expect(jwt_stack, "alice-s", owner="alice")
    bearer = f"Bearer {issuer.token(sub='bob')}"
    told = [get(jwt_stack, document_id, Authorization=bearer) for document_id in ("alice-s", "nobody-s")]
    assert [(status, message["errorCode"]) for status, _, message in told] == [(403, "FORBIDDEN")] * 2
    assert get(jwt_stack, "alice-s")[0] == 401


def test_uploads_are_posted_to_the_same_url(jwt_stack: DeployedStack, issuer: OidcServer) -> None:
    form = upload_form(jwt_stack, token=issuer.token(), url=jwt_stack.outputs["documentsUrl"])
    assert form["docId"].startswith("uploads/Report-")
