"""Accounts of a tenant, and how fresh their sources are."""

import time
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from headrace.api.context import AccountPath, Here, Limit, Reached, Reads, account_horizon, answer, place_headers
from headrace.api.guards import StrictRoute
from headrace.api.problems import documented
from headrace.api.responses import AccountModel, Accounts, SourceModel, Sources
from headrace.processors.core.model import SourceRow
from headrace.projections import freshness, queries
from headrace.projections.port import Reader
from headrace.projections.queries import AccountCount, Horizon
from headrace.schemas.models import OpaqueId

router: Final = APIRouter(prefix="/v1/accounts", tags=["accounts"], route_class=StrictRoute)


@router.get("", response_model=Accounts, responses=documented())
async def list_accounts(
    *,
    here: Here,
    principal: Reads,
    reached: Reached,
    limit: Limit = 100,
    cursor: Annotated[OpaqueId | None, Query(description="`next` of the page before")] = None,
) -> Response:
    """Your tenant's accounts, by name, and how much there is of each."""
    kinds = list(here.store.kinds.values())

    def query(reader: Reader) -> tuple[list[str], list[tuple[AccountCount, int | None]]]:
        names = list(queries.accounts(reader, principal.tenant, cursor or "", limit + 1))
        keys = [(principal.tenant, name) for name in names[:limit]]
        return names, [
            (queries.counted(reader, kinds, key), freshness.watermark(queries.sources(reader, key))) for key in keys
        ]

    names, found = await here.read(query, reached)
    shown = [AccountModel(**count._asdict(), complete_up_to=complete) for count, complete in found]
    return answer(Accounts(accounts=shown, next=names[limit - 1] if len(names) > limit else None))


@router.get("/{account}/sources", response_model=Sources, responses=documented())
async def list_sources(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    reached: Reached,
) -> Response:
    """The mailboxes and calendars that events come from, and how far behind they are. Cursors are not shown."""

    def query(reader: Reader) -> tuple[Horizon, list[SourceRow], int | None]:
        horizon = account_horizon(here, reader, principal.tenant, account)
        bound = freshness.max_staleness(reader, horizon.partition)
        return horizon, queries.sources(reader, (principal.tenant, account)), bound

    horizon, found, bound = await here.read(query, reached)
    now = time.time_ns() // 1_000_000
    page = Sources(
        position=horizon.token.encode(),
        log_time=horizon.log_time,
        complete_up_to=freshness.watermark(found),
        max_staleness_ms=bound,
        sources=[_source(row, horizon.log_time, now, bound) for row in found],
    )
    return answer(page, headers=place_headers(horizon))


def _source(row: SourceRow, log_time: int, now: int, bound: int | None) -> SourceModel:
    fresh = row.fresh_offset >= 0
    return SourceModel(
        source=row.source,
        feeds=list(row.feeds),
        fresh_at=row.fresh_time if fresh else None,
        staleness_ms=log_time - row.fresh_time if fresh else None,
        lag_ms=max(0, now - row.fresh_time) if fresh else None,
        stale=freshness.is_stale(row, now, bound),
        syncing=row.sync_offset > row.synced_offset,
        hinted=row.hint_offset > row.sync_offset,
    )
