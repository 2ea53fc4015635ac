"""One SQLite connection to the tables' file, and what SQLite's errors mean for whoever asked."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import apsw

from headrace.errors import HaltError, HeadraceError, UnavailableError

_BUSY_MS: Final = 5_000
"""How long to wait for somebody else's lock on the file: a backup or a shell."""
_BUGS: Final = (apsw.ConstraintError, apsw.SQLError, apsw.MismatchError, apsw.RangeError, apsw.TooBigError)
_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, UnicodeDecodeError)


class Connection:
    """Also the :class:`headrace.projections.port.Reader` of a snapshot on it."""

    def __init__(self, path: str, *, writable: bool) -> None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if writable else apsw.SQLITE_OPEN_READONLY
        self.path: Final = path
        self.sqlite: Final = apsw.Connection(path, flags | apsw.SQLITE_OPEN_URI)
        self.sqlite.set_busy_timeout(_BUSY_MS)

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """See :class:`headrace.projections.port.Reader`."""
        with translated(self.path, "read"):
            cursor = self.sqlite.execute(sql, parameters)
            names: list[str] | None = None
            found: list[dict[str, Any]] = []
            for row in cursor:
                if names is None:
                    names = [column[0] for column in cursor.get_description()]
                found.append(dict(zip(names, row, strict=True)))
            return found

    def values(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """See :class:`headrace.projections.port.Reader`."""
        with translated(self.path, "read"):
            seen = 0
            try:
                for row in self.sqlite.execute(sql, parameters):
                    yield row
                    seen += 1
            except UnicodeDecodeError:
                columns = [column[0] for column in self.sqlite.execute(sql, parameters).get_description()]
                damaged = self.sqlite.execute(_with_text_as_bytes(sql, columns), parameters)
                for row in islice(damaged, seen, None):
                    pairs = zip(row[::2], row[1::2], strict=True)
                    yield tuple(_text(value) if kind == "text" else value for value, kind in pairs)

    def rollback(self) -> None:
        """End the transaction at hand, if SQLite has not ended it already."""
        if self.sqlite.in_transaction:
            self.sqlite.execute("ROLLBACK")


@contextmanager
def translated(path: str, doing: str) -> Generator[None]:
    """SQLite's errors as headrace's: ``doing`` is what was tried, such as ``read``.

    :raises HaltError: trying again cannot help: the file is damaged, or a statement and the tables do not fit.
    :raises UnavailableError: trying again may help: locked, full, not readable now.
    """
    try:
        yield
    except (apsw.Error, UnicodeDecodeError) as error:
        raise _meaning(error, path, doing) from error


def _meaning(error: Exception, path: str, doing: str) -> HeadraceError:
    if isinstance(error, _DAMAGE):
        return HaltError(
            f"the tables in {path} are damaged ({error}); stop headrace, delete that file, and the next start folds the"
            " log again"
        )
    if isinstance(error, _BUGS):
        return HaltError(f"the tables in {path} refuse what was folded ({error}): a bug in headrace or in a kind")
    if isinstance(error, apsw.FullError):
        return UnavailableError(f"the disk of {path} is full; nothing was written, free some space and it goes on")
    return UnavailableError(f"the tables in {path} cannot be {doing} now ({error}); mend that, and it goes on")


def _with_text_as_bytes(sql: str, columns: Sequence[str]) -> str:
    """The query with its texts as bytes, each column followed by its type: for rows that are not valid UTF-8."""
    pairs = (
        f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END, typeof({name})" for name in columns
    )
    return f"SELECT {', '.join(pairs)} FROM ({sql})"  # noqa: S608 - a query of ours around a query of ours


def _text(value: Any) -> str:
    text: str = value.decode(errors="backslashreplace")
    return text
