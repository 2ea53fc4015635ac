"""The tables in SQLite: one file, ``tables.db``, beside the log's.

``synchronous=NORMAL`` in WAL mode: a commit is not synced to disk. That is safe here because state and ``next_offset``
go back together when the machine dies, and the log, which is synced, is folded again from there.

apsw, because it bundles a SQLite without the WAL-reset corruption of 3.7.0 to 3.51.2 (sqlite.org/wal.html#walresetbug).
"""

import contextlib
import json
import secrets
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self

import apsw

from headrace.errors import FencedError, HaltError, UnavailableError
from headrace.log.port import Stored
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory, PartitionRow
from headrace.processors.core.model import ClaimRow, Known, Poison
from headrace.processors.core.verdicts import canonical
from headrace.projections import rows
from headrace.projections.kind_tables import COMMON, column_names, entity_row, intents_text, sqlite_ddl, typed_values
from headrace.projections.port import Publish, Reader, Wants
from headrace.projections.sqlite_connection import Connection, translated
from headrace.schemas.refs import EntityRef, Touch
from headrace.schemas.registry import Registry

FILE: Final = "tables.db"
_CHECKPOINT_PAGES: Final = 8_192
"""32 MiB of write-ahead log."""
_COMMON: Final = tuple(name for name, _, _ in COMMON)


class SqliteTables:
    """The adapter. One process writes; snapshots may be taken from any thread, and by other processes.

    With ``scratch`` the file is for one run only: nothing is synced, and after a crash it is worth nothing.

    :raises UnavailableError: the file cannot be opened.
    :raises HaltError: it is damaged, or another release of headrace or of a kind made it.
    """

    def __init__(
        self,
        path: Path | None,
        registry: Registry,
        kinds: Mapping[str, Kind],
        *,
        writable: bool = True,
        scratch: bool = False,
    ) -> None:
        self._kinds: Final = dict(kinds)
        self._typed: Final = {name: typed_values(registry, kind) for name, kind in kinds.items()}
        self._path: Final = str(path) if path is not None else f"file:/headrace-{secrets.token_hex(8)}?vfs=memdb"
        self._lock: Final = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False
        self._resumed_in: Final[dict[int, int]] = {}
        self._writable: Final = writable or path is None
        with translated(self._path, "opened"):
            self._main: Final = Connection(self._path, writable=self._writable)
            try:
                self._prepare(wal=path is not None and not scratch, synced=not scratch)
            except BaseException:
                self._main.sqlite.close()
                raise

    @classmethod
    def in_memory(cls, registry: Registry, kinds: Mapping[str, Kind]) -> Self:
        """Tables that live as long as this object: for replaying a log aside. A snapshot of them keeps commits out."""
        return cls(None, registry, kinds)

    @property
    def connection(self) -> apsw.Connection:
        """The connection that folds: to trace what it does. Whoever writes through it breaks the fold."""
        return self._main.sqlite

    def close(self) -> None:
        """Close every connection; those of running snapshots as those end."""
        with self._lock:
            self._closed = True
            connections, self._idle = [*self._idle, self._main], []
        for connection in connections:
            connection.sqlite.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, *, wal: bool, synced: bool) -> None:
        sqlite = self._main.sqlite
        folder = resources.files("headrace.projections") / "migrations" / "sqlite"
        scripts = sorted(
            (entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name
        )
        if self._writable:
            sqlite.pragma("journal_mode", "WAL" if wal else "MEMORY")
            sqlite.pragma("synchronous", "NORMAL" if synced else "OFF")
            sqlite.pragma("cache_size", -65536)
            # The log can be folded again, so checkpoints may be rare: the same pages change in batch after batch.
            sqlite.pragma("wal_autocheckpoint", _CHECKPOINT_PAGES)
        with sqlite:
            done: int = sqlite.pragma("user_version")
            if done > len(scripts) or (done < len(scripts) and not self._writable):
                raise HaltError(
                    f"the tables in {self._path} are at version {done}, this headrace is at {len(scripts)}: "
                    + ("run the newer release, or delete that file" if done else "start headrace on this store")
                    + " and let the log be folded again"
                )
            if self._writable:
                for script in scripts[done:]:
                    sqlite.execute(script.read_text(encoding="utf-8"))
                sqlite.pragma("user_version", len(scripts))
                for kind in self._kinds.values():
                    for statement in sqlite_ddl(kind):
                        sqlite.execute(statement)
            self._check_kinds()

    def _check_kinds(self) -> None:
        for kind in self._kinds.values():
            there = [name for (name,) in self._main.values("SELECT name FROM pragma_table_info(:t)", {"t": kind.table})]
            if there != column_names(kind):
                raise HaltError(
                    f"the table {kind.table} in {self._path} is not the one that this release of {kind.name} keeps;"
                    " `headrace replay --rebuild` folds the log into new ones"
                )

    # -- queries ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def snapshot(self) -> Generator[Reader]:
        """See :class:`headrace.projections.port.Tables`."""
        with self._lock:
            if self._closed:
                raise UnavailableError(f"the tables in {self._path} were closed; open the store again")
            connection = self._idle.pop() if self._idle else None
        with translated(self._path, "read"):
            if connection is None:
                connection = Connection(self._path, writable=self._path.startswith("file:"))
            # The first read fixes what a deferred transaction sees, so it is made here.
            connection.sqlite.execute("BEGIN; SELECT 1 FROM sqlite_schema")
        try:
            yield connection
        finally:
            with contextlib.suppress(apsw.Error):
                connection.rollback()
            with self._lock:
                kept = not self._closed and not connection.sqlite.in_transaction
                if kept:
                    self._idle.append(connection)
            if not kept:
                connection.sqlite.close()

    # -- the processor's ----------------------------------------------------------------------------------------

    def resume(self, partition: int) -> PartitionRow | None:
        """See :class:`headrace.projections.port.Tables`."""
        with translated(self._path, "read"):
            self._resumed_in[partition] = self._main.sqlite.pragma("schema_version")
        found = self._main.rows("SELECT * FROM partitions WHERE partition = :p", {"p": partition})
        return rows.partition_row(found[0]) if found else None

    def load(self, memory: Memory, wants: Wants) -> None:
        """See :class:`headrace.projections.port.Tables`."""
        with translated(self._path, "read"):
            self._load(memory, wants)

    def _load(self, memory: Memory, wants: Wants) -> None:
        if wants.proposals:
            sql = _matching("proposals", ("tenant", "account", "id"))
            for row in self._main.rows(sql, {"wanted": _json(sorted(wants.proposals))}):
                memory.proposals[row["tenant"], row["account"], row["id"]] = rows.proposal_row(row)
        if wants.entities:
            self._load_entities(memory, wants.entities)
        if wants.identities:
            sql = (
                "SELECT e.identity, e.offset, e.body_hash FROM carray(:wanted) AS w CROSS JOIN events e"
                " WHERE e.identity = w.value AND e.identity IS NOT NULL"
            )
            wanted = {"wanted": apsw.carray(tuple(wants.identities))}
            for identity, offset, body_hash in self._main.sqlite.execute(sql, wanted):
                memory.identities[identity] = (offset, body_hash)
        if wants.accounts:
            sql = _matching("sources", ("tenant", "account"))
            for row in self._main.rows(sql, {"wanted": _json(sorted(wants.accounts))}):
                source = rows.source_row(row)
                memory.sources.setdefault((source.tenant, source.account), {})[source.source] = source
        if wants.claims:
            sql = _matching("claims", ("tenant", "account", "kind", "entity"))
            for row in self._main.rows(sql, {"wanted": _json(sorted(wants.claims))}):
                ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
                memory.claims[ref] = ClaimRow(ref, row["claim"], row["holder"], row["until"], row["offset"])
        if wants.known:
            self._load_known(memory, wants.known)
        if wants.since:
            self._load_since(memory, wants.since)
        if wants.touching:
            self._load_touching(memory, wants)

    def _load_entities(self, memory: Memory, wanted: Iterable[EntityRef]) -> None:
        by_kind: dict[str, list[tuple[str, str, str]]] = {}
        for ref in sorted(wanted):
            by_kind.setdefault(ref.kind, []).append((ref.tenant, ref.account, ref.id))
        for name, keys in by_kind.items():
            kind = self._kinds.get(name)
            if kind is None:
                continue
            sql = _matching(kind.table, ("tenant", "account", "id"), _COMMON)
            for row in self._main.rows(sql, {"wanted": _json(keys)}):
                ref = EntityRef(row["tenant"], row["account"], name, row["id"])
                memory.entities[ref] = entity_row(ref, row)

    def _load_known(self, memory: Memory, offsets: Iterable[int]) -> None:
        sql = (
            "SELECT e.* FROM json_each(:wanted) AS w CROSS JOIN events e"
            " WHERE e.partition = :partition AND e.offset = w.value"
        )
        wanted = {"wanted": _json(sorted(offsets)), "partition": memory.partition.partition}
        for row in self._main.rows(sql, wanted):
            ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
            memory.known[row["offset"]] = Known(
                row["chain"][:8], ref if row["effect"] is not None else None, row["log_time"]
            )

    def _load_since(self, memory: Memory, since: Mapping[EntityRef, int]) -> None:
        sql = (
            "SELECT e.* FROM json_each(:wanted) AS w CROSS JOIN events e WHERE e.tenant = w.value ->> 0"
            " AND e.account = w.value ->> 1 AND e.kind = w.value ->> 2 AND e.entity = w.value ->> 3"
            " AND e.offset > w.value ->> 4 AND e.effect IS NOT NULL ORDER BY e.offset"
        )
        wanted = _json([(*ref, offset) for ref, offset in sorted(since.items())])
        for row in self._main.rows(sql, {"wanted": wanted}):
            ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
            memory.since[ref].append(rows.effect_row(row, ref))

    def _load_touching(self, memory: Memory, wants: Wants) -> None:
        sql = (
            "SELECT e.*, t.container, t.container_id, t.starts_at, t.ends_at"
            " FROM json_each(:wanted) AS w CROSS JOIN touches t CROSS JOIN events e"
            " WHERE t.tenant = w.value ->> 0 AND t.account = w.value ->> 1 AND t.container = w.value ->> 2"
            " AND t.container_id = w.value ->> 3 AND t.offset > w.value ->> 4"
            " AND e.partition = :partition AND e.offset = t.offset ORDER BY t.offset, t.ordinal"
        )
        wanted = _json([(*key, offset) for key, offset in sorted(wants.touching.items())])
        for row in self._main.rows(sql, {"wanted": wanted, "partition": memory.partition.partition}):
            ref = EntityRef(row["tenant"], row["account"], row["kind"], row["entity"])
            touch = Touch(row["container"], row["container_id"], row["starts_at"], row["ends_at"])
            memory.touching[ref.tenant, ref.account, touch.container, touch.id].append(
                (touch, rows.effect_row(row, ref))
            )

    def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
        """See :class:`headrace.projections.port.Tables`."""
        with translated(self._path, "written"):
            self._main.sqlite.execute("BEGIN IMMEDIATE")
            try:
                self._fence(memory)
                published = publish(memory) if publish is not None else None
                self._write(memory, batch)
                if published is not None:
                    published()
                self._main.sqlite.execute("COMMIT")
            except BaseException:
                self._main.rollback()
                raise

    def _fence(self, memory: Memory) -> None:
        """First of all: only who saw this partition where it is may move it."""
        values, sqlite = rows.partition_values(memory.partition), self._main.sqlite
        # A rebuild changes it. What was read before says nothing about the new tables.
        partition, version = memory.partition, sqlite.pragma("schema_version")
        if self._resumed_in.get(partition.partition, version) != version:
            raise UnavailableError(
                f"the tables in {self._path} were rebuilt; partition {partition.partition} goes on from where the new"
                " ones are"
            )
        if memory.first_offset == 0:
            sql = f"INSERT INTO partitions VALUES ({_marks(values)}) ON CONFLICT DO NOTHING"  # noqa: S608 - marks only
            sqlite.execute(sql, values)
        else:
            assigned = ", ".join(f"{name} = ?" for name in rows.PARTITION_COLUMNS)
            sql = (
                f"UPDATE partitions SET {assigned}"  # noqa: S608 - names of our own columns
                " WHERE partition = ? AND next_offset = ? AND log_id = ?"
            )
            sqlite.execute(sql, (*values, partition.partition, memory.first_offset, partition.log_id))
        if sqlite.changes() == 0:
            raise FencedError(
                f"partition {memory.partition.partition} is no longer at offset {memory.first_offset}: another"
                " processor owns it; this one wrote nothing"
            )

    def _write(self, memory: Memory, batch: Sequence[Stored]) -> None:
        partition, notes = memory.partition.partition, memory.notes
        self._insert(
            "events",
            rows.EVENT_COLUMNS,
            (rows.event_values(partition, mark, notes.get(mark.entry.offset)) for mark in memory.marks),
        )
        self._insert("touches", rows.TOUCH_COLUMNS, rows.touch_values(memory))
        self._write_entities(memory)
        changed = (rows.proposal_values(partition, row) for row in memory.changed_proposals.values())
        self._insert("proposals", rows.PROPOSAL_COLUMNS, changed, replace=True)
        self._insert("verdicts", rows.VERDICT_COLUMNS, rows.verdict_values(memory))
        sources = (rows.source_values(row) for row in memory.changed_sources.values())
        self._insert("sources", rows.SOURCE_COLUMNS, sources, replace=True)
        self._write_claims(memory)
        poison = (
            rows.quarantine_values(mark, notes[mark.entry.offset], batch[mark.entry.offset - memory.first_offset])
            for mark in memory.marks
            if mark.disposition == "quarantined" or isinstance(mark.entry, Poison)
        )
        self._insert("quarantine", rows.QUARANTINE_COLUMNS, poison)

    def _write_entities(self, memory: Memory) -> None:
        by_kind: dict[str, list[tuple[Any, ...]]] = {}
        for ref, row in memory.changed_entities.items():
            state = canonical(row.state).decode() if row.state is not None else None
            by_kind.setdefault(ref.kind, []).append(
                (
                    ref.tenant,
                    ref.account,
                    ref.id,
                    memory.partition.partition,
                    row.first_offset,
                    row.head_offset,
                    row.head_check,
                    row.head_time,
                    state,
                    intents_text(row),
                    row.content_key,
                    row.content,
                    *self._typed[ref.kind](row),
                )
            )
        for name, values in by_kind.items():
            kind = self._kinds[name]
            self._insert(kind.table, column_names(kind), values, replace=True)

    def _write_claims(self, memory: Memory) -> None:
        released = [tuple(ref) for ref, row in memory.changed_claims.items() if row is None]
        sql = "DELETE FROM claims WHERE tenant = ? AND account = ? AND kind = ? AND entity = ?"
        self._main.sqlite.executemany(sql, released)
        held = (rows.claim_values(row) for row in memory.changed_claims.values() if row is not None)
        self._insert("claims", rows.CLAIM_COLUMNS, held, replace=True)

    def _insert(
        self, table: str, columns: Sequence[str], values: Iterable[Sequence[Any]], *, replace: bool = False
    ) -> None:
        names = ", ".join(columns)
        verb = "REPLACE" if replace else "INSERT"
        self._main.sqlite.executemany(f"{verb} INTO {table} ({names}) VALUES ({_marks(columns)})", values)


def _marks(columns: Sequence[str]) -> str:
    return ", ".join("?" * len(columns))


def _json(values: object) -> str:
    return json.dumps(values, ensure_ascii=False)


def _matching(table: str, key: Sequence[str], columns: Sequence[str] = ("*",)) -> str:
    """All rows of a table whose key is among the arrays in the JSON parameter ``:wanted``."""
    chosen = ", ".join(f"t.{name}" for name in columns)
    conditions = " AND ".join(f"t.{name} = w.value ->> {index}" for index, name in enumerate(key))
    return f"SELECT {chosen} FROM json_each(:wanted) AS w CROSS JOIN {table} t WHERE {conditions}"  # noqa: S608 - our names
