"""Sources as people and programs read them."""

import json
from typing import Any, Final

from headrace.cli import output
from headrace.cli.reading import rows, selected
from headrace.producers.intake import Intake
from headrace.projections.port import Tables

COLUMNS: Final = ("SOURCE", "ACCOUNT", "FEEDS", "COMPLETE UP TO", "LAST SYNC", "STATE")


def listed(tables: Tables, intake: Intake, tenant: str | None, account: str | None) -> list[dict[str, Any]]:
    """Every source, by account and name."""
    where, asked = selected(tenant, account)
    sql = f"SELECT * FROM sources {where} ORDER BY tenant, account, source"  # noqa: S608 - names only
    return [_shown(row, intake.partition(row["tenant"], row["account"])) for row in rows(tables, sql, **asked)]


def _shown(row: dict[str, Any], partition: int) -> dict[str, Any]:
    def position(offset: int) -> str | None:
        return f"{partition}:{offset}" if offset >= 0 else None

    syncing = row["sync_offset"] > row["synced_offset"]
    hinted = row["hint_offset"] > row["sync_offset"]
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
        "state": "syncing" if syncing else "hint waits" if hinted else "idle",
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
                one["started_time"],
                one["state"],
            )
            for one in found
        ),
    )
