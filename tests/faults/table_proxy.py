"""A proxy before DynamoDB that throttles, delays, fails and loses answers as told. boto3 takes it as `endpoint_url`."""

from __future__ import annotations

import http.client
import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["pass", "throttle", "fail", "lose"]


@dataclass(frozen=True)
class Fault:
    """What becomes of one request.

    kind: `throttle` and `fail` answer without asking the table; `lose` asks it and closes the connection instead of
        answering, so that the caller cannot know whether the write was made.
    delay_seconds: before anything else.
    """

    kind: Kind = "pass"
    delay_seconds: float = 0.0


Plan = Callable[[str, int], Fault]
_ERRORS = {
    "throttle": (400, "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "Throughput exceeds"),
    "fail": (500, "com.amazon.coral.service#InternalServerError", "Internal server error"),
}


class TableProxy:
    """A proxy on an ephemeral port of 127.0.0.1 while its `with` block lasts.

    Args:
        plan: given an operation (`UpdateItem`) and how many requests for it there were before, tells what to do.

    Attributes:
        operations: how many requests came, by operation.
    """

    def __init__(self, endpoint_url: str, plan: Plan = lambda _operation, _number: Fault()) -> None:
        self.plan = plan
        self.operations: Counter[str] = Counter()
        self._lock = threading.Lock()
        target = urlsplit(endpoint_url)
        assert target.hostname
        assert target.port
        self._target = (target.hostname, target.port)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy._serve(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="table-proxy")

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> TableProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        operation = handler.headers.get("X-Amz-Target", "").rpartition(".")[2]
        with self._lock:
            number = self.operations[operation]
            self.operations[operation] += 1
        fault = self.plan(operation, number)
        time.sleep(fault.delay_seconds)
        if fault.kind in _ERRORS:
            status, name, message = _ERRORS[fault.kind]
            _answer(handler, status, json.dumps({"__type": name, "message": message}).encode())
            return
        status, answer = self._ask(handler, body)
        if fault.kind == "lose":
            handler.close_connection = True
        else:
            _answer(handler, status, answer)

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._target, timeout=60)
        try:
            connection.request("POST", handler.path, body, dict(handler.headers.items()))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _answer(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/x-amz-json-1.0")
    handler.send_header("x-amz-crc32", str(zlib.crc32(body)))
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
