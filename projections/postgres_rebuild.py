"""New tables beside the live ones, and the switch from one to the other.

They are built in a schema of their own in the same database. The switch is one transaction: it locks every live table,
checks that the new ones are as far as the live ones, renames both schemas and gives the new one the rights that the old
one had. Whoever uses the tables by name meets only tables of one age:

- a statement or a snapshot that has touched a live table holds a lock on it, and the switch waits for that;
- one that comes later waits for the switch, and then resolves its names anew.

The switch waits for a lock a moment only, and tries again later, because everybody else queues behind it. Commits are
made known under the same name before and after: the channel's name is made from the schema's.

A run that dies leaves the live tables alone; what it built is dropped by the next one.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

from psycopg import errors, sql
from psycopg.rows import tuple_row

from headrace.errors import BadInputError, NotFoundError, UnavailableError
from headrace.projections.postgres_connection import Address, Session, translated
from headrace.projections.postgres_migrations import LOCK

_BUILDING: Final = "headrace: being built, to replace "
_REPLACED: Final = "headrace: replaced by a rebuild of "
_KEPT: Final = "headrace: kept by a rebuild of "
_STEM: Final = 26
"""Characters of the live schema's name in the others': a name has 41 at the most."""
_REBUILD: Final = 0x72656275  # "rebu": with the schema's hash it makes the advisory lock's key
_LOCK_SECONDS: Final = 2.0
"""How long everybody may have to queue behind a switch that waits for somebody's snapshot."""
_PATIENCE_SECONDS: Final = 600.0
_log: Final = logging.getLogger("headrace.rebuild")

_MARKED: Final = """
SELECT nspname FROM pg_namespace WHERE obj_description(oid, 'pg_namespace') = ANY(%s)
"""
_LOCKED: Final = """
SELECT relname FROM pg_class
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND relkind IN ('r', 'v')
ORDER BY relname <> 'partitions', relkind = 'v', relname
"""
_OUTSIDE: Final = """
SELECT DISTINCT
    format('%%s %%I.%%I', CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, n.nspname, c.relname)
FROM pg_depend d
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class used ON d.refclassid = 'pg_class'::regclass AND d.refobjid = used.oid
WHERE used.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND n.nspname <> %(schema)s
UNION
SELECT format('foreign key %%I on %%s', k.conname, k.conrelid::regclass)
FROM pg_constraint k JOIN pg_class used ON used.oid = k.confrelid JOIN pg_class c ON c.oid = k.conrelid
WHERE used.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
    AND c.relnamespace <> used.relnamespace
UNION
SELECT format('publication %%I', p.pubname)
FROM pg_publication_rel m JOIN pg_publication p ON p.oid = m.prpubid JOIN pg_class used ON used.oid = m.prrelid
WHERE used.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
UNION
SELECT format('trigger %%I on %%I', t.tgname, used.relname)
FROM pg_trigger t JOIN pg_class used ON used.oid = t.tgrelid
WHERE used.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND NOT t.tgisinternal
ORDER BY 1
"""
_GRANTS: Final = """
DO $$
DECLARE
    one record;
    live oid := (SELECT oid FROM pg_namespace WHERE nspname = {live});
BEGIN
    FOR one IN
        SELECT a.privilege_type, a.is_grantable, coalesce(g.rolname, '') AS grantee
        FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE n.oid = live AND a.grantee <> n.nspowner
    LOOP
        EXECUTE format('GRANT %s ON SCHEMA %I TO %s %s', one.privilege_type, {built},
            CASE one.grantee WHEN '' THEN 'PUBLIC' ELSE quote_ident(one.grantee) END,
            CASE WHEN one.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    FOR one IN
        SELECT c.relname, '' AS attname, a.privilege_type, a.is_grantable, coalesce(g.rolname, '') AS grantee
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE c.relnamespace = live AND c.relkind IN ('r', 'v') AND a.grantee <> c.relowner
        UNION ALL
        SELECT c.relname, format('(%I)', t.attname), a.privilege_type, a.is_grantable, coalesce(g.rolname, '')
        FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN aclexplode(t.attacl) a
        LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE c.relnamespace = live AND c.relkind IN ('r', 'v') AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s %s ON %I.%I TO %s %s', one.privilege_type, one.attname, {built}, one.relname,
            CASE one.grantee WHEN '' THEN 'PUBLIC' ELSE quote_ident(one.grantee) END,
            CASE WHEN one.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$$
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

    def prepare(self) -> None:
        """Refuse what a switch would lose, drop what earlier runs left, and make the new schema.

        :raises BadInputError: something that is not headrace's hangs on the live tables.
        :raises NotFoundError: there are no live tables.
        """
        with translated(self.live.named, "rebuilt"):
            if not _relations(self._connection, self.live.schema):
                raise NotFoundError(f"there are no tables in {self.live.named}: `headrace migrate` makes them")
            self.check()
            self.clean_up()
            with self._connection.transaction():
                self._run("CREATE SCHEMA {built}")
                self._comment(self.built, _BUILDING)

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
            pause = threading.Event()
            while True:
                catch_up(self.positions())
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
                pause.wait(_LOCK_SECONDS)
            self._make_known()
            if keep_old:
                return old
            self._drop(old)
            return None

    def _switched(self, catch_up: Callable[[Positions], object], *, keep_old: bool) -> str:
        old = f"{self.live.schema[:_STEM]}_old_{secrets.token_hex(4)}"
        with self._connection.transaction():
            self._connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS * 1_000:.0f}ms'".encode())
            self._connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK, self.live.schema))
            names = [name for (name,) in self._connection.execute(_LOCKED, (self.live.schema,)).fetchall()]
            # Partitions first: who folds begins with it, and so does every snapshot.
            for name in names:
                self._run("LOCK TABLE {live}.{table} IN ACCESS EXCLUSIVE MODE", table=sql.Identifier(name))
            catch_up(self.positions())
            self.check()
            self._run(_GRANTS, live=sql.Literal(self.live.schema), built=sql.Literal(self.built))
            self._run("ALTER SCHEMA {live} RENAME TO {old}", old=sql.Identifier(old))
            self._run("ALTER SCHEMA {built} RENAME TO {live}")
            self._comment(old, _KEPT if keep_old else _REPLACED)
            self._run("COMMENT ON SCHEMA {live} IS NULL")
        return old

    def check(self) -> None:
        """Refuse what a switch would lose: what refers to the live tables would go on referring to the old ones, and
        what stands among them would go with those. Complete once the new tables are made.

        :raises BadInputError: there is something of that kind; the message names it.
        """
        found = [name for (name,) in self._connection.execute(_OUTSIDE, {"schema": self.live.schema}).fetchall()]
        built = _relations(self._connection, self.built)
        if built:
            found += sorted(_relations(self._connection, self.live.schema) - built)
        if found:
            raise BadInputError(
                f"the tables in {self.live.named} cannot be replaced while something that is not headrace's stands"
                f" among them or refers to them: {', '.join(found)}. Drop it, rebuild, and make it again"
            )

    def _analyse(self) -> None:
        """Statistics before the first query."""
        for name in sorted(_relations(self._connection, self.built, "r")):
            self._run("ANALYZE {built}.{table}", table=sql.Identifier(name))

    def _make_known(self) -> None:
        for partition, next_offset in self.positions().items():
            self._connection.execute("SELECT pg_notify(%s, %s)", (self.live.channel, f"{partition}:{next_offset}"))

    def _drop(self, schema: str) -> None:
        """Statements that wait for one of its tables resolve their names anew when it is gone."""
        self._connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))

    def _comment(self, schema: str, mark: str) -> None:
        text = sql.Literal(mark + self.live.schema)
        self._connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), text))

    def _run(self, statement: str, **names: sql.Composable) -> None:
        known: dict[str, sql.Composable] = {
            "live": sql.Identifier(self.live.schema),
            "built": sql.Identifier(self.built),
        }
        self._connection.execute(sql.SQL(statement).format(**known | names))


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


def _relations(connection: Session, schema: str, kinds: str = "rvmpfSi") -> set[str]:
    """The names of a schema's relations, indexes included."""
    statement = """
        SELECT relname FROM pg_class
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND relkind = ANY(%s)
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        return {str(name) for (name,) in cursor.execute(statement, (schema, list(kinds)))}


def _positions(connection: Session, schema: str) -> dict[int, int]:
    statement = sql.SQL('SELECT "partition", next_offset FROM {}.partitions').format(sql.Identifier(schema))
    return {int(partition): int(next_offset) for partition, next_offset in connection.execute(statement).fetchall()}
