"""New tables beside the live ones, and the switch from one to the other.

They are built in a schema of their own in the same database. The switch is one transaction: it locks every live table,
checks that the new ones are as far as the live ones, renames both schemas and gives the new one the rights that the old
one had. Whoever uses the tables by name meets only tables of one age:

- a statement or a snapshot that has touched a live table holds a lock on it, and the switch waits for that;
- one that comes later waits for the switch, and then resolves its names anew.

The switch waits for its locks a moment only, and tries again later. Everybody else queues behind it; and a statement
that has one of the tables and wants the next may wait for the switch while that waits for it. PostgreSQL ends such a
knot by refusing one of the two, when the first has waited for ``deadlock_timeout``: by then the switch has let go, so
that it is never somebody's query. Commits are made known under the same name before and after: the channel's name is
made from the schema's.

A run that dies leaves the live tables alone; what it built is dropped by the next one.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final, LiteralString

from psycopg import Cursor, errors, sql
from psycopg.rows import TupleRow

from headrace.errors import LogMismatchError, NotFoundError, UnavailableError
from headrace.projections.postgres_connection import Address, Session, translated
from headrace.projections.postgres_migrations import LOCK
from headrace.projections.postgres_standing import carry, check_standing

_BUILDING: Final = "headrace: being built, to replace "
_REPLACED: Final = "headrace: replaced by a rebuild of "
_KEPT: Final = "headrace: kept by a rebuild of "
_STEM: Final = 26
"""Characters of the live schema's name in the others': a name has 41 at the most."""
_REBUILD: Final = 0x72656275  # "rebu": with the schema's hash it makes the advisory lock's key
_FIRST_PAUSE_SECONDS: Final = 0.2
_MOST_PAUSE_SECONDS: Final = 2.0
"""Between two attempts to get all the locks; it doubles each time."""
_VACUUM_SECONDS: Final = 3.0
"""How much longer than ``deadlock_timeout`` to wait for an autovacuum, which is ended by then."""
_MOST_LOCK_SECONDS: Final = 2.0
"""How long everybody may have to queue behind a switch that waits, at the most."""
_SHARE_OF_TIMEOUT: Final = 0.6
_LITTLE: Final = 500
"""Records left to fold at which the switch is tried."""
_ROUNDS: Final = 30
_PATIENCE_SECONDS: Final = 600.0
_NOT_STALLED: Final = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
"""A rebuild that is stopped while everybody waits for it is thrown out by the server. The last records take less."""
_log: Final = logging.getLogger("headrace.rebuild")

_MARKED: Final = """
SELECT nspname FROM pg_namespace WHERE obj_description(oid, 'pg_namespace') = ANY(%s)
"""
_LOCKED: Final = """
SELECT relname, relkind::text FROM pg_class
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND relkind IN ('r', 'v')
ORDER BY relname <> 'partitions', relkind = 'v', relname
"""
_DIFFERENT: Final = """
SELECT l."partition" FROM {live}.partitions l LEFT JOIN {built}.partitions b USING ("partition")
WHERE (l.log_id, l.next_offset, l.chain) IS DISTINCT FROM (b.log_id, b.next_offset, b.chain)
"""

Positions = Mapping[int, int]
"""Next offsets by partition."""


class Rebuild:
    """Of the tables in ``live``. ``built`` is where the new ones are to be made; from :func:`rebuilding`."""

    def __init__(self, live: Address, connection: Session) -> None:
        self.live: Final = live
        self.built: Final = f"{live.schema[:_STEM]}_build_{secrets.token_hex(4)}"
        self._connection: Final = connection

    def positions(self) -> Positions:
        """How far the live tables are."""
        with translated(self.live.named, "read"):
            return _positions(self._connection, self.live.schema)

    def log_ids(self) -> set[bytes]:
        """Of which logs the live tables say that they were folded."""
        with translated(self.live.named, "read"):
            statement = sql.SQL("SELECT log_id FROM {}.partitions").format(sql.Identifier(self.live.schema))
            return {bytes(found) for (found,) in self._connection.execute(statement).fetchall()}

    def prepare(self) -> None:
        """Refuse what a switch would lose, drop what earlier runs left, and make the new schema.

        :raises BadInputError: something that is not headrace's hangs on the live tables.
        :raises NotFoundError: there are no live tables.
        """
        with translated(self.live.named, "rebuilt"):
            if not self._tables(self.live.schema):
                raise NotFoundError(f"there are no tables in {self.live.named}: `headrace migrate` makes them")
            check_standing(self._connection, self.live.schema, None, self.live.named)
            self.clean_up()
            with self._connection.transaction():
                self._run("CREATE SCHEMA {built}")
                self._comment(self.built, _BUILDING + self.live.schema)

    def check(self) -> None:
        """Refuse what a switch would lose; the new tables are made by now.

        :raises BadInputError: there is something; the message names it.
        """
        with translated(self.live.named, "rebuilt"):
            check_standing(self._connection, self.live.schema, self.built, self.live.named)

    def clean_up(self) -> None:
        """Drop what a run that died has left: a schema half built, or one replaced."""
        marks = [_BUILDING + self.live.schema, _REPLACED + self.live.schema]
        with translated(self.live.named, "rebuilt"):
            found = self._connection.execute(_MARKED, (marks,)).fetchall()
            for (schema,) in found:
                self._drop(schema)

    def switch(
        self, catch_up: Callable[[Positions], object], *, keep_old: bool, patience: float = _PATIENCE_SECONDS
    ) -> str | None:
        """Put the new tables into the live ones' place; the name of the schema that keeps the old ones, if any.

        :param catch_up: folds into the new tables exactly up to these positions. First while the live ones go on, until
            little is left, then with those locked.
        :param patience: seconds to wait altogether for those who hold locks on the live tables.
        :raises UnavailableError: somebody holds a lock for longer than that; the live tables are as they were.
        """
        with translated(self.live.named, "rebuilt"):
            self._analyse()
            deadline = time.monotonic() + patience
            pause, seconds = threading.Event(), _FIRST_PAUSE_SECONDS
            while True:
                self._come_near(catch_up)
                try:
                    old = self._switched(catch_up, keep_old=keep_old)
                    break
                except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                    if time.monotonic() > deadline:
                        raise UnavailableError(
                            f"somebody has been reading the tables in {self.live.named} for longer than"
                            f" {patience:.0f} s without a pause; pg_stat_activity shows who: end it, then rebuild again"
                        ) from error
                    _log.warning("the switch waits for somebody who reads the tables in %s", self.live.named)
                pause.wait(seconds)
                seconds = min(_MOST_PAUSE_SECONDS, seconds * 2)
            self._make_known()
            if keep_old:
                return old
            self._drop(old)
            return None

    def _come_near(self, catch_up: Callable[[Positions], object]) -> None:
        """Fold until little is left to fold while everybody waits."""
        folded = -_LITTLE
        for _ in range(_ROUNDS):
            positions = self.positions()
            ends = sum(positions.values())
            if ends - folded < _LITTLE:
                return
            catch_up(positions)
            folded = ends

    def _switched(self, catch_up: Callable[[Positions], object], *, keep_old: bool) -> str:
        old = f"{self.live.schema[:_STEM]}_old_{secrets.token_hex(4)}"
        with self._connection.transaction():
            self._connection.execute(_NOT_STALLED)
            self._lock()
            catch_up(self.positions())
            check_standing(self._connection, self.live.schema, self.built, self.live.named)
            self._check_equal()
            said = self._said_of(self.live.schema)
            carry(self._connection, self.live.schema, self.built)
            self._run("ALTER SCHEMA {live} RENAME TO {old}", old=sql.Identifier(old))
            self._run("ALTER SCHEMA {built} RENAME TO {live}")
            self._comment(old, (_KEPT if keep_old else _REPLACED) + self.live.schema)
            self._comment(self.live.schema, said)
        return old

    def _lock(self) -> None:
        """Every live table, against everybody."""
        seconds = _deadlock_seconds(self._connection)
        self._wait_up_to(seconds + _VACUUM_SECONDS)
        self._connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK, self.live.schema))
        names = [(str(name), kind) for name, kind in self._connection.execute(_LOCKED, (self.live.schema,)).fetchall()]
        for name, kind in names:
            if kind == "r":  # in nobody's way but a vacuum's
                self._run("LOCK TABLE {live}.{table} IN SHARE UPDATE EXCLUSIVE MODE", table=sql.Identifier(name))
        deadline = time.monotonic() + _lock_seconds(seconds)
        # Partitions first: who folds begins with it, and so does every snapshot.
        for name, _ in names:
            self._wait_up_to(deadline - time.monotonic())
            self._run("LOCK TABLE {live}.{table} IN ACCESS EXCLUSIVE MODE", table=sql.Identifier(name))
        self._wait_up_to(seconds + _VACUUM_SECONDS)

    def _wait_up_to(self, seconds: float) -> None:
        self._connection.execute(f"SET LOCAL lock_timeout = '{max(1, round(seconds * 1_000))}ms'".encode())

    def _check_equal(self) -> None:
        """That both were folded from the same records.

        :raises LogMismatchError: they were not.
        """
        found = [str(partition) for (partition,) in self._run(_DIFFERENT).fetchall()]
        if found:
            raise LogMismatchError(
                f"the tables in {self.live.named} were folded from other records than this log has now (partition"
                f" {', '.join(found[:10])}): it was replaced, or cut off and went on. Restore it; if it is the log from"
                " now on, drop the schema and `headrace migrate`"
            )

    def _analyse(self) -> None:
        """Statistics before the first query."""
        for name in sorted(self._tables(self.built)):
            self._run("ANALYZE {built}.{table}", table=sql.Identifier(name))

    def _make_known(self) -> None:
        for partition, next_offset in self.positions().items():
            self._connection.execute("SELECT pg_notify(%s, %s)", (self.live.channel, f"{partition}:{next_offset}"))

    def _tables(self, schema: str) -> list[str]:
        return [str(name) for name, kind in self._connection.execute(_LOCKED, (schema,)).fetchall() if kind == "r"]

    def _drop(self, schema: str) -> None:
        """Statements that wait for one of its tables resolve their names anew when it is gone."""
        self._connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))

    def _said_of(self, schema: str) -> str | None:
        statement = "SELECT obj_description(to_regnamespace(quote_ident(%s)), 'pg_namespace')"
        found = self._connection.execute(statement, (schema,)).fetchone()
        return found[0] if found is not None else None

    def _comment(self, schema: str, said: str | None) -> None:
        text = sql.Literal(said)
        self._connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), text))

    def _run(self, statement: LiteralString, **names: sql.Composable) -> Cursor[TupleRow]:
        known = {"live": sql.Identifier(self.live.schema), "built": sql.Identifier(self.built)}
        return self._connection.execute(sql.SQL(statement).format(**known, **names))


@contextmanager
def rebuilding(live: Address) -> Generator[Rebuild, None, None]:
    """One rebuild at a time; what it built and did not switch to is dropped at the end.

    :raises UnavailableError: another one is under way, or the database does not answer.
    """
    with translated(live.named, "rebuilt"):
        connection = live.connect("rebuild")
    try:
        with translated(live.named, "rebuilt"):
            key = (_REBUILD, live.schema)
            found = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key).fetchone()
        if found != (True,):
            raise UnavailableError(f"the tables in {live.named} are being rebuilt already: wait for that one to end")
        rebuild = Rebuild(live, connection)
        try:
            yield rebuild
        finally:
            if not connection.closed and not connection.broken:
                rebuild.clean_up()
    finally:
        connection.close()


def _deadlock_seconds(connection: Session) -> float:
    """After how long of waiting PostgreSQL looks for a knot."""
    found = connection.execute("SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout'").fetchone()
    return found[0] / 1_000 if found is not None else 1.0


def _lock_seconds(deadlock_seconds: float) -> float:
    """How long to wait for all the locks."""
    return min(_MOST_LOCK_SECONDS, deadlock_seconds * _SHARE_OF_TIMEOUT)


def _positions(connection: Session, schema: str) -> dict[int, int]:
    statement = sql.SQL('SELECT "partition", next_offset FROM {}.partitions').format(sql.Identifier(schema))
    return {int(partition): int(next_offset) for partition, next_offset in connection.execute(statement).fetchall()}
