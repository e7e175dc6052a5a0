"""Another kind of document beside the PDFs, on the emulator: uploaded by a form, read, and told to its owner.

Does not prove what its reader makes of a file (tests/examples/test_docx.py).
"""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.examples.test_docx import docx, paragraph
from tests.functions.test_upload_presigner import post
from tests.local.conftest import DeployedStack
from tests.local.scenarios import PATIENCE_SECONDS, ask, receive_to_the_end, result_link, upload_form
from tests.oidc_server import OidcServer

pytestmark = pytest.mark.emulator


def test_an_owner_watches_a_docx_paragraph_by_paragraph_and_gets_its_text(
    jwt_stack: DeployedStack, issuer: OidcServer
) -> None:
    token = issuer.token(sub="dora")
    form = upload_form(jwt_stack, token=token, file_name="Minutes.DOCX")
    document_id = form["docId"]
    assert document_id.startswith("uploads/Minutes-")
    assert document_id.endswith(".docx")
    with jwt_stack.connect_with(token) as connection:
        assert ask(connection, action="progress", docId=document_id)["status"] == "pending"
        assert post(form["url"], form["fields"], docx(paragraph("one") + paragraph("two"))) == (204, "")
        messages = receive_to_the_end(connection)
    assert messages[-1]["status"] == "processing_complete", messages
    assert {(each["unit"], each["total"]) for each in messages[:-1]} == {("paragraphs", 2)}
    with urllib.request.urlopen(result_link(jwt_stack, document_id, token=token), timeout=PATIENCE_SECONDS) as result:
        assert json.load(result)["paragraphs"] == [{"number": 1, "text": "one"}, {"number": 2, "text": "two"}]


def test_one_notification_wakes_a_function_for_each_kind(jwt_stack: DeployedStack) -> None:
    found = jwt_stack.client("s3").get_bucket_notification_configuration(Bucket=jwt_stack.outputs["documentsBucket"])
    woken = {each["Id"]: each["LambdaFunctionArn"] for each in found["LambdaFunctionConfigurations"]}
    assert sorted(woken) == ["docx-0", "docx-1", "docx-2", "pdf-0", "pdf-1", "pdf-2"]
    assert len(set(woken.values())) == 2
