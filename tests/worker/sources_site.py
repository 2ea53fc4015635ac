"""A store on Kafka and PostgreSQL with calendars connected, each an account's, behind a relay; what becomes of it."""

import secrets
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from headrace.demo.caldav_server import CaldavServer
from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.kafka import KafkaLog
from headrace.log.partitioner import partition_of
from headrace.places import Places
from headrace.producers.hints import Hints
from headrace.producers.opening import open_log
from headrace.producers.provider import Connected
from headrace.producers.schedule import SourceKey
from headrace.producers.vault_postgres import make_vault
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_migrations import migrate
from headrace.schemas.refs import account_key
from headrace.store import KEY_FILE, Store
from tests.doubles.http import served
from tests.integration.calendar_desk import ics
from tests.worker.relay import Relay
from tests.worker.site import PARTITIONS, PATIENCE, until

TENANT: Final = "acme"
_LONG_AGO: Final = "20260105T{:02d}0000Z"


class Start(NamedTuple):
    """A sync as the log has it: where it began, and where it ended, if it did and that counted."""

    offset: int
    end: int | None


class SourcesSite:
    """``each`` accounts on each partition. It is a :class:`tests.worker.process.Place`."""

    def __init__(self, kafka: str, postgres: str, directory: Path, server: CaldavServer, relay: Relay) -> None:
        self.directory: Final = directory
        self.postgres: Final = postgres
        self.schema: Final = f"s_{secrets.token_hex(6)}"
        self.url: Final = f"kafka://{kafka}/{self.schema}.events?replication.factor=1"
        self.server, self.relay = server, relay
        self.accounts: list[str] = []
        self.hours: Final[dict[str, dict[str, int]]] = {}
        """What is in the calendars: of each account the hour at which each event begins, by its name."""
        self.changes: Final[dict[str, int]] = {}
        """How often somebody has changed something in them."""
        self.store: Store

    def make(self) -> None:
        """The log, the tables, the vault: as ``headrace log create`` and ``headrace migrate`` leave them."""
        keys = Keys.at(self.directory / KEY_FILE)
        kinds = installed_kinds()
        with KafkaLog.create(self.url, PARTITIONS) as log:
            open_log(log, installed_schemas(), kinds, key_id=keys.id)
        migrate(Address(self.postgres, self.schema), kinds)
        make_vault(Address(self.postgres, self.schema))

    def remove(self) -> None:
        """Its schemas."""
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            for schema in (self.schema, f"{self.schema}_sources"):
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))

    # -- the calendars

    def connect(self, accounts: Sequence[str], relayed: str) -> None:
        """A calendar of its own for each account, with one event in it, connected through the relay at ``relayed``."""
        for account in accounts:
            self.server.make_calendar(account)
            self.hours[account], self.changes[account] = {}, 0
            self.put(account, "first", 9)
            settings = {
                "url": f"{relayed}/",
                "username": self.server.username,
                "calendar": f"/{self.server.username}/{account}/",
            }
            connected = Connected(TENANT, account, f"caldav/{account}", "caldav", settings)
            self.store.connections.add(connected, {"password": self.server.password})
        self.accounts += accounts

    def put(self, account: str, name: str, hour: int) -> None:
        """Somebody writes an event down, or moves it."""
        text = ics(uid=f"{name}@example.com", start=_LONG_AGO.format(hour))
        self.server.put_event(f"{self.server.url}{self.server.username}/{account}/", text, f"{name}.ics")
        self.hours[account][name] = hour
        self.changes[account] += 1

    def ask(self, account: str) -> None:
        """Ask for a sync, as a provider that notifies does: by a hint on the log."""
        store = self.store
        Hints(store.log, store.tables, store.applied, store.intake).append(
            SourceKey(TENANT, account, f"caldav/{account}")
        )

    def ask_all(self, name: str, hour: int) -> None:
        """Something happens in every calendar, and its provider notifies."""
        for account in self.accounts:
            self.put(account, name, hour)
            self.ask(account)

    # -- what became of it

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement on the tables, on a connection of its own."""
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema)))
            return connection.execute(statement.encode(), parameters).fetchall()

    def in_tables(self) -> dict[str, dict[str, int]]:
        """The same as :attr:`hours`, as the tables have it."""
        found: dict[str, dict[str, int]] = {account: {} for account in self.accounts}
        names = {
            self.store.keys.pseudonym(TENANT, account, f"{name}@example.com"): name
            for account in self.accounts
            for name in self.hours[account]
        }
        for account, entity, starts_at in self.rows(
            "SELECT account, id, starts_at FROM calendar_events WHERE NOT removed"
        ):
            found[account][names[entity]] = starts_at // 3_600_000 % 24
        return found

    def wait_synced(self, seconds: float = PATIENCE) -> None:
        """Return once the tables have what is in the calendars."""
        until(lambda: self.in_tables() == self.hours, seconds, 0.05)

    def starts(self, account: str) -> list[Start]:
        """Its syncs, in the log's order."""
        found: list[Start] = []
        names: dict[str, int] = {}
        for offset, type_, disposition, sync in self.rows(
            'SELECT "offset", type, disposition, sync FROM events WHERE account = %s'
            " AND type IN ('source.sync_started', 'source.synced') ORDER BY \"offset\"",
            account,
        ):
            if type_ == "source.sync_started":
                names[sync] = len(found)
                found.append(Start(offset, None))
            elif disposition != "stale_sync":
                found[names[sync]] = Start(found[names[sync]].offset, offset)
        return found

    def overlapping(self, account: str) -> int:
        """How many of its syncs began while another was under way."""
        starts = self.starts(account)
        return sum(one.end is None or one.end > later.offset for one, later in pairwise(starts))

    def unfinished(self, account: str) -> int:
        """How many of its syncs have no end that counts."""
        return sum(one.end is None for one in self.starts(account))

    def check_every_change_once(self) -> None:
        """The tables have what the calendars have, and every change of them is on the log with one effect."""
        assert self.in_tables() == self.hours
        effective = self.rows(
            "SELECT account, count(*) FROM events WHERE effect IS NOT NULL AND kind = 'calendar.event'"
            " GROUP BY account ORDER BY account"
        )
        assert dict(effective) == self.changes


@contextmanager
def sources_site(kafka: str, postgres: str, directory: Path, *, each: int) -> Generator[SourcesSite]:
    """A site with ``each`` calendars on every partition."""
    accounts = [
        account
        for partition in range(PARTITIONS)
        for account in [
            name
            for name in (f"p-{n}" for n in range(400))
            if partition_of(account_key(TENANT, name), PARTITIONS) == partition
        ][:each]
    ]
    with ExitStack() as stack:
        server = stack.enter_context(CaldavServer(directory / "caldav"))
        relay = Relay(server.url, accounts)
        relayed = stack.enter_context(served(relay))
        stack.callback(relay.release)
        site = SourcesSite(kafka, postgres, directory, server, relay)
        stack.callback(site.remove)
        site.make()
        places = Places(site.url, postgres, site.schema)
        site.store = stack.enter_context(Store(directory, writer=True, places=places, fold=False, make=False))
        site.connect(accounts, relayed)
        yield site
