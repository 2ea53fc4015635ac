"""Damage planted into a good run's log and tables: each is what some fault, or some bug, would leave behind."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headrace.log.port import Stored
from headrace.processors.replay import replay
from headrace.projections.sqlite import SqliteTables
from tests.chaos.evidence import Evidence, Recorded, Row, contents
from tests.chaos.history import EVENT
from tests.chaos.lies import NothingToPlantIn, answered, the
from tests.chaos.writes import placed

# -- the log ----------------------------------------------------------------------------------------------


def folded_anew(good: Evidence, log: Sequence[Sequence[Stored]]) -> Evidence:
    """Another log, and the tables that it truly leads to."""
    changed = replace(good, log=log)
    with SqliteTables.in_memory(good.registry, good.kinds) as tables:
        replay(Recorded(changed), good.registry, good.kinds, tables)
        return replace(changed, tables=contents(tables, good.kinds))


def lost_after_acknowledgement(good: Evidence) -> Evidence:
    log = list(good.log)
    position = max(filter(None, map(placed, answered(good, EVENT))), key=lambda one: one.offset)
    log[position.partition] = log[position.partition][: position.offset]
    return folded_anew(good, log)


def landed_twice(good: Evidence) -> Evidence:
    log, one = [list(run) for run in good.log], the(answered(good, EVENT))
    run = log[one.told["partition"]]
    run.append(run[one.told["offset"]]._replace(offset=len(run)))
    return folded_anew(good, log)


def byte_flipped(good: Evidence) -> Evidence:
    log = [list(run) for run in good.log]
    run, offset = log[0], len(log[0]) // 2
    headers = tuple((name, b"1" if name == "ce_correlation" else value) for name, value in run[offset].headers)
    run[offset] = run[offset]._replace(headers=(*headers, ("ce_correlation", b"flipped")))
    return replace(good, log=log)


# -- the tables -------------------------------------------------------------------------------------------


def rewritten(good: Evidence, table: str, old: Row, **changes: Any) -> Evidence:
    """The same, but for one row."""
    rows = [{**row, **changes} if row is old else row for row in good.tables[table]]
    return replace(good, tables={**good.tables, table: rows})


def without(good: Evidence, table: str, old: Row) -> Evidence:
    """The same, but that a row is not there."""
    rows = [row for row in good.tables[table] if row is not old]
    return replace(good, tables={**good.tables, table: rows})


def judged(good: Evidence, verdict: str) -> Row:
    """A verdict that a proposal got at its own offset."""
    own = {(row["partition"], row["offset"]) for row in good.tables["proposals"]}
    rows = [row for row in good.tables["verdicts"] if row["verdict"] == verdict]
    row: Row = the([row for row in rows if (row["partition"], row["offset"]) in own])
    return row


def overruled(good: Evidence, row: Row, verdict: str, finding: Mapping[str, Any]) -> Evidence:
    text = {**json.loads(row["text"]), "verdict": verdict, "finding": finding}
    return rewritten(good, "verdicts", row, verdict=verdict, text=json.dumps(text, sort_keys=True))


def effect_doubled(good: Evidence) -> Evidence:
    row = the([row for row in good.tables["events"] if row["disposition"] == "duplicate" and "mail" in row["type"]])
    return rewritten(good, "events", row, disposition="applied", effect=row["type"])


def effect_lost(good: Evidence) -> Evidence:
    sent = [one.key for one in good.history]
    alone = {one.key for one in answered(good, EVENT) if sent.count(one.key) == 1}
    rows = [row for row in good.tables["events"] if (row["tenant"], row["account"], row["event_id"]) in alone]
    return rewritten(good, "events", the(rows), disposition="duplicate", effect=None)


def verdict_missing(good: Evidence) -> Evidence:
    return without(good, "verdicts", judged(good, "accepted"))


def verdict_twice(good: Evidence) -> Evidence:
    rows = [*good.tables["verdicts"], judged(good, "accepted")]
    return replace(good, tables={**good.tables, "verdicts": rows})


def accepted_though_superseded(good: Evidence) -> Evidence:
    return overruled(good, judged(good, "superseded"), "accepted", {})


def refused_for_nothing(good: Evidence) -> Evidence:
    finding = json.loads(judged(good, "superseded")["text"])["finding"]
    return overruled(good, judged(good, "accepted"), "superseded", finding)


def superseded_by_another(good: Evidence) -> Evidence:
    row = judged(good, "superseded")
    event = json.loads(row["text"])["finding"]["event"]
    return overruled(good, row, "superseded", {"event": {**event, "offset": event["offset"] + 1}})


def verdict_changed_by_nothing(good: Evidence) -> Evidence:
    row = the([row for row in good.tables["verdicts"] if row["verdict"] == "duplicate"])
    return rewritten(good, "verdicts", row, verdict="rejected")


def verdict_text_touched(good: Evidence) -> Evidence:
    row = judged(good, "accepted")
    return rewritten(good, "verdicts", row, text=row["text"].replace(":", ": "))


def two_accepted(good: Evidence) -> Evidence:
    accepted = {row["id"]: row for row in good.tables["proposals"] if row["accepted_at"] >= 0}
    for other in good.tables["proposals"]:
        for row in accepted.values():
            subject = ("tenant", "account", "kind", "entity", "reads")
            if other["accepted_at"] < 0 and all(other[name] == row[name] for name in subject):
                return rewritten(good, "proposals", other, accepted_at=row["accepted_at"] + 1, verdict="accepted")
    raise NothingToPlantIn


def row_of_another_tenant(good: Evidence) -> Evidence:
    row = the([row for row in good.tables["threads"] if row["tenant"] == "acme" and row["account"] != "front-desk"])
    return rewritten(good, "threads", row, tenant="globex")


def event_of_another_account(good: Evidence) -> Evidence:
    row = the([row for row in good.tables["events"] if row["account"] == "a0"])
    return rewritten(good, "events", row, account="a1")


def state_touched(good: Evidence) -> Evidence:
    row = the(good.tables["threads"])
    return rewritten(good, "threads", row, messages=row["messages"] + 1)


def entity_lost(good: Evidence) -> Evidence:
    return without(good, "calendar_events", the(good.tables["calendar_events"]))


def chain_touched(good: Evidence) -> Evidence:
    row = the(good.tables["events"])
    return rewritten(good, "events", row, chain=bytes(32))


def behind(good: Evidence) -> Evidence:
    row = the(good.tables["partitions"])
    return rewritten(good, "partitions", row, next_offset=row["next_offset"] - 1)


def record_without_row(good: Evidence) -> Evidence:
    return without(good, "events", the(good.tables["events"]))
