"""Proposals: made, looked up, and answered."""

import time
from typing import Annotated, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from headrace.api.context import (
    AccountPath,
    Context,
    Here,
    Limit,
    PreferHeader,
    Proposes,
    Reached,
    Reads,
    Seconds,
    account_horizon,
    answer,
    place_headers,
    unopened,
)
from headrace.api.guards import StrictRoute
from headrace.api.live import LIVE_WAIT, check
from headrace.api.principals import Principal
from headrace.api.problems import ProblemError, documented
from headrace.api.responses import OneProposal, Pending, PlacedVerdict, Proposals
from headrace.api.verdicts import Submission, proposal_model, respond, told, verdict_of
from headrace.errors import BadInputError, HaltError
from headrace.log.port import Record
from headrace.processors.core.model import ProposalRow
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.envelope import rfc3339
from headrace.schemas.models import NewProposal, OpaqueId, ProposalModel, Verdict, VerdictName
from headrace.schemas.refs import EntityRef, Position, Token

router: Final = APIRouter(prefix="/v1/accounts/{account}/proposals", tags=["proposals"], route_class=StrictRoute)
_AFTER_CHECK: Final = 1.0
"""Seconds that the verdict may take after a live check, even if that took all the time there was."""
ProposalPath = Annotated[OpaqueId, Path(description="the Idempotency-Key it was submitted with")]


def now() -> str:
    """The clock's time, for ``observed_at``: nothing is decided by it."""
    return rfc3339(time.time_ns() // 1_000_000)


def location(account: str, proposal_id: str) -> str:
    """Where a proposal is looked up."""
    return f"/v1/accounts/{account}/proposals/{proposal_id}"


async def append(here: Context, record: Record, seconds: float) -> Position:
    """Append one record; its position, once it is said that the tables have reached it, or the time is up. Whether they
    have, only a look at them tells: what is said may be lost, or have been undone.

    :raises HaltError: it is on the log, and the processor has stopped.
    """
    (position,) = await to_thread.run_sync(here.store.log.append, [record], limiter=here.appending)
    try:
        await here.store.applied.wait_async(position.partition, position.offset, seconds)
    except HaltError as error:
        raise HaltError(f"it is on the log, but the processor has stopped: {error}") from error
    return position


def _record(here: Context, principal: Principal, account: str, proposal_id: str, new: NewProposal) -> Record:
    kind = here.store.kinds.get(new.entity.kind)
    if kind is None:
        raise BadInputError(f"there is no entity kind {new.entity.kind!r} here; known: {', '.join(here.store.kinds)}")
    if new.type not in kind.proposals:
        known = ", ".join(kind.proposals)
        raise BadInputError(f"{new.type} cannot be proposed on a {kind.name}; what can: {known}")
    subject = {
        "what": "absent" if new.absent else "entity",
        "kind": new.entity.kind,
        "id": new.entity.id,
        "basis": Token.parse(new.basis),
    }
    others = [{**dict(read), "basis": Token.parse(read.basis)} for read in new.reads]
    return here.store.intake.proposal(
        EntityRef(principal.tenant, account, new.entity.kind, new.entity.id),
        proposal_id,
        new.type,
        actor=principal.agent,
        source=principal.source,
        reads=[subject, *others],
        data=new.data,
        content=new.content,
        expires_at=new.expires_at,
        said_concerns=new.concerns,
        observed_at=now(),
    )


@router.post(
    "",
    status_code=201,
    response_model=PlacedVerdict,
    responses=documented(400, 413, 415, verdicts=(409, 410, 422))
    | {
        200: {"model": PlacedVerdict, "description": "Submitted before"},
        201: {"model": PlacedVerdict, "description": "Accepted"},
        202: {"model": PlacedVerdict | Pending, "description": "It waits for an answer, or the verdict takes longer"},
    },
)
async def submit(
    *,
    here: Here,
    principal: Proposes,
    account: AccountPath,
    seconds: Seconds,
    new: NewProposal,
    idempotency_key: Annotated[OpaqueId, Header(description="the proposal's id; a retry sends the same one")],
    verify: Annotated[
        Literal["live"] | None,
        Query(description="live: sync what it reads first, and judge after; within wait=, 10 s by default, or 503"),
    ] = None,
    prefer: PreferHeader = None,
) -> Response:
    """Propose. The answer waits for the verdict, as long as ``Prefer: wait=`` says.

    An id submitted before has no second effect: the answer is the first one's current verdict.

    With ``verify=live`` every source that feeds what it reads and changes is synced first. Where that does not end in
    time nothing is appended (503 ``not-checked``); where no source feeds it there is nothing to check (422
    ``nothing-to-check``). In either case the same request can be sent again.
    """
    record = _record(here, principal, account, idempotency_key, new)
    if verify is not None:
        until = time.monotonic() + (seconds if prefer is not None else LIVE_WAIT)
        await check(here, (principal.tenant, account), idempotency_key, new, until)
        seconds = max(min(seconds, _AFTER_CHECK), until - time.monotonic())
    position = await append(here, record, seconds)
    ref = EntityRef(principal.tenant, account, new.entity.kind, new.entity.id)
    submission = Submission(ref, new.type, position.offset)
    where = location(account, idempotency_key)

    def query(reader: Reader) -> tuple[Horizon, Verdict | None]:
        found = queries.submitted(reader, position.partition, ref[:2], idempotency_key, position.offset)
        if found is None:
            raise unopened()
        horizon, row, judgement = found
        if row is None or horizon.next_offset <= position.offset:
            return horizon, None
        return horizon, told(reader, horizon, row, judgement, submission)

    horizon, verdict = await here.read(query)
    if verdict is None:
        pending = Pending(
            position=horizon.token.encode(),
            log_time=horizon.log_time,
            proposal=idempotency_key,
            account=account,
            offset=position.offset,
        )
        return answer(pending, 202, {"Location": where, **place_headers(horizon)})
    here.metrics.verdicts.labels(verdict.verdict).inc()
    return respond(verdict, horizon, where)


@router.get("", response_model=Proposals, responses=documented())
async def list_proposals(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    reached: Reached,
    verdict: Annotated[VerdictName | None, Query()] = None,
    limit: Limit = 100,
    cursor: Annotated[OpaqueId | None, Query(description="`next` of the page before")] = None,
) -> Response:
    """Proposals of an account, by id; those with one verdict where it is named."""

    def query(reader: Reader) -> tuple[Horizon, list[ProposalRow], list[Verdict]]:
        horizon = account_horizon(here, reader, principal.tenant, account)
        key = (principal.tenant, account)
        found = queries.proposals(reader, key, after=cursor or "", limit=limit + 1, verdict=verdict)
        return horizon, found, [verdict_of(reader, horizon, row) for row in found[:limit]]

    horizon, found, shown = await here.read(query, reached)
    page = Proposals(
        position=horizon.token.encode(),
        log_time=horizon.log_time,
        next=found[limit - 1].proposal.id if len(found) > limit else None,
        proposals=shown,
    )
    return answer(page, headers=place_headers(horizon))


@router.get("/{proposal}", response_model=OneProposal, responses=documented())
async def show_proposal(
    *,
    here: Here,
    principal: Reads,
    account: AccountPath,
    proposal: ProposalPath,
    reached: Reached,
    seconds: Seconds,
    prefer: PreferHeader = None,
) -> Response:
    """A proposal, its current verdict and all before. With ``Prefer: wait=`` the answer waits until it is judged."""

    def query(reader: Reader) -> tuple[Horizon, ProposalModel | None]:
        horizon = account_horizon(here, reader, principal.tenant, account)
        row = queries.proposal(reader, (principal.tenant, account), proposal)
        return horizon, proposal_model(reader, horizon, row) if row is not None else None

    horizon, shown = await here.read(query, reached)
    deadline = time.monotonic() + (seconds if prefer is not None else 0.0)
    while shown is None and (left := deadline - time.monotonic()) > 0:
        await here.store.applied.wait_async(horizon.partition, horizon.next_offset, left)
        seen, (horizon, shown) = horizon, await here.read(query, reached)
        if shown is None and horizon.next_offset <= seen.next_offset:
            await here.moment(max(0.0, deadline - time.monotonic()))
    if shown is None:
        raise unknown_proposal(proposal, horizon)
    placed = OneProposal(**dict(shown), position=horizon.token.encode(), log_time=horizon.log_time)
    return answer(placed, headers=place_headers(horizon))


def unknown_proposal(proposal_id: str, horizon: Horizon) -> ProblemError:
    """The 404 for a proposal that is not there."""
    return ProblemError(
        404,
        "no-such-proposal",
        f"there is no proposal {proposal_id} in this account; it may not be folded yet: Prefer: wait=SECONDS waits",
        headers=place_headers(horizon),
        members={"position": horizon.token.encode()},
    )
