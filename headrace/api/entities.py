"""Entities: a list, one (now or as it was), its events, and what meets a scope."""

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from headrace.api import problems
from headrace.api.context import (
    AccountPath,
    Context,
    Cursor,
    Here,
    IdPath,
    KindPath,
    Limit,
    Reached,
    Reads,
    Seconds,
    account_horizon,
    answer,
    place_headers,
    reach_in,
)
from headrace.api.guards import StrictRoute
from headrace.api.problems import documented
from headrace.api.responses import ClaimModel, Entities, Entity, EntityDetail, EntityItem, HeadModel, Scope
from headrace.processors.core.judge import overlaid
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import AccountKey, ClaimRow, EntityRow
from headrace.processors.history import Past, Recorded, entity_at, recorded_at
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.models import ContainerId, IntentModel, KindName, QueryMilliseconds, TokenText
from headrace.schemas.readable import readable_content
from headrace.schemas.refs import EntityRef, Touch
from headrace.schemas.registry import Registry

router: Final = APIRouter(prefix="/v1/accounts/{account}", tags=["entities"], route_class=StrictRoute)


def item(row: EntityRow, horizon: Horizon) -> EntityItem:
    """A row as lists show it."""
    return EntityItem.model_validate(_members(row, horizon))


def _members(row: EntityRow, horizon: Horizon) -> dict[str, Any]:
    return {
        "kind": row.ref.kind,
        "id": row.ref.id,
        "exists": row.state is not None,
        "basis": horizon.at(row.head_offset, row.head_check).encode(),
        "head": HeadModel(offset=row.head_offset, time=row.head_time),
        "state": row.state,
        "intents": [
            IntentModel(
                proposal=intent.proposal,
                type=intent.type,
                data=dict(intent.data),
                accepted_at=intent.accepted_at,
                attempt=intent.attempt,
                unknown=intent.unknown,
            )
            for intent in row.intents
        ],
    }


def detail(registry: Registry, kind: Kind, row: EntityRow, claim: ClaimRow | None, horizon: Horizon) -> EntityDetail:
    """A row as one entity is shown. A claim that has run out in log time is none."""
    held = claim if claim is not None and claim.until > horizon.log_time else None
    return EntityDetail.model_validate(
        {
            **_members(row, horizon),
            "account": row.ref.account,
            "foreseen": overlaid(row, kind),
            "claim": claim_model(held) if held is not None else None,
            "content": readable_content(registry, row.content, row.content_key),
        }
    )


def claim_model(row: ClaimRow) -> ClaimModel:
    """A claim as it is shown."""
    return ClaimModel(claim=row.claim, holder=row.holder, until=row.until, offset=row.offset)


def entity_tag(shown: EntityDetail) -> str:
    """Weak (RFC 9110, section 8.8.3): the same while nothing about the entity changed, whatever else the log got."""
    return f'W/"{hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:32]}"'


@router.get("/entities", response_model=Entities, responses=documented())
async def list_entities(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    reached: Reached,
    kind: Annotated[KindName | None, Query()] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Entities of an account, by kind and id."""
    kinds = [here.kind(kind)] if kind is not None else [here.store.kinds[name] for name in sorted(here.store.kinds)]
    after_kind, _, after_id = (cursor or "").partition("/")

    def query(reader: Reader) -> tuple[Horizon, list[EntityRow]]:
        found: list[EntityRow] = []
        for one in kinds:
            if one.name >= after_kind and len(found) <= limit:
                after, left = after_id if one.name == after_kind else "", limit + 1 - len(found)
                key = (principal.tenant, account)
                found += queries.entities(reader, one, key, after=after, limit=left, content=False)
        return account_horizon(here, reader, principal.tenant, account), found

    horizon, found = await here.read(query, reached)
    page = Entities(
        position=horizon.token.encode(),
        log_time=horizon.log_time,
        next=found[limit - 1].ref.subject if len(found) > limit else None,
        entities=[item(row, horizon) for row in found[:limit]],
    )
    return answer(page, headers=place_headers(horizon))


@router.get(
    "/entities/{kind}/{id}",
    response_model=Entity,
    responses=documented() | {304: {"description": "Nothing about it changed"}},
)
async def show_entity(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    kind: KindPath,
    id: IdPath,  # noqa: A002 - as it stands in the route
    reached: Reached,
    seconds: Seconds,
    at: Annotated[TokenText | None, Query(description="as it was at this position")] = None,
    if_none_match: Annotated[str | None, Header(max_length=4_000)] = None,
) -> Response:
    """One entity: facts, intents, who holds it, and the basis for proposals on it.

    A 404 carries ``position``: the basis for proposals that found it absent.
    """
    ref, its_kind = EntityRef(principal.tenant, account, kind, id), here.kind(kind)
    then = await reach_in(here, ref.tenant, account, at, seconds) if at is not None else None

    def query(reader: Reader) -> Past | Recorded:
        if then is not None:
            return recorded_at(reader, ref, then.token)
        now = account_horizon(here, reader, ref.tenant, account)
        return Past(now, queries.entity(reader, its_kind, ref), queries.claim(reader, ref))

    found = await here.read(query, reached, then)
    if isinstance(found, Recorded):
        recorded = found
        found = await here.ask(lambda log: entity_at(log, here.store.registry, its_kind, recorded))
    horizon, row, claim = found
    headers = place_headers(horizon)
    if row is None:
        members = {"position": horizon.token.encode(), "log_time": horizon.log_time}
        return problems.problem(404, "no-such-entity", f"{ref.subject} is not there", headers=headers, members=members)
    shown = detail(here.store.registry, its_kind, row, claim, horizon)
    headers |= {"ETag": entity_tag(shown), "Cache-Control": "private, no-cache"}
    if _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    placed = Entity(**dict(shown), position=horizon.token.encode(), log_time=horizon.log_time)
    return answer(placed, headers=headers)


def _matches(if_none_match: str | None, tag: str) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2)."""
    named = (if_none_match or "").split(",")
    return any(one.strip() == "*" or one.strip().removeprefix("W/") == tag.removeprefix("W/") for one in named)


@router.get("/scopes/{container}/{id:path}", response_model=Scope, responses=documented())
async def show_scope(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    container: Annotated[KindName, Path(description="such as calendar or mail.label")],
    id: Annotated[ContainerId, Path(description="as it stands in states")],  # noqa: A002
    reached: Reached,
    start: Annotated[QueryMilliseconds | None, Query(alias="from")] = None,
    end: Annotated[QueryMilliseconds | None, Query(alias="to", description="exclusive")] = None,
    clear: Annotated[bool, Query(description="the id is the provider's own; its pseudonym is looked up")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """What meets a scope now, intents included: a calendar's hour, the threads with a label.

    ``position`` of the first page is the basis of having read it; ``id`` is what the read names.
    """
    if clear:
        id = here.store.intake.pseudonyms(principal.tenant, account)(id)  # noqa: A001
    scope = Touch(container, id, start, end)
    after_kind, _, after_id = (cursor or "").partition("/")

    def query(reader: Reader) -> tuple[Horizon, list[EntityRow]]:
        horizon = account_horizon(here, reader, principal.tenant, account)
        return horizon, _meeting(
            here, reader, (principal.tenant, account), scope, after=(after_kind, after_id), limit=limit + 1
        )

    horizon, found = await here.read(query, reached)
    page = Scope(
        position=horizon.token.encode(),
        log_time=horizon.log_time,
        next=found[limit - 1].ref.subject if len(found) > limit else None,
        container=container,
        id=id,
        start=start,
        end=end,
        entities=[item(row, horizon) for row in found[:limit]],
    )
    return answer(page, headers=place_headers(horizon))


def _meeting(
    here: Context, reader: Reader, account: AccountKey, scope: Touch, *, after: tuple[str, str], limit: int
) -> list[EntityRow]:
    found: list[EntityRow] = []
    while len(found) < limit:
        candidates = queries.touching(reader, account, scope, after=after, limit=limit)
        for name, entity_id in candidates:
            kind = here.store.kinds[name]
            row = queries.entity(reader, kind, EntityRef(*account, name, entity_id), content=False)
            if row is not None and any(touch.meets(scope) for touch in kind.footprint(overlaid(row, kind))):
                found.append(row)
        if len(candidates) < limit:
            break
        after = candidates[-1]
    return found[:limit]
