"""Plain Faust: ``async for event in stream``, the state in memory, one upsert each into PostgreSQL.

Arguments: brokers, topic, address of the database, events to fold, events to warm up with.
"""

import asyncio
import json
import os
import secrets
import sys
from typing import Any

import faust
import psycopg

from tests.benchmarks.peers.facts import Clock, Facts, folded

_TABLE = (
    "CREATE TABLE IF NOT EXISTS faust_entities (account text, subject text, state json, PRIMARY KEY (account, subject))"
)
_UPSERT = (
    "INSERT INTO faust_entities (account, subject, state) VALUES (%s, %s, %s)"
    " ON CONFLICT (account, subject) DO UPDATE SET state = EXCLUDED.state"
)


def main() -> None:
    """Fold so many events, say how long that took, and end."""
    brokers, topic_name, dsn, count, warm = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    app = faust.App(
        f"bench-{secrets.token_hex(4)}",
        broker=f"kafka://{brokers}",
        store="memory://",
        topic_partitions=4,
        topic_replication_factor=1,
        web_enabled=False,
        processing_guarantee="at_least_once",
        value_serializer="raw",
        key_serializer="raw",
    )
    clock, facts, states = Clock(warm), Facts(), dict[tuple[str, str], dict[str, Any]]()

    async def fold(stream: Any) -> None:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        await connection.execute("SET synchronous_commit = off")
        await connection.execute(_TABLE)
        async for event in stream.events():
            message = event.message
            headers = message.headers
            fact = facts.read(message.key, headers.items() if isinstance(headers, dict) else headers, message.value)
            if fact is None:
                continue
            key = (fact.account, fact.subject)
            states[key] = folded(states.get(key), fact)
            await connection.execute(_UPSERT, (*key, json.dumps(states[key])))
            clock.tick()
            if clock.seen == count:
                clock.tell()
                os._exit(0)

    app.agent(app.topic(topic_name, key_type=bytes, value_type=bytes))(fold)

    async def run() -> None:
        await app.start()
        await asyncio.Event().wait()

    app.loop.run_until_complete(run())


main()
