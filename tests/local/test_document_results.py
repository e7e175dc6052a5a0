"""A result from the upload to the file that a browser saves, on the emulator.

Does not prove that S3 on AWS answers as the emulator does, nor who is told what in each case (tests/functions).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.functions.test_upload_presigner import post
from tests.local.conftest import DeployedStack
from tests.local.scenarios import PATIENCE_SECONDS, eventually, pdf, result_link, status, upload_form
from tests.oidc_server import OidcServer

pytestmark = pytest.mark.emulator


def test_the_owner_saves_the_result_and_a_stranger_gets_no_link(
    jwt_stack: DeployedStack, issuer: OidcServer, tmp_path: Path
) -> None:
    form = upload_form(jwt_stack, token=issuer.token(sub="erin"))
    document_id = form["docId"]
    with pytest.raises(urllib.error.HTTPError) as early:
        result_link(jwt_stack, document_id, token=issuer.token(sub="erin"))
    with early.value:
        assert (early.value.code, json.load(early.value)["errorCode"]) == (404, "RESULT_MISSING")
    assert post(form["url"], form["fields"], pdf(tmp_path)) == (204, "")
    assert eventually(lambda: status(jwt_stack, document_id) == "processing_complete")
    link = result_link(jwt_stack, document_id, token=issuer.token(sub="erin"))
    with urllib.request.urlopen(link, timeout=PATIENCE_SECONDS) as result:
        assert [page["number"] for page in json.load(result)["pages"]] == [1, 2, 3]
        name = document_id.rpartition("/")[2]
        assert result.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{name}.json"
        assert result.headers["Content-Type"] == "application/octet-stream"
    for token, refusal in ((issuer.token(sub="bob"), 403), (None, 401)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            result_link(jwt_stack, document_id, token=token)
        with refused.value:
            assert refused.value.code == refusal
    with pytest.raises(urllib.error.HTTPError) as changed:
        urllib.request.urlopen(link.replace("/results/", "/"), timeout=PATIENCE_SECONDS)
    with changed.value:
        assert changed.value.code == 403, "the link is signed for its own object alone"
