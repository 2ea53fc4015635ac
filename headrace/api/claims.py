"""Claims: an agent says that an entity is its own for a while. The first in log order holds it."""

import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path
from starlette.responses import Response

from headrace.api.context import (
    AccountPath,
    Context,
    Here,
    Proposes,
    Seconds,
    account_horizon,
    answer,
    place_headers,
)
from headrace.api.entities import claim_model
from headrace.api.guards import StrictRoute
from headrace.api.principals import Principal
from headrace.api.problems import ProblemError, documented
from headrace.api.proposals import append, now
from headrace.api.responses import OneClaim
from headrace.errors import UnavailableError
from headrace.processors.core.model import ClaimRow
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.envelope import Envelope
from headrace.schemas.models import Door, EntityName, Milliseconds, OpaqueId
from headrace.schemas.refs import ActorRef, EntityRef

router: Final = APIRouter(prefix="/v1/accounts/{account}/claims", tags=["claims"], route_class=StrictRoute)


ClaimKey = Annotated[OpaqueId | None, Header(description="the claim's id; a retry sends the same one")]


class NewClaim(Door):
    """What is claimed, until which log time (every answer carries log time)."""

    entity: EntityName
    until: Milliseconds


@router.post(
    "",
    status_code=201,
    response_model=OneClaim,
    responses=documented(400, 409, 413, 415) | {201: {"model": OneClaim, "description": "Held"}},
)
async def take(
    *,
    here: Here,
    principal: Proposes,
    account: AccountPath,
    seconds: Seconds,
    new: NewClaim,
    idempotency_key: ClaimKey = None,
) -> Response:
    """Claim an entity. While the claim holds, other agents' proposals on it are refused as ``claimed``."""
    here.kind(new.entity.kind)
    ref = EntityRef(principal.tenant, account, new.entity.kind, new.entity.id)
    name = idempotency_key or f"claim-{secrets.token_hex(16)}"
    said = {"claim": name, "until": new.until}
    envelope = _envelope(principal, ref, "claim.taken", name, principal.agent)
    horizon, event, held = await _say(here, ref, envelope, said, seconds)
    if event["disposition"] == "conflicting_id":
        raise _conflict("the Idempotency-Key was used for something else; take a fresh one", horizon, held)
    if held is None or held.until <= horizon.log_time:
        raise ProblemError(422, "bad-input", f"until is not after log time, which is {horizon.log_time}")
    if held.claim != name:
        raise _conflict(f"{held.holder} holds the entity until log time {held.until}", horizon, held)
    return _one(ref, horizon, held, 201)


@router.delete("/{claim}", response_model=OneClaim, responses=documented(409, 413, 415))
async def release(
    *,
    here: Here,
    principal: Proposes,
    account: AccountPath,
    claim: Annotated[OpaqueId, Path(description="the claim's id")],
    seconds: Seconds,
) -> Response:
    """Let an entity go. Who may review lets go others' claims too."""
    held = await here.read(lambda reader: queries.claim_named(reader, (principal.tenant, account), claim))
    if held is None:
        raise ProblemError(404, "no-such-claim", f"no claim {claim} is held in this account")
    own = held.holder == principal.agent.name or "review" not in principal.verbs
    actor = principal.agent if own else principal.user
    envelope = _envelope(principal, held.ref, "claim.released", f"release-{secrets.token_hex(16)}", actor)
    horizon, event, still = await _say(here, held.ref, envelope, {"claim": claim}, seconds)
    if event["disposition"] == "ignored" and still is not None and still.claim == claim:
        raise _conflict(f"the log ignored it: {event['note']}", horizon, still)
    return _one(held.ref, horizon, still, 200)


def _envelope(principal: Principal, ref: EntityRef, record_type: str, name: str, actor: ActorRef) -> Envelope:
    return Envelope(name, principal.source, record_type, actor, ref.kind, ref.id, observed_at=now())


async def _say(
    here: Context, ref: EntityRef, envelope: Envelope, body: dict[str, Any], seconds: float
) -> tuple[Horizon, dict[str, Any], ClaimRow | None]:
    record = here.store.intake.record(ref.tenant, ref.account, envelope, body)
    position = await append(here, record, seconds)

    def query(reader: Reader) -> tuple[Horizon, dict[str, Any] | None, ClaimRow | None]:
        horizon = account_horizon(here, reader, ref.tenant, ref.account)
        return horizon, queries.event_at(reader, position.partition, position.offset), queries.claim(reader, ref)

    horizon, event, held = await here.read(query)
    if event is None:
        raise UnavailableError("it is on the log, but was not folded in time; read the entity to see who holds it")
    return horizon, event, held


def _conflict(detail: str, horizon: Horizon, held: ClaimRow | None) -> ProblemError:
    members = {"claim": claim_model(held).model_dump() if held is not None else None}
    return ProblemError(409, "claimed", detail, headers=place_headers(horizon), members=members)


def _one(ref: EntityRef, horizon: Horizon, held: ClaimRow | None, status: int) -> Response:
    shown = OneClaim(
        position=horizon.token.encode(),
        log_time=horizon.log_time,
        kind=ref.kind,
        id=ref.id,
        claim=claim_model(held) if held is not None else None,
    )
    return answer(shown, status, place_headers(horizon))
