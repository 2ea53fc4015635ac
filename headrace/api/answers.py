"""Answers to proposals that wait, and withdrawals. Each is a record that names one proposal, which is judged again at
the answer's own offset."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from headrace.api.context import (
    AccountPath,
    Context,
    Here,
    Reach,
    Reviews,
    Seconds,
    account_horizon,
    answer,
    context_of,
    place_headers,
    reach_in,
)
from headrace.api.guards import StrictRoute
from headrace.api.principals import Principal, authenticate, require
from headrace.api.problems import ProblemError, documented
from headrace.api.proposals import ProposalPath, append, location, now, unknown_proposal
from headrace.api.responses import Pending, PlacedVerdict
from headrace.api.verdicts import respond, verdict_of
from headrace.log.port import Record
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.envelope import Envelope
from headrace.schemas.models import Door, EntityName, OpaqueId, TokenText, Verdict, Words
from headrace.schemas.refs import ActorRef

router: Final = APIRouter(
    prefix="/v1/accounts/{account}/proposals/{proposal}", tags=["answers"], route_class=StrictRoute
)
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = documented(400, 413, 415, verdicts=(409, 410, 422)) | {
    200: {"model": PlacedVerdict, "description": "The new current verdict"},
    202: {"model": PlacedVerdict | Pending, "description": "It still waits, or the verdict takes longer"},
}
AnswerKey = Annotated[
    OpaqueId | None, Header(alias="Idempotency-Key", description="the answer's own id; a retry sends the same one")
]


class Approval(Door):
    """A person approves, having read up to a position. Only review events up to there are waived."""

    read: TokenText


class Reason(Door):
    """Why, in words, if anybody wants to say."""

    reason: Words | None = None


class Said(NamedTuple):
    """An answer as it will stand on the log; ``key`` is its id, ``None``: one is made."""

    type: str
    body: Mapping[str, Any]
    actor: ActorRef
    key: str | None


@router.post("/approve", response_model=PlacedVerdict, responses=_RESPONSES)
async def approve(
    *,
    here: Here,
    principal: Reviews,
    account: AccountPath,
    proposal: ProposalPath,
    seconds: Seconds,
    approval: Approval,
    idempotency_key: AnswerKey = None,
) -> Response:
    """Approve a proposal that waits. It is judged again here, so an approval can itself come too late: then the answer
    is the problem that says what overtook it."""
    read = await reach_in(here, principal.tenant, account, approval.read, seconds)
    body = {"proposal": proposal, "read": read.token.pack()}
    said = Said("review.approved", body, principal.user, idempotency_key)
    horizon, verdict = await _say(here, principal, account, said, seconds, read=read)
    if verdict is None:
        return _pending(horizon, account, proposal)
    return respond(verdict, horizon, location(account, proposal), accepted=200)


@router.post("/dismiss", response_model=PlacedVerdict, responses=_RESPONSES)
async def dismiss(
    *,
    here: Here,
    principal: Reviews,
    account: AccountPath,
    proposal: ProposalPath,
    seconds: Seconds,
    reason: Reason | None = None,
    idempotency_key: AnswerKey = None,
) -> Response:
    """Dismiss a proposal that waits."""
    body = {"proposal": proposal, "reason": reason.reason if reason is not None else None}
    said = Said("review.dismissed", body, principal.user, idempotency_key)
    return _plain(*await _say(here, principal, account, said, seconds), account, proposal)


async def _may_withdraw(request: Request) -> Principal:
    principal = authenticate(context_of(request).settings.api_keys, request.headers.get("authorization"))
    if "review" not in principal.verbs:
        require(principal, "propose")
    return principal


@router.post("/withdraw", response_model=PlacedVerdict, responses=_RESPONSES)
async def withdraw(
    *,
    here: Here,
    principal: Annotated[Principal, Depends(_may_withdraw)],
    account: AccountPath,
    proposal: ProposalPath,
    seconds: Seconds,
    reason: Reason | None = None,
    idempotency_key: AnswerKey = None,
) -> Response:
    """Take a proposal back that waits, or that was accepted and is not under way yet. Who may review acts as a person;
    who may only propose takes back its own."""
    body = {"proposal": proposal, "reason": reason.reason if reason is not None else None}
    actor = principal.user if "review" in principal.verbs else principal.agent
    said = Said("proposal.withdrawn", body, actor, idempotency_key)
    return _plain(*await _say(here, principal, account, said, seconds), account, proposal)


async def _say(
    here: Context, principal: Principal, account: str, said: Said, seconds: float, *, read: Reach | None = None
) -> tuple[Horizon, Verdict | None]:
    """Append an answer; the proposal's verdict then, ``None`` where the tables did not reach it in time.

    :raises ProblemError: 404 there is no such proposal; 409 it waits for no such answer.
    """
    proposal: str = said.body["proposal"]

    def before(reader: Reader) -> tuple[Horizon, Verdict | None]:
        horizon = account_horizon(here, reader, principal.tenant, account)
        row = queries.proposal(reader, (principal.tenant, account), proposal)
        return horizon, verdict_of(reader, horizon, row) if row is not None else None

    horizon, verdict = await here.read(before, read)
    if verdict is None:
        raise unknown_proposal(proposal, horizon)
    open_intent = said.type == "proposal.withdrawn" and verdict.outcome == "open"
    if said.key is None and not verdict.waits and not open_intent:
        raise _unwanted(f"the proposal is {verdict.verdict}; it waits for no answer", horizon, verdict)
    position = await append(here, _record(here, principal, account, said, verdict.entity), seconds)

    def after(reader: Reader) -> tuple[Horizon, dict[str, Any] | None, Verdict | None]:
        horizon, verdict = before(reader)
        return horizon, queries.event_at(reader, position.partition, position.offset), verdict

    horizon, event, verdict = await here.read(after)
    if event is None or verdict is None:
        return horizon, None
    if event["disposition"] == "conflicting_id":
        raise _unwanted("the Idempotency-Key was used for something else; take a fresh one", horizon, verdict)
    if event["disposition"] == "ignored":
        raise _unwanted(f"the log ignored it: {event['note']}", horizon, verdict)
    return horizon, verdict


def _record(here: Context, principal: Principal, account: str, said: Said, entity: EntityName | None) -> Record:
    key = said.key or f"answer-{secrets.token_hex(16)}"
    kind, entity_id = (entity.kind, entity.id) if entity is not None else ("", "")
    envelope = Envelope(key, principal.source, said.type, said.actor, kind, entity_id, observed_at=now())
    return here.store.intake.record(principal.tenant, account, envelope, said.body)


def _unwanted(detail: str, horizon: Horizon, verdict: Verdict) -> ProblemError:
    members = {"position": horizon.token.encode(), "current": verdict.model_dump()}
    return ProblemError(409, "not-waiting", detail, headers=place_headers(horizon), members=members)


def _plain(horizon: Horizon, verdict: Verdict | None, account: str, proposal: str) -> Response:
    """The current verdict, whatever it is: refusing the proposal was what was asked for."""
    if verdict is None:
        return _pending(horizon, account, proposal)
    placed = PlacedVerdict(**dict(verdict), position=horizon.token.encode(), log_time=horizon.log_time)
    return answer(placed, headers=place_headers(horizon))


def _pending(horizon: Horizon, account: str, proposal: str) -> Response:
    pending = Pending(
        position=horizon.token.encode(), log_time=horizon.log_time, proposal=proposal, account=account, offset=None
    )
    return answer(pending, 202, {"Location": location(account, proposal), **place_headers(horizon)})
