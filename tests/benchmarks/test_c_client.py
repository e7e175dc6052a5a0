"""The C client sends what the library sends, so that the two can be compared. Skipped where it cannot be built."""

from __future__ import annotations

import calendar
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks import c_client
from benchmarks.clients import CREDENTIALS, MESSAGE, REGION, connection_ids
from docprogress.posting.sigv4 import Endpoint, Payload, RequestSigner
from tests.faults.connections_server import ConnectionsServer


def test_the_c_client_sends_the_requests_that_the_library_signs(tmp_path: Path) -> None:
    try:
        program = c_client.build(tmp_path)
    except c_client.CannotBuild as reason:
        pytest.skip(str(reason))
    with ConnectionsServer() as server:
        run = subprocess.run(
            [program, *c_client.server(server.callback_url)],
            input="3\n",
            env=c_client.ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.stdout.startswith("ready\n"), run.stderr
    assert len(run.stdout.splitlines()) == 2, run.stderr
    sent = {request.target: request for request in server.requests}
    assert len(sent) == 3
    for connection_id in connection_ids(3):
        request = sent[f"/prod/%40connections/{connection_id.replace('=', '%3D')}"]
        second = calendar.timegm(time.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
        endpoint = Endpoint.from_url(server.callback_url)
        signer = RequestSigner("POST", endpoint, REGION, CREDENTIALS, clock=partial(float, second))
        head, _, body = signer.sign(connection_id, Payload.of(MESSAGE)).partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")[1:]
        assert request.headers == {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert request.body == body


def test_why_it_cannot_be_built_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(c_client.CannotBuild, match="there is no C compiler"):
        c_client.build(tmp_path)
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'post.c:9: error: openssl/ssl.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(c_client.CannotBuild, match=r"OpenSSL's headers: post\.c:9: error: openssl/ssl\.h"):
        c_client.build(tmp_path)
