"""Proposals as people and programs read them, and verdicts in a sentence."""

import json
from collections.abc import Mapping
from typing import Any, Final

from headrace.cli import output
from headrace.cli.reading import one_account, rows, selected
from headrace.errors import NotFoundError
from headrace.projections.port import Tables
from headrace.store import Store

COLUMNS: Final = ("PROPOSAL", "ACCOUNT", "ENTITY", "TYPE", "AGENT", "AT", "VERDICT", "WHY")


def listed(
    tables: Tables, tenant: str | None, account: str | None, verdict: str | None, limit: int
) -> list[dict[str, Any]]:
    """Proposals, the newest judgements first; at most ``limit``."""
    where, asked = selected(tenant, account, verdict=verdict)
    sql = f"SELECT * FROM proposals {where} ORDER BY log_time DESC, judged_at DESC, id LIMIT :limit"  # noqa: S608 - names only
    return [shown(row) for row in rows(tables, sql, **asked, limit=limit)]


def one(store: Store, proposal: str, tenant: str | None, account: str | None) -> dict[str, Any]:
    """The proposal with every verdict it ever had.

    :raises NotFoundError: no account has it.
    :raises BadInputError: several accounts have it.
    """
    where, asked = selected(tenant, account, id=proposal)
    found = one_account(rows(store.tables, f"SELECT * FROM proposals {where}", **asked), f"proposal {proposal}")  # noqa: S608 - names only
    sql = "SELECT text FROM verdicts WHERE tenant = :tenant AND account = :account AND proposal = :id ORDER BY offset"
    history = rows(store.tables, sql, tenant=found["tenant"], account=found["account"], id=proposal)
    return shown(found) | {"verdicts": [json.loads(row["text"]) for row in history]}


def account_of(store: Store, proposal: str, tenant: str | None, account: str | None) -> tuple[str, str]:
    """Tenant and account of a proposal.

    :raises NotFoundError: no account has it; the message says so if the id is an event's.
    :raises BadInputError: several accounts have it.
    """
    where, asked = selected(tenant, account, id=proposal)
    found = rows(store.tables, f"SELECT tenant, account FROM proposals {where}", **asked)  # noqa: S608 - names only
    if not found:
        raise _no_proposal(store, proposal)
    row = one_account(found, f"proposal {proposal}")
    return row["tenant"], row["account"]


def _no_proposal(store: Store, record_id: str) -> NotFoundError:
    found = rows(store.tables, "SELECT partition, offset, type FROM events WHERE event_id = :id LIMIT 1", id=record_id)
    if not found or found[0]["type"] == "proposal.submitted":
        return NotFoundError(f"there is no proposal {record_id}; `headrace proposal ls` shows what there is")
    at = f"{found[0]['partition']}:{found[0]['offset']}"
    return NotFoundError(
        f"{record_id} is no proposal but a {found[0]['type']} at {at}; `headrace log show {at}` shows it"
    )


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``proposals`` as JSON values."""
    names = ("what", "kind", "id", "start", "end", "account", "basis")
    accepted = row["accepted_at"]
    return {
        "id": row["id"],
        "tenant": row["tenant"],
        "account": row["account"],
        "entity": f"{row['kind']}/{row['entity']}" if row["kind"] else None,
        "type": row["type"] or None,
        "actor": f"{row['actor_kind']}/{row['actor_id']}" if row["actor_id"] else None,
        "position": f"{row['partition']}:{row['offset']}",
        "verdict": row["verdict"],
        "finding": json.loads(row["finding"]),
        "why": why(row["verdict"], json.loads(row["finding"])),
        "judged_at": f"{row['partition']}:{row['judged_at']}",
        "log_time": output.time(row["log_time"]),
        "accepted_at": f"{row['partition']}:{accepted}" if accepted >= 0 else None,
        "outcome": row["outcome"],
        "expires_at": output.time(row["expires_at"]),
        "concerns": row["concerns"].split(",") if row["concerns"] else [],
        "reads": [dict(zip(names, read, strict=True)) for read in json.loads(row["reads"])],
        "data": json.loads(row["data"]),
    }


def why(verdict: str, finding: Mapping[str, Any]) -> str:
    """The finding in a few words."""
    if "event" in finding:
        verb = "overtaken by" if verdict == "superseded" else "a person must look at"
        return f"{verb} {_event(finding['event'])}"
    match verdict:
        case "claimed":
            return f"{finding['holder']} holds the entity until {output.time(finding['until'])}"
        case "rejected":
            by = f" by {finding['by']}" if "by" in finding else ""
            return f"{finding['rule']}{by}"
        case "held":
            return f"the source {finding['source']} is stale: a live check must confirm first"
        case "expired" if finding.get("reason") == "expires_at":
            return f"it expired at {output.time(finding['expires_at'])}"
        case "expired":
            return f"its basis was {finding['age_ms'] // 1000} s old, the policy allows {finding['bound_ms'] // 1000}"
        case "duplicate" | "conflicting_id":
            return f"the first one with this id is at offset {finding['first']}"
        case "accepted":
            return "nothing relevant came between"
        case _:
            return str(finding.get("reason", ""))


def event_words(event: Mapping[str, Any]) -> str:
    """What an effective event did."""
    before, accepted, proposal = event["effect"].partition("accepted:")
    return f"accepted {proposal} {event['id']}" if accepted and not before else str(event["type"])


def _event(event: Mapping[str, Any]) -> str:
    return f"{event_words(event)} of {event['actor']} at offset {event['offset']}, {output.time(event['time'])}"


def print_list(found: list[dict[str, Any]]) -> None:
    """Proposals as a table."""
    if not found:
        output.note("headrace: no such proposals")
        return
    output.table(
        COLUMNS,
        (
            (
                one_["id"],
                f"{one_['tenant']}/{one_['account']}",
                one_["entity"],
                one_["type"],
                one_["actor"],
                one_["position"],
                one_["verdict"],
                one_["why"],
            )
            for one_ in found
        ),
    )


def print_one(proposal: Mapping[str, Any]) -> None:
    """One proposal as a screen."""
    named = ("id", "entity", "type", "actor", "position", "expires_at", "verdict", "why", "judged_at", "outcome")
    output.fields({"account": f"{proposal['tenant']}/{proposal['account']}"} | {name: proposal[name] for name in named})
    output.text("what it had read")
    output.block(proposal["reads"])
    output.text("what it proposes")
    output.block(proposal["data"])
    if len(proposal["verdicts"]) > 1:
        output.text("verdicts, in log order")
        for verdict in proposal["verdicts"]:
            reason = why(verdict["verdict"], verdict["finding"])
            output.text(f"  offset {verdict['offset']}  {verdict['verdict']}  {output.plain(reason)}")
