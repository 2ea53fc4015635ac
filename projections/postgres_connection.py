"""Connections to PostgreSQL, and what PostgreSQL's errors mean for whoever asked."""

import itertools
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import errors, sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow, dict_row

from headrace.errors import HaltError, HeadraceError, UnavailableError
from headrace.projections.postgres_arrays import register
from headrace.projections.postgres_text import bound, canonical_json, translated_sql, unescaped, unescaped_json

Session = psycopg.Connection[TupleRow]

_DEFAULTS: Final = {
    "connect_timeout": "5",
    # A server that has vanished without a word is noticed within half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_FETCHED_AT_ONCE: Final = 1_000
_NUMBERS: Final = itertools.count()
"""Names for cursors: several may be open in one transaction."""
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,40}\Z")
_BUGS: Final = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError)
_IDLED: Final = frozenset({"25P03", "25P04"})
"""SQLSTATEs of a server that ends a transaction because nothing, or not enough, came of it for too long."""
_DAMAGE: Final = (errors.DataCorrupted, errors.IndexCorrupted)


class _JsonText(Loader):
    """``json`` as the text that was written."""

    def load(self, data: Buffer) -> str:
        return unescaped_json(bytes(data).decode())


class _JsonbText(Loader):
    """``jsonb`` as canonical JSON."""

    def load(self, data: Buffer) -> str:
        return canonical_json(bytes(data).decode())


class Address:
    """Where the tables are: a ``postgresql://`` address (or libpq's ``key=value`` form) and a schema in that database.

    :raises UnavailableError: the address cannot be read.
    """

    def __init__(self, conninfo: str, schema: str = "headrace") -> None:
        if not _SCHEMA_NAME.match(schema):
            raise UnavailableError(f"{schema[:60]!r} is no name for a schema: use up to 41 of a-z 0-9 _")
        try:
            given = conninfo_to_dict(conninfo)
        except psycopg.ProgrammingError as error:
            raise UnavailableError(
                f"the database's address cannot be read ({error}); write it postgresql://user@host:5432/database"
            ) from error
        self.schema: Final = schema
        self.conninfo: Final = make_conninfo("", **{**_DEFAULTS, **given, "client_encoding": "utf8"})
        host = given.get("host") or given.get("hostaddr") or "the default socket"
        self.named: Final = f"schema {schema} of database {given.get('dbname') or given.get('user') or ''} on {host}"
        """For messages: without the password."""

    @property
    def channel(self) -> str:
        """What commits are made known on (``LISTEN``)."""
        return f"{self.schema}_applied"

    def connect(self, purpose: str) -> Session:
        """A connection in autocommit mode whose statements find the schema's tables."""
        name = f"headrace {purpose} {self.schema}"
        connection = psycopg.connect(self.conninfo, autocommit=True, application_name=name)
        try:
            self.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def prepare(self, connection: Session) -> None:
        """Make a new connection one of ours."""
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema)))
        register(connection)
        connection.adapters.register_loader("json", _JsonText)
        connection.adapters.register_loader("jsonb", _JsonbText)


class PostgresReader:
    """The :class:`headrace.projections.port.Reader` of a transaction that is under way."""

    def __init__(self, connection: Session, named: str) -> None:
        self._connection: Final = connection
        self._named: Final = named

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """See :class:`headrace.projections.port.Reader`."""
        with translated(self._named, "read"), self._connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(translated_sql(sql).encode(), bound(parameters))
            return [{name: _shown(value) for name, value in row.items()} for row in cursor]

    def values(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """See :class:`headrace.projections.port.Reader`."""
        with translated(self._named, "read"), self._connection.cursor(f"values_{next(_NUMBERS)}") as cursor:
            cursor.itersize = _FETCHED_AT_ONCE
            cursor.execute(translated_sql(sql).encode(), bound(parameters))
            for row in cursor:
                yield tuple(map(_shown, row))


def _shown(value: Any) -> Any:
    return unescaped(value) if isinstance(value, str) else value


@contextmanager
def translated(named: str, doing: str) -> Generator[None]:
    """PostgreSQL's errors as headrace's: ``doing`` is what was tried, such as ``read``.

    :raises HaltError: trying again cannot help: a statement and the tables do not fit, a right is missing, the data is
        damaged.
    :raises UnavailableError: trying again may help: no connection, a lock, a full disk, a server that is stopping, or
        has ended a transaction that waited for long.
    """
    try:
        yield
    except (psycopg.Error, UnicodeEncodeError) as error:
        raise meaning(error, named, doing) from error


def meaning(error: Exception, named: str, doing: str) -> HeadraceError:
    """What an error of PostgreSQL's means."""
    said = str(error).strip().partition("\n")[0]
    if isinstance(error, errors.InsufficientPrivilege):
        return HaltError(
            f"this role may not do what it must in {named} ({said}); apply infra/roles.sql and let the migrator's role"
            " migrate once more"
        )
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return HaltError(f"there are no tables of this release in {named} ({said}); let the migrator's role migrate")
    if isinstance(error, _DAMAGE):
        return HaltError(
            f"the tables in {named} are damaged ({said}); drop that schema, migrate, and the log is folded again"
        )
    if isinstance(error, errors.DiskFull):
        return UnavailableError(f"the disk of {named} is full ({said}); free some space and it goes on")
    if isinstance(error, psycopg.Error) and error.sqlstate in _IDLED:
        return UnavailableError(
            f"PostgreSQL ended a transaction on the tables in {named} that took too long ({said}): nothing of it was"
            f" {doing}, and the partition goes on from where the tables are"
        )
    if isinstance(error, (*_BUGS, UnicodeEncodeError)):
        return HaltError(
            f"what was to be {doing} and the tables in {named} do not fit ({said}): a bug in headrace or in a kind"
        )
    if isinstance(error, psycopg.InternalError) and not isinstance(error, errors.ReadOnlySqlTransaction):
        return HaltError(f"PostgreSQL failed on the tables in {named} ({said}): see its log, mend it, start again")
    return UnavailableError(f"the tables in {named} cannot be {doing} now ({said}); mend that, and it goes on")
