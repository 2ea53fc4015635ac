"""The vault of an embedded store: the file ``sources.db`` in its directory, and locks in ``sources.locks``."""

import fcntl
import hashlib
import os
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import apsw

from headrace.errors import UnavailableError

FILE: Final = "sources.db"
_LOCKS: Final = "sources.locks"
_BUSY_MS: Final = 5_000
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.05
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sealed (
    realm TEXT NOT NULL,
    name  TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (realm, name)
) STRICT, WITHOUT ROWID;
"""


class SqliteVault:
    """The :class:`headrace.producers.vault.Vault` in ``directory``, which is there.

    :raises UnavailableError: the file cannot be opened.
    """

    def __init__(self, directory: Path, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._file: Final = directory / FILE
        self._locks: Final = directory / _LOCKS
        self._patience_seconds: Final = patience_seconds
        try:
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise _unusable(self._file, error) from error
        with self._opened() as connection:
            connection.pragma("journal_mode", "WAL")
            connection.execute(_SCHEMA)

    def all(self, realm: str) -> list[tuple[str, bytes]]:
        """See :class:`headrace.producers.vault.Vault`."""
        with self._opened() as connection:
            return list(connection.execute("SELECT name, value FROM sealed WHERE realm = ? ORDER BY name", (realm,)))

    def read(self, realm: str, name: str) -> bytes | None:
        """See :class:`headrace.producers.vault.Vault`."""
        with self._opened() as connection:
            found = list(connection.execute("SELECT value FROM sealed WHERE realm = ? AND name = ?", (realm, name)))
        return found[0][0] if found else None

    def write(self, realm: str, name: str, value: bytes | None) -> None:
        """See :class:`headrace.producers.vault.Vault`."""
        with self._opened() as connection:
            connection.pragma("synchronous", "FULL")
            if value is None:
                connection.execute("DELETE FROM sealed WHERE realm = ? AND name = ?", (realm, name))
            else:
                connection.execute("INSERT OR REPLACE INTO sealed VALUES (?, ?, ?)", (realm, name, value))

    @contextmanager
    def alone(self, realm: str, name: str) -> Generator[None]:
        """See :class:`headrace.producers.vault.Vault`. By a lock on a file of its own, which ends with the process."""
        digest = hashlib.blake2b(f"{realm}\0{name}".encode(), digest_size=12).hexdigest()
        deadline = time.monotonic() + self._patience_seconds
        self._locks.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(self._locks / digest, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _locked(handle):
                if time.monotonic() >= deadline:
                    raise UnavailableError(
                        f"somebody else has been at the {realm} {name} for {self._patience_seconds:g} s; it is tried"
                        " again later"
                    )
                time.sleep(_PAUSE_SECONDS)  # nobody tells when another process lets go
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _opened(self) -> Generator[apsw.Connection]:
        try:
            with closing(apsw.Connection(str(self._file), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
                connection.set_busy_timeout(_BUSY_MS)
                yield connection
        except apsw.Error as error:
            raise _unusable(self._file, error) from error


def _unusable(file: Path, error: Exception) -> UnavailableError:
    return UnavailableError(f"{file} cannot be used ({error}); mend that, or put the file back from its backup")


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
