"""Sources as people and programs read them."""

import json
import time
from typing import Any, Final

from headrace.cli import output
from headrace.cli.reading import rows, selected
from headrace.errors import HeadraceError
from headrace.processors.core.freshness import NOTHING
from headrace.producers.intake import Intake
from headrace.projections import freshness
from headrace.projections.port import Tables
from headrace.projections.rows import source_row
from headrace.store import Store

COLUMNS: Final = ("SOURCE", "ACCOUNT", "FEEDS", "COMPLETE UP TO", "LAG", "LAST SYNC", "STATE")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def listed(tables: Tables, intake: Intake, tenant: str | None, account: str | None) -> list[dict[str, Any]]:
    """Every source, by account and name."""
    where, asked = selected(tenant, account)
    sql = f"SELECT * FROM sources {where} ORDER BY tenant, account, source"  # noqa: S608 - names only
    found = rows(tables, sql, **asked)
    places = [intake.partition(row["tenant"], row["account"]) for row in found]
    with tables.snapshot() as reader:
        bounds = {partition: freshness.max_staleness(reader, partition) for partition in set(places)}
    now = time.time_ns() // 1_000_000
    return [_shown(row, partition, now, bounds[partition]) for row, partition in zip(found, places, strict=True)]


def never_begun(
    store: Store, tenant: str | None, account: str | None, found: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The sources that are connected and of which nothing is on the log yet, so that they are not among ``found``.
    None where this role may not see what is connected."""
    try:
        connected = store.connections.all()
    except HeadraceError:
        return []
    there = {(one["tenant"], one["account"], one["source"]) for one in found}
    nothing = dict.fromkeys(("complete_up_to", "sync", "started", "started_time", "synced", "hint", "lag_seconds"))
    return [
        {**nothing, "source": one.source, "tenant": one.tenant, "account": one.account, "feeds": [], "stale": True}
        | {"state": "never synced"}
        for one in sorted(connected, key=lambda one: one[:3])
        if tenant in {None, one.tenant} and account in {None, one.account} and one[:3] not in there
    ]


def _shown(row: dict[str, Any], partition: int, now: int, bound: int | None) -> dict[str, Any]:
    def position(offset: int) -> str | None:
        return f"{partition}:{offset}" if offset >= 0 else None

    syncing = row["sync_offset"] > row["synced_offset"]
    hinted = row["hint_offset"] > row["sync_offset"]
    source = source_row(row)
    gone, fresh = NOTHING in source.feeds, source.fresh_offset >= 0
    lag = round(max(0, now - source.fresh_time) / 1_000, 1) if fresh and not gone else None
    return {
        "source": row["source"],
        "tenant": row["tenant"],
        "account": row["account"],
        "feeds": json.loads(row["feeds"]),
        "complete_up_to": output.time(row["fresh_time"]) if row["fresh_offset"] >= 0 else None,
        "sync": row["sync"],
        "started": position(row["sync_offset"]),
        "started_time": output.time(row["sync_time"]) if row["sync_offset"] >= 0 else None,
        "synced": position(row["synced_offset"]),
        "hint": position(row["hint_offset"]),
        "lag_seconds": lag,
        "stale": freshness.is_stale(source, now, bound),
        "state": "removed" if gone else "syncing" if syncing else "hint waits" if hinted else "idle",
    }


def print_list(found: list[dict[str, Any]]) -> None:
    """Sources as a table."""
    if not found:
        output.note("headrace: no sources are connected, and none has synced; `headrace source add` connects one")
        return
    output.table(
        COLUMNS,
        (
            (
                one["source"],
                f"{one['tenant']}/{one['account']}",
                ", ".join(one["feeds"]) or ("all" if one["started"] or one["hint"] else "-"),
                one["complete_up_to"] or "never",
                _short(one["lag_seconds"]),
                one["started_time"],
                one["state"] + (", stale" if one["stale"] else ""),
            )
            for one in found
        ),
    )
    if any(one["stale"] for one in found):
        output.note(
            "headrace: what reads or changes what a stale source feeds is held until it was synced; `headrace source"
            " doctor` tells what keeps it from that"
        )


def _short(seconds: float | None) -> str | None:
    """A duration in its largest unit: ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    if seconds is None:
        return None
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
