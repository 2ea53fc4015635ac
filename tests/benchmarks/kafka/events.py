"""One set of events for everybody: facts about mail threads and calendar events, and, mixed in, proposals."""

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.framing import GENESIS, chain
from headrace.log.kafka import KafkaLog
from headrace.log.port import Record
from headrace.producers.event import NewEvent
from headrace.producers.intake import Intake
from headrace.producers.opening import open_log
from headrace.schemas.refs import ActorRef, EntityRef, Token

TENANT: Final = "bench"
THREADS_AN_ACCOUNT: Final = 20
"""Of these one is a calendar event."""
_TIME: Final = "2026-11-21T17:15:00.000Z"
_DAY_MS: Final = 86_400_000
_PERSON: Final = ActorRef("user", "person")
_AGENT: Final = ActorRef("agent", "labeller")
_ROUND: Final = 2_000
_TEXT: Final = "Dear Ann, shall we meet on Thursday at three? I could come to your place. Yours, Bob"


class Entity(NamedTuple):
    """The ``number``-th of a history."""

    number: int

    @property
    def account(self) -> str:
        """Whose it is."""
        return f"account-{self.number // THREADS_AN_ACCOUNT}"

    @property
    def kind(self) -> str:
        """Mostly mail."""
        return "calendar.event" if self.number % THREADS_AN_ACCOUNT == 0 else "mail.thread"

    @property
    def ref(self) -> EntityRef:
        """Its name."""
        return EntityRef(TENANT, self.account, self.kind, f"e-{self.number}")


def intake(partitions: int) -> Intake:
    """An intake with a key of its own."""
    return Intake(installed_schemas(), Keys(bytes(32)), partitions)


def fact(maker: Intake, number: int, entities: int) -> Record:
    """The ``number``-th fact of a history that goes round and round over so many entities."""
    entity, turn = Entity(number % entities), number // entities
    happened = _calendar(number, turn) if entity.kind == "calendar.event" else _mail(number, turn)
    type_, body, content = happened
    event = NewEvent(type_, entity.kind, entity.ref.id, f"f-{number}", body, content, occurred_at=_TIME)
    return maker.event(TENANT, entity.account, event, source="bench", actor=_PERSON, observed_at=_TIME)


def _mail(number: int, turn: int) -> tuple[str, dict[str, object], dict[str, object] | None]:
    message = f"<{number}@example.com>"
    if turn % 4 == 0:
        said: dict[str, object] = {"subject": f"About Thursday, number {number}", "text": _TEXT}
        people: dict[str, object] = {"sender": "bob@example.com", "recipients": ["ann@example.com"]}
        return "mail.received", {"message": message, "labels": ["INBOX"], **people}, said
    if turn % 4 == 1:
        return "mail.read", {}, None
    if turn % 4 == 2:
        return "mail.labelled", {"added": [f"project-{number % 7}"]}, None
    said = {"subject": f"Re: About Thursday, number {number}", "text": _TEXT}
    return "mail.sent", {"message": message, "sender": "ann@example.com", "recipients": ["bob@example.com"]}, said


def _calendar(number: int, turn: int) -> tuple[str, dict[str, object], dict[str, object]]:
    start = _DAY_MS * (20_000 + number % 300)
    body: dict[str, object] = {
        "calendar": "work",
        "uid": f"uid-{number}",
        "occurrences": [{"start": start, "end": start + _DAY_MS // 24}],
        "organizer": "ann@example.com",
        "attendees": [{"who": "bob@example.com", "response": "accepted"}],
    }
    content: dict[str, object] = {"title": "Thursday", "location": "Ann's place"}
    return "calendar.updated" if turn else "calendar.created", body, content


def create(url: str, partitions: int) -> KafkaLog:
    """A new log, opened."""
    log = KafkaLog.create(url, partitions)
    open_log(log, installed_schemas(), installed_kinds())
    return log


def fill(log: KafkaLog, count: int, entities: int, *, begin: int = 0) -> None:
    """Append ``count`` facts."""
    maker = intake(log.describe().partitions)
    for some in _rounds(range(begin, begin + count)):
        log.append([fact(maker, number, entities) for number in some])


def fill_mixed(log: KafkaLog, count: int, entities: int, *, every: int = 10) -> None:
    """Append ``count`` records of which one in ``every`` is a proposal, based on what its entity's head was a while
    ago: most are accepted, and those whose entity has moved since are superseded."""
    described = log.describe()
    assert described.log_id is not None
    maker, heads = intake(described.partitions), _Heads(log, described.log_id)
    facts = proposals = 0
    for some in _rounds(range(count)):
        records: list[Record] = []
        for number in some:
            entity = Entity((proposals * 7) % entities)
            basis = heads.tokens.get(entity.ref) if number % every == every - 1 else None
            if basis is None or entity.kind != "mail.thread":
                records.append(fact(maker, facts, entities))
                facts += 1
            else:
                records.append(_proposal(maker, entity.ref, f"p-{proposals}", basis))
            proposals += number % every == every - 1
        log.append(records)
        heads.catch_up()


def _proposal(maker: Intake, ref: EntityRef, name: str, basis: Token) -> Record:
    return maker.proposal(
        ref,
        name,
        "mail.label",
        actor=_AGENT,
        source="bench-agent",
        reads=[{"what": "entity", "kind": ref.kind, "id": ref.id, "basis": basis}],
        data={"added": ["urgent"]},
        content=None,
        expires_at=None,
        said_concerns=[],
        observed_at=_TIME,
    )


class _Heads:
    """What an agent that reads the facts of a log would give as its basis."""

    def __init__(self, log: KafkaLog, log_id: bytes) -> None:
        self.tokens: dict[EntityRef, Token] = {}
        self._log = log
        self._log_id = log_id
        self._next = [0] * log.describe().partitions
        self._chains = [GENESIS] * len(self._next)

    def catch_up(self) -> None:
        """Read what is new."""
        for partition, end in enumerate(self._log.describe().ends):
            while self._next[partition] < end:
                for stored in self._log.read(partition, self._next[partition], 10_000):
                    self._chains[partition] = chain(self._chains[partition], stored)
                    self._next[partition] += 1
                    headers = dict(stored.headers)
                    if stored.key is None or headers["ce_type"] == b"proposal.submitted":
                        continue
                    tenant, account = stored.key.decode().split("/")
                    kind, entity = headers["ce_subject"].decode().split("/")
                    token = Token(self._log_id, partition, stored.offset, self._chains[partition][:8])
                    self.tokens[EntityRef(tenant, account, kind, entity)] = token


def _rounds(numbers: range) -> Iterator[list[int]]:
    each = iter(numbers)
    while some := list(itertools.islice(each, _ROUND)):
        yield some
