"""What producers ask of the tables: where a source left off, and which entities are already known."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.errors import BadInputError
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import SourceRow
from headrace.projections.port import Reader
from headrace.projections.rows import source_row


class KnownRow(NamedTuple):
    """An entity's id, its deciding state (empty before the first fact), and its head."""

    id: str
    state: Mapping[str, Any]
    head_offset: int
    head_check: bytes


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


def entities_where(reader: Reader, kind: Kind, tenant: str, account: str, columns: Mapping[str, str]) -> list[KnownRow]:
    """The entities of a kind in an account whose typed columns (or ``id``) have these values, by id.

    :raises BadInputError: the kind has no such column.
    """
    own = {column.name for column in kind.columns}
    unknown = sorted(set(columns) - own - {"id"})
    if unknown:
        raise BadInputError(f"{kind.name} has no column {', '.join(unknown)}; it has {', '.join(sorted(own))}")
    conditions = "".join(f" AND {name} = :{name}" for name in columns)
    sql = (
        f"SELECT id, state, head_offset, head_check FROM {kind.table}"  # noqa: S608 - names of the kind's own columns
        f" WHERE tenant = :tenant AND account = :account{conditions} ORDER BY id"
    )
    rows = reader.rows(sql, {"tenant": tenant, "account": account, **columns})
    return [
        KnownRow(
            row["id"],
            json.loads(row["state"]) if row["state"] is not None else {},
            row["head_offset"],
            row["head_check"],
        )
        for row in rows
    ]
