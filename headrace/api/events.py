"""What happened: the records about an entity, with what they say."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from headrace.api.context import (
    AccountPath,
    Here,
    IdPath,
    KindPath,
    Limit,
    Reached,
    Reads,
    account_horizon,
    answer,
    place_headers,
)
from headrace.api.guards import StrictRoute
from headrace.api.problems import documented
from headrace.api.responses import Events
from headrace.log.port import Log, Stored
from headrace.processors.history import stored_at
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.models import EntityName, EventRecord, EventWithBody
from headrace.schemas.readable import readable, readable_content
from headrace.schemas.registry import Registry

router: Final = APIRouter(prefix="/v1/accounts/{account}", tags=["events"], route_class=StrictRoute)
Order = Literal["oldest", "newest"]
_LAST: Final = 2**63 - 1
PAGE_BYTES: Final = 8 * 1024 * 1024
"""Of records on one page: one may have a MiB, and a page is made in memory."""
_READ_AT_ONCE: Final = 32


def members(horizon: Horizon, row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``events`` as the members of :class:`EventRecord`."""
    concerns = row["concerns"]
    return {
        "id": row["event_id"],
        "source": row["source"],
        "type": row["type"],
        "actor": f"{row['actor_kind']}/{row['actor_id']}" if row["actor_kind"] else "",
        "entity": EntityName.model_construct(kind=row["kind"], id=row["entity"]) if row["kind"] else None,
        "concerns": concerns.split(",") if concerns else [],
        "token": horizon.at(row["offset"], row["chain"]).encode(),
        **{
            name: row[name]
            for name in (
                "offset",
                "disposition",
                "effect",
                "proposal",
                "note",
                "occurred_at",
                "observed_at",
                "appended_at",
                "log_time",
                "causation",
                "correlation",
                "sync",
            )
        },
    }


def event_record(horizon: Horizon, row: dict[str, Any]) -> EventRecord:
    """A row of ``events`` as it is shown."""
    return EventRecord.model_validate(members(horizon, row))


def event_with_body(registry: Registry, horizon: Horizon, row: dict[str, Any], stored: Stored) -> EventWithBody:
    """A row of ``events`` and its record on the log."""
    body = registry.decode(stored.value).body
    content = readable_content(registry, body.get("content"), body.get("content_key"))
    return EventWithBody.model_validate({**members(horizon, row), "body": readable(registry, body), "content": content})


@router.get("/entities/{kind}/{id}/events", response_model=Events, responses=documented())
async def list_events(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    kind: KindPath,
    id: IdPath,  # noqa: A002 - as it stands in the route
    reached: Reached,
    order: Annotated[Order, Query()] = "oldest",
    limit: Limit = 100,
    cursor: Annotated[int | None, Query(ge=0, le=_LAST, description="`next` of the page before")] = None,
) -> Response:
    """Every record about an entity with what it says, refused and ignored ones too; ``disposition`` tells.

    Where records are large a page has fewer than ``limit``; ``next`` says whether there are more.
    """
    here.kind(kind)

    def query(reader: Reader) -> tuple[Horizon, list[dict[str, Any]]]:
        horizon = account_horizon(here, reader, principal.tenant, account)
        key = (principal.tenant, account)
        if order == "oldest":
            after = cursor if cursor is not None else -1
            return horizon, queries.account_events(reader, key, after=after, limit=limit + 1, kind=kind, entity=id)
        before = cursor if cursor is not None else _LAST
        return horizon, queries.latest_account_events(reader, key, before=before, limit=limit + 1, kind=kind, entity=id)

    horizon, found = await here.read(query, reached)
    shown = await here.ask(lambda log: _with_bodies(log, here.store.registry, horizon, found[:limit]))
    page = Events(
        position=horizon.token.encode(),
        log_time=horizon.log_time,
        next=str(shown[-1].offset) if len(found) > len(shown) else None,
        events=shown,
    )
    return answer(page, headers=place_headers(horizon))


def _with_bodies(log: Log, registry: Registry, horizon: Horizon, found: list[dict[str, Any]]) -> list[EventWithBody]:
    """As many of them as one page may hold, and at least one."""
    shown, left = list[EventWithBody](), PAGE_BYTES
    for start in range(0, len(found), _READ_AT_ONCE):
        rows = found[start : start + _READ_AT_ONCE]
        offsets = sorted(row["offset"] for row in rows)
        stored = {record.offset: record for record in stored_at(log, horizon.partition, offsets)}
        for row in rows:
            record = stored[row["offset"]]
            left -= len(record.value)
            if shown and left < 0:
                return shown
            shown.append(event_with_body(registry, horizon, row, record))
    return shown
