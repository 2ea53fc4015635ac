"""Questions about freshness: which proposals wait for a live check, and how far behind sources are."""

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from headrace.processors.core.freshness import NOTHING
from headrace.processors.core.model import AccountKey, ProposalRow, SourceRow
from headrace.projections.port import Reader
from headrace.projections.rows import proposal_row, source_row

_HELD: Final = "p.verdict IN ('needs_review', 'held') AND p.verdict = 'held'"
"""In the words of the index ``proposals_waiting``, so that it is the index that is asked."""


class HeldAccount(NamedTuple):
    """An account with held proposals: how many, the offset at which the last of them was held, and the earliest
    ``expires_at`` among them (epoch milliseconds)."""

    tenant: str
    account: str
    held: int
    last_judged_at: int
    expires_at: int | None


def held_accounts(reader: Reader) -> list[HeldAccount]:
    """The accounts with held proposals. Costs next to nothing when there are none."""
    sql = (
        "SELECT p.tenant, p.account, COUNT(*) AS held, MAX(p.judged_at) AS last, MIN(p.expires_at) AS expires"  # noqa: S608
        f" FROM proposals p WHERE {_HELD} GROUP BY p.tenant, p.account ORDER BY p.tenant, p.account"
    )
    return [
        HeldAccount(row["tenant"], row["account"], row["held"], row["last"], row["expires"])
        for row in reader.rows(sql, {})
    ]


def sources_of_held(reader: Reader) -> dict[AccountKey, list[SourceRow]]:
    """The sources of the accounts with held proposals, by name."""
    sql = (
        f"SELECT s.* FROM (SELECT DISTINCT p.tenant, p.account FROM proposals p WHERE {_HELD}) h"  # noqa: S608
        " JOIN sources s ON s.tenant = h.tenant AND s.account = h.account ORDER BY s.tenant, s.account, s.source"
    )
    found: dict[AccountKey, list[SourceRow]] = {}
    for row in reader.rows(sql, {}):
        found.setdefault((row["tenant"], row["account"]), []).append(source_row(row))
    return found


def held(reader: Reader, account: AccountKey) -> list[ProposalRow]:
    """An account's held proposals, in the order in which they were held."""
    sql = (
        f"SELECT p.* FROM proposals p WHERE {_HELD} AND p.tenant = :tenant AND p.account = :account"  # noqa: S608
        " ORDER BY p.judged_at"
    )
    return [proposal_row(row) for row in reader.rows(sql, {"tenant": account[0], "account": account[1]})]


def kinds_in_force(reader: Reader, partition: int) -> tuple[str, ...]:
    """The entity kinds that the log names, as far as this partition is folded."""
    for row in reader.rows("SELECT kinds FROM partitions WHERE partition = :partition", {"partition": partition}):
        return tuple(json.loads(row["kinds"]))
    return ()


def max_staleness(reader: Reader, partition: int) -> int | None:
    """How stale a source may be by the policy in force, in milliseconds; ``None``: as stale as it is."""
    for row in reader.rows("SELECT policy FROM partitions WHERE partition = :partition", {"partition": partition}):
        bound: int | None = json.loads(row["policy"])["source_max_staleness_ms"]
        return bound
    return None


def is_stale(row: SourceRow, now: int, bound: int | None) -> bool:
    """Whether a proposal that arrives ``now`` (epoch milliseconds) would be held for this source's sake."""
    if bound is None or NOTHING in row.feeds:
        return False
    return row.fresh_offset < 0 or now - row.fresh_time > bound


def watermark(sources: Iterable[SourceRow]) -> int | None:
    """Up to when all of an account's sources are complete; ``None`` where one never was, or there are none."""
    connected = [row for row in sources if NOTHING not in row.feeds]
    if not connected or any(row.fresh_offset < 0 for row in connected):
        return None
    return min(row.fresh_time for row in connected)


class ProviderFreshness(NamedTuple):
    """The sources of one provider: how many, how many of them were never synced, are beyond the policy's bound (those
    included), wait for a sync; and up to when the one that is furthest behind is complete (epoch milliseconds)."""

    provider: str
    sources: int
    never: int
    stale: int
    waiting: int
    complete_up_to: int | None


def by_provider(reader: Reader, providers: Sequence[str], now: int, bound: int | None) -> list[ProviderFreshness]:
    """How fresh sources are, by the provider that their names begin with; others are ``other``."""
    cases = " ".join(f"WHEN SUBSTR(source, 1, {len(one) + 1}) = '{one}/' THEN '{one}'" for one in providers)
    oldest = now - bound if bound is not None else -1
    sql = (
        f"SELECT CASE {cases} ELSE 'other' END AS provider, COUNT(*) AS sources,"  # noqa: S608 - our names
        " SUM(CASE WHEN fresh_offset < 0 THEN 1 ELSE 0 END) AS never,"
        " SUM(CASE WHEN fresh_offset >= 0 AND fresh_time < :oldest THEN 1 ELSE 0 END) AS late,"
        " SUM(CASE WHEN hint_offset > sync_offset THEN 1 ELSE 0 END) AS waiting,"
        " MIN(CASE WHEN fresh_offset >= 0 THEN fresh_time END) AS complete"
        f" FROM sources WHERE CAST(feeds AS TEXT) <> '[\"{NOTHING}\"]' GROUP BY 1 ORDER BY 1"
    )
    return [
        ProviderFreshness(
            row["provider"],
            row["sources"],
            row["never"],
            row["late"] + (row["never"] if bound is not None else 0),
            row["waiting"],
            row["complete"],
        )
        for row in reader.rows(sql, {"oldest": oldest})
    ]
