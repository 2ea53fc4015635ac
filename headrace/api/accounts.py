"""Accounts of a tenant, and how fresh their sources are."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from headrace.api.context import AccountPath, Here, Limit, Reached, Reads, account_horizon, answer, place_headers
from headrace.api.guards import StrictRoute
from headrace.api.problems import documented
from headrace.api.responses import AccountModel, Accounts, SourceModel, Sources
from headrace.processors.core.model import SourceRow
from headrace.projections import queries
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

    def query(reader: Reader) -> tuple[list[str], list[AccountCount]]:
        names = list(queries.accounts(reader, principal.tenant, cursor or "", limit + 1))
        return names, [queries.counted(reader, kinds, (principal.tenant, name)) for name in names[:limit]]

    names, counts = await here.read(query, reached)
    shown = [AccountModel(**count._asdict()) for count in counts]
    return answer(Accounts(accounts=shown, next=names[limit - 1] if len(names) > limit else None))


@router.get("/{account}/sources", response_model=Sources, responses=documented())
async def list_sources(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    reached: Reached,
) -> Response:
    """The mailboxes and calendars that events come from. Cursors are not shown."""

    def query(reader: Reader) -> tuple[Horizon, list[SourceRow]]:
        horizon = account_horizon(here, reader, principal.tenant, account)
        return horizon, queries.sources(reader, (principal.tenant, account))

    horizon, found = await here.read(query, reached)
    page = Sources(
        position=horizon.token.encode(),
        log_time=horizon.log_time,
        sources=[_source(row, horizon.log_time) for row in found],
    )
    return answer(page, headers=place_headers(horizon))


def _source(row: SourceRow, log_time: int) -> SourceModel:
    fresh = row.fresh_offset >= 0
    return SourceModel(
        source=row.source,
        feeds=list(row.feeds),
        fresh_at=row.fresh_time if fresh else None,
        staleness_ms=log_time - row.fresh_time if fresh else None,
        syncing=row.sync_offset > row.synced_offset,
        hinted=row.hint_offset > row.sync_offset,
    )
