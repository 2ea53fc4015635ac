"""Propose → verdict over HTTP, beside a row-version ``UPDATE`` behind the same framework, beside the bare way.

``headrace serve`` and ``headrace worker`` are processes of their own; so is the peer. One request at a time.
"""

import multiprocessing
import os
import secrets
import signal
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import httpx
import psycopg
import uvicorn
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from fastapi import FastAPI, HTTPException
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from headrace.places import Places
from headrace.producers.event import NewEvent
from headrace.schemas.refs import ActorRef
from headrace.settings import LOCAL_TENANT
from headrace.store import Store
from tests.benchmarks.figures import percentiles
from tests.benchmarks.kafka.place import Place, show
from tests.benchmarks.kafka.product import command, environment, process

_WARM: Final = 50
_ACCOUNT: Final = "ann"
_WAIT_SECONDS: Final = 60
_STOP_SECONDS: Final = 30
_MESSAGE: Final = {
    "message": "m",
    "sender": "bob@example.com",
    "recipients": ["ann@example.com"],
    "labels": ["INBOX"],
}


def _peer(dsn: str, schema: str, rows: int, tell: Connection) -> None:
    """Optimistic locking as everybody does it: ``UPDATE … WHERE version = …`` behind FastAPI and a pool."""
    table = sql.Identifier(schema, "records")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} AS SELECT n AS id, 0 AS version, '' AS state FROM generate_series(0, {}) n"
            ).format(table, sql.Literal(rows))
        )
        connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(table))
    update = sql.SQL("UPDATE {} SET version = version + 1, state = 'new' WHERE id = %s AND version = %s").format(table)
    pool, app = AsyncConnectionPool(dsn, min_size=1, max_size=4, open=False), FastAPI()

    @app.post("/records/{record}")
    async def change(record: int, version: int) -> dict[str, int]:
        if pool.closed:
            await pool.open()
        async with pool.connection() as connection:
            changed = (await connection.execute(update, (record, version))).rowcount
        if not changed:
            raise HTTPException(409)
        return {"version": version + 1}

    # The protocol must be named: asyncio turns Nagle's algorithm off only then, as it does for the other server.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    tell.send(f"http://127.0.0.1:{listening.getsockname()[1]}")
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _update(place: Place, requests: int) -> list[float]:
    context = multiprocessing.get_context("spawn")
    hear, tell = context.Pipe(duplex=False)
    with place.schema() as schema:
        server = context.Process(target=_peer, args=(place.dsn, schema, requests + _WARM, tell))
        server.start()
        try:
            samples: list[float] = []
            with httpx.Client(base_url=hear.recv(), timeout=_WAIT_SECONDS) as http:
                for number in range(requests + _WARM):
                    begun = time.perf_counter()
                    http.post(f"/records/{number}", params={"version": 0}).raise_for_status()
                    samples.append(time.perf_counter() - begun)
        finally:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGTERM)
            server.join(_STOP_SECONDS)
    return samples[_WARM:]


def _headrace(place: Place, requests: int) -> list[float]:
    with place.schema() as schema:
        settings = environment(place, f"bench-{secrets.token_hex(4)}", schema)
        command(settings, "migrate")
        command(settings, "log", "create", "--partitions", "4")
        with process(settings, "worker"), process(settings, "serve") as served:
            places = Places(settings["HEADRACE_LOG_URL"], place.dsn, schema)
            with Store(Path(settings["HEADRACE_STORE"]), writer=True, places=places, fold=False, make=False) as opened:
                _fill(opened, requests + _WARM)
            return _propose(served["url"], requests)


def _fill(store: Store, threads: int) -> None:
    """A thread for every proposal, folded."""
    records = [
        store.intake.event(
            LOCAL_TENANT,
            _ACCOUNT,
            NewEvent("mail.received", "mail.thread", f"t-{number}", f"e-{number}", _MESSAGE),
            source="bench",
            actor=ActorRef("user", "person"),
            observed_at="2026-11-21T17:15:00.000Z",
        )
        for number in range(threads)
    ]
    last = store.log.append(records)[-1]
    if not store.applied.wait(last.partition, last.offset, _WAIT_SECONDS):
        raise RuntimeError("the worker has not folded what was appended; run headrace worker by hand to see why")


def _propose(url: str, requests: int) -> list[float]:
    samples: list[float] = []
    with httpx.Client(base_url=url, timeout=_WAIT_SECONDS) as http:
        for number in range(requests + _WARM):
            found = http.get(f"/v1/accounts/{_ACCOUNT}/entities/mail.thread/t-{number}")
            _expect(found)
            entity = {"kind": "mail.thread", "id": f"t-{number}"}
            body = {"entity": entity, "basis": found.json()["basis"], "type": "mail.archive"}
            headers = {"Idempotency-Key": f"p-{number}", "Prefer": "wait=30"}
            begun = time.perf_counter()
            _expect(http.post(f"/v1/accounts/{_ACCOUNT}/proposals", json=body, headers=headers))
            samples.append(time.perf_counter() - begun)
    return samples[_WARM:]


def _expect(answer: httpx.Response) -> None:
    if answer.status_code not in (200, 201):
        raise RuntimeError(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")


def _bare(place: Place, requests: int) -> list[float]:
    """Produced, consumed, one row committed, NOTIFY heard: with nothing of headrace's in between."""
    topic = f"bench-{secrets.token_hex(4)}"
    settings: dict[str, str | int | float | bool] = {"bootstrap.servers": place.brokers}
    admin = AdminClient(settings)  # kept: what it was asked for dies with it
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({**settings, "linger.ms": 0, "acks": "all", "enable.idempotence": True})
    consumer = Consumer({**settings, "group.id": topic, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    samples: list[float] = []
    with (
        place.schema() as schema,
        psycopg.connect(place.dsn, autocommit=True) as writing,
        psycopg.connect(place.dsn, autocommit=True) as hearing,
    ):
        table = sql.Identifier(schema, "positions")
        writing.execute(sql.SQL("CREATE TABLE {} (place bigint)").format(table))
        writing.execute("SET synchronous_commit = off")
        hearing.execute(sql.SQL("LISTEN {}").format(sql.Identifier(schema)))
        insert = sql.SQL("INSERT INTO {} VALUES (%s)").format(table)
        for number in range(requests + _WARM):
            begun = time.perf_counter()
            producer.produce(topic, b"x" * 250, b"k")
            producer.flush()
            message = consumer.poll(_WAIT_SECONDS)
            assert message is not None
            assert message.error() is None
            writing.execute(insert, (number,))
            writing.execute("SELECT pg_notify(%s, %s)", (schema, str(number)))
            next(hearing.notifies(timeout=_WAIT_SECONDS, stop_after=1))
            samples.append(time.perf_counter() - begun)
    consumer.close()
    return samples[_WARM:]


def run(place: Place, requests: int) -> None:
    """Measure and print."""
    own, peer, bare = (percentiles(measure(place, requests)) for measure in (_headrace, _update, _bare))
    lines: list[tuple[str, float, str, float | None]] = []
    for name, found in (
        ("headrace: propose → verdict over HTTP", own),
        ("row-version UPDATE behind FastAPI and a psycopg pool", peer),
        ("limit: produce → commit → NOTIFY, no HTTP", bare),
    ):
        for label, value, ours in zip(("p50", "p99"), found, own, strict=True):
            lines.append((f"{name}, {label}", value, "ms", value / ours))
    show(f"Latency of {requests:,} requests, one at a time", lines)
    here = f"{own[0] / peer[0]:.1f} x and {own[1] / peer[1]:.1f} x"
    print(f"  goal: p50 at most 2 x the UPDATE, p99 at most 3 x; here {here}")
