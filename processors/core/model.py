"""What the fold works on: decoded records going in, rows of state kept between them.

Everything here is plain data. Rows are mutable on purpose: one batch folds thousands of records over them, and only
the engine sees them before they are written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef, EntityRef, Token, Touch

FOLD_VERSION: Final = 1
"""The version of the rules in this package. The log names the one in force; a processor without it halts.

Still 1 since echoes are told apart by ``delivery.attempted`` version 2: what is on a log that lacks that is judged as
ever, and a processor that lacks it halts where it meets it."""

State = Mapping[str, Any]
"""An entity's deciding state: plain JSON values, never mutated."""

AccountKey = tuple[str, str]


class Read(NamedTuple):
    """One thing the agent looked at. ``basis`` is ``None`` where the bytes were no token."""

    what: str
    kind: str
    id: str
    start: int | None
    end: int | None
    account: str | None
    basis: Token | None

    @property
    def touch(self) -> Touch:
        """Of a scope: what it covers."""
        return Touch(self.kind, self.id, self.start, self.end)


class Event(NamedTuple):
    """A fact as the kind sees it."""

    type: str
    body: Mapping[str, Any]
    actor: ActorRef


class Proposal(NamedTuple):
    """An agent's output, as judged. ``fault`` says why it cannot be (malformed), else ``None``."""

    id: str
    type: str
    ref: EntityRef
    actor: ActorRef
    reads: tuple[Read, ...]
    expires_at: int | None
    data: Mapping[str, Any]
    concerns: tuple[str, ...]
    payload_hash: bytes
    offset: int
    fault: str | None = None


class Entry(NamedTuple):
    """A record of the log that could be decoded. ``tenant`` and ``account`` are empty on the log's own records; ``ref``
    is the entity it is about."""

    offset: int
    appended_at: int
    log_append: bool
    tenant: str
    account: str
    envelope: Envelope
    role: str
    body: Mapping[str, Any]
    identity: bytes
    body_hash: bytes
    chain: bytes
    ref: EntityRef
    proposal: Proposal | None = None


class Poison(NamedTuple):
    """A record that versioned decoding or validation refused. The partition goes on. Where it is recognisably a
    proposal, ``proposal`` names it, so that who asks is told."""

    offset: int
    appended_at: int
    log_append: bool
    reason: str
    chain: bytes
    tenant: str = ""
    account: str = ""
    proposal: str | None = None


class Effect(NamedTuple):
    """An effective event, as those meet it who had read before it.

    ``type`` is the record's type; ``effect`` is what policies speak of: the type of a fact, ``echo`` for an agent's own
    act that came back (``actor`` is that agent then, whoever brought it), ``accepted:KIND`` for an accepted proposal,
    or the type that ended an intent. ``proposal`` names the proposal that was accepted or whose intent ended.
    """

    offset: int
    check: bytes
    ref: EntityRef
    event_id: str
    type: str
    effect: str
    actor: ActorRef
    concerns: tuple[str, ...]
    time: int
    proposal: str | None


class Known(NamedTuple):
    """What is remembered of an offset that somebody gave as a basis: the chain's first 8 bytes there, the entity whose
    head it was (or ``None``), the log time."""

    check: bytes
    ref: EntityRef | None
    log_time: int


@dataclass(slots=True)
class Intent:
    """An accepted proposal whose outcome is not known. ``clean`` until a fact follows its attempt that is no echo.
    ``echo`` and ``mark`` tell its echo apart (``foreseen`` with attempts of version 1), ``agent`` is whose it is,
    ``reference`` what the provider's answer named; see :mod:`headrace.processors.core.echoes`."""

    proposal: str
    type: str
    data: Mapping[str, Any]
    accepted_at: int
    attempt: str | None = None
    foreseen: bytes | None = None
    clean: bool = True
    unknown: bool = False
    echo: bytes | None = None
    mark: str | None = None
    agent: str = ""
    reference: str | None = None


@dataclass(slots=True)
class EntityRow:
    """An entity: facts in ``state`` (``None`` before the first), intents laid over it in order of acceptance.
    ``awaited`` are those that have succeeded, and whose echo may be still to come. ``renewed``: its content was said
    anew since it was loaded; where not, tables may leave theirs as it is."""

    ref: EntityRef
    first_offset: int = -1
    head_offset: int = -1
    head_check: bytes = b""
    head_time: int = 0
    state: State | None = None
    intents: list[Intent] = field(default_factory=list)
    content: bytes | None = None
    content_key: str | None = None
    renewed: bool = field(default=False, compare=False)
    awaited: list[Intent] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        """Whether it ever had an effective event."""
        return self.first_offset >= 0


@dataclass(slots=True)
class ProposalRow:
    """A proposal and what the log says of it now. ``accepted_at`` is the offset of the record that decided it, -1 while
    it is not accepted; ``outcome`` is ``open`` while it is an intent, then how that ended. ``waived_to`` is the newest
    offset up to which a person has waived ``review`` events, -1 where nobody has."""

    proposal: Proposal
    verdict: str = ""
    finding: Mapping[str, Any] = field(default_factory=dict)
    judged_at: int = -1
    log_time: int = 0
    accepted_at: int = -1
    outcome: str | None = None
    waived_to: int = -1


@dataclass(slots=True)
class SourceRow:
    """A source of an account. Offsets are -1 before the first; times are log time in epoch milliseconds.
    ``fresh_offset`` and ``fresh_time`` are those of the *start* of the last completed sync."""

    tenant: str
    account: str
    source: str
    feeds: tuple[str, ...] = ()
    cursor: str | None = None
    sync: str | None = None
    sync_offset: int = -1
    sync_time: int = 0
    hint_offset: int = -1
    synced_offset: int = -1
    fresh_offset: int = -1
    fresh_time: int = 0


@dataclass(slots=True)
class ClaimRow:
    """Who holds an entity until when (log time). ``holder`` is the actor's ``kind/id``."""

    ref: EntityRef
    claim: str
    holder: str
    until: int
    offset: int


class Mark(NamedTuple):
    """One row of the events index: what became of the record at ``offset``."""

    entry: Entry | Poison
    disposition: str
    effect: Effect | None
    log_time: int
    uses_identity: bool
