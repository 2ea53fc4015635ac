"""The vault of a distributed store: a schema of its own beside that of the tables, which can be dropped and folded
again; this one cannot."""

import hashlib
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg import errors, sql

from headrace.errors import HaltError, UnavailableError
from headrace.projections.postgres_connection import Address, Session

_PATIENCE_SECONDS: Final = 60.0
_LOCK: Final = 0x73656C64  # "seld"
_ROLE: Final = "headrace_connector"
_DDL: Final = """
CREATE TABLE IF NOT EXISTS {schema}.sealed (
    realm      text        NOT NULL,
    name       text        NOT NULL,
    value      bytea       NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm, name)
);
COMMENT ON SCHEMA {schema} IS 'How headrace''s sources are connected. It cannot be folded from the log: back it up.';
COMMENT ON TABLE {schema}.sealed IS 'Settings and grants of sources, sealed with a key derived from the master key.';
COMMENT ON COLUMN {schema}.sealed.realm IS 'What kind of thing it is: source, grant, watch.';
COMMENT ON COLUMN {schema}.sealed.name IS 'Which one it is: tenant, account and source, or provider and watch.';
COMMENT ON COLUMN {schema}.sealed.value IS 'A nonce of 12 bytes, then AES-256-GCM.';
COMMENT ON COLUMN {schema}.sealed.changed_at IS 'When it was last changed, by the database''s clock.';
"""
_GRANTS: Final = """
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.sealed TO {role};
"""


def vault_schema(address: Address) -> str:
    """The name of the schema beside that of the tables."""
    return f"{address.schema}_sources"


def make_vault(address: Address) -> None:
    """Make the schema, unless it is there. Safe to repeat, and by several at once.

    :raises HaltError: this role may not.
    :raises UnavailableError: the database does not answer.
    """
    schema = vault_schema(address)
    named = {"schema": sql.Identifier(schema), "role": sql.Identifier(_ROLE)}
    with _translated(address), address.connect("migrator") as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, schema))
        if not connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchall()[0][0]:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        if not connection.execute("SELECT to_regclass(%s)", (f"{schema}.sealed",)).fetchall()[0][0]:
            connection.execute(sql.SQL(_DDL).format(**named))
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (_ROLE,)).fetchall():
            connection.execute(sql.SQL(_GRANTS).format(**named))


class PostgresVault:
    """The :class:`headrace.producers.vault.Vault` in the database at ``address``; made by :func:`make_vault`.

    :raises HaltError: it is not there, or this role may not use it.
    :raises UnavailableError: the database does not answer.
    """

    def __init__(self, address: Address, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._address: Final = address
        self._schema: Final = vault_schema(address)
        self._table: Final = sql.Identifier(self._schema, "sealed")
        self._patience_seconds: Final = patience_seconds
        self._guard: Final = threading.Lock()
        self._connection: Session | None = None
        try:
            self.all("")
        except BaseException:
            self.close()
            raise

    def all(self, realm: str) -> list[tuple[str, bytes]]:
        """See :class:`headrace.producers.vault.Vault`."""
        found = self._ask('SELECT name, value FROM {} WHERE realm = %s ORDER BY name COLLATE "C"', realm)
        return [(name, bytes(value)) for name, value in found]

    def read(self, realm: str, name: str) -> bytes | None:
        """See :class:`headrace.producers.vault.Vault`."""
        found = self._ask("SELECT value FROM {} WHERE realm = %s AND name = %s", realm, name)
        return bytes(found[0][0]) if found else None

    def write(self, realm: str, name: str, value: bytes | None) -> None:
        """See :class:`headrace.producers.vault.Vault`."""
        if value is None:
            self._ask("DELETE FROM {} WHERE realm = %s AND name = %s", realm, name)
            return
        self._ask(
            "INSERT INTO {} (realm, name, value) VALUES (%s, %s, %s) ON CONFLICT (realm, name)"
            " DO UPDATE SET value = excluded.value, changed_at = now()",
            realm,
            name,
            value,
        )

    @contextmanager
    def alone(self, realm: str, name: str) -> Generator[None]:
        """See :class:`headrace.producers.vault.Vault`. By an advisory lock of a connection of its own."""
        digest = hashlib.blake2b(f"{self._schema}\0{realm}\0{name}".encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "big", signed=True)
        with _translated(self._address):
            connection = self._address.connect("vault")
        try:
            with _translated(self._address):
                milliseconds = str(int(self._patience_seconds * 1_000))
                connection.execute("SELECT set_config('lock_timeout', %s, false)", (milliseconds,))
                try:
                    connection.execute("SELECT pg_advisory_lock(%s)", (key,))
                except errors.LockNotAvailable:
                    raise UnavailableError(
                        f"somebody else has been at the {realm} {name} for {self._patience_seconds:g} s; it is tried"
                        " again later"
                    ) from None
            yield
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connection. Harmless when repeated."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """On a connection that is kept; on a new one where that has broken. Repeating a statement here is harmless."""
        with self._guard, _translated(self._address):
            if self._connection is not None:
                with suppress(psycopg.OperationalError):
                    return self._run(self._connection, statement, parameters)
                self._connection.close()
                self._connection = None
            self._connection = self._address.connect("vault")
            return self._run(self._connection, statement, parameters)

    def _run(
        self, connection: Session, statement: LiteralString, parameters: tuple[object, ...]
    ) -> list[tuple[Any, ...]]:
        cursor = connection.execute(sql.SQL(statement).format(self._table), parameters)
        return cursor.fetchall() if cursor.description is not None else []


@contextmanager
def _translated(address: Address) -> Generator[None]:
    schema = vault_schema(address)
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise HaltError(
            f"this role may not do what it must in schema {schema} ({_said(error)}); apply infra/roles.sql, let the"
            f" migrator's role migrate, and make this role a member of {_ROLE}"
        ) from error
    except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
        raise HaltError(
            f"there is no place for sources' grants: schema {schema} is missing ({_said(error)}); let the migrator's"
            " role run `headrace migrate`"
        ) from error
    except psycopg.Error as error:
        raise UnavailableError(
            f"what is kept of the sources in schema {schema} cannot be used now ({_said(error)}); mend that, and it"
            " goes on"
        ) from error


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
