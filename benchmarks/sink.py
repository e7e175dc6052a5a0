"""The server to measure against: answers every request at once as API Gateway does, and does little else.

A bare poll loop without asyncio, so that it is faster than every client it is to measure. Of a request it
reads no more than where it ends. `python -m benchmarks.sink [certificate.pem]` prints its port and serves until
its standard input ends.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
from pathlib import Path

from benchmarks.certificate import server_context

ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 0\r\nConnection: keep-alive\r\nx-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n"
    b"x-amz-apigw-id: L0SM9cOFvHcCIhw=\r\n\r\n"
)


THROTTLED = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
# Connections whose ids begin so are the bad watchers of `stragglers`.
THROTTLES, HANGS = "Throttles", "Hangs"


def serve(context: ssl.SSLContext | None) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    print(listener.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    begun: dict[socket.socket, bytes] = {}  # the starts of requests whose ends are still to come
    while True:
        for key, _ in selector.select():
            client = key.fileobj
            if client is sys.stdin:
                return
            if client is listener:
                _accept(listener, context, selector)
            elif isinstance(client, socket.socket):
                _answer(client, begun, selector)


def _answer(client: socket.socket, begun: dict[socket.socket, bytes], selector: selectors.BaseSelector) -> None:
    try:
        data = client.recv(65_536)
    except (BlockingIOError, ssl.SSLWantReadError):
        return
    except OSError:
        data = b""
    if not data:
        begun.pop(client, None)
        selector.unregister(client)
        client.close()
        return
    if client in begun:
        data = begun.pop(client) + data
    if _is_whole(data):
        target = data[:200].partition(b"connections/")[2]
        if target.startswith(THROTTLES.encode()):
            client.send(THROTTLED)
        elif not target.startswith(HANGS.encode()):
            client.send(ANSWER)
    else:
        begun[client] = data


def _is_whole(data: bytes) -> bool:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    if data.endswith(b"}"):  # every message of the benchmarks is one JSON object
        return True
    return b"content-length: 0\r\n" in data.lower()


def _accept(listener: socket.socket, context: ssl.SSLContext | None, selector: selectors.BaseSelector) -> None:
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        if context is not None:
            client = context.wrap_socket(client, server_side=True)
    except OSError:
        client.close()
        return
    client.setblocking(False)
    selector.register(client, selectors.EVENT_READ)


if __name__ == "__main__":
    serve(server_context(Path(sys.argv[1])) if len(sys.argv) > 1 else None)
