"""``verify=live``: before a proposal is appended its sources are synced, by whichever process does that, and so it is
judged against what they show now.

Nothing is appended unless every source was synced: a sync counts that *started* after the request came. A retry with
the same id is safe in any case; once the proposal is on the log it checks nothing any more.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

from anyio import sleep

from headrace.api.context import Context, account_horizon
from headrace.api.problems import RETRY_SECONDS, ProblemError
from headrace.processors.core.freshness import bearing
from headrace.processors.core.model import AccountKey, Read, SourceRow
from headrace.producers.schedule import SourceKey
from headrace.projections import freshness, queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.models import NewProposal

LIVE_WAIT: Final = 10.0
"""Seconds that a request with ``verify=live`` waits if it does not say how long."""
_PACE_SECONDS: Final = 0.03
"""How often the tables are asked at the most, however much is appended to the account's partition."""


async def check(here: Context, account: AccountKey, proposal_id: str, new: NewProposal, until: float) -> None:
    """Return once every source that bears on the proposal was synced, ``until`` (monotonic seconds) at the latest; at
    once where the proposal was submitted before.

    :raises ProblemError: 422 no source bears on it, so nothing can be checked; 503 one was not synced in time. Nothing
        was appended but hints.
    """
    partition = here.store.intake.partition(*account)

    def first(reader: Reader) -> tuple[SourceRow, ...] | None:
        known = queries.proposal(reader, account, proposal_id)
        if known is not None and known.verdict != "malformed":
            return None
        kinds = {name: here.store.kinds[name] for name in freshness.kinds_in_force(reader, partition)}
        return bearing(new.entity.kind, _reads(new), lambda: kinds, queries.sources(reader, account))

    found = await here.read(first)
    if found is None:
        return
    if not found:
        raise ProblemError(
            422,
            "nothing-to-check",
            f"no source that is synced feeds what this reads and changes of {account[1]}, so there is nothing to check"
            " it against; connect one with `headrace source add`, or leave verify out",
        )
    described = await here.describe()
    mark = described.ends[partition]
    for row in found:
        await here.hints.put(SourceKey(*account, row.source), None, None)
    await _synced(here, account, {row.source for row in found}, mark, until)


async def _synced(here: Context, account: AccountKey, names: set[str], mark: int, until: float) -> None:
    """Wait for syncs that started at ``mark`` or later."""

    def query(reader: Reader) -> tuple[Horizon, list[SourceRow]]:
        rows = queries.sources(reader, account)
        horizon = account_horizon(here, reader, *account)
        return horizon, [row for row in rows if row.source in names and row.fresh_offset < mark]

    while True:
        horizon, missing = await here.read(query)
        if not missing:
            return
        left = until - time.monotonic()
        if left <= 0:
            raise _late(missing)
        await here.store.applied.wait_async(horizon.partition, horizon.next_offset, left)
        await sleep(min(_PACE_SECONDS, left))


def _late(missing: Sequence[SourceRow]) -> ProblemError:
    names = ", ".join(row.source for row in missing)
    members: dict[str, Any] = {
        "sources": [
            {"source": row.source, "fresh_at": row.fresh_time if row.fresh_offset >= 0 else None} for row in missing
        ]
    }
    return ProblemError(
        503,
        "not-checked",
        f"nothing was appended: {names} has not been synced since you asked. Send the same again, with a longer"
        " Prefer: wait= (30 s at the most); `headrace source doctor` tells what keeps a source from being synced",
        headers={"Retry-After": str(RETRY_SECONDS)},
        members=members,
    )


def _reads(new: NewProposal) -> list[Read]:
    return [Read(one.what, one.kind, one.id, one.start, one.end, one.account, None) for one in new.reads]
