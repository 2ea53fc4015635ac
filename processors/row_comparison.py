"""Two runs of rows in the order of their keys, compared: what differs, what is missing, what is there too much."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from headrace.processors.findings import Finding, Findings, named

Values = tuple[Any, ...]


class RowComparison:
    """Compares one table's live rows with those the log leads to. Rows are tuples in the order of ``columns``; both
    runs are in the order of ``key``, each key once."""

    def __init__(self, table: str, columns: Sequence[str], key: Sequence[str], findings: Findings) -> None:
        self._table: Final = table
        self._columns: Final = tuple(columns)
        self._key: Final = tuple(key)
        self._places: Final = tuple(self._columns.index(name) for name in key)
        # With one column more than needed the getter gives a tuple also for a key of one column.
        self._key_of: Final = itemgetter(*self._places, self._places[-1])
        self._findings: Final = findings

    def run(self, live: Iterator[Values], refolded: Iterator[Values]) -> int:
        """Compare to the end of both; how many rows were looked at."""
        count = 0
        mine, theirs = next(live, None), next(refolded, None)
        while mine is not None or theirs is not None:
            count += 1
            if mine == theirs:
                mine, theirs = next(live, None), next(refolded, None)
            elif mine is not None and (theirs is None or self._key_of(mine) < self._key_of(theirs)):
                self._row("unexpected", mine, "is in the tables, but the log does not lead to it")
                mine = next(live, None)
            elif theirs is not None and (mine is None or self._key_of(theirs) < self._key_of(mine)):
                self._row("missing", theirs, "follows from the log, but is not in the tables")
                theirs = next(refolded, None)
            elif mine is not None and theirs is not None:
                self._differences(mine, theirs)
                mine, theirs = next(live, None), next(refolded, None)
        return count

    def _row(self, what: str, values: Values, why: str) -> None:
        key = {name: values[place] for name, place in zip(self._key, self._places, strict=True)}
        partition, offset = self._place(values)
        message = f"{self._table}: the row {named(key)} {why}"
        self._findings.add(Finding(what, message, partition, offset, self._table, key))

    def _differences(self, mine: Values, theirs: Values) -> None:
        key = {name: theirs[place] for name, place in zip(self._key, self._places, strict=True)}
        partition, offset = self._place(theirs)
        for column, live, refolded in zip(self._columns, mine, theirs, strict=True):
            if live != refolded:
                message = f"{self._table}: {column} of the row {named(key)} is not what the log leads to"
                self._findings.add(Finding("row", message, partition, offset, self._table, key, column, live, refolded))

    def _place(self, values: Values) -> tuple[int | None, int | None]:
        found = dict(zip(self._columns, values, strict=True))
        return found.get("partition"), found.get("offset")
