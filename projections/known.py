"""What producers ask of the tables: where a source left off, and which entities are already known."""

from collections.abc import Mapping, Set
from typing import Any, Final, NamedTuple

import orjson

from headrace.errors import BadInputError
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import SourceRow
from headrace.projections.long_text import among
from headrace.projections.port import Reader
from headrace.projections.rows import source_row

AT_ONCE: Final = 200
"""Entities read together, and values asked for together."""


class KnownRow(NamedTuple):
    """An entity's id, its deciding state as JSON (``None`` before the first fact), and its head."""

    id: str
    text: str | None
    head_offset: int
    head_check: bytes

    @property
    def state(self) -> dict[str, Any]:
        """The deciding state, empty before the first fact."""
        state: dict[str, Any] = orjson.loads(self.text) if self.text is not None else {}
        return state


def source(reader: Reader, tenant: str, account: str, name: str) -> SourceRow | None:
    """A source as the log leaves it, ``None`` before its first record."""
    sql = "SELECT * FROM sources WHERE tenant = :tenant AND account = :account AND source = :source"
    found = reader.rows(sql, {"tenant": tenant, "account": account, "source": name})
    return source_row(found[0]) if found else None


def complete(reader: Reader) -> dict[tuple[str, str, str], int]:
    """Up to when the sources that have ever been synced are complete (epoch milliseconds of log time), by tenant,
    account and name."""
    rows = reader.rows("SELECT tenant, account, source, fresh_time FROM sources WHERE fresh_offset >= 0", {})
    return {(row["tenant"], row["account"], row["source"]): row["fresh_time"] for row in rows}


def hinted(reader: Reader) -> list[tuple[str, str, str]]:
    """Tenant, account and name of the sources with a hint on the log and no start of a sync after it."""
    rows = reader.rows("SELECT tenant, account, source FROM sources WHERE hint_offset > sync_offset", {})
    return [(row["tenant"], row["account"], row["source"]) for row in rows]


def entities_where(
    reader: Reader, kind: Kind, tenant: str, account: str, columns: Mapping[str, str | Set[str]], *, after: str = ""
) -> list[KnownRow]:
    """The next entities of a kind in an account whose id is greater than ``after`` and whose typed columns (or ``id``)
    have these values, or one of a set (up to :data:`AT_ONCE`, and not empty): by id, :data:`AT_ONCE` at the most. What
    is asked for by a set is looked up in the column's index; else the account's entities are gone through.

    :raises BadInputError: the kind has no such column.
    """
    own = {column.name for column in kind.columns}
    unknown = sorted(set(columns) - own - {"id"})
    if unknown:
        raise BadInputError(f"{kind.name} has no column {', '.join(unknown)}; it has {', '.join(sorted(own))}")
    conditions, parameters = "", {"tenant": tenant, "account": account, "after": after}
    for name, wanted in columns.items():
        if isinstance(wanted, str):
            conditions += f" AND {name} = :{name}"
            parameters[name] = wanted
            continue
        # The last one repeated: a statement that is the same for few values and for many is prepared once.
        values = sorted(wanted)
        named = {f"{name}_{at}": values[min(at, len(values) - 1)] for at in range(max(AT_ONCE, len(values)))}
        parameters |= named
        asked = [f":{one}" for one in named]
        if name == "id":
            conditions += f" AND id IN ({', '.join(asked)})"
            continue
        # SQLite takes an account to have some ten entities, and would go through all of them: so it is told to use the
        # column's index, which holds ids as well.
        here = "tenant = :tenant AND account = :account"
        conditions += f" AND id IN (SELECT id FROM {kind.table} WHERE {here} AND {among(name, asked)})"  # noqa: S608
    sql = (
        f"SELECT id, state, head_offset, head_check FROM {kind.table}"  # noqa: S608 - names of the kind's own columns
        f" WHERE tenant = :tenant AND account = :account{conditions} AND id > :after ORDER BY id LIMIT {AT_ONCE}"
    )
    rows = reader.rows(sql, parameters)
    return [KnownRow(row["id"], row["state"], row["head_offset"], row["head_check"]) for row in rows]
