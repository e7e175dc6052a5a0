"""Not proven here: that a browser obeys the headers and can upload (tests/browser), or that boto3 holds no more
than a part in memory (its own promise, given the transfer settings asserted here)."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import pytest
from botocore.exceptions import ClientError

from local.server import PageServer

PDF = b"%PDF-1.7\n" + b"x" * 5000
WEBSOCKET_URL = "ws://localhost:4566/_aws/execute-api/abc/local"


class FakeS3:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.content_types: list[str] = []
        self.first_part = threading.Event()
        self.failure: Exception | None = None

    def upload_fileobj(self, Fileobj: IO[bytes], Bucket: str, Key: str, ExtraArgs: dict[str, str], Config: Any) -> None:
        assert Config.use_threads is False
        assert Config.multipart_chunksize <= 8 << 20, "a part is what stays in memory"
        if self.failure:
            raise self.failure
        parts = []
        while part := Fileobj.read(4096):
            parts.append(part)
            self.first_part.set()
        self.objects[f"{Bucket}/{Key}"] = b"".join(parts)
        self.content_types.append(ExtraArgs["ContentType"])

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if f"{Bucket}/{Key}" not in self.objects:
            raise ClientError({"ResponseMetadata": {"HTTPStatusCode": 404}}, "HeadObject")  # type: ignore[typeddict-item]
        return {}

    def generate_presigned_url(self, ClientMethod: str, Params: dict[str, str], ExpiresIn: int) -> str:
        assert (ClientMethod, ExpiresIn) == ("get_object", 60)
        return f"http://localhost:4566/{Params['Key']}?{Params['ResponseContentDisposition']}"


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


@pytest.fixture
def server(s3: FakeS3) -> Iterator[PageServer]:
    with PageServer(
        websocket_url=WEBSOCKET_URL,
        bucket="documents",
        s3_client=s3,  # type: ignore[arg-type]  # the methods that are used
        max_upload_bytes=100_000,
    ) as server:
        yield server


def host_of(server: PageServer) -> str:
    return server.url.removeprefix("http://").removesuffix("/")


def ask(
    server: PageServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(host_of(server), timeout=60)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    finally:
        connection.close()


def converse(server: PageServer, request: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back."""
    host, port = host_of(server).split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


def upload(server: PageServer, body: bytes, query: str = "?name=report.pdf", **headers: str) -> tuple[int, Any]:
    status, _, answer = ask(server, "POST", f"/upload{query}", body, **headers)
    return status, json.loads(answer)


def test_a_link_to_a_result_is_given_for_a_minute(server: PageServer, s3: FakeS3) -> None:
    s3.objects["documents/results/f/ä b.json"] = b"{}"
    status, headers, body = ask(server, "GET", "/results/f%2F%C3%A4%20b")
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert json.loads(body) == {
        "url": "http://localhost:4566/results/f/ä b.json?attachment; filename*=UTF-8''%C3%A4%20b.json"
    }
    assert ask(server, "GET", "/results/other")[0] == 404
    assert ask(server, "GET", "/results/f%2F%C3%A4%20b", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403


def test_the_page_is_told_the_settings_of_another_stack_and_may_reach_what_they_name() -> None:
    settings = {
        "resultsUrl": "https://api.example.com/results",
        "signIn": {"issuer": "https://issuer.example.com/pool", "clientId": "page"},
    }
    with PageServer(websocket_url="wss://ws.example.com/live", bucket="", s3_client=None, settings=settings) as server:  # type: ignore[arg-type]  # it is not asked
        _, headers, body = ask(server, "GET", "/config.json")
    assert json.loads(body) == {"websocketUrl": "wss://ws.example.com/live", **settings}
    sources = "'self' wss://ws.example.com https://api.example.com https://issuer.example.com"
    assert f"connect-src {sources}; " in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/styles.css", "text/css; charset=utf-8"),
        ("/client/index.js", "text/javascript; charset=utf-8"),
        ("/app.js?v=1", "text/javascript; charset=utf-8"),
        ("/config.json", "application/json"),
    ],
)
def test_the_page_is_served_with_its_types_and_allows_no_other_origin(
    server: PageServer, path: str, content_type: str
) -> None:
    status, headers, body = ask(server, "GET", path)
    assert (status, headers["content-type"]) == (200, content_type)
    assert len(body) == int(headers["content-length"]) > 0
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["connect-src"] == "'self' ws://localhost:4566"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "img-src")} == {"'self'"}


def test_the_page_learns_its_addresses_from_the_server(server: PageServer) -> None:
    assert json.loads(ask(server, "GET", "/config.json")[2]) == {
        "websocketUrl": WEBSOCKET_URL,
        "directUploadUrl": "upload",
        "resultsUrl": "results",
    }


def test_head_answers_like_get_without_a_body(server: PageServer) -> None:
    answer = converse(server, f"HEAD / HTTP/1.1\r\nHost: {host_of(server)}\r\n\r\n".encode())
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    assert re.search(rb"Content-Length: [1-9]", head)
    assert body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/pyproject.toml",
        "//etc/passwd",
        "/package.json",
        "/client/package.json",
        "/client/index.d.ts",
        "/web/index.html",
    ],
)
def test_nothing_but_the_page_is_served(server: PageServer, path: str) -> None:
    assert ask(server, "GET", path)[0] == 404


def test_an_unknown_method_is_refused(server: PageServer) -> None:
    assert ask(server, "DELETE", "/upload")[0] == 501


def test_a_pdf_is_stored_under_the_id_that_is_answered(server: PageServer, s3: FakeS3) -> None:
    status, answer = upload(server, PDF, "?name=Annual%20report%20%C3%84%202031.PDF")
    assert status == 200
    assert re.fullmatch(r"annual-report-ä-2031-[0-9a-f]{8}", answer["docId"])
    assert s3.objects == {f"documents/{answer['docId']}.pdf": PDF}
    assert s3.content_types == ["application/pdf"]


@pytest.mark.parametrize(
    ("query", "readable"),
    [
        ("", "document"),
        ("?name=", "document"),
        ("?name=.pdf", "document"),
        ("?name=..%2F..%2F%00%0A", "document"),
        ("?name=%2E%2E%2Fetc%2Fpasswd", "etc-passwd"),
        ("?name=v1.2+(final).pdf", "v1.2-final"),
        (f"?name={'x' * 500}.pdf", "x" * 80),
    ],
)
def test_any_file_name_gives_a_readable_and_valid_id(server: PageServer, s3: FakeS3, query: str, readable: str) -> None:
    status, answer = upload(server, PDF, query)
    assert status == 200
    assert re.fullmatch(re.escape(readable) + "-[0-9a-f]{8}", answer["docId"])


def test_a_decomposed_file_name_gives_the_same_letters(server: PageServer) -> None:
    """macOS hands out names in decomposed form, where an umlaut is two characters."""
    assert upload(server, PDF, "?name=A%CC%88.pdf")[1]["docId"].startswith("ä-")


def test_two_documents_of_one_name_do_not_meet(server: PageServer, s3: FakeS3) -> None:
    assert upload(server, PDF)[1]["docId"] != upload(server, PDF)[1]["docId"]
    assert len(s3.objects) == 2


def test_a_pdf_header_may_stand_anywhere_in_the_first_1024_bytes(server: PageServer, s3: FakeS3) -> None:
    assert upload(server, b"\n" * 1019 + PDF)[0] == 200
    assert upload(server, b"\n" * 1020 + PDF)[0] == 415
    assert list(s3.objects.values()) == [b"\n" * 1019 + PDF]


def test_other_kinds_are_taken_by_their_names_and_keep_them(s3: FakeS3) -> None:
    media_types = {".docx": "application/x-docx"}
    with PageServer(
        websocket_url=WEBSOCKET_URL,
        bucket="documents",
        s3_client=s3,  # type: ignore[arg-type]  # the one method that is used
        media_types=media_types,
    ) as server:
        status, answer = upload(server, b"PK", "?name=My%20Minutes.DOCX")
        assert status == 200
        assert re.fullmatch(r"my-minutes-[0-9a-f]{8}\.docx", answer["docId"])
        assert s3.objects == {f"documents/{answer['docId']}": b"PK"}
        assert s3.content_types == ["application/x-docx"]
        assert json.loads(ask(server, "GET", "/config.json")[2])["mediaTypes"] == media_types
        assert upload(server, PDF)[0] == 415, "PDFs are none of its kinds"


@pytest.mark.parametrize("body", [b"", b"hello", b"PK\x03\x04" + b"\0" * 90_000])
def test_what_is_no_pdf_is_refused_and_not_stored(server: PageServer, s3: FakeS3, body: bytes) -> None:
    status, answer = upload(server, body)
    assert (status, answer["error"]) == (415, "This is not a PDF.")
    assert s3.objects == {}


def test_what_is_too_large_is_refused_before_it_is_read(server: PageServer, s3: FakeS3) -> None:
    assert upload(server, PDF + b"x" * (100_000 - len(PDF)))[0] == 200
    status, answer = upload(server, PDF + b"x" * (100_001 - len(PDF)))
    assert (status, answer["error"]) == (413, "A document may have up to 0.0954 MiB.")
    assert len(s3.objects) == 1


def test_a_sender_still_sending_hears_why_it_was_refused(server: PageServer) -> None:
    assert upload(server, PDF + b"x" * 20_000_000)[0] == 413


def test_a_document_is_passed_on_while_it_still_arrives(server: PageServer, s3: FakeS3) -> None:
    host, port = host_of(server).split(":")
    with socket.create_connection((host, int(port)), timeout=60) as sender:
        head = f"POST /upload HTTP/1.1\r\nHost: {host_of(server)}\r\nContent-Length: {2 * len(PDF)}\r\n\r\n"
        sender.sendall(head.encode() + PDF)
        assert s3.first_part.wait(60), "nothing reached the bucket before the document was complete"
        sender.sendall(PDF)
        assert sender.recv(100).startswith(b"HTTP/1.1 200")
    assert list(s3.objects.values()) == [PDF + PDF]


def test_half_a_document_is_never_stored(server: PageServer, s3: FakeS3) -> None:
    host, port = host_of(server).split(":")
    with socket.create_connection((host, int(port)), timeout=60) as sender:
        head = f"POST /upload HTTP/1.1\r\nHost: {host_of(server)}\r\nContent-Length: {2 * len(PDF)}\r\n\r\n"
        sender.sendall(head.encode() + PDF)
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(100) == b"", "there is nobody left to answer"
    assert s3.objects == {}


@pytest.mark.parametrize(
    "length", ["", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]
)
def test_a_document_of_unknown_length_is_refused(server: PageServer, s3: FakeS3, length: str) -> None:
    request = f"POST /upload HTTP/1.1\r\nHost: {host_of(server)}\r\n{length}\r\n".encode()
    assert converse(server, request + PDF).startswith(b"HTTP/1.1 411")
    assert s3.objects == {}


def test_a_bucket_that_fails_gives_no_details_away(
    server: PageServer, s3: FakeS3, caplog: pytest.LogCaptureFixture
) -> None:
    s3.failure = RuntimeError("AccessDenied for arn:aws:iam::000000000000:role/secret")
    status, answer = upload(server, PDF)
    assert (status, answer) == (500, {"error": "The server failed. Try again."})
    assert "AccessDenied" in caplog.text, "the operator sees why"


def test_an_upload_goes_to_upload_only(server: PageServer, s3: FakeS3) -> None:
    status, _, _ = ask(server, "POST", "/", PDF)
    assert status == 404
    assert s3.objects == {}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
@pytest.mark.parametrize(("method", "path"), [("GET", "/config.json"), ("POST", "/upload")])
def test_a_foreign_name_for_this_server_is_refused(
    server: PageServer, s3: FakeS3, method: str, path: str, host: str
) -> None:
    port = host_of(server).split(":")[1]
    assert ask(server, method, path, PDF, Host=host.format(port=port))[0] == 421
    assert s3.objects == {}


def test_localhost_is_a_name_of_this_server(server: PageServer) -> None:
    host = host_of(server).replace("127.0.0.1", "localhost")
    assert ask(server, "POST", "/upload", PDF, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
    ],
)
def test_another_site_may_not_upload(server: PageServer, s3: FakeS3, headers: dict[str, str]) -> None:
    assert upload(server, PDF, **headers)[0] == 403
    assert s3.objects == {}


def test_another_site_may_link_to_the_page_and_no_more(server: PageServer) -> None:
    assert ask(server, "GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    assert ask(server, "GET", "/config.json", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
    assert ask(server, "GET", "/client/index.js", Sec_Fetch_Site="cross-site")[0] == 403


def test_the_own_page_may_upload(server: PageServer) -> None:
    headers = {
        "Origin": f"http://{host_of(server)}",
        "Sec_Fetch_Site": "same-origin",
        "Sec_Fetch_Mode": "cors",
    }
    assert upload(server, PDF, **headers)[0] == 200


def test_a_burst_of_uploads_is_served_whole(server: PageServer, s3: FakeS3) -> None:
    with ThreadPoolExecutor(100) as senders:
        answers = list(senders.map(lambda _: upload(server, PDF)[0], range(100)))
    assert answers == [200] * 100
    assert len(s3.objects) == 100


def test_the_server_leaves_no_thread_and_frees_its_port(s3: FakeS3) -> None:
    with PageServer(websocket_url=WEBSOCKET_URL, bucket="documents", s3_client=s3) as server:  # type: ignore[arg-type]
        port = int(host_of(server).split(":")[1])
    assert not [thread for thread in threading.enumerate() if thread.name == "page-server"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
