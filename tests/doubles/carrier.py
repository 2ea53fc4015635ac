"""Who carries proposals out, as far as the log sees it: proposes, is accepted, says what the echo will look like, and
how it went. What is done at the provider in between is the test's."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.kinds import installed_kinds, installed_schemas
from headrace.processors.core.echoes import foreseen
from headrace.processors.core.model import ProposalRow
from headrace.processors.explain import explain
from headrace.producers.marks import mark_of
from headrace.projections import known, queries
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef, EntityRef, Token
from tests.contract.rich_history import KINDS as IN_FORCE
from tests.doubles.desk import ACCOUNT, TENANT, Desk

KINDS: Final = installed_kinds()
_DELIVERER: Final = ActorRef("system", "deliverer")
_NOW: Final = "2026-11-21T17:15:00.000Z"
_KIND_OF: Final = {name: kind.name for kind in KINDS.values() if kind.name in IN_FORCE for name in kind.proposals}


class Carrier:
    """Works on the log of ``desk``. Proposals are agents'; each is attempted once."""

    def __init__(self, desk: Desk) -> None:
        self.desk: Final = desk
        self._made: Final[dict[str, tuple[EntityRef, str, Mapping[str, Any]]]] = {}

    def head(self, kind: str, entity: str) -> tuple[int, bytes] | None:
        """Where an entity's head is, ``None`` before anything happened to it."""
        with self.desk.tables.snapshot() as reader:
            rows = known.entities_where(reader, KINDS[kind], TENANT, ACCOUNT, {"id": entity})
        return (rows[0].head_offset, rows[0].head_check) if rows else None

    def propose(
        self,
        entity: str,
        proposal: str,
        data: Mapping[str, Any],
        *,
        id: str,  # noqa: A002
        agent: str = "bot",
    ) -> str:
        """An agent that has just read the entity proposes; returns the verdict."""
        return self.judged(entity, proposal, data, self.head(_KIND_OF[proposal], entity), id=id, agent=agent)

    def judged(
        self,
        entity: str,
        proposal: str,
        data: Mapping[str, Any],
        head: tuple[int, bytes] | None,
        *,
        id: str,  # noqa: A002
        agent: str = "rival",
    ) -> str:
        """The same by one who had read when ``head`` was the head."""
        desk, ref = self.desk, EntityRef(TENANT, ACCOUNT, _KIND_OF[proposal], entity)
        with desk.tables.snapshot() as reader:
            row = reader.rows("SELECT log_id, next_offset, chain FROM partitions WHERE partition = 0", {})[0]
        offset, check = head or (row["next_offset"] - 1, row["chain"][:8])
        read = {"what": "entity" if head is not None else "absent", "kind": ref.kind, "id": ref.id}
        record = desk.intake.proposal(
            ref,
            id,
            proposal,
            actor=ActorRef("agent", agent),
            source="api",
            reads=[{**read, "basis": Token(row["log_id"], 0, offset, check)}],
            data=data,
            content=None,
            expires_at=None,
            said_concerns=(),
            observed_at=_NOW,
        )
        desk.log.append([record])
        desk.fold()
        self._made[id] = (ref, proposal, data)
        return self.row(id).verdict

    def row(self, proposal: str) -> ProposalRow:
        """What the tables hold of a proposal."""
        with self.desk.tables.snapshot() as reader:
            found = queries.proposal(reader, (TENANT, ACCOUNT), proposal)
        assert found is not None
        return found

    def steps(self, proposal: str) -> list[tuple[str, str]]:
        """What became of its records, and by whom, as `explain` shows it."""
        with self.desk.tables.snapshot() as reader:
            said = explain(
                self.desk.log, reader, installed_schemas(), tenant=TENANT, account=ACCOUNT, proposal=proposal
            )
        assert said.intent is not None
        return [(step["disposition"], step["actor"]) for step in said.intent["steps"]]

    def mark(self, proposal: str) -> str:
        """The mark of the proposal's attempt."""
        return mark_of(self.desk.pseudonym, proposal)

    def attempt(self, proposal: str, *, marked: bool = True, snapshot: bool = True, **shown: Any) -> None:
        """The attempt, and what its echo will look like: a state (``snapshot``), with what the provider is known to
        make of it besides; a mark (``marked``); or both."""
        ref, type_, _ = self._made[proposal]
        with self.desk.tables.snapshot() as reader:
            rows = known.entities_where(reader, KINDS[ref.kind], TENANT, ACCOUNT, {"id": ref.id})
        state = rows[0].state if rows and rows[0].state else None
        data = self.row(proposal).proposal.data
        echo = foreseen(KINDS[ref.kind], state, type_, data, **shown) if snapshot else None
        body = {"proposal": proposal, "attempt": f"at-{proposal}", "echo": echo}
        self._note("delivery.attempted", body | {"mark": self.mark(proposal) if marked else None})

    def outcome(self, how: str, proposal: str, reference: str | None = None) -> None:
        """How it went."""
        body = {"proposal": proposal, "attempt": f"at-{proposal}"}
        self._note(f"delivery.{how}", body | ({"reference": reference} if how == "succeeded" else {}))

    def _note(self, type_: str, body: Mapping[str, Any]) -> None:
        envelope = Envelope(f"{type_}:{body['proposal']}", "delivery", type_, _DELIVERER, observed_at=_NOW)
        self.desk.log.append([self.desk.intake.record(TENANT, ACCOUNT, envelope, body)])
        self.desk.fold()
