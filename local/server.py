"""Serves the page in web/ on 127.0.0.1, takes uploads from it into the documents bucket, and links to results there.

Decides who may ask (this machine's own page and command-line tools, no other site) and what kind a document is. It
never touches the progress of a document: the page's WebSocket goes straight to the stack.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import socket
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

WEB_ROOT = Path(__file__).resolve().parent.parent / "web"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PDF = ".pdf"
PDFS: Mapping[str, str] = {PDF: "application/pdf"}
IDLE_TIMEOUT_SECONDS = 30
# Readers accept a PDF whose header stands anywhere in here (ISO 32000-1 annex H, implementation note 13).
PDF_HEADER_WITHIN_BYTES = 1024
# One part in memory at a time, whatever the size of the document; 5 MiB is the least S3 allows.
LINK_SECONDS = 60
TRANSFER = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, use_threads=False)


class PageServer:
    """The page, its uploads and its results, in a thread of their own, until the context ends.

    with PageServer(websocket_url=outputs["websocketUrl"], bucket=bucket, s3_client=s3) as server:
        print(server.url)

    `POST /upload?name={file name}` takes a document as the raw body, stores a PDF as `{docId}.pdf`, any other kind as
    `{docId}`, and answers `{"docId": str}`. `GET /results/{docId}` answers `{"url": str}`, good for a minute. Refusals
    answer `{"error": str}` with 403, 404, 411, 413, 415 or 421.

    Args:
        media_types: of the documents that are taken, by suffix.
    """

    def __init__(
        self,
        *,
        websocket_url: str,
        bucket: str,
        s3_client: S3Client,
        media_types: Mapping[str, str] = PDFS,
        port: int = 0,
        max_upload_bytes: int = 100 * 1024 * 1024,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Binds 127.0.0.1 at once; `port` 0 takes any free one.

        Args:
            settings: what config.json has besides the WebSocket's URL, in place of this server's uploads and results.

        Raises:
            OSError: the port is taken.
        """
        self._bucket = bucket
        self._s3_client = s3_client
        own: dict[str, Any] = {"directUploadUrl": "upload", "resultsUrl": "results"}
        if media_types != PDFS:
            own["mediaTypes"] = media_types
        handler = partial(
            _Handler,
            settings={"websocketUrl": websocket_url, **(own if settings is None else settings)},
            store=self._store,
            link=self._link,
            media_types=media_types,
            max_upload_bytes=max_upload_bytes,
        )
        # The server only calls it; its annotation asks for a class.
        self._server = _Server(("127.0.0.1", port), cast("type[BaseHTTPRequestHandler]", handler))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="page-server")
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _store(self, key: str, media_type: str, body: _RequestBody) -> None:
        self._s3_client.upload_fileobj(
            cast("IO[bytes]", body),
            self._bucket,
            key,
            ExtraArgs={"ContentType": media_type},
            Config=TRANSFER,
        )

    def _link(self, document_id: str) -> str:
        result = {"Bucket": self._bucket, "Key": f"results/{document_id}.json"}
        try:
            self._s3_client.head_object(Bucket=result["Bucket"], Key=result["Key"])
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
                raise
            raise _Refused(HTTPStatus.NOT_FOUND, "The document has no result.") from error
        name = quote(document_id.rpartition("/")[2], safe="")
        saved = {
            "ResponseContentDisposition": f"attachment; filename*=UTF-8''{name}.json",
            "ResponseContentType": "application/octet-stream",
        }
        return self._s3_client.generate_presigned_url("get_object", {**result, **saved}, ExpiresIn=LINK_SECONDS)


class _Server(ThreadingHTTPServer):
    # Of the standard 5, the rest of a burst of uploads would wait for its next try, or for ever.
    request_queue_size = 128

    def handle_error(self, _request: object, client_address: object) -> None:
        # A browser that leaves in the middle of an answer is no event worth a traceback on the terminal.
        logger.debug("A connection from %s ended early", client_address, exc_info=True)


class _RequestBody:
    """The request's body as the read-only file that boto3 uploads from."""

    def __init__(self, stream: IO[bytes], length: int) -> None:
        self._stream = stream
        self._unread = length
        self._head = b""

    def peek(self, size: int) -> bytes:
        self._head = self.read(size)
        return self._head

    def read(self, size: int = -1) -> bytes:
        """Raises ConnectionError if the sender left early, so that no half document is ever stored."""
        if size < 0:
            size = len(self._head) + self._unread
        head, self._head = self._head[:size], self._head[size:]
        wanted = min(size - len(head), self._unread)
        rest = self._stream.read(wanted)
        self._unread -= len(rest)
        if len(rest) < wanted:
            raise ConnectionError(f"The upload ended {self._unread} bytes early")
        return head + rest

    def seekable(self) -> bool:
        return False


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_SECONDS

    def __init__(
        self,
        request: socket.socket,
        client_address: tuple[str, int],
        server: _Server,
        *,
        settings: Mapping[str, Any],
        store: Callable[[str, str, _RequestBody], None],
        link: Callable[[str], str],
        media_types: Mapping[str, str],
        max_upload_bytes: int,
    ) -> None:
        self._settings = settings
        self._store = store
        self._link = link
        self._media_types = media_types
        self._max_upload_bytes = max_upload_bytes
        super().__init__(request, client_address, server)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)

    def _answer(self, respond: Callable[[], None]) -> None:
        try:
            self._check_who_asks()
            respond()
        except _Refused as refused:
            self._send_json(refused.status, {"error": str(refused)})
            self._drain()
        except (ConnectionError, TimeoutError) as error:
            logger.info("%s %s ended early: %s", self.command, urlsplit(self.path).path, error)
            self.close_connection = True
        except Exception:
            logger.exception("%s %s failed", self.command, urlsplit(self.path).path)
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "The server failed. Try again."})
            self._drain()

    def _check_who_asks(self) -> None:
        """Refuse other sites: by name, since theirs may point here (DNS rebinding), and by origin."""
        _, port = cast("tuple[str, int]", self.server.server_address)
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        host = self.headers.get("Host", "")
        if host not in hosts:
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, f"This server is {' or '.join(sorted(hosts))}.")
        # Browsers send both with every POST, other tools neither; https://www.w3.org/TR/fetch-metadata/.
        origin = self.headers.get("Origin", f"http://{host}")
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        followed_a_link = self.command == "GET" and self.headers.get("Sec-Fetch-Mode") == "navigate"
        if origin != f"http://{host}" or not (site in {"same-origin", "none"} or followed_a_link):
            raise _Refused(HTTPStatus.FORBIDDEN, "Only this server's own page may ask.")

    def _get(self) -> None:
        path = urlsplit(self.path).path
        if path == "/config.json":
            self._send_json(HTTPStatus.OK, self._settings)
            return
        if path.startswith("/results/"):
            self._send_json(HTTPStatus.OK, {"url": self._link(unquote(path.removeprefix("/results/")))})
            return
        name = path.removeprefix("/") or "index.html"
        # Looked up, never joined: no path can lead out of the folders.
        files = {
            file.relative_to(WEB_ROOT).as_posix(): file
            for folder in (WEB_ROOT, WEB_ROOT / "client")
            for file in folder.iterdir()
            if file.suffix in CONTENT_TYPES
        }
        if name not in files:
            raise _Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
        file = files[name]
        self._send(HTTPStatus.OK, CONTENT_TYPES[file.suffix], file.read_bytes())

    def _post(self) -> None:
        target = urlsplit(self.path)
        if target.path != "/upload":
            raise _Refused(HTTPStatus.NOT_FOUND, "Documents are posted to /upload.")
        body = _RequestBody(cast("IO[bytes]", self.rfile), self._content_length())
        name = parse_qs(target.query).get("name", [""])[0]
        suffix = next((each for each in self._media_types if name.lower().endswith(each)), PDF)
        if suffix == PDF and (PDF not in self._media_types or b"%PDF-" not in body.peek(PDF_HEADER_WITHIN_BYTES)):
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _what_is_taken(self._media_types))
        document_id = _document_id(name, suffix)
        self._store(document_id + (PDF if suffix == PDF else ""), self._media_types[suffix], body)
        self._send_json(HTTPStatus.OK, {"docId": document_id})

    def _content_length(self) -> int:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,18}", length) or "Transfer-Encoding" in self.headers:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Send the document in one piece, with Content-Length.")
        if int(length) > self._max_upload_bytes:
            limit = f"{self._max_upload_bytes / (1 << 20):.3g} MiB"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A document may have up to {limit}.")
        return int(length)

    def _send_json(self, status: HTTPStatus, value: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _content_security_policy(self._settings))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drain(self) -> None:
        """Take in what is still being sent: closing on unread data would reset the answer away."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1)
        deadline = time.monotonic() + 5
        try:
            while time.monotonic() < deadline and self.connection.recv(1 << 16):
                pass
        except OSError as error:
            logger.debug("The sender did not take the answer: %s", error)


def _document_id(file_name: str, suffix: str) -> str:
    """Readable in a log and unlike any other: `annual-report-3f9c1b7a` for `Annual report.pdf`. Others keep theirs."""
    stem = re.sub(re.escape(suffix) + "$", "", unicodedata.normalize("NFC", file_name), flags=re.IGNORECASE)
    readable = re.sub(r"[^\w.]+", "-", stem).strip("-.").lower()[:80]
    return f"{readable or 'document'}-{secrets.token_hex(4)}{'' if suffix == PDF else suffix}"


def _what_is_taken(media_types: Mapping[str, str]) -> str:
    return "This is not a PDF." if media_types == PDFS else f"This is none of {', '.join(media_types)}."


def _content_security_policy(settings: Mapping[str, Any]) -> str:
    """Nothing but this server's own files, and what the page is told to ask (https://www.w3.org/TR/CSP3/)."""
    urls = [settings.get(key, "") for key in ("websocketUrl", "uploadUrl", "resultsUrl")]
    addresses = [urlsplit(url) for url in (*urls, settings.get("signIn", {}).get("issuer", ""))]
    hosts = dict.fromkeys(f"{address.scheme}://{address.netloc}" for address in addresses if address.netloc)
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {' '.join(hosts)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
