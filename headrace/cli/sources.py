"""Sources as people and programs read them."""

import json
import time
from typing import Any, Final

from headrace.cli import output
from headrace.cli.reading import rows, selected
from headrace.processors.core.freshness import NOTHING
from headrace.producers.intake import Intake
from headrace.projections import freshness
from headrace.projections.port import Tables
from headrace.projections.rows import source_row

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
        output.note("headrace: no sources have synced into this store yet")
        return
    output.table(
        COLUMNS,
        (
            (
                one["source"],
                f"{one['tenant']}/{one['account']}",
                ", ".join(one["feeds"]) or "all",
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
