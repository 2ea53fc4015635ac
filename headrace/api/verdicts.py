"""Verdicts as answers: the table's status, and for what is refused a problem with the whole verdict in it."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from headrace.api.context import answer, place_headers
from headrace.api.problems import MEDIA_TYPE
from headrace.api.responses import PlacedVerdict, VerdictProblem
from headrace.processors.core.model import ProposalRow
from headrace.processors.core.verdicts import ROWS
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon, Judgement
from headrace.schemas.models import EntityName, JudgedBefore, ProposalModel, Verdict
from headrace.schemas.refs import EntityRef

PREFIX: Final = "urn:headrace:verdict:"


class Submission(NamedTuple):
    """A submitted proposal as it came in."""

    ref: EntityRef
    proposed: str
    offset: int


def token_at(reader: Reader, horizon: Horizon, offset: int) -> str:
    """The token of a folded position, as text."""
    if offset == horizon.next_offset - 1:
        return horizon.token.encode()
    event = queries.event_at(reader, horizon.partition, offset)
    return horizon.at(offset, event["chain"]).encode() if event is not None else horizon.token.encode()


def verdict_of(reader: Reader, horizon: Horizon, row: ProposalRow, *, duplicate: bool = False) -> Verdict:
    """A proposal's current verdict."""
    return Verdict.model_validate(_members(reader, horizon, row) | {"duplicate": duplicate})


def told(
    reader: Reader, horizon: Horizon, row: ProposalRow, judgement: Judgement | None, submission: Submission
) -> Verdict:
    """What to tell who submitted: the verdict on that very record (``judgement``), and where it repeats an earlier one,
    the earlier one's current verdict. ``row`` is the proposal as the tables have it now."""
    if judgement is None or judgement.verdict == "duplicate":
        return verdict_of(reader, horizon, row, duplicate=judgement is not None)
    said = ProposalRow(row.proposal, judgement.verdict, judgement.finding, judgement.offset, judgement.log_time)
    members = _members(reader, horizon, said) | {"outcome": row.outcome, "duplicate": False}
    if row.proposal.offset != submission.offset:
        members |= {
            "entity": EntityName(kind=submission.ref.kind, id=submission.ref.id),
            "proposed": submission.proposed,
            "submitted_at": submission.offset,
            "outcome": None,
        }
    return Verdict.model_validate(members)


def _members(reader: Reader, horizon: Horizon, row: ProposalRow) -> dict[str, Any]:
    proposal = row.proposal
    return {
        "proposal": proposal.id,
        "account": proposal.ref.account,
        "entity": EntityName(kind=proposal.ref.kind, id=proposal.ref.id) if proposal.ref.kind else None,
        "proposed": proposal.type,
        "verdict": row.verdict,
        "finding": dict(row.finding),
        "offset": row.judged_at,
        "time": row.log_time,
        "token": token_at(reader, horizon, row.judged_at),
        "submitted_at": proposal.offset,
        "waits": ROWS[row.verdict].waits,
        "outcome": row.outcome,
    }


def proposal_model(reader: Reader, horizon: Horizon, row: ProposalRow) -> ProposalModel:
    """A proposal with every verdict it had."""
    proposal = row.proposal
    history = queries.verdicts(reader, proposal.ref[:2], proposal.id)
    reads = [
        {
            "what": read.what,
            "kind": read.kind,
            "id": read.id,
            "start": read.start,
            "end": read.end,
            "account": read.account,
            "basis": read.basis.encode() if read.basis is not None else None,
        }
        for read in proposal.reads
    ]
    return ProposalModel.model_validate(
        _members(reader, horizon, row)
        | {
            "duplicate": False,
            "actor": f"{proposal.actor.kind}/{proposal.actor.id}",
            "data": dict(proposal.data),
            "concerns": list(proposal.concerns),
            "expires_at": proposal.expires_at,
            "reads": reads,
            "history": [
                JudgedBefore.model_validate(
                    {
                        "verdict": one.verdict,
                        "finding": one.finding,
                        "offset": one.offset,
                        "time": one.log_time,
                        "token": token_at(reader, horizon, one.offset),
                    }
                )
                for one in history
            ],
        }
    )


def respond(verdict: Verdict, horizon: Horizon, location: str, *, accepted: int | None = None) -> Response:
    """The answer that tells a verdict. ``accepted`` is the status of a proposal that is accepted, the table's where it
    is not given. 4xx are problems, with the whole verdict as extension members."""
    row = ROWS[verdict.verdict]
    status = accepted if accepted is not None and verdict.verdict == "accepted" else row.status
    members: dict[str, Any] = dict(verdict) | {"position": horizon.token.encode(), "log_time": horizon.log_time}
    headers = {"Location": location, "Cache-Control": "no-store", **place_headers(horizon)}
    if status < 400:
        return answer(PlacedVerdict(**members), status, headers)
    found = VerdictProblem(
        **members,
        type=PREFIX + verdict.verdict,
        title=row.meaning[:1].upper() + row.meaning[1:],
        status=status,
        detail=words(verdict.verdict, verdict.finding),
        instance=location,
    )
    return Response(found.model_dump_json(), status, headers, MEDIA_TYPE)


def words(verdict: str, finding: Mapping[str, Any]) -> str:
    """A verdict in a sentence that says what to do next."""
    match verdict:
        case "superseded" | "needs_review":
            event = finding["event"]
            what = f"{event['effect']} by {event['actor']} at offset {event['offset']} on {event['entity']}"
            return f"{what} came between; " + (
                "read again and decide anew" if verdict == "superseded" else "a person decides"
            )
        case "claimed":
            return f"{finding['holder']} holds the entity until log time {finding['until']}; wait, or ask for the claim"
        case "rejected":
            return f"the rule {finding['rule']} forbids it; read the entity and do something else"
        case "expired":
            return f"too late in the log's time ({finding['reason']}); read again and decide anew"
        case "conflicting_id":
            return f"the id was used at offset {finding['first']} for something else; take a fresh id"
        case "unknown_basis" | "malformed":
            return f"{finding['reason']}; pass back the tokens that reads gave you"
        case "held":
            return f"the source {finding['source']} is stale; it is judged again once a sync has confirmed it"
        case "duplicate":
            return f"submitted before, at offset {finding['first']}"
        case _:
            return ROWS[verdict].meaning
