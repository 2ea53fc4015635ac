"""Entities as people and programs read them, from a store's tables or from replayed ones."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from headrace.cli import output
from headrace.cli.options import Place, Subject
from headrace.cli.reading import checked, log_id, one_account, rows, selected
from headrace.cli.records import RecordView
from headrace.errors import NotFoundError
from headrace.processors.core.kind import Kind
from headrace.processors.replay import replay
from headrace.projections.port import Tables
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import Token
from headrace.store import Store

COLUMNS: Final = ("ENTITY", "ACCOUNT", "HEAD", "CHANGED", "INTENTS", "STATE")

_LONG: Final = 60
"""Longer values are for ``entity show``."""


class EntityView:
    """Reads entities out of ``tables``; ``content`` shows personal content in clear too."""

    def __init__(self, store: Store, tables: Tables, *, content: bool) -> None:
        self._kinds: Final = store.kinds
        self._tables: Final = tables
        self._log_id: Final = log_id(store)
        self._records: Final = RecordView(store.registry, content=content)
        self._content: Final = content

    def list(
        self, kind: str | None, tenant: str | None, account: str | None, limit: int | None
    ) -> list[dict[str, Any]]:
        """Entities, those that changed last first; at most ``limit``."""
        kinds = [self._kind(kind)] if kind is not None else [self._kinds[name] for name in sorted(self._kinds)]
        where, asked = selected(tenant, account)
        found: list[dict[str, Any]] = []
        for one in kinds:
            sql = f"SELECT * FROM {one.table} {where} ORDER BY head_time DESC, id LIMIT :limit"  # noqa: S608 - a kind's
            found += [self._shown(one, row) for row in rows(self._tables, sql, **asked, limit=limit or -1)]
        found.sort(key=lambda entity: (entity["head"]["time"], entity["entity"]), reverse=True)
        return found[:limit]

    def one(self, subject: Subject, tenant: str | None, account: str | None) -> dict[str, Any]:
        """The entity.

        :raises NotFoundError: no account has it.
        :raises BadInputError: several accounts have it.
        """
        kind = self._kind(subject.kind)
        where, asked = selected(tenant, account, id=subject.id)
        sql = f"SELECT * FROM {kind.table} {where}"  # noqa: S608 - a kind's
        return self._shown(kind, one_account(rows(self._tables, sql, **asked), str(subject)))

    def _kind(self, name: str) -> Kind:
        found = self._kinds.get(name)
        if found is None:
            raise NotFoundError(f"there is no entity kind {name!r}; installed: {', '.join(sorted(self._kinds))}")
        return found

    def _shown(self, kind: Kind, row: Mapping[str, Any]) -> dict[str, Any]:
        token = Token(self._log_id, row["partition"], row["head_offset"], row["head_check"])
        state: dict[str, Any] | None = json.loads(row["state"]) if row["state"] is not None else None
        return {
            "entity": f"{kind.name}/{row['id']}",
            "tenant": row["tenant"],
            "account": row["account"],
            "kind": kind.name,
            "id": row["id"],
            "head": {"position": f"{row['partition']}:{row['head_offset']}", "time": output.time(row["head_time"])},
            "basis": token.encode(),
            "state": state,
            "intents": [one for one in json.loads(row["intents"]) if not one.get("ended")],
            "content": self._records.content(row["content"], row["content_key"]),
            "summary": _summary(kind, row, content=self._content),
        }


@contextmanager
def folded_to(store: Store, place: Place | None) -> Generator[Tables, None, None]:
    """The store's tables; or, with a place, tables in memory that hold its partition as it was right after it."""
    if place is None:
        yield store.tables
        return
    position = checked(store, place)
    with SqliteTables.in_memory(store.registry, store.kinds) as tables:
        replay(store.log, store.registry, store.kinds, tables, until={position.partition: position.offset + 1})
        yield tables


def print_list(found: list[dict[str, Any]]) -> None:
    """Entities as a table."""
    if not found:
        output.note("headrace: no such entities")
        return
    output.table(
        COLUMNS,
        (
            (
                one["entity"],
                f"{one['tenant']}/{one['account']}",
                one["head"]["position"],
                one["head"]["time"],
                len(one["intents"]) or None,
                one["summary"],
            )
            for one in found
        ),
    )


def print_one(entity: Mapping[str, Any]) -> None:
    """One entity as a screen."""
    output.fields(
        {
            "entity": entity["entity"],
            "account": f"{entity['tenant']}/{entity['account']}",
            "head": f"{entity['head']['position']} at {entity['head']['time']}",
            "basis": entity["basis"],
        }
    )
    output.text("state")
    output.block(entity["state"])
    if entity["content"] is not None:
        output.text("content")
        output.block(entity["content"])
    if entity["intents"]:
        output.text("intents (accepted, not yet known to have happened)")
        output.block(entity["intents"])


def _summary(kind: Kind, row: Mapping[str, Any], *, content: bool) -> str:
    """What of its typed columns says something: flags by name, the rest as name=value."""
    words: list[str] = []
    for column in kind.columns:
        value = row[column.name]
        hidden = column.content and not content
        if hidden or value in (None, "", 0, "[]") or str(value).startswith("p-") or len(str(value)) > _LONG:
            continue
        if column.type == "boolean":
            words.append(column.name)
        elif column.type == "time":
            words.append(f"{column.name}={output.time(value)}")
        elif column.type == "json":
            if not any(isinstance(item, dict) for item in json.loads(value)):
                words.append(f"{column.name}={','.join(map(str, json.loads(value)))}")
        else:
            words.append(f"{column.name}={value}")
    return " ".join(words)
