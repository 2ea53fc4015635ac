"""Writes the records of one partition, as producers would, and knows the token of every place in it.

The suite's partition is number 1 of 4, so that the accounts here share it and other keys do not belong there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from examples.account.headrace_account.kind import KIND as BANK_ACCOUNT
from examples.account.headrace_account.kind import RULES
from headrace.log.framing import GENESIS, chain
from headrace.log.partitioner import partition_of
from headrace.log.port import Headers, Stored
from headrace.processors.core.kind import Kind
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.processors.kinds.calendar_event import KIND as CALENDAR_EVENT
from headrace.processors.kinds.mail_thread import KIND as MAIL_THREAD
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.refs import ActorRef, EntityRef, Token, account_key
from headrace.schemas.registry import Registry, built_in, read_directory

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLE_SCHEMAS: Final = ROOT / "examples" / "account" / "headrace_account" / "schemas"
REGISTRY: Final = Registry([*built_in(), *read_directory(EXAMPLE_SCHEMAS)])
KINDS: Final[dict[str, Kind]] = {kind.name: kind for kind in (MAIL_THREAD, CALENDAR_EVENT, BANK_ACCOUNT)}
LOG_ID: Final = bytes(range(16))
PARTITION: Final = 1
PARTITIONS: Final = 4
START: Final = 1_795_280_400_000
"""Epoch milliseconds: 2026-11-21, a quarter past five in the afternoon, or near enough."""
SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

SYSTEM: Final = ActorRef("system", "operator")
USER: Final = ActorRef("user", "ann")
AGENT: Final = ActorRef("agent", "bot")
RIVAL: Final = ActorRef("agent", "rival")

BANK_POLICY: Final = Policy(
    "bank", (*RULES, *DEFAULT_POLICY.rules), source_max_staleness_ms=DEFAULT_POLICY.source_max_staleness_ms
)


class Account(NamedTuple):
    tenant: str
    account: str

    def entity(self, kind: str, entity_id: str) -> EntityRef:
        return EntityRef(self.tenant, self.account, kind, entity_id)


def _accounts(tenant: str, *, here: bool) -> Iterator[Account]:
    number = 0
    while True:
        account = Account(tenant, f"a{number}")
        if (partition_of(account_key(*account), PARTITIONS) == PARTITION) == here:
            yield account
        number += 1


HOME, NEIGHBOUR = islice(_accounts("acme", here=True), 2)
STRANGER: Final = next(_accounts("globex", here=True))
ELSEWHERE: Final = next(_accounts("acme", here=False))


class Scribe:
    """The partition's records so far. ``now`` is the log's clock, epoch milliseconds, and moves only by hand."""

    def __init__(self, policy: Policy = BANK_POLICY, kinds: Iterable[str] = KINDS) -> None:
        self.records: list[Stored] = []
        self.checks: list[bytes] = []
        self._chain = GENESIS
        self.now = START
        self._numbers = iter(range(1, 1_000_000))
        self.own(
            "log.opened", {"log_id": LOG_ID.hex(), "partitions": PARTITIONS, **_settings(policy, kinds)}, id="open"
        )

    @property
    def next_offset(self) -> int:
        return len(self.records)

    def number(self) -> int:
        """A number that was not given before."""
        return next(self._numbers)

    def stored(self, key: bytes | None, headers: Headers, value: bytes, *, log_append: bool = True) -> int:
        """Append these very bytes; returns their offset."""
        record = Stored(PARTITION, self.next_offset, self.now, log_append, key, headers, value)
        self._chain = chain(self._chain, record)
        self.records.append(record)
        self.checks.append(self._chain[:8])
        return record.offset

    def again(self, offset: int) -> int:
        """Append a copy of an earlier record, as a producer that retries does."""
        record = self.records[offset]
        return self.stored(record.key, record.headers, record.value)

    def record(
        self, account: Account | None, envelope: Envelope, body: Mapping[str, Any] | bytes, *, log_append: bool = True
    ) -> int:
        """Append a record; a ``body`` of bytes stands as it is."""
        value = body if isinstance(body, bytes) else REGISTRY.encode(envelope.type, body)
        key = account_key(*account) if account is not None else None
        return self.stored(key, to_headers(envelope), value, log_append=log_append)

    def own(self, type_: str, body: Mapping[str, Any], *, id: str | None = None) -> int:  # noqa: A002 - its name there
        """Append one of the log's own records."""
        return self.record(None, Envelope(id or f"o{self.number()}", "headrace/operator", type_, SYSTEM), body)

    def activate(self, policy: Policy, kinds: Iterable[str] = KINDS, *, id: str | None = None) -> int:  # noqa: A002
        """Append ``policy.activated``."""
        return self.own("policy.activated", _settings(policy, kinds), id=id)

    def say(
        self,
        account: Account,
        type_: str,
        body: Mapping[str, Any],
        *,
        about: EntityRef | None = None,
        id: str | None = None,  # noqa: A002
        actor: ActorRef = USER,
        source: str = "test",
        sync: str | None = None,
        concerns: tuple[str, ...] = (),
        causation: str | None = None,
        log_append: bool = True,
    ) -> int:
        """Append a fact, an answer or any other record of an account."""
        kind, entity = (about.kind, about.id) if about is not None else ("", "")
        envelope = Envelope(id or f"e{self.number()}", source, type_, actor, kind, entity, concerns=concerns, sync=sync)
        envelope = envelope._replace(causation=causation)
        return self.record(account, envelope, body, log_append=log_append)

    def fact(self, ref: EntityRef, type_: str, **body: Any) -> int:
        """Append a fact about an entity by its owner; ``body`` may leave out what has a default."""
        return self.say(Account(ref.tenant, ref.account), type_, body, about=ref)

    def propose(
        self,
        ref: EntityRef,
        type_: str,
        data: Mapping[str, Any],
        reads: Sequence[Mapping[str, Any]],
        *,
        id: str | None = None,  # noqa: A002
        actor: ActorRef = AGENT,
        expires_at: int | None = None,
        concerns: tuple[str, ...] = (),
        payload: bytes | None = None,
    ) -> int:
        """Append a proposal; ``payload`` stands for the hash of what it says (default: of its id)."""
        proposal_id = id or f"p{self.number()}"
        envelope = Envelope(proposal_id, "api", "proposal.submitted", actor, ref.kind, ref.id, concerns=concerns)
        body = {
            "proposal": type_,
            "reads": list(reads),
            "expires_at": expires_at,
            "data": REGISTRY.encode(type_, data),
            "payload_hash": (payload or proposal_id.encode()).ljust(32, b".")[:32],
        }
        return self.record(Account(ref.tenant, ref.account), envelope, body)

    def token(self, offset: int) -> Token:
        """The token of a place in this partition."""
        return Token(LOG_ID, PARTITION, offset, self.checks[offset])

    def read(self, ref: EntityRef, offset: int) -> dict[str, Any]:
        """That an entity was read when its head was at ``offset``."""
        return {"what": "entity", "kind": ref.kind, "id": ref.id, "basis": self.token(offset).pack()}

    def absent(self, ref: EntityRef, offset: int | None = None) -> dict[str, Any]:
        """That an entity was not there at ``offset`` (default: now)."""
        return {**self.read(ref, self.next_offset - 1 if offset is None else offset), "what": "absent"}

    def scope(
        self, container: str, container_id: str, start: int | None = None, end: int | None = None, at: int | None = None
    ) -> dict[str, Any]:
        """That a scope was read at the offset ``at`` (default: now)."""
        basis = self.token(self.next_offset - 1 if at is None else at).pack()
        return {"what": "scope", "kind": container, "id": container_id, "start": start, "end": end, "basis": basis}


def retold(records: Iterable[Stored]) -> list[Stored]:
    """The records at offsets from 0 on, whatever offsets they had."""
    return [record._replace(offset=offset) for offset, record in enumerate(records)]


def without_waiting(policy: Policy) -> Policy:
    """The policy without a bound on staleness."""
    return Policy(policy.name, policy.rules, policy.basis_max_age_ms, None)


def _settings(policy: Policy, kinds: Iterable[str]) -> dict[str, Any]:
    return {"policy": policy.to_body(), "kinds": sorted(kinds), "fold_version": 1}
