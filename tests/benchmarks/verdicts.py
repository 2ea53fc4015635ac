"""Propose → verdict over HTTP, against a row-version ``UPDATE`` on SQLite behind the same framework and server.

Both servers are processes of their own, both answer one request at a time to one client, both sync to disk before they
answer.
"""

import multiprocessing
import os
import signal
import socket
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import anyio.to_thread
import apsw
import httpx
import uvicorn
from fastapi import FastAPI, HTTPException

from headrace.api.server import serve
from headrace.producers.event import NewEvent
from headrace.schemas.refs import ActorRef
from headrace.settings import Settings
from headrace.store import Store
from tests.benchmarks.figures import Figure, percentiles, show

REQUESTS, WARM = 600, 50
ACCOUNT = "ann"


def _peer(directory: Path, tell: Connection) -> None:
    """Optimistic locking as everybody does it: ``UPDATE … WHERE version = ?`` behind FastAPI and uvicorn."""
    database = apsw.Connection(str(directory / "peer.db"))
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, version INTEGER, state TEXT)")
    database.executemany("INSERT INTO records VALUES (?, 0, '')", [(number,) for number in range(REQUESTS + WARM)])
    app, lock = FastAPI(), threading.Lock()

    def update(record: int, version: int) -> int:
        sql = "UPDATE records SET version = version + 1, state = 'new' WHERE id = ? AND version = ?"
        with lock:
            database.execute(sql, (record, version))
            return database.changes()

    @app.post("/records/{record}")
    async def change(record: int, version: int) -> dict[str, int]:
        if not await anyio.to_thread.run_sync(update, record, version):
            raise HTTPException(409)
        return {"version": version + 1}

    # The protocol must be named: asyncio turns Nagle's algorithm off only then, as it does for the other server.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    tell.send(f"http://127.0.0.1:{listening.getsockname()[1]}")
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _headrace(directory: Path, tell: Connection) -> None:
    with Store(directory / "store", writer=True) as store:
        actor = ActorRef("user", "person")
        records = [
            store.intake.event(
                "local",
                ACCOUNT,
                NewEvent("mail.received", "mail.thread", f"t-{number}", f"e-{number}", _MESSAGE),
                source="bench",
                actor=actor,
                observed_at="2026-11-21T17:15:00.000Z",
            )
            for number in range(REQUESTS + WARM)
        ]
        last = store.log.append(records)[-1]
        store.applied.wait(last.partition, last.offset, 60)
        serve(store, Settings(store=store.directory, port=0), ready=tell.send)


_MESSAGE = {"message": "m", "sender": "bob@example.com", "recipients": ["ann@example.com"], "labels": ["INBOX"]}


def _ask(url: str, request: str) -> list[float]:
    samples: list[float] = []
    with httpx.Client(base_url=url, timeout=30) as http:
        for number in range(REQUESTS + WARM):
            if request == "update":
                begun = time.perf_counter()
                answer = http.post(f"/records/{number}", params={"version": 0})
            else:
                basis = http.get(f"/v1/accounts/{ACCOUNT}/entities/mail.thread/t-{number}").json()["basis"]
                body = {"entity": {"kind": "mail.thread", "id": f"t-{number}"}, "basis": basis, "type": "mail.archive"}
                headers = {"Idempotency-Key": f"p-{number}", "Prefer": "wait=10"}
                begun = time.perf_counter()
                answer = http.post(f"/v1/accounts/{ACCOUNT}/proposals", json=body, headers=headers)
            spent = time.perf_counter() - begun
            if answer.status_code not in (200, 201):
                raise RuntimeError(f"{request}: {answer.status_code} {answer.text[:300]}")
            if number >= WARM:
                samples.append(spent)
    return samples


def _measured(directory: Path, request: str) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    context = multiprocessing.get_context("spawn")
    hear, tell = context.Pipe(duplex=False)
    server = context.Process(target=_peer if request == "update" else _headrace, args=(directory, tell))
    server.start()
    try:
        if not hear.poll(60):
            raise RuntimeError(f"the {request} server did not come up")
        return percentiles(_ask(hear.recv(), request))
    finally:
        if server.pid is not None:
            os.kill(server.pid, signal.SIGTERM)
        server.join(10)
        if server.is_alive():
            server.kill()
            server.join()


def run(directory: Path) -> None:
    """Measure and print."""
    peer50, peer99 = _measured(directory, "update")
    ours50, ours99 = _measured(directory, "propose")
    show(
        f"Over HTTP, one request at a time ({REQUESTS} requests)",
        (
            Figure("row-version UPDATE on SQLite, p50 (the peer)", peer50, "ms"),
            Figure("row-version UPDATE on SQLite, p99 (the peer)", peer99, "ms"),
            Figure("propose → verdict, p50", ours50, "ms", ours50 / peer50, "peer's p50"),
            Figure("propose → verdict, p99", ours99, "ms", ours99 / peer99, "peer's p99"),
        ),
    )
