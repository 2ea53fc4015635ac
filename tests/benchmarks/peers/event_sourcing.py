"""The ``eventsourcing`` library on PostgreSQL: every fact appended to its aggregate, and a projection of them all.

Arguments: a JSON object with the settings of its PostgreSQL module, brokers, topic, facts to append and project.
"""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false, reportUntypedBaseClass=false
# mypy: disable-error-code="import-not-found,misc,untyped-decorator"

import json
import os
import secrets
import sys
import time
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from confluent_kafka import Consumer
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from tests.benchmarks.peers.facts import Clock, Fact, Facts, folded

_PATIENCE_SECONDS = 600.0


class Entity(Aggregate):
    """One entity; its facts are its events."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.state: dict[str, Any] | None = None

    @staticmethod
    def create_id(subject: str) -> UUID:
        """An id made of the name."""
        return uuid5(NAMESPACE_URL, subject)

    @event("Happened")
    def happened(self, account: str, type: str, body: dict[str, Any]) -> None:  # noqa: A002 - what the event calls it
        """A fact."""
        self.state = folded(self.state, Fact(account, self.subject, type, body))


class Entities(Application[UUID]):
    """All of them."""


class View(PostgresTrackingRecorder):
    """A table of states, written together with how far it is."""

    def __init__(self, datastore: Any, **more: Any) -> None:
        super().__init__(datastore, **more)
        self._states: dict[UUID, dict[str, Any]] = {}
        schema = Identifier(self.datastore.schema)
        create = SQL("CREATE TABLE IF NOT EXISTS {0}.entity_states (id uuid PRIMARY KEY, state json)")
        self.sql_create_statements.append(create.format(schema))
        self._upsert = SQL(
            "INSERT INTO {0}.entity_states VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state"
        ).format(schema)

    def fold(self, happened: Any, tracking: Any) -> None:
        """A fact into its entity's row."""
        kind = "mail.thread/" if happened.type.startswith("mail.") else "calendar.event/"
        fact = Fact(happened.account, kind, happened.type, happened.body)
        state = self._states[happened.originator_id] = folded(self._states.get(happened.originator_id), fact)
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._upsert, (happened.originator_id, json.dumps(state)))


class States(Projection[View]):
    """Every entity's state."""

    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """One event."""
        if isinstance(domain_event, Entity.Happened):
            self.view.fold(domain_event, tracking)
        else:
            self.view.insert_tracking(tracking)


def _facts(brokers: str, topic: str, count: int) -> list[Fact]:
    """Read before the clock runs: the library has no part in it."""
    reader, found = Facts(), list[Fact]()
    settings = {
        "bootstrap.servers": brokers,
        "group.id": f"bench-{secrets.token_hex(4)}",
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    while len(found) < count:
        for message in consumer.consume(1_000, 1.0):
            headers: Any = message.headers() or ()
            fact = reader.read(message.key(), headers, message.value() or b"")
            if fact is not None:
                body = {name: value.hex() if isinstance(value, bytes) else value for name, value in fact.body.items()}
                found.append(fact._replace(body=body))
    consumer.close()
    return found[:count]


def main() -> None:
    """Append, project, and say how long each took."""
    env, facts = json.loads(sys.argv[1]), _facts(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    os.environ.update(env)
    app, clock = Entities(), Clock(0)
    entities: dict[str, Entity] = {}
    for name in dict.fromkeys(f"{fact.account}/{fact.subject}" for fact in facts):
        entities[name] = Entity(name)
    app.save(*entities.values())
    begun, last = time.perf_counter(), 0
    for fact in facts:
        entity = entities[f"{fact.account}/{fact.subject}"]
        entity.happened(fact.account, fact.type, dict(fact.body))
        last = app.save(entity)[-1].notification.id
        clock.tick()
    clock.tell(begun)
    begun = time.perf_counter()
    with ProjectionRunner(application_class=Entities, projection_class=States, view_class=View, env=env) as runner:
        runner.wait(last, _PATIENCE_SECONDS)
    clock.tell(begun)


main()
