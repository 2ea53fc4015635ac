"""Over real connections: chunks, sizes, bytes that are no text, and bodies that never end."""

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from headrace.producers.delivery import Limits
from tests.integration.webhooks.receiver import (
    BATCH,
    GOOD,
    PATH,
    Delivery,
    Receiver,
    event,
    positions,
    replaced,
    signed,
)


@contextmanager
def serving(app: FastAPI) -> Generator[tuple[str, int]]:
    """The app behind a real server on a port of the system's choice."""
    # With the protocol named, asyncio switches Nagle's algorithm off on what it accepts.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none", access_log=False))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()


def exchange(address: tuple[str, int], request: bytes) -> bytes:
    """Send bytes as they are; everything that comes back until the server ends the connection."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


def head(delivery: Delivery, *more: bytes) -> bytes:
    """The delivery's request line and headers, as HTTP/1.1."""
    lines = [f"POST {delivery.path} HTTP/1.1".encode(), b"Host: test", b"Connection: close", *more]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in delivery.headers), b"", b""])


def test_over_http_in_chunks_and_whole(receiver: Receiver) -> None:
    body = json.dumps([event(id=f"e-{n}") for n in range(1_000)]).encode()
    delivery = signed(body, BATCH)
    with serving(receiver.app) as (host, port), httpx.Client(base_url=f"http://{host}:{port}") as client:
        whole = client.post(PATH, content=body, headers=delivery.headers)
        parts = client.post(
            PATH, content=(body[at : at + 999] for at in range(0, len(body), 999)), headers=delivery.headers
        )
    assert len(positions(whole)) == len(positions(parts)) == 1_000
    assert set(receiver.applied(positions(whole))) == {"applied"}
    assert set(receiver.applied(positions(parts))) == {"duplicate"}


def test_over_http_oversize_is_refused_before_and_while_it_comes(receiver: Receiver) -> None:
    ends = receiver.ends()
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with serving(receiver.app) as address:
        stated = exchange(address, head(GOOD, b"Content-Length: 1048577"))
        absurd = exchange(address, head(GOOD, b"Content-Length: " + b"9" * 19))
        streamed = exchange(address, head(GOOD, b"Transfer-Encoding: chunked") + chunk * 16 + b"1\r\n \r\n")
    for answer in (stated, absurd, streamed):
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"too_large"' in answer
    assert receiver.ends() == ends
    assert receiver.counted() == {"default/too_large": 3}


def test_over_http_bytes_that_are_no_ascii(receiver: Receiver) -> None:
    with serving(receiver.app) as address:
        for name in (b"webhook-id", b"webhook-timestamp", b"webhook-signature"):
            delivery = replaced(GOOD, name, b"v1,\xff\xc3\xa9")
            answer = exchange(address, head(delivery, b"Content-Length: %d" % len(GOOD.body)) + GOOD.body)
            assert answer.startswith(b"HTTP/1.1 401 ")
    assert sum(receiver.counted().values()) == 3


def raw_call(app: FastAPI, delivery: Delivery, receive: Callable[[], Awaitable[dict[str, Any]]]) -> list[Any]:
    """The messages that the app sends, given what it receives."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": delivery.path, "raw_path": delivery.path.encode(), "query_string": b"", "headers": delivery.headers,
        "server": ("test", 80), "client": ("test", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent


def test_a_body_that_breaks_off_or_never_ends(shared: Receiver) -> None:
    receiver = Receiver(shared.store, Limits(seconds=0.05))
    ends = receiver.ends()
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": GOOD.body[:10], "more_body": True}, {"type": "http.disconnect"}]
    )

    async def breaks_off() -> dict[str, Any]:
        return next(messages)

    async def never_ends() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    broken = raw_call(receiver.app, GOOD, breaks_off)
    slow = raw_call(receiver.app, GOOD, never_ends)
    assert [broken[0]["status"], slow[0]["status"]] == [400, 408]
    assert receiver.counted() == {"default/incomplete_body": 1, "default/slow_body": 1}
    assert receiver.ends() == ends


def test_an_oversized_stream_is_left_at_the_limit(shared: Receiver) -> None:
    receiver = Receiver(shared.store, Limits(body=10_000))
    asked = 0

    async def endless() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b" " * 1_000, "more_body": True}

    sent = raw_call(receiver.app, GOOD, endless)
    assert sent[0]["status"] == 413
    assert asked == 11
