"""What is folded from records in wire format: the same as from the others; and nothing is judged while the schema
registry, or where it is, is not known."""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas, schema_registry
from headrace.log.sqlite import SqliteLog
from headrace.processors.embedded import EmbeddedHost
from headrace.processors.engine import Engine, fold_all
from headrace.producers.intake import Intake
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.confluent import ConfluentRegistry
from headrace.schemas.registry import MARKER, WIRE_MARKER, Registry, built_in
from tests.contract import rich_history
from tests.contract.rich_history import Author, MemoryLog, mail, write
from tests.integration.folding import TABLES
from tests.proxy import FaultProxy

PLAIN: Final = installed_schemas()
KINDS: Final = installed_kinds()
PATIENCE: Final = 30.0
OF_THE_BYTES: Final = {"chain", "head_check", "reads", "payload_hash"}
"""Columns that hold hashes of the records' own bytes, or tokens, which do."""
WITH_TOKENS: Final = ("proposal.submitted", "review.approved")
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def author(monkeypatch: pytest.MonkeyPatch) -> Callable[[Registry], Author]:
    """Writes with a registry, on a log of its own whose id is always the same."""

    def on_a_log(registry: Registry) -> Author:
        monkeypatch.setattr(secrets, "token_bytes", bytes)
        monkeypatch.setattr(rich_history, "installed_schemas", lambda: registry)
        return Author(MemoryLog())

    return on_a_log


def records(author: Author) -> MemoryLog:
    assert isinstance(author.log, MemoryLog)
    return author.log


def writes_with(author: Author, registry: Registry) -> None:
    """From here on."""
    author.registry = registry
    author.intake = Intake(registry, Keys(bytes(32)), author.log.describe().partitions)


def folded(author: Author, registry: Registry) -> Rows:
    """Every table, by ``registry``."""
    with SqliteTables.in_memory(PLAIN, KINDS) as tables:
        fold_all(Engine(registry, KINDS, tables), records(author), 0)
        with tables.snapshot() as reader:
            return {table: reader.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4", {}) for table in TABLES}


def alike(one: Rows, other: Rows) -> None:
    """The same but for hashes of the records' bytes."""
    for table, rows in one.items():
        assert len(rows) == len(other[table])
        for row, theirs in zip(rows, other[table], strict=True):
            apart = OF_THE_BYTES | ({"body_hash"} if row.get("type") in WITH_TOKENS else set())
            for name in row.keys() - apart:
                assert row[name] == theirs[name], (table, name, row)


class Alternating:
    """Writes in turn with one registry and the other."""

    def __init__(self, registries: Sequence[Registry]) -> None:
        self._turns = cycle(registries)
        self._first = registries[0]

    def encode(self, record_type: str, body: Any) -> bytes:
        """See :meth:`Registry.encode`."""
        return next(self._turns).encode(record_type, body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def test_either_encoding_and_both_together_fold_to_the_same(
    confluent: ConfluentRegistry, author: Callable[[Any], Author]
) -> None:
    wire = installed_schemas(confluent)
    plain, framed, mixed = author(PLAIN), author(wire), author(Alternating([PLAIN, wire]))
    for one in (plain, framed, mixed):
        write(one)
    heads = [{record.value[:1] for record in records(one).records[0]} for one in (plain, framed, mixed)]
    assert WIRE_MARKER not in heads[0]
    assert {MARKER[:1], WIRE_MARKER} <= heads[2]
    assert sum(record.value[:1] != WIRE_MARKER for record in records(framed).records[0]) < 5, "what is made as poison"
    expected = folded(plain, PLAIN)
    assert {row["verdict"] for row in expected["verdicts"]} > {"accepted", "superseded", "duplicate", "conflicting_id"}
    assert folded(plain, wire) == expected
    alike(folded(framed, wire), expected)
    alike(folded(mixed, wire), expected)


def test_who_repeats_itself_with_the_other_encoding_is_a_duplicate(
    confluent: ConfluentRegistry, author: Callable[[Registry], Author]
) -> None:
    wire = installed_schemas(confluent)
    for first, second in ((PLAIN, wire), (wire, PLAIN)):
        one = author(first)
        head = one.fact("mail.received", "t-1", "m-1", mail(1), content={"subject": "Lunch?"})

        def propose(one: Author = one, head: int = head) -> int:
            thread = "mail.thread/t-1"
            return one.propose("p-1", "mail.reply", thread, [one.entity(thread, head)], {"in_reply_to": None})

        said = [head, propose()]
        writes_with(one, second)
        said += [one.fact("mail.received", "t-1", "m-1", mail(1), content={"subject": "Lunch?"}), propose()]
        said.append(one.fact("mail.received", "t-1", "m-1", mail(2)))
        raw = [records(one).records[0][offset].value for offset in said]
        assert raw[0] != raw[2]
        assert raw[1] != raw[3]
        rows = folded(one, wire)
        became = {row["offset"]: row["disposition"] for row in rows["events"]}
        assert [became[offset] for offset in said[2:]] == ["duplicate", "duplicate", "conflicting_id"]
        verdicts = {row["offset"]: row["verdict"] for row in rows["verdicts"] if row["offset"] in said}
        assert verdicts == {said[1]: "accepted", said[3]: "duplicate"}


# -- the host waits, and goes on by itself --------------------------------------------------------------------------


class Parts:
    """A log of two partitions, both in wire format, whose records a host folds."""

    def __init__(self, directory: Path, stack: ExitStack, writing: Registry) -> None:
        self._stack = stack
        self.log = stack.enter_context(SqliteLog.create(directory, 2))
        self.tables = stack.enter_context(SqliteTables(directory / "tables.db", PLAIN, KINDS))
        self.authors = Author(self.log, "a-1"), Author(self.log, "a-4")
        assert [one.partition for one in self.authors] == [0, 1]
        for one in self.authors:
            writes_with(one, writing)

    def host(self, reading: Registry, again: Callable[[], Registry]) -> EmbeddedHost:
        """Started, and stopped at the test's end."""
        host = EmbeddedHost(self.log, Engine(reading, KINDS, self.tables, schemas=again))
        self._stack.callback(host.stop)
        host.start()
        return host

    def quarantined(self) -> int:
        """How many records were condemned."""
        with self.tables.snapshot() as reader:
            return len(reader.rows("SELECT * FROM quarantine", {}))


@pytest.fixture
def parts(tmp_path: Path, confluent: ConfluentRegistry) -> Iterator[Parts]:
    """In a directory of its own."""
    with ExitStack() as stack:
        yield Parts(tmp_path / "store", stack, installed_schemas(confluent))


class Paused(logging.Handler):
    """Knows when a partition was said to be paused."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Look for it."""
        if "is paused" in record.getMessage():
            self.text = record.getMessage()
            self.said.set()


@pytest.fixture
def paused() -> Iterator[Paused]:
    """Hears the host."""
    handler = Paused()
    logging.getLogger("headrace").addHandler(handler)
    yield handler
    logging.getLogger("headrace").removeHandler(handler)


def test_while_the_registry_is_away_a_partition_waits_and_the_other_goes_on(
    parts: Parts, paused: Paused, registry_url: str, topic: str
) -> None:
    where = urlsplit(registry_url)
    ann, bob = parts.authors
    with (
        FaultProxy(where.hostname or "", where.port or 80) as proxy,
        schema_registry(f"http://{proxy.address}{where.path}?timeout.ms=300", topic) as reading,
    ):
        again = partial(installed_schemas, reading, register=False)
        host = parts.host(again(), again)
        assert host.applied.wait(1, bob.fact("mail.read", "t-1", "m-1", {}), PATIENCE)
        proxy.cut()
        first = ann.fact("mail.received", "t-1", "m-1", mail(1))  # whose schema nobody has asked for yet
        assert paused.said.wait(PATIENCE)
        assert "schema registry" in paused.text
        assert host.applied.wait(1, bob.fact("mail.read", "t-1", "m-2", {}), PATIENCE)
        assert host.applied.next_offset(0) == first
        proxy.heal()
        assert host.applied.wait(0, first, PATIENCE)
    assert host.applied.paused == {}
    assert parts.quarantined() == 0


def test_without_a_schema_registry_a_partition_waits_until_one_is_configured(
    parts: Parts, paused: Paused, confluent: ConfluentRegistry
) -> None:
    configured = threading.Event()
    host = parts.host(PLAIN, lambda: Registry(built_in(), confluent) if configured.is_set() else PLAIN)
    first = parts.authors[0].fact("mail.received", "t-1", "m-1", mail(1))
    assert paused.said.wait(PATIENCE)
    assert "set HEADRACE_SCHEMA_REGISTRY_URL" in paused.text
    assert host.applied.next_offset(0) == first
    configured.set()
    assert host.applied.wait(0, first, PATIENCE)
    assert parts.quarantined() == 0
