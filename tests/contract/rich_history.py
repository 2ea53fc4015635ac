"""A history with everything in it: every record type, every table's row, most verdicts. For suites that need much to go
by; what each rule does is tested elsewhere."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from headrace.errors import LogMismatchError
from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.framing import GENESIS, chain
from headrace.log.port import Log, LogDescription, Record, Stored
from headrace.processors.core.echoes import settled
from headrace.processors.core.model import Event
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.processors.core.verdicts import canonical
from headrace.producers.event import NewEvent
from headrace.producers.intake import Intake, pseudonymised
from headrace.producers.marks import mark_of
from headrace.producers.opening import OPERATOR, SOURCE, open_log
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.refs import ActorRef, EntityRef, Position, Token
from headrace.schemas.registry import MARKER

TENANT: Final = "acme"
ANN: Final = ActorRef("user", "ann")
BOT: Final = ActorRef("agent", "bot")
OTHER_BOT: Final = ActorRef("agent", "other")
START: Final = 1_795_000_000_000
HOUR: Final = 3_600_000
KINDS: Final = ("calendar.event", "mail.thread")
LOG_ID: Final = bytes(range(16))
_OBSERVED: Final = "2026-11-21T17:15:00.000Z"


class MemoryLog:
    """A log in memory: the smallest thing that has the port's shape. ``records`` may be changed at will, for faults."""

    def __init__(self, partitions: int = 1) -> None:
        self.records: list[list[Stored]] = [[] for _ in range(partitions)]
        self.now = START
        self.log_id: bytes | None = None

    def append(self, records: Sequence[Record]) -> list[Position]:
        """See :class:`headrace.log.port.Log`."""
        found: list[Position] = []
        for record in records:
            self.now += 7
            run = self.records[record.partition]
            run.append(Stored(record.partition, len(run), self.now, True, record.key, record.headers, record.value))
            found.append(Position(record.partition, len(run) - 1))
            if found[-1] == (0, 0):
                self.log_id = bytes.fromhex(dict(record.headers)["headrace-logid"].decode())
        return found

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """See :class:`headrace.log.port.Log`."""
        if offset > len(self.records[partition]):
            raise LogMismatchError(f"partition {partition} ends at {len(self.records[partition])}: rebuild")
        return self.records[partition][offset : offset + limit]

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        """See :class:`headrace.log.port.Log`; never blocks."""
        return frozenset(p for p, offset in after.items() if len(self.records[p]) > offset)

    def describe(self) -> LogDescription:
        """See :class:`headrace.log.port.Log`."""
        return LogDescription(self.log_id, len(self.records), tuple(map(len, self.records)), None)


class Author:
    """Writes a history onto a log, keeping track of the chain so that proposals can name their bases."""

    def __init__(self, log: Log, account: str = "a-4", *, policy: Policy = DEFAULT_POLICY) -> None:
        self.log = log
        self.account = account
        self.registry = installed_schemas()
        open_log(log, self.registry, KINDS, policy)
        described = log.describe()
        assert described.log_id is not None
        self.log_id = described.log_id
        self.intake = Intake(self.registry, Keys(bytes(32)), described.partitions)
        self.partition = self.intake.partition(TENANT, account)
        self._chain = GENESIS
        self._seen = 0
        self._tokens: dict[int, Token] = {}

    def token(self, offset: int) -> Token:
        """The token of an offset of the account's partition."""
        while self._seen <= offset:
            for stored in self.log.read(self.partition, self._seen, 100):
                self._chain = chain(self._chain, stored)
                self._tokens[stored.offset] = Token(self.log_id, self.partition, stored.offset, self._chain[:8])
                self._seen = stored.offset + 1
        return self._tokens[offset]

    def put(self, record: Record) -> int:
        """Append; the offset."""
        return self.log.append([record])[0].offset

    def raw(self, value: bytes, headers: tuple[tuple[str, bytes], ...], key: bytes | None = b"") -> int:
        """Append bytes as they are."""
        named = f"{TENANT}/{self.account}".encode() if key == b"" else key
        return self.put(Record(self.partition, named, headers, value))

    def fact(
        self,
        type_: str,
        entity: str,
        id_: str,
        body: Mapping[str, Any],
        *,
        content: Mapping[str, Any] | None = None,
        concerns: tuple[str, ...] = (),
        actor: ActorRef = ANN,
        sync: str | None = None,
        mark: str | None = None,
    ) -> int:
        """Append a fact; the offset."""
        kind = "mail.thread" if type_.startswith("mail.") else "calendar.event"
        new = NewEvent(type_, kind, entity, id_, body, content, _OBSERVED, concerns, mark)
        return self.put(
            self.intake.event(
                TENANT, self.account, new, source="mailbox/ann", actor=actor, observed_at=_OBSERVED, sync=sync
            )
        )

    def note(
        self,
        type_: str,
        id_: str,
        body: Mapping[str, Any],
        *,
        entity: str | None = None,
        actor: ActorRef = BOT,
        sync: str | None = None,
        source: str = "mailbox/ann",
    ) -> int:
        """Append a record that is no fact; the offset."""
        kind, _, name = (entity or "").partition("/")
        envelope = Envelope(id_, source, type_, actor, kind, name, sync=sync, causation="cause", correlation="turn")
        return self.put(self.intake.record(TENANT, self.account, envelope, body))

    def own(self, type_: str, id_: str, body: Mapping[str, Any]) -> int:
        """Append one of the log's own records to the account's partition; the offset."""
        headers = to_headers(Envelope(id_, SOURCE, type_, OPERATOR))
        return self.raw(self.registry.encode(type_, body), headers, None)

    def propose(
        self,
        id_: str,
        type_: str,
        subject: str,
        reads: Sequence[Mapping[str, Any]],
        data: Mapping[str, Any],
        *,
        actor: ActorRef = BOT,
        expires_at: int | None = None,
        concerns: tuple[str, ...] = (),
    ) -> int:
        """Append a proposal; the offset."""
        kind, _, entity = subject.partition("/")
        return self.put(
            self.intake.proposal(
                EntityRef(TENANT, self.account, kind, entity),
                id_,
                type_,
                actor=actor,
                source="agents/bot",
                reads=reads,
                data=data,
                content={"text": "a draft"},
                expires_at=expires_at,
                said_concerns=concerns,
                observed_at=_OBSERVED,
            )
        )

    def entity(self, subject: str, offset: int) -> dict[str, Any]:
        """A read of an entity whose head is at ``offset``."""
        kind, _, name = subject.partition("/")
        return {"what": "entity", "kind": kind, "id": name, "basis": self.token(offset)}

    def absent(self, subject: str, offset: int) -> dict[str, Any]:
        """A read of an entity that did not exist at ``offset``."""
        return self.entity(subject, offset) | {"what": "absent"}

    def scope(
        self, container: str, id_: str, offset: int, start: int | None = None, end: int | None = None
    ) -> dict[str, Any]:
        """A read of a scope at ``offset``."""
        clear = self.intake.pseudonyms(TENANT, self.account)(id_) if container == "calendar" else id_
        return {
            "what": "scope",
            "kind": container,
            "id": clear,
            "start": start,
            "end": end,
            "basis": self.token(offset),
        }


def meeting(start: int, *, unbounded: bool = False, title: str | None = None) -> dict[str, Any]:
    """The body of a calendar event of one hour."""
    return {
        "calendar": "team",
        "uid": f"uid-{start}",
        "resource": f"/team/{start}.ics",
        "occurrences": [{"start": start, "end": start + HOUR}],
        "unbounded_from": start + 7 * 24 * HOUR if unbounded else None,
        "attendees": [{"who": "bob@example.com", "response": "needs-action"}],
    }


def mail(number: int, *, answers: int | None = None) -> dict[str, Any]:
    """The body of a message."""
    return {
        "message": f"<{number}@example.com>",
        "in_reply_to": f"<{answers}@example.com>" if answers is not None else None,
        "sender": "bob@example.com",
        "recipients": ["ann@example.com"],
        "labels": ["INBOX"],
    }


def write(author: Author) -> None:
    """The whole history, about 90 records."""
    _mail(author)
    _calendar(author)
    _sources(author)
    _deliveries(author)
    _poison(author)
    _operator(author)


def _mail(author: Author) -> None:
    thread = "mail.thread/t-1"
    head = author.fact("mail.received", "t-1", "m-1", mail(1), content={"subject": "Grüße 📬", "text": "?"})
    author.fact("mail.received", "t-1", "m-1", mail(1), content={"subject": "Grüße 📬", "text": "?"})
    author.fact("mail.received", "t-1", "m-1", mail(9))
    reply = {"in_reply_to": "<1@example.com>", "recipients": ["bob@example.com"]}
    author.propose("p-1", "mail.reply", thread, [author.entity(thread, head)], reply, concerns=("person:bob",))
    author.propose("p-1", "mail.reply", thread, [author.entity(thread, head)], reply, concerns=("person:bob",))
    author.propose("p-1", "mail.reply", thread, [author.entity(thread, head)], {"in_reply_to": None})
    author.propose("p-2", "mail.archive", thread, [author.entity(thread, head)], {}, expires_at=START + 10**9)
    author.fact("mail.labelled", "t-1", "m-2", {"added": ["work"], "removed": []}, concerns=("message:1",))
    author.fact("mail.sent", "t-1", "m-3", mail(2, answers=1))
    author.propose("p-3", "mail.reply", thread, [author.entity(thread, head)], reply)
    author.propose("p-4", "mail.label", thread, [author.entity(thread, head)], {"added": ["x"]}, expires_at=START)
    author.note("claim.taken", "c-1", {"claim": "c-1", "until": START + 10**9}, entity=thread, actor=OTHER_BOT)
    author.note("claim.taken", "c-2", {"claim": "c-2", "until": START + 10**9}, entity="mail.thread/t-2")
    last = author.fact("mail.received", "t-1", "m-4", mail(3))
    author.propose("p-5", "mail.reply", thread, [author.entity(thread, last)], {"in_reply_to": None})
    author.note("claim.released", "c-2-end", {"claim": "c-2"}, entity="mail.thread/t-2")
    author.note("claim.released", "c-9-end", {"claim": "c-9"}, entity="mail.thread/t-2")
    gone = author.fact("mail.trashed", "t-3", "m-5", {})
    author.propose("p-6", "mail.archive", "mail.thread/t-3", [author.entity("mail.thread/t-3", gone)], {})


def _calendar(author: Author) -> None:
    seen = author.fact("calendar.created", "e-1", "k-1", meeting(START), content={"title": "Standup", "location": "R1"})
    author.fact("calendar.created", "e-2", "k-2", meeting(START + 2 * HOUR, unbounded=True))
    author.propose(
        "b-1",
        "calendar.book",
        "calendar.event/e-3",
        [
            author.absent("calendar.event/e-3", seen),
            author.scope("calendar", "team", seen, START + 4 * HOUR, START + 5 * HOUR),
        ],
        {"calendar": "team", "start": START + 4 * HOUR, "end": START + 5 * HOUR, "attendees": ["bob@example.com"]},
    )
    author.propose(
        "b-2",
        "calendar.book",
        "calendar.event/e-4",
        [author.absent("calendar.event/e-4", seen), author.scope("calendar", "team", seen)],
        {"calendar": "team", "start": START + 9 * HOUR, "end": START + 10 * HOUR},
    )
    bare = meeting(START) | {"occurrences": []}
    author.fact("calendar.created", "e-5", "k-5", bare)
    move = {"start": START + HOUR, "end": START + 2 * HOUR}
    author.fact(
        "calendar.responded",
        "e-1",
        "k-6",
        {"responses": [{"who": "bob@example.com", "response": "accepted"}], "etag": "v2"},
    )
    author.propose("v-1", "calendar.move", "calendar.event/e-1", [author.entity("calendar.event/e-1", seen)], move)
    waiting = author.propose(
        "v-2", "calendar.move", "calendar.event/e-1", [author.entity("calendar.event/e-1", seen)], move
    )
    author.propose("v-3", "calendar.cancel", "calendar.event/e-1", [author.entity("calendar.event/e-1", seen)], {})
    author.note("review.approved", "r-1", {"proposal": "v-1", "read": author.token(waiting).pack()}, actor=ANN)
    author.note("review.dismissed", "r-2", {"proposal": "v-2", "reason": "no"}, actor=ANN)
    author.note("proposal.withdrawn", "w-1", {"proposal": "v-3"})
    author.note("proposal.withdrawn", "w-2", {"proposal": "never-made"})
    author.fact("calendar.cancelled", "e-2", "k-7", {"removed": True})


def _sources(author: Author) -> None:
    author.note("source.notified", "n-1", {"delivery": "d-1", "content": b"\x00\xff"}, actor=ActorRef("system", "hook"))
    author.note("source.sync_started", "s-1", {"sync": "s-1", "feeds": ["calendar.event"]})
    author.note("source.sync_started", "s-2", {"sync": "s-2", "feeds": ["calendar.event"]})
    author.fact("calendar.created", "e-6", "k-8", meeting(START + 20 * HOUR), sync="s-1")
    author.fact("calendar.created", "e-6", "k-8", meeting(START + 21 * HOUR), sync="s-2")
    author.note("source.synced", "s-2-end", {"sync": "s-2", "cursor": "cursor-2"}, sync="s-2")
    author.note("source.confirmed", "s-ok", {"proposal": "p-3"})


def _deliveries(author: Author) -> None:
    """Four proposals on threads of their own: delivered, echoed, failed, unknown."""
    for number in range(4):
        thread, archive = f"d-{number}", f"mail.thread/d-{number}"
        head = author.fact("mail.received", thread, f"dm-{number}", mail(100 + number))
        author.propose(f"dp-{number}", "mail.archive", archive, [author.entity(archive, head)], {})
        foreseen = _foreseen(author, number) if number == 1 else None
        body = {"proposal": f"dp-{number}", "attempt": f"at-{number}", "foreseen": foreseen}
        author.note("delivery.attempted", f"at-{number}", body, actor=ActorRef("system", "deliverer"))
    end = {"proposal": "dp-0", "attempt": "at-0"}
    author.note("delivery.succeeded", "ok-0", end | {"reference": "v3"}, actor=ActorRef("system", "deliverer"))
    author.fact("mail.archived", "d-1", "echo-1", {})
    author.note("delivery.failed", "no-2", {"proposal": "dp-2", "attempt": "at-2", "reason": "gone"})
    author.note("delivery.unknown", "what-3", {"proposal": "dp-3", "attempt": "at-3", "reason": "crash"})
    author.fact("mail.read", "d-3", "read-3", {})
    _marked_deliveries(author)


def _marked_deliveries(author: Author) -> None:
    """Meetings that are moved: the echo before the outcome, after it, still to come, and with an edit on top."""
    for number in range(4):
        name, meeting_ = f"m-{number}", f"calendar.event/m-{number}"
        starts = START + (30 + number) * HOUR
        head = author.fact("calendar.created", name, f"mm-{number}", meeting(starts))
        moved = {"start": starts + HOUR, "end": starts + 2 * HOUR}
        author.propose(f"mp-{number}", "calendar.move", meeting_, [author.entity(meeting_, head)], moved)
        after = meeting(starts) | {"etag": f"v-{number}", "occurrences": [moved]}
        state = _evolved(author, after)
        kind = installed_kinds()["calendar.event"]
        attempt = {"proposal": f"mp-{number}", "attempt": f"mt-{number}"}
        mark = mark_of(author.intake.pseudonyms(TENANT, author.account), f"mp-{number}")
        said = attempt | {"echo": settled(kind, state), "mark": mark}
        author.note("delivery.attempted", f"mt-{number}", said, actor=ActorRef("system", "deliverer"))
        if number:
            end = attempt | {"reference": f"v-{number}"}
            author.note("delivery.succeeded", f"m-ok-{number}", end, actor=ActorRef("system", "deliverer"))
        if number != 2:
            told = after | ({"busy": False} if number == 3 else {})
            author.fact("calendar.updated", name, f"m-echo-{number}", told, mark=mark)


def _evolved(author: Author, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state that a meeting's first fact leads to."""
    pseudonym = author.intake.pseudonyms(TENANT, author.account)
    shape = author.registry.schema("calendar.created").shape
    said = {field["name"]: field["default"] for field in shape["fields"] if "default" in field}
    hidden = pseudonymised(shape, said | dict(body), pseudonym, lambda _, text: text)
    return installed_kinds()["calendar.event"].evolve(None, Event("calendar.created", hidden, ANN))


def _foreseen(author: Author, number: int) -> bytes:
    kind = installed_kinds()["mail.thread"]
    pseudonym = author.intake.pseudonyms(TENANT, author.account)
    state = {
        **dict.fromkeys(("last_by_owner", "trashed", "deleted"), False),
        "messages": 1,
        "last_message": pseudonym(f"<{100 + number}@example.com>"),
        "last_sender": pseudonym("bob@example.com"),
        "answered": [],
        "drafted": [],
        "labels": ["INBOX"],
        "unread": True,
        "archived": False,
    }
    return hashlib.sha256(canonical(kind.foresee(state, "mail.archive", {}))).digest()


def _poison(author: Author) -> None:
    headers = to_headers(Envelope("x-1", "mailbox/ann", "mail.read", ANN, "mail.thread", "t-1"))
    author.raw(MARKER + author.registry.schema("mail.read").fingerprint + b"\x02\x40cut off", headers)
    author.raw(b"", (("ce_id", b"\xff"),))
    author.raw(b"", headers, b"no key at all")
    proposed = to_headers(Envelope("p-broken", "agents/bot", "proposal.submitted", BOT, "mail.thread", "t-1"))
    author.raw(b"junk", proposed)
    thread = "mail.thread/t-1"
    author.propose("p-fault", "calendar.cancel", thread, [author.entity(thread, 1)], {})
    foreign = author.entity(thread, 1) | {"basis": author.token(1)._replace(log_id=bytes(16))}
    author.propose("p-foreign", "mail.archive", thread, [foreign], {})
    head = author.fact("mail.received", "h-1", "hm-1", mail(200))
    author.note("source.sync_started", "imap-1", {"sync": "imap-1", "feeds": ["mail.thread"]}, source="imap")
    archive = "mail.thread/h-1"
    author.propose("p-held", "mail.archive", archive, [author.entity(archive, head)], {})


def _operator(author: Author) -> None:
    policy = Policy("stricter", DEFAULT_POLICY.rules[:3], 10**10, None)
    body = {"policy": policy.to_body(), "kinds": list(KINDS), "fold_version": 1}
    author.own("policy.activated", "policy-2", body)
    author.own("log.time_reset", "reset-1", {"to": START + 5, "reason": "a broker's clock"})
    author.fact("mail.read", "t-1", "m-last", {})
