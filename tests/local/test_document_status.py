"""How a document stands, asked over HTTP, on the emulator: paths, headers, tokens and signatures.

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
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from docprogress.table.client import Table
from docprogress.table.states import States
from local.emulator import REGION
from tests.examples.workers import worker_credentials
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


def test_who_signs_is_known_by_the_role_s_session_and_needs_its_grant(iam_stack: DeployedStack) -> None:
    route = f"arn:aws:execute-api:{REGION}:*:*/$default/GET/documents/*"
    grant = {"Effect": "Allow", "Action": ["execute-api:Invoke"], "Resource": [route]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [grant]})
    given = worker_credentials(iam_stack, "asking", policy)
    credentials = Credentials(given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"], given["AWS_SESSION_TOKEN"])

    def ask_signed(document_id: str) -> tuple[int, Any]:
        request = AWSRequest("GET", f"{iam_stack.outputs['documentsUrl']}/{document_id}")
        SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
        status, _, message = get(iam_stack, document_id, **dict(request.headers.items()))
        return status, message

    account = iam_stack.client("sts").get_caller_identity()["Account"]
    expect(iam_stack, "mine", owner=f"arn:aws:sts::{account}:assumed-role/asking/worker")
    expect(iam_stack, "other", owner=f"arn:aws:sts::{account}:assumed-role/other/worker")
    assert ask_signed("mine") == (404, {"status": "pending", "docId": "mine"})
    assert (ask_signed("other")[0], ask_signed("other")[1]["errorCode"]) == (403, "FORBIDDEN")
    assert get(iam_stack, "mine")[0] == 403, "nobody has signed"
    iam_stack.client("iam").delete_role_policy(RoleName="asking", PolicyName="worker")
    status, message = ask_signed("mine")
    assert (status, "errorCode" in (message or {})) == (403, False), "API Gateway refuses it, not the function"
