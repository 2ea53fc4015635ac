"""The tables in PostgreSQL, for many workers and many readers at once.

Two connections fold, one that loads and one that writes, so that a batch can be folded while another is committed; a
pool of others gives snapshots. Every commit is fenced first (``UPDATE partitions … WHERE
next_offset = …``), so of two workers that both believe they own a partition one writes and the other is told. After a
commit, in a statement of its own, it is made known with ``NOTIFY``; see :mod:`headrace.projections.postgres_listener`.

Connect to the server itself or through a pooler in session mode: what is set below belongs to the session.
"""

import contextlib
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from headrace.errors import FencedError, HaltError, UnavailableError
from headrace.log.port import Stored
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory, PartitionRow
from headrace.processors.core.policy import Policy
from headrace.projections import postgres_loads, rows
from headrace.projections.kept import Kept
from headrace.projections.port import Publish, Reader, Wants
from headrace.projections.postgres_connection import Address, PostgresReader, Session, meaning, translated
from headrace.projections.postgres_migrations import Columns, check, migrate
from headrace.projections.postgres_session import ProcessorSession
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

_VIEW: Final = b"""
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE partitions IN ACCESS SHARE MODE; SELECT 1
"""
_STALLED: Final = """
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = %s AND pid <> pg_backend_pid()
    AND wait_event_type = 'Client' AND xact_start < clock_timestamp() - make_interval(secs => %s)
"""
_log: Final = logging.getLogger("headrace.tables")


class PostgresTables:
    """The adapter. Safe from any thread; ``resume`` and ``load`` take turns on one connection, commits on another.

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
        self._closed = False
        self._loading: Final = ProcessorSession(self.address, patience, self._forget)
        self._writing: Final = ProcessorSession(self.address, patience, self._forget)
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
            open=False,
        )
        self._pool.open()

    def _prepare(self, *, migrating: bool) -> Columns:
        with translated(self.address.named, "opened"):
            connection = self._writing.connection()
            try:
                _require(connection, self.address)
                found = check(self.address, connection, self._kinds)
                if found is None and migrating:
                    migrate(self.address, self._kinds)
                    found = check(self.address, connection, self._kinds)
                return _checked(found, self.address)
            except BaseException:
                self._writing.drop()
                raise

    @property
    def connection(self) -> Session:
        """The connection that commits: to trace what it does. Whoever writes through it breaks the fold."""
        return self._session(self._writing)

    @property
    def loading(self) -> Session:
        """The connection that loads: to trace what it does."""
        return self._session(self._loading)

    def close(self) -> None:
        """Close every connection; those of running snapshots as those end."""
        self._closed = True
        for one in (self._loading, self._writing):
            with one.lock:
                one.drop()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _session(self, one: ProcessorSession) -> Session:
        if self._closed:
            raise UnavailableError(f"the tables in {self.address.named} were closed; open them again")
        return one.connection()

    def _forget(self) -> None:
        self._policies.clear()
        self._kept.forget_all()

    # -- queries --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def snapshot(self) -> Generator[Reader]:
        """See :class:`headrace.projections.port.Tables`."""
        if self._closed:
            raise UnavailableError(f"the tables in {self.address.named} were closed; open them again")
        with translated(self.address.named, "read"):
            connection = self._viewing()
        try:
            yield PostgresReader(connection, self.address.named)
        finally:
            self._give_back(connection)

    def _viewing(self) -> Session:
        """A reader's connection with a view of the tables. One that broke while nobody used it is found out here, by
        what is said to it anyway: asking every one first whether it is alive would double what a small query costs."""
        for tries in range(self._pool.max_size, -1, -1):
            connection = self._pool.getconn()
            try:
                # The lock first: who comes while the tables are being replaced waits for the new ones, and they cannot
                # be replaced meanwhile. Then a SELECT: the view begins with that, not with BEGIN.
                connection.execute(_VIEW)
            except BaseException as error:
                broken = isinstance(error, psycopg.OperationalError) and connection.closed
                self._give_back(connection)
                if not broken or not tries:
                    raise
            else:
                return connection
        raise AssertionError("the last try raises or returns")

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
        with self._loading.lock, translated(self.address.named, "read"):
            self._kept.forget(partition)
            sql = """
                SELECT p.*, live.oid::bigint AS resumed_in
                FROM (SELECT 'partitions'::regclass::oid) AS live(oid) LEFT JOIN partitions p ON "partition" = %s
            """
            with self._session(self._loading).cursor(row_factory=dict_row) as cursor:
                found = cursor.execute(sql, (partition,)).fetchone()
            assert found is not None
            self._resumed_in[partition] = found["resumed_in"]
            return rows.partition_row(found) if found["partition"] is not None else None

    def load(self, memory: Memory, wants: Wants) -> None:
        """See :class:`headrace.projections.port.Tables`."""
        with self._loading.lock, translated(self.address.named, "read"):
            connection = self._session(self._loading)
            missing = self._kept.take(memory, wants.entities) if wants.entities else wants.entities
            try:
                postgres_loads.load(connection, self._kinds, memory, replace(wants, entities=missing))
            except psycopg.Error:
                self._loading.drop()  # as after an error while writing
                raise

    def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
        """See :class:`headrace.projections.port.Tables`."""
        with self._writing.lock:
            try:
                with translated(self.address.named, "written"):
                    connection = self._begin(memory)
                    published = publish(memory) if publish is not None else None
                    with _fitting(memory, self.address.named):
                        self._writer.write(connection, memory, batch)
                    if published is not None:
                        published()
                    self._end(connection)
            except BaseException:
                self._kept.forget(memory.partition.partition)
                self._writing.undo()
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

    def _begin(self, memory: Memory) -> Session:
        """A transaction, on a new connection where the last broke while nobody needed it. The fence first of all: only
        who saw this partition where it is may move it."""
        row, first = memory.partition, memory.first_offset
        values: dict[str, Any] = dict(zip(rows.PARTITION_COLUMNS, rows.partition_values(row), strict=True))
        values["policy"], values["kinds"] = escaped_json(values["policy"]), escaped_json(values["kinds"])
        values["successor"] = escaped(row.successor) if row.successor is not None else None
        if first and self._policies.get(row.partition) == (first, row.policy, row.kinds):
            values |= dict.fromkeys(_CHANGING)
        values |= {"first": first, "table": self._resumed_in.get(row.partition)}
        connection = self._session(self._writing)
        try:
            moved = self._moved(connection, first, values)
        except psycopg.OperationalError:
            if not connection.closed:
                raise
            connection = self._session(self._writing)
            moved = self._moved(connection, first, values)
        if not moved:
            self._check_replaced(connection, row.partition)
            raise FencedError(
                f"partition {row.partition} is no longer at offset {first}: another processor owns it; this one wrote"
                " nothing"
            )
        return connection

    def _moved(self, connection: Session, first: int, values: Mapping[str, Any]) -> bool:
        try:
            with connection.pipeline():
                connection.execute("BEGIN")
                fence = connection.execute(_NEXT if first else _FIRST, values)
        except errors.LockNotAvailable as error:
            connection.execute("ROLLBACK")
            self._throw_out_stalled(connection)
            raise meaning(error, self.address.named, "written") from error
        return fence.rowcount > 0

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

    def _throw_out_stalled(self, connection: Session) -> None:
        """A worker that was stopped (not killed) within a transaction keeps its lock for as long as its connection
        lives. The server throws out idle ones by itself, but not one that waits for the rest of a ``COPY``."""
        name = f"headrace processor {self.address.schema}"
        for pid, _ in connection.execute(_STALLED, (name, self._patience * 2)):
            _log.warning("threw out backend %d, which held a partition of %s without a word", pid, self.address.named)

    def _make_known(self, partition: int, next_offset: int) -> None:
        """Not inside the transaction: notifications of one database commit one after another, batches need not."""
        try:
            self._session(self._writing).execute(
                "SELECT pg_notify(%s, %s)", (self.address.channel, f"{partition}:{next_offset}")
            )
        except psycopg.Error as error:
            # What was written is written. Listeners look for themselves now and then; the next batch connects anew.
            _log.warning("a commit to %s was not made known: %s", self.address.named, error)
            self._writing.drop()


def _require(connection: Session, address: Address) -> None:
    encoding, version = connection.info.parameter_status("server_encoding"), connection.info.server_version
    if encoding != "UTF8" or version < _OLDEST:
        raise HaltError(
            f"{address.named} is PostgreSQL {version // 10_000} with the encoding {encoding}; headrace needs 15 or"
            " newer and UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


@contextlib.contextmanager
def _fitting(memory: Memory, named: str) -> Generator[None]:
    """What the fold writes fits into tables and indexes of headrace's. Others hang indexes of their own on them."""
    try:
        yield
    except errors.ProgramLimitExceeded as error:
        row = memory.partition
        raise UnavailableError(
            f"a record of partition {row.partition} from offset {memory.first_offset} to {row.next_offset - 1} has a"
            f" text that is too long for {named} ({str(error).strip().partition(chr(10))[0]}); if that index is not"
            " headrace's, drop it, and the partition goes on; if it is, that is a bug in headrace"
        ) from error


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
