"""The tables in PostgreSQL, for many workers and many readers at once.

One connection folds; a pool of others gives snapshots. Every commit is fenced first (``UPDATE partitions … WHERE
next_offset = …``), so of two workers that both believe they own a partition one writes and the other is told. After a
commit, in a statement of its own, it is made known with ``NOTIFY``; see :mod:`headrace.projections.postgres_listener`.

Connect to the server itself or through a pooler in session mode: what is set below belongs to the session.
"""

import contextlib
import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import ConnectionPool

from headrace.errors import FencedError, HaltError, UnavailableError
from headrace.log.port import Stored
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory, PartitionRow
from headrace.processors.core.policy import Policy
from headrace.projections import postgres_loads, rows
from headrace.projections.kept import Kept
from headrace.projections.port import Reader, Wants
from headrace.projections.postgres_connection import Address, PostgresReader, Session, meaning, translated
from headrace.projections.postgres_migrations import Columns, check, migrate
from headrace.projections.postgres_text import escaped, escaped_json
from headrace.projections.postgres_writes import Writer
from headrace.schemas.registry import Registry

_OLDEST: Final = 150_000
"""PostgreSQL 15: views with the rights of whoever asks."""
_READERS: Final = 8
_READER_WAIT_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 5.0
_CHANGING: Final = frozenset({"policy", "kinds"})
"""Of ``partitions``: large, and the same from batch to batch."""

# What only the connection that folds is told.
_SESSION: Final = (
    # The log is the truth. A commit that a crash of the database takes back took state and next_offset back together,
    # and the fold repeats it exactly; so nobody need wait for the disk. Readers who bring a token wait for the tables.
    ("synchronous_commit", "off"),
    # Statements here look up keys in indexes, whatever today's statistics say: a plan made while a table was empty
    # would read all of it for ever.
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
)
_STALLED: Final = """
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = %s AND pid <> pg_backend_pid()
    AND wait_event_type = 'Client' AND xact_start < clock_timestamp() - make_interval(secs => %s)
"""
_log: Final = logging.getLogger("headrace.tables")


class PostgresTables:
    """The adapter. Safe from any thread; ``resume``, ``load`` and ``commit`` take turns on one connection.

    With ``migrating`` the tables are first brought to this release, where this role may do that. ``readers`` snapshots
    can be had at once; who wants one more waits up to ``reader_wait`` seconds. ``patience``: how many seconds to wait
    for another worker's lock; one that has held it twice as long without a word is thrown out.

    :raises UnavailableError: the database does not answer.
    :raises HaltError: it is not one that headrace can use, or another release of headrace or of a kind made the tables.
    """

    def __init__(
        self,
        conninfo: str,
        registry: Registry,
        kinds: Mapping[str, Kind],
        *,
        schema: str = "headrace",
        migrating: bool = True,
        readers: int = _READERS,
        reader_wait: float = _READER_WAIT_SECONDS,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self.address: Final = Address(conninfo, schema)
        self._kinds: Final = dict(kinds)
        self._patience: Final = patience
        self._lock: Final = threading.Lock()
        self._closed = False
        self._open: Session | None = None
        self._policies: Final[dict[int, tuple[int, Policy, tuple[str, ...]]]] = {}
        self._kept: Final = Kept()
        self._resumed_in: Final[dict[int, int]] = {}
        self._writer: Final = Writer(registry, self._kinds, self._prepare(migrating=migrating))
        self._pool: Final = ConnectionPool[Session](
            self.address.conninfo,
            min_size=1,
            max_size=readers,
            timeout=reader_wait,
            kwargs={"autocommit": True, "application_name": f"headrace reader {schema}"},
            configure=self.address.prepare,
            check=ConnectionPool.check_connection,
            open=False,
        )
        self._pool.open()

    def _prepare(self, *, migrating: bool) -> Columns:
        with translated(self.address.named, "opened"):
            connection = self._connection()
            try:
                _require(connection, self.address)
                found = check(self.address, connection, self._kinds)
                if found is None and migrating:
                    migrate(self.address, self._kinds)
                    found = check(self.address, connection, self._kinds)
                return _checked(found, self.address)
            except BaseException:
                self._drop()
                raise

    @property
    def connection(self) -> Session:
        """The connection that folds: to trace what it does. Whoever writes through it breaks the fold."""
        return self._connection()

    def close(self) -> None:
        """Close every connection; those of running snapshots as those end."""
        with self._lock:
            self._closed = True
            self._drop()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the connection that folds --------------------------------------------------------------------------------

    def _connection(self) -> Session:
        """The connection that folds, a new one where the last has broken."""
        if self._closed:
            raise UnavailableError(f"the tables in {self.address.named} were closed; open them again")
        if self._open is None or self._open.closed:
            connection = self.address.connect("processor")
            try:
                for name, value in (
                    *_SESSION,
                    ("lock_timeout", f"{self._patience * 1_000:.0f}ms"),
                    ("idle_in_transaction_session_timeout", f"{self._patience * 2_000:.0f}ms"),
                ):
                    connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            except BaseException:
                connection.close()
                raise
            self._open = connection
        return self._open

    def _drop(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        self._policies.clear()
        self._kept.forget_all()

    # -- queries --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def snapshot(self) -> Generator[Reader]:
        """See :class:`headrace.projections.port.Tables`."""
        if self._closed:
            raise UnavailableError(f"the tables in {self.address.named} were closed; open them again")
        with translated(self.address.named, "read"):
            connection = self._pool.getconn()
        try:
            with translated(self.address.named, "read"):
                # The lock first: who comes while the tables are being replaced waits for the new ones, and they cannot
                # be replaced meanwhile. Then a SELECT: the view begins with that, not with BEGIN.
                begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
                connection.execute(f"{begin}; LOCK TABLE partitions IN ACCESS SHARE MODE; SELECT 1".encode())
            yield PostgresReader(connection, self.address.named)
        finally:
            self._give_back(connection)

    def _give_back(self, connection: Session) -> None:
        try:
            if connection.info.transaction_status != TransactionStatus.UNKNOWN:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()  # the pool replaces it; whoever was reading has been told already, or had all it asked
        finally:
            self._pool.putconn(connection)

    # -- what the processor does ----------------------------------------------------------------------------------

    def resume(self, partition: int) -> PartitionRow | None:
        """See :class:`headrace.projections.port.Tables`."""
        with self._lock, translated(self.address.named, "read"):
            self._kept.forget(partition)
            sql = """
                SELECT p.*, live.oid::bigint AS resumed_in
                FROM (SELECT 'partitions'::regclass::oid) AS live(oid) LEFT JOIN partitions p ON "partition" = %s
            """
            with self._connection().cursor(row_factory=dict_row) as cursor:
                found = cursor.execute(sql, (partition,)).fetchone()
            assert found is not None
            self._resumed_in[partition] = found["resumed_in"]
            return rows.partition_row(found) if found["partition"] is not None else None

    def load(self, memory: Memory, wants: Wants) -> None:
        """See :class:`headrace.projections.port.Tables`."""
        with self._lock, translated(self.address.named, "read"):
            connection = self._connection()
            missing = self._kept.take(memory, wants.entities) if wants.entities else wants.entities
            postgres_loads.load(connection, self._kinds, memory, replace(wants, entities=missing))

    def commit(self, memory: Memory, batch: Sequence[Stored]) -> None:
        """See :class:`headrace.projections.port.Tables`."""
        with self._lock:
            try:
                with translated(self.address.named, "written"):
                    connection = self._connection()
                    connection.execute("BEGIN")
                    self._fence(connection, memory)
                    self._writer.write(connection, memory, batch)
                    self._end(connection)
            except BaseException:
                self._kept.forget(memory.partition.partition)
                self._undo()
                raise
            self._kept.keep(memory)
            row = memory.partition
            self._policies[row.partition] = (row.next_offset, row.policy, row.kinds)
            self._make_known(row.partition, row.next_offset)

    def _end(self, connection: Session) -> None:
        """Commit.

        :raises UnavailableError: the connection broke: it cannot be known whether that was before or after.
        """
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            raise UnavailableError(
                f"whether the last batch was written to {self.address.named} is not known ({str(error).strip()}); the"
                " partition goes on from where the tables are"
            ) from error

    def _undo(self) -> None:
        """End the transaction, if there still is one and a connection to say so on."""
        if self._open is None:
            return
        status = self._open.info.transaction_status
        try:
            if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                self._open.execute("ROLLBACK")
            elif status != TransactionStatus.IDLE:
                self._drop()
        except psycopg.Error:
            self._drop()  # the server rolls back what is left of a connection that broke

    def _fence(self, connection: Session, memory: Memory) -> None:
        """First of all: only who saw this partition where it is may move it."""
        row, first = memory.partition, memory.first_offset
        values: dict[str, Any] = dict(zip(rows.PARTITION_COLUMNS, rows.partition_values(row), strict=True))
        values["policy"], values["kinds"] = escaped_json(values["policy"]), escaped_json(values["kinds"])
        values["successor"] = escaped(row.successor) if row.successor is not None else None
        if first == 0:
            cursor = connection.execute(_FIRST, values)
        else:
            if self._policies.get(row.partition) == (first, row.policy, row.kinds):
                values |= dict.fromkeys(_CHANGING)
            cursor = self._moved(connection, values | {"first": first, "table": self._resumed_in.get(row.partition)})
        if cursor.rowcount == 0:
            self._check_replaced(connection, row.partition)
            raise FencedError(
                f"partition {row.partition} is no longer at offset {first}: another processor owns it; this one wrote"
                " nothing"
            )

    def _check_replaced(self, connection: Session, partition: int) -> None:
        """What is remembered of tables that were rebuilt meanwhile says nothing about the new ones.

        :raises UnavailableError: they were, since the partition was resumed.
        """
        found = connection.execute("SELECT 'partitions'::regclass::oid::bigint").fetchone()
        if partition in self._resumed_in and found != (self._resumed_in[partition],):
            raise UnavailableError(
                f"the tables in {self.address.named} were rebuilt; partition {partition} goes on from where the new"
                " ones are"
            )

    def _moved(self, connection: Session, values: Mapping[str, Any]) -> psycopg.Cursor[TupleRow]:
        try:
            return connection.execute(_NEXT, values)
        except errors.LockNotAvailable as error:
            connection.execute("ROLLBACK")
            self._throw_out_stalled(connection)
            raise meaning(error, self.address.named, "written") from error

    def _throw_out_stalled(self, connection: Session) -> None:
        """A worker that was stopped (not killed) within a transaction keeps its lock for as long as its connection
        lives. The server throws out idle ones by itself, but not one that waits for the rest of a ``COPY``."""
        name = f"headrace processor {self.address.schema}"
        for pid, _ in connection.execute(_STALLED, (name, self._patience * 2)):
            _log.warning("threw out backend %d, which held a partition of %s without a word", pid, self.address.named)

    def _make_known(self, partition: int, next_offset: int) -> None:
        """Not inside the transaction: notifications of one database commit one after another, batches need not."""
        try:
            self._connection().execute("SELECT pg_notify(%s, %s)", (self.address.channel, f"{partition}:{next_offset}"))
        except psycopg.Error as error:
            # What was written is written. Listeners look for themselves now and then; the next batch connects anew.
            _log.warning("a commit to %s was not made known: %s", self.address.named, error)
            self._drop()


def _require(connection: Session, address: Address) -> None:
    encoding, version = connection.info.parameter_status("server_encoding"), connection.info.server_version
    if encoding != "UTF8" or version < _OLDEST:
        raise HaltError(
            f"{address.named} is PostgreSQL {version // 10_000} with the encoding {encoding}; headrace needs 15 or"
            " newer and UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def _checked(found: Columns | None, address: Address) -> Columns:
    if found is None:
        raise HaltError(
            f"the tables in {address.named} are not those of this release yet: run `headrace migrate`, as the"
            " migrator's role"
        )
    return found


def _partition_statements() -> tuple[bytes, bytes]:
    names = ", ".join(f'"{name}"' for name in rows.PARTITION_COLUMNS)
    given = ", ".join(f"%({name})s" for name in rows.PARTITION_COLUMNS)
    assigned = ", ".join(
        f'"{name}" = coalesce(%({name})s, "{name}")' if name in _CHANGING else f'"{name}" = %({name})s'
        for name in rows.PARTITION_COLUMNS
        if name != "partition"
    )
    first = f"INSERT INTO partitions ({names}) VALUES ({given}) ON CONFLICT DO NOTHING"  # noqa: S608 - our names
    moved = (
        f"UPDATE partitions SET {assigned}"  # noqa: S608 - our names
        ' WHERE "partition" = %(partition)s AND next_offset = %(first)s AND log_id = %(log_id)s'
        " AND tableoid = coalesce(%(table)s::oid, tableoid)"
    )
    return first.encode(), moved.encode()


_FIRST, _NEXT = _partition_statements()
