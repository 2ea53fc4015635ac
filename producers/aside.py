"""What a source sets aside until a provider has shown everything, where that may be more than memory should hold.

It lies in a temporary database of SQLite's (https://sqlite.org/inmemorydb.html#temp_db): in memory as long as it is
small, else in a file without a name, which is gone with the connection or the process. Names stand in it as digests and
items are sealed, both under keys that nothing but this object ever had, so nobody can read the file.
"""

import hashlib
import json
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Self

import apsw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headrace.errors import UnavailableError

_DIGEST_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_SCHEMA: Final = """
CREATE TABLE seen (name BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE items (
    at    INTEGER PRIMARY KEY,
    item  BLOB    NOT NULL UNIQUE,
    owner BLOB    NOT NULL,
    rank  INTEGER NOT NULL,
    value BLOB    NOT NULL             -- the nonce, and what it seals
) STRICT;
CREATE INDEX items_owner ON items (owner, at);
"""
_PRAGMAS: Final = {"cache_size": -8_192, "journal_mode": "OFF", "synchronous": "OFF"}
"""8 MiB in memory at the most, and nothing done for the day after a crash."""

Item = Mapping[str, Any]


class Aside:
    """Names that have been seen, and items that belong to somebody: as many as there is room for on the disk.

    Close it when done. Not for several threads at once. Whatever it does raises UnavailableError where the disk fails.
    """

    def __init__(self) -> None:
        self._key: Final = secrets.token_bytes(32)
        self._cipher: Final = AESGCM(secrets.token_bytes(32))
        self._nonces: Final = count()
        self._db: Final = apsw.Connection("")
        with _translated():
            for name, value in _PRAGMAS.items():
                self._db.pragma(name, value)
            self._db.execute(_SCHEMA)
            self._db.execute("BEGIN")  # and never an end to it: nothing of this is to be kept

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def see(self, names: Iterable[str]) -> None:
        """These have been seen."""
        with _translated():
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ((self._digest(one),) for one in names))

    def has_seen(self, name: str) -> bool:
        """Whether this has been seen."""
        return self._any("SELECT 1 FROM seen WHERE name = ?", name)

    def put(self, owner: str, item: str, value: Item, rank: int = 0) -> None:
        """Keep ``value``, which goes through JSON, as the item of this name in place of what it was, whoever's; it is
        ``owner``'s. Of two owners the one comes first whose smallest ``rank`` is the smaller."""
        nonce = next(self._nonces).to_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, json.dumps(value, separators=(",", ":")).encode(), None)
        sql = """INSERT INTO items (item, owner, rank, value) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
                 owner = excluded.owner, rank = excluded.rank, value = excluded.value"""
        with _translated():
            self._db.execute(sql, (self._digest(item), self._digest(owner), rank, sealed))

    def drop(self, item: str) -> None:
        """Keep the item of this name no more."""
        with _translated():
            self._db.execute("DELETE FROM items WHERE item = ?", (self._digest(item),))

    def drop_all(self, owners: Iterable[str]) -> None:
        """Keep no items of these owners."""
        with _translated():
            self._db.executemany("DELETE FROM items WHERE owner = ?", ((self._digest(one),) for one in owners))

    def owns(self, owner: str) -> bool:
        """Whether there is an item of this owner."""
        return self._any("SELECT 1 FROM items WHERE owner = ? LIMIT 1", owner)

    def of(self, owner: str) -> list[Item]:
        """The items of one owner, in the order in which their names were first put."""
        with _translated():
            return self._items(self._digest(owner))

    def owners(self) -> Iterator[list[Item]]:
        """The items of each owner, one after another: by rank, then in the order in which each first had one. Nothing
        may be put or dropped meanwhile."""
        with _translated():
            sql = "SELECT owner FROM items GROUP BY owner ORDER BY min(rank), min(at)"
            for (owner,) in self._db.execute(sql):
                yield self._items(owner)

    def _items(self, owner: bytes) -> list[Item]:
        rows = self._db.execute("SELECT value FROM items WHERE owner = ? ORDER BY at", (owner,))
        return [json.loads(self._cipher.decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], None)) for (value,) in rows]

    def _any(self, sql: str, name: str) -> bool:
        with _translated():
            return self._db.execute(sql, (self._digest(name),)).fetchone() is not None

    def _digest(self, name: str) -> bytes:
        said = name.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(said, digest_size=_DIGEST_BYTES, key=self._key).digest()


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
        raise UnavailableError(
            f"what is compared does not find room in a temporary file ({type(error).__name__}): see that there is some"
            " on the disk, and that TMPDIR names a directory that can be written to"
        ) from error
