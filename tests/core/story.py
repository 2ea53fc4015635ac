"""A story told record by record, judged by the real engine: what the scenario tests are written in."""

import hashlib
import json
from typing import Any, Final

from headrace.processors.core.policy import Policy
from headrace.processors.core.verdicts import canonical
from headrace.schemas.refs import EntityRef
from tests.core.agreement import differences
from tests.core.folding import Folded, fold
from tests.core.scribe import BANK_POLICY, HOME, HOUR, KINDS, START, SYSTEM, Account, Scribe

CALENDAR: Final = "c1"
FIVE: Final = START
"""The hour that the calendar stories are about begins here."""


class Story(Scribe):
    """``THREAD``, ``MEETING`` and ``BANK`` are entities of the account that most stories are about."""

    thread: Final = HOME.entity("mail.thread", "th1")
    meeting: Final = HOME.entity("calendar.event", "ev1")
    bank: Final = HOME.entity("bank.account", "b1")

    def __init__(self, policy: Policy = BANK_POLICY) -> None:
        super().__init__(policy)
        self._folded: tuple[int, Folded] | None = None

    # -- what happens ---------------------------------------------------------------------------------------------

    def mail(self, message: str = "m1", *, about: EntityRef | None = None, concerns: tuple[str, ...] = ()) -> int:
        """A mail arrives."""
        ref = about or self.thread
        body = {"message": message, "sender": "bob", "labels": ["INBOX"]}
        return self.say(Account(ref.tenant, ref.account), "mail.received", body, about=ref, concerns=concerns)

    def meets(self, start: int, end: int, *, about: EntityRef | None = None, type_: str = "calendar.created") -> int:
        """A person puts a meeting into the calendar, or moves it; hours after five."""
        times = {"start": FIVE + start * HOUR, "end": FIVE + end * HOUR}
        return self.fact(about or self.meeting, type_, calendar=CALENDAR, uid="u", occurrences=[times])

    def reply(self, *, id: str | None = None, concerns: tuple[str, ...] = (), basis: int | None = None) -> int:  # noqa: A002
        """An agent answers the thread, having read it (by default: now)."""
        data: dict[str, Any] = {"in_reply_to": "m1"}
        return self.propose(self.thread, "mail.reply", data, [self.seen(self.thread, basis)], id=id, concerns=concerns)

    def label(self, name: str = "urgent", *, id: str | None = None, basis: int | None = None) -> int:  # noqa: A002
        """An agent labels the thread."""
        return self.propose(self.thread, "mail.label", {"added": [name]}, [self.seen(self.thread, basis)], id=id)

    def adjust(self, amount: int, *, id: str | None = None, basis: int | None = None) -> int:  # noqa: A002
        """An agent pays into the bank account or takes out of it."""
        return self.propose(self.bank, "account.adjust", {"amount": amount}, [self.seen(self.bank, basis)], id=id)

    def move(self, start: int, end: int, *, id: str | None = None, basis: int | None = None) -> int:  # noqa: A002
        """An agent moves the meeting."""
        data = {"start": FIVE + start * HOUR, "end": FIVE + end * HOUR}
        return self.propose(self.meeting, "calendar.move", data, [self.seen(self.meeting, basis)], id=id)

    def seen(self, ref: EntityRef, basis: int | None = None) -> dict[str, Any]:
        """What somebody has read who looked at an entity when ``basis`` was its head (by default: now)."""
        return self.read(ref, basis if basis is not None else self.head(ref))

    def attempt(self, proposal: str, attempt: str = "t1", *, foreseen: Any = None) -> int:
        """The delivery agent is about to carry a proposal out and expects this state after it."""
        digest = hashlib.sha256(canonical(foreseen)).digest() if foreseen is not None else None
        body = {"proposal": proposal, "attempt": attempt, "foreseen": digest}
        return self.say(HOME, "delivery.attempted", body, actor=SYSTEM)

    def attempt_marked(
        self, proposal: str, attempt: str = "t1", *, echo: bytes | None = None, mark: str | None = None
    ) -> int:
        """The same, and how its echo is told apart."""
        body = {"proposal": proposal, "attempt": attempt, "echo": echo, "mark": mark}
        return self.say(HOME, "delivery.attempted", body, actor=SYSTEM)

    def outcome(self, how: str, proposal: str, attempt: str = "t1", *, reference: str | None = None) -> int:
        """How that went: succeeded, refused, failed or unknown."""
        body = {"proposal": proposal, "attempt": attempt}
        if reference is not None:
            body["reference"] = reference
        return self.say(HOME, f"delivery.{how}", body, actor=SYSTEM)

    def found(self, ref: EntityRef, type_: str, body: dict[str, Any], mark: str | None = None) -> int:
        """What a sync finds of an entity, on an object that carries ``mark``."""
        return self.say(HOME, type_, body, about=ref, causation=mark)

    def actor(self, offset: int) -> str:
        """Whose act a record is."""
        row = self.folded.events[offset]
        return f"{row['actor_kind']}/{row['actor_id']}"

    def started(self, sync: str, *, feeds: tuple[str, ...] = (), source: str = "imap") -> int:
        """A sync begins."""
        body = {"sync": sync, "feeds": list(feeds)}
        return self.say(HOME, "source.sync_started", body, source=source, actor=SYSTEM)

    def synced(self, sync: str, *, cursor: str | None = None, source: str = "imap", id: str | None = None) -> int:  # noqa: A002
        """A sync is complete."""
        body = {"sync": sync, "cursor": cursor}
        return self.say(HOME, "source.synced", body, source=source, actor=SYSTEM, sync=sync, id=id)

    # -- what came of it ------------------------------------------------------------------------------------------

    @property
    def folded(self) -> Folded:
        """Everything so far, folded; the naive reference must see it so, too."""
        if self._folded is None or self._folded[0] != self.next_offset:
            folded = fold(self.records)
            assert differences(self.records, folded) == []
            assert fold(self.records, (1,), restart=True).tables == folded.tables
            self._folded = (self.next_offset, folded)
        return self._folded[1]

    def became(self, offset: int) -> str:
        """What became of a record."""
        return self.folded.dispositions[offset]

    def note(self, offset: int) -> str:
        """Why, where it says so."""
        note: str = self.folded.events[offset]["note"]
        return note

    def verdict(self, offset: int) -> str:
        """The verdict reached at an offset."""
        return self.folded.names[offset]

    def finding(self, offset: int) -> dict[str, Any]:
        """The finding of the verdict reached at an offset."""
        finding: dict[str, Any] = json.loads(self.folded.verdicts[offset])["finding"]
        return finding

    def proposal(self, proposal: str) -> dict[str, Any]:
        """The proposal's row."""
        (row,) = (row for row in self.folded.tables["proposals"] if row["id"] == proposal)
        return row

    def row(self, ref: EntityRef) -> dict[str, Any] | None:
        """The entity's row."""
        rows = self.folded.tables[KINDS[ref.kind].table]
        named = [row for row in rows if (row["tenant"], row["account"], row["id"]) == (ref.tenant, ref.account, ref.id)]
        return named[0] if named else None

    def head(self, ref: EntityRef) -> int:
        """The offset of the entity's head."""
        row = self.row(ref)
        assert row is not None, f"{ref} was never there"
        offset: int = row["head_offset"]
        return offset

    def state(self, ref: EntityRef) -> dict[str, Any]:
        """The entity's facts."""
        row = self.row(ref)
        assert row is not None
        state: dict[str, Any] = json.loads(row["state"])
        return state

    def intents(self, ref: EntityRef) -> list[str]:
        """The proposals laid over the entity's facts."""
        row = self.row(ref)
        assert row is not None
        return [one["proposal"] for one in json.loads(row["intents"]) if not one["ended"]]
