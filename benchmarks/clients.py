"""The engine and its peers, each able to post one message to many connections. One process measures one of them.

`python -m benchmarks.clients NAME URL [certificate.pem]` reads a number of posts from each line of its standard
input, posts as many, and prints the seconds and the CPU seconds that took. Every peer is written as its own
documentation suggests for many requests, keeps its connections, and signs each request.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from botocore.credentials import ReadOnlyCredentials

MESSAGE = b'{"status":"progress","docId":"report.pdf","pagesProcessed":50,"totalPages":100,"sequence":7}'
# A session token as long as those of Lambda roles: it is sent and hashed with every request.
CREDENTIALS = ReadOnlyCredentials("ASIAEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "T" * 900)
REGION = "eu-west-1"
IN_FLIGHT = 128
PAGE = 1_000


class Client(Protocol):
    def post(self, count: int) -> None:
        """Post `MESSAGE` to `count` connections; raise if one of them was not delivered."""

    def close(self) -> None: ...


def connection_ids(count: int) -> Iterator[str]:
    return (f"L0SM9cOF{number:07}w=" for number in range(count))


class Watcher(NamedTuple):
    connection_id: str


class ThisEngine:
    def __init__(self, url: str, certificate: str | None) -> None:
        from docprogress.posting.fan_out import FanOut

        if certificate:
            os.environ["SSL_CERT_FILE"] = certificate  # how OpenSSL is told its authorities
        self._fan_out = FanOut(url, region=REGION, credentials=lambda: CREDENTIALS)

    def post(self, count: int) -> None:
        def pages() -> Iterator[Sequence[Watcher]]:
            ids = connection_ids(count)
            while page := [Watcher(connection_id) for connection_id in islice(ids, PAGE)]:
                yield page

        report = self._fan_out.post(pages(), MESSAGE, deadline_seconds=60, settle_seconds=60, forget=print)
        if report.delivered != count:
            raise RuntimeError(f"{report} of {count}")

    def close(self) -> None:
        self._fan_out.close()


class Boto3:
    def __init__(self, url: str, certificate: str | None, threads: int, *, read_timeout: float = 60) -> None:
        import boto3
        from botocore.config import Config

        self._client = boto3.client(
            "apigatewaymanagementapi",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS.access_key,
            aws_secret_access_key=CREDENTIALS.secret_key,
            aws_session_token=CREDENTIALS.token,
            verify=certificate,
            config=Config(max_pool_connections=threads, read_timeout=read_timeout, retries={"mode": "standard"}),
        )
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None

    def post(self, count: int) -> None:
        run = map if self._threads is None else self._threads.map
        for _ in run(self.post_one, connection_ids(count)):
            pass

    def post_one(self, connection_id: str) -> None:
        self._client.post_to_connection(ConnectionId=connection_id, Data=MESSAGE)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._client.close()


class AwsCrt:
    """AWS's C runtime: its HTTP/1.1 connections, each given the next request when it has answered, and its signer."""

    def __init__(self, url: str, certificate: str | None) -> None:
        from awscrt import auth, http, io

        self._auth, self._http, self._io = auth, http, io
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._host, self._path = f"{parts.hostname}:{parts.port}", parts.path
        tls = None
        if certificate:
            options = io.TlsContextOptions()
            options.override_default_trust_store_from_path(None, certificate)
            tls = io.ClientTlsContext(options).new_connection_options()
            tls.set_server_name(parts.hostname)
        bootstrap = io.ClientBootstrap(io.EventLoopGroup(1), io.DefaultHostResolver(io.EventLoopGroup(1)))
        opening = [
            http.HttpClientConnection.new(parts.hostname, parts.port, bootstrap, tls_connection_options=tls)
            for _ in range(IN_FLIGHT)
        ]
        self._connections = [future.result(60) for future in opening]
        self._credentials = auth.AwsCredentialsProvider.new_static(
            CREDENTIALS.access_key, CREDENTIALS.secret_key, CREDENTIALS.token
        )

    def post(self, count: int) -> None:
        ids = connection_ids(count)
        lock = threading.Lock()
        done: Future[None] = Future()
        left = count

        def serve(connection: Any) -> None:
            with lock:
                connection_id = next(ids, None)
            if connection_id is None:
                return
            headers = self._http.HttpHeaders([("Host", self._host), ("Content-Length", str(len(MESSAGE)))])
            path = f"{self._path}/%40connections/{quote(connection_id, safe='')}"
            request = self._http.HttpRequest("POST", path, headers, self._io.InputStream(_Body(MESSAGE)))
            config = self._auth.AwsSigningConfig(
                self._auth.AwsSigningAlgorithm.V4,
                self._auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
                self._credentials,
                REGION,
                "execute-api",
            )
            self._auth.aws_sign_request(request, config).add_done_callback(lambda signed: send(connection, signed))

        def send(connection: Any, signed: Future[Any]) -> None:
            try:
                stream = connection.request(signed.result(), answered)
                stream.completion_future.add_done_callback(lambda ended: completed(connection, ended))
                stream.activate()
            except Exception as error:  # noqa: BLE001  handed to the waiting thread
                done.set_exception(error)

        def answered(*, status_code: int, **_: Any) -> None:
            if status_code != 200 and not done.done():
                done.set_exception(RuntimeError(f"status {status_code}"))

        def completed(connection: Any, ended: Future[Any]) -> None:
            nonlocal left
            if ended.exception() is not None and not done.done():
                done.set_exception(ended.exception())
            with lock:
                left -= 1
                last = left == 0
            if last:
                done.set_result(None)
            else:
                serve(connection)

        for connection in self._connections[:count]:
            serve(connection)
        done.result(60)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class _Body:
    """What awscrt reads a body from; io.BytesIO would do, but for its stubs."""

    def __init__(self, body: bytes) -> None:
        import io

        self._stream = io.BytesIO(body)
        self.read, self.seek, self.readinto = self._stream.read, self._stream.seek, self._stream.readinto


class _OnALoop:
    """A peer that is written as coroutines: `IN_FLIGHT` of them take ids until none is left."""

    def __init__(self, url: str, certificate: str | None) -> None:
        self._url = url
        self._context = ssl.create_default_context(cafile=certificate) if certificate else None
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())

    def post(self, count: int) -> None:
        async def run() -> None:
            ids = connection_ids(count)
            await asyncio.gather(*(self._work(number, ids) for number in range(min(IN_FLIGHT, count))))

        self._loop.run_until_complete(run())

    def close(self) -> None:
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _start(self) -> None:
        raise NotImplementedError

    async def _work(self, number: int, ids: Iterator[str]) -> None:
        raise NotImplementedError

    async def _stop(self) -> None:
        raise NotImplementedError


class AiohttpWithBotocore(_OnALoop):
    async def _start(self) -> None:
        import aiohttp
        from botocore.auth import SigV4Auth

        self._signer = SigV4Auth(CREDENTIALS, "execute-api", REGION)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=self._context or True)
        )

    async def _work(self, number: int, ids: Iterator[str]) -> None:  # noqa: ARG002  one shared connector
        import yarl
        from botocore.awsrequest import AWSRequest

        for connection_id in ids:
            url = f"{self._url}/%40connections/{quote(connection_id, safe='')}"
            request = AWSRequest("POST", url, data=MESSAGE)
            self._signer.add_auth(request)
            headers = dict(request.headers.items())
            async with self._session.post(yarl.URL(url, encoded=True), data=MESSAGE, headers=headers) as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(f"status {response.status}")

    async def _stop(self) -> None:
        await self._session.close()


class UnsignedSockets(_OnALoop):
    """No signature, no parsing, no account of anything: asyncio's own socket calls on a request written beforehand.

    Under TLS asyncio has streams only.
    """

    async def _start(self) -> None:
        parts = urlsplit(self._url)
        assert parts.hostname
        assert parts.port
        self._head = f"POST {parts.path}/%40connections/".encode()
        self._tail = f" HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE
        self._sockets: list[socket.socket] = []
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for _ in range(IN_FLIGHT):
            if self._context is not None:
                self._streams.append(await asyncio.open_connection(parts.hostname, parts.port, ssl=self._context))
                continue
            sock = socket.socket()
            sock.setblocking(False)
            await self._loop.sock_connect(sock, (parts.hostname, parts.port))
            self._sockets.append(sock)

    async def _work(self, number: int, ids: Iterator[str]) -> None:
        if self._streams:
            reader, writer = self._streams[number]
            for connection_id in ids:
                writer.write(self._request(connection_id))
                _check(await reader.readuntil(b"\r\n\r\n"))
            return
        sock = self._sockets[number]
        for connection_id in ids:
            await self._loop.sock_sendall(sock, self._request(connection_id))
            _check(await self._loop.sock_recv(sock, 65_536))

    def _request(self, connection_id: str) -> bytes:
        return b"%b%b%b" % (self._head, connection_id.replace("=", "%3D").encode(), self._tail)

    async def _stop(self) -> None:
        for sock in self._sockets:
            sock.close()
        for _, writer in self._streams:
            writer.close()
            await writer.wait_closed()


class UnsignedCallbacks(UnsignedSockets):
    """The same on bare reader callbacks, as the engine uses them: the strictest limit there is. Plain HTTP only."""

    def post(self, count: int) -> None:
        self._ids, self._left = connection_ids(count), count
        self._done = self._loop.create_future()
        for sock in self._sockets[:count]:
            self._loop.add_reader(sock.fileno(), self._answered, sock)
            sock.send(self._request(next(self._ids)))
        self._loop.run_until_complete(self._done)
        for sock in self._sockets[:count]:
            self._loop.remove_reader(sock.fileno())

    def _answered(self, sock: socket.socket) -> None:
        _check(sock.recv(65_536))
        self._left -= 1
        connection_id = next(self._ids, None)
        if connection_id is not None:
            sock.send(self._request(connection_id))
        elif self._left == 0:
            self._done.set_result(None)


def _check(answer: bytes) -> None:
    if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n")):
        raise RuntimeError(f"not delivered: {answer!r}")


ENGINE = "this engine"
LIMIT = "asyncio sockets, unsigned"
CALLBACK_LIMIT = "reader callbacks, unsigned"
CLIENTS: dict[str, Callable[[str, str | None], Client]] = {
    ENGINE: ThisEngine,
    "boto3, in sequence": lambda url, certificate: Boto3(url, certificate, 1),
    "boto3, 16 threads": lambda url, certificate: Boto3(url, certificate, 16),
    "boto3, 64 threads": lambda url, certificate: Boto3(url, certificate, 64),
    "awscrt": AwsCrt,
    "aiohttp, botocore's signer": AiohttpWithBotocore,
    LIMIT: UnsignedSockets,
    CALLBACK_LIMIT: UnsignedCallbacks,
}


def main(name: str, url: str, certificate: str | None) -> None:
    client = CLIENTS[name](url, certificate)
    client.post(1)
    print("ready", flush=True)
    for line in sys.stdin:
        started, cpu_started = time.perf_counter(), time.process_time()
        client.post(int(line))
        print(time.perf_counter() - started, time.process_time() - cpu_started, flush=True)
    client.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
