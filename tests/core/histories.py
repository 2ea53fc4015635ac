"""Histories: everything that can come in on one partition, in any order, mostly sensible and sometimes not.

A history is grown from a list of moves of eleven bytes each. The :class:`Author` reads a move with the world before its
eyes (the naive reference, folded so far), so that bases are mostly valid, answers mostly name what waits, and outcomes
mostly name the attempt that runs. Shrinking drops moves and lowers bytes.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace as Thing
from typing import Any, Final

from hypothesis import strategies as st

from examples.account.headrace_account.kind import RULES
from headrace.log.port import Stored
from headrace.processors.core.policy import DEFAULT_POLICY, Policy, PolicyRule
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.refs import ActorRef, EntityRef, Token, account_key
from headrace.schemas.registry import HEAD
from tests.core import happenings
from tests.core.naive import Naive
from tests.core.naive_rule import hashed
from tests.core.scribe import (
    AGENT,
    BANK_POLICY,
    ELSEWHERE,
    HOME,
    HOUR,
    KINDS,
    LOG_ID,
    MINUTE,
    NEIGHBOUR,
    PARTITION,
    PARTITIONS,
    REGISTRY,
    RIVAL,
    SECOND,
    START,
    STRANGER,
    SYSTEM,
    USER,
    Account,
    Scribe,
)

MOVE_BYTES: Final = 11
ACCOUNTS: Final = (HOME, HOME, HOME, HOME, NEIGHBOUR, STRANGER)
ACTORS: Final = (AGENT, AGENT, AGENT, RIVAL, ActorRef("agent", "ann"), USER)
PROPOSERS: Final = (*(AGENT,) * 16, *(RIVAL,) * 10, *(ActorRef("agent", "ann"),) * 5, USER)
CONCERNS: Final[tuple[tuple[str, ...], ...]] = ((), (), ("person:x",), ("person:y",), ("person:x", "person:y"))
SOURCES: Final = ("imap", "caldav")
FEEDS: Final[tuple[list[str], ...]] = ([], ["mail.thread"], ["calendar.event"])
PASSES: Final = (*(0, SECOND, SECOND, 2 * SECOND) * 3, 30 * SECOND, 5 * MINUTE, 16 * MINUTE, -2 * MINUTE)
POLICIES: Final = (
    BANK_POLICY,
    Policy("free", (*RULES, *DEFAULT_POLICY.rules)),
    Policy("strict", (PolicyRule("*", "echo", "*", "ignore"),), basis_max_age_ms=20 * MINUTE),
    Policy(
        "careful",
        (
            *RULES,
            PolicyRule("*", "mail.archived", "*", "invalidate"),
            PolicyRule("*", "calendar.cancelled", "*", "invalidate"),
            PolicyRule("mail.*", "mail.received", "user", "review", concerns=True),
            PolicyRule("*", "mail.*", "*", "review"),
            PolicyRule("calendar.*", "calendar.*", "*", "review"),
            PolicyRule("*", "account.opened", "*", "review"),
            PolicyRule("*", "accepted:*", "agent", "ignore"),
            PolicyRule("*", "delivery.*", "*", "ignore"),
        ),
        source_max_staleness_ms=10 * MINUTE,
    ),
)


class Author:
    """Writes one history. ``scribe`` holds the records, ``world`` what a naive reader makes of them."""

    def __init__(self, policy: Policy) -> None:
        self.scribe = Scribe(policy)
        self.world = Naive(REGISTRY, KINDS, PARTITION, PARTITIONS)
        for ref, type_, body in happenings.beginning(HOME):
            self.scribe.fact(ref, type_, **body)
        self.catch_up()

    def catch_up(self) -> None:
        for record in self.scribe.records[len(self.world.became) :]:
            self.world.step(record)

    def move(self, move: bytes) -> None:
        """Write what this move says, if it says anything here."""
        self.scribe.now += PASSES[move[1] % len(PASSES)]
        account = ACCOUNTS[move[2] % len(ACCOUNTS)]
        MOVES[move[0] % len(MOVES)](self, account, move[3:])
        self.catch_up()

    # -- facts ----------------------------------------------------------------------------------------------------

    def fact(self, account: Account, b: bytes, *, sync: str | None = None, source: str = "test") -> None:
        ref = happenings.entity(account, b[0])
        type_, body = happenings.fact(ref.kind, b[1], b[2])
        actor = (USER, USER, AGENT, SYSTEM)[b[3] % 4]
        concerns = CONCERNS[b[4] % len(CONCERNS)]
        log_append = b[4] % 16 != 15
        self.scribe.say(
            account,
            type_,
            body,
            about=ref,
            actor=actor,
            source=source,
            sync=sync,
            concerns=concerns,
            log_append=log_append,
        )

    def repeat(self, account: Account, b: bytes) -> None:
        """A retry, or the same id on something else."""
        offset = (b[0] * 256 + b[1]) % self.scribe.next_offset
        if offset == 0:
            return
        if b[2] % 4:
            self.scribe.again(offset)
            return
        record, other = self.scribe.records[offset], self.scribe.records[b[3] % self.scribe.next_offset]
        spoilt = record.value[:-1] + b[4:5] if len(record.value) > HEAD else record.value  # of a schema that is here
        self.scribe.stored(record.key, record.headers, other.value if b[2] % 8 else spoilt)

    # -- proposals ------------------------------------------------------------------------------------------------

    def propose(self, account: Account, b: bytes) -> None:
        there = sorted({one.ref for one in self.world.happened if one.ref[:2] == account})
        ref = EntityRef(*there[b[0] // 8 % len(there)]) if there and b[0] % 8 else happenings.entity(account, b[0])
        proposal, data = happenings.proposal(ref.kind, b[1], b[2])
        if b[1] == 255:
            proposal, data = "mail.archive", {}
        reads = [self.read_of(ref, b[3])]
        match b[4] % 64:
            case choice if choice < 24:
                reads.append(happenings.scope(self.scribe, b[5], at=self.place(b[6])))
            case choice if choice < 36:
                reads.append(self.read_of(happenings.entity(account, b[5]), b[6]))
            case 60:
                reads[0]["account"] = NEIGHBOUR.account
            case 61:
                reads = reads[1:]
            case 62:
                reads.append({**happenings.scope(self.scribe, b[5], at=self.place(b[6])), "kind": "no.such"})
            case 63:
                reads.append(self.scribe.scope("calendar", "c1", START + HOUR, START))
            case _:
                pass
        log_time = self.world.log_time
        known = [key[2] for key in self.world.proposals if key[:2] == account]
        self.scribe.propose(
            ref,
            proposal,
            data,
            reads,
            id=known[b[5] % len(known)] if known and b[7] % 16 == 15 else None,
            actor=PROPOSERS[b[1] // 8],
            expires_at={1: log_time + MINUTE, 2: log_time, 3: log_time + 5 * MINUTE}.get(b[7] // 16),
            concerns=CONCERNS[b[6] // 3 % len(CONCERNS)],
        )

    def place(self, choice: int) -> int:
        """A place in the log that somebody may have read at: mostly the newest."""
        newest = self.scribe.next_offset - 1
        return newest if choice % 2 else max(0, newest - choice // 2 % 16)

    def read_of(self, ref: EntityRef, choice: int) -> dict[str, Any]:
        """What an agent says to have read of an entity: mostly its head, now or a little earlier."""
        scribe, own = self.scribe, [one.offset for one in self.world.happened if one.ref == ref]
        if not own or choice % 32 == 31:
            return scribe.absent(ref, self.place(choice // 32))
        match choice % 32:
            case 30:
                return {**scribe.read(ref, own[-1]), "basis": self.wrong_token(own[-1], choice // 32)}
            case 29:
                return scribe.read(ref, self.place(choice // 32))
            case older if 15 < older < 29:
                return scribe.read(ref, own[-1 - choice // 32 % len(own)])
            case _:
                return scribe.read(ref, own[-1])

    def wrong_token(self, head: int, choice: int) -> bytes:
        """A token that fits nowhere: another check, log, partition, the future, or no token at all."""
        token = self.scribe.token(head)
        return (
            token._replace(check=bytes(8)).pack(),
            token._replace(log_id=bytes(16)).pack(),
            token._replace(partition=PARTITION + 1).pack(),
            Token(LOG_ID, PARTITION, self.scribe.next_offset + choice, token.check).pack(),
            token._replace(offset=0).pack(),
            b"garbage",
            token._replace(check=bytes(8)).pack(),
            token.pack(),
        )[choice % 8]

    # -- answers --------------------------------------------------------------------------------------------------

    def answer(self, account: Account, b: bytes) -> None:
        waits = [key for key, one in self.world.proposals.items() if one.verdict in ("needs_review", "held")]
        anyone = list(self.world.proposals)
        if not anyone:
            return
        named = waits[b[0] % len(waits)] if waits and b[1] % 8 else anyone[b[0] % len(anyone)]
        where = Account(*named[:2]) if b[1] % 16 != 15 else account
        actor = (USER, USER, USER, getattr(self.world.proposals[named], "actor", AGENT), RIVAL)[b[2] % 5]
        body: dict[str, Any] = {"proposal": named[2]}
        match b[3] % 8:
            case 0 | 1 | 2:
                token = self.scribe.token(self.place(b[4]))
                body["read"] = token.pack() if b[4] % 16 != 15 else self.wrong_token(token.offset, b[4] // 16)
                self.scribe.say(where, "review.approved", body, actor=actor)
            case 3 | 4 | 5:
                self.scribe.say(where, "source.confirmed", body, actor=SYSTEM)
            case 6:
                self.scribe.say(where, "review.dismissed", body, actor=actor)
            case _:
                self.scribe.say(where, "proposal.withdrawn", body, actor=actor)

    # -- delivery -------------------------------------------------------------------------------------------------

    def deliver(self, account: Account, b: bytes) -> None:
        """An attempt, or what became of one; mostly of an intent that is open. Of one that has succeeded, its echo."""
        if self.world.awaited and (b[0] >= 192 or not self.world.intents):
            self.echo(self.world.awaited[b[0] % len(self.world.awaited)], b)
            return
        if not self.world.intents:
            return
        intent = self.world.intents[b[0] % len(self.world.intents)]
        where, proposal = Account(*intent.ref[:2]), intent.id
        if intent.attempt is None or b[1] % 16 == 15:
            body = {"proposal": proposal, "attempt": f"t{self.scribe.number()}", **self.said_of_echo(intent, b)}
            self.scribe.say(where, "delivery.attempted", body, actor=SYSTEM)
        elif b[1] % 4 == 0 and self.echo(intent, b):
            return
        else:
            outcome = ("succeeded", "succeeded", "refused", "failed", "unknown")[b[2] % 5]
            attempt = intent.attempt if b[3] % 8 else "t0"
            body = {"proposal": proposal if b[3] % 16 != 15 else "p0", "attempt": attempt}
            if outcome == "succeeded" and b[4] % 2:
                body["reference"] = f"v{b[4] % 4}"
            self.scribe.say(where, f"delivery.{outcome}", body, actor=SYSTEM)

    def said_of_echo(self, intent: Thing, b: bytes) -> dict[str, Any]:
        """What an attempt says its echo looks like: as in version 1, by its state, its mark, or both."""
        after = foreseen_state(self.world, intent)
        stamps = self.world.all_kinds[intent.ref[2]].stamps
        if intent.type == "calendar.cancel" and b[3] % 2:
            after = {**after, "removed": True}
        settled = hashed({name: value for name, value in after.items() if name not in stamps})
        mark = f"mark-{intent.id}"
        return (
            {"foreseen": hashed(after)},
            {"echo": settled},
            {"echo": settled, "mark": mark},
            {"mark": mark},
            {"echo": settled, "mark": mark},
            {},
            {"foreseen": bytes(32)},
            {"echo": settled},
        )[b[2] % 8]

    def echo(self, intent: Thing, b: bytes) -> bool:
        """A fact that may be the echo of an attempt: as it was made, without its mark, with another's, or with an edit
        on top. Not where no source would report one."""
        echo = happenings.echo(intent, self.world.facts.get(intent.ref), b[5])
        if echo is None:
            return False
        type_, body = echo
        if type_.startswith("calendar.") and b[4] % 2:
            body = {**body, "etag": f"v{b[4] % 4}"}
        if b[6] % 8 == 7 and "busy" in body:
            body = {**body, "busy": not body["busy"]}
        mark = (intent.mark, intent.mark, intent.mark, None, f"mark-p{b[5] % 8}")[b[6] % 5]
        actor = (AGENT, USER, SYSTEM)[b[7] % 3]
        self.scribe.say(
            Account(*intent.ref[:2]), type_, body, about=EntityRef(*intent.ref), actor=actor, causation=mark
        )
        return True

    # -- claims, sources ------------------------------------------------------------------------------------------

    def claim(self, account: Account, b: bytes) -> None:
        ref, actor = happenings.entity(account, b[0]), ACTORS[b[1] % len(ACTORS)]
        held = self.world.claims.get(ref)
        if b[2] % 3 or held is None:
            until = self.world.log_time + (MINUTE, 10 * MINUTE, 0)[b[3] % 3]
            body = {"claim": f"c{self.scribe.number()}", "until": until}
            self.scribe.say(account, "claim.taken", body, about=ref, actor=actor)
        else:
            claim = held.claim if b[3] % 4 else "c0"
            self.scribe.say(account, "claim.released", {"claim": claim}, about=ref, actor=actor)

    def sync(self, account: Account, b: bytes) -> None:
        """A hint, a start, something found, an end: of the newest start, or of one that it has replaced."""
        name = SOURCES[b[0] % len(SOURCES)]
        source = self.world.sources.get((*account, name))
        newest = source.sync if source is not None else None
        sync = newest if newest is not None and b[1] % 4 else f"s{1 + b[1] // 4 % 8}"
        match b[2] % 8:
            case 0:
                self.scribe.say(account, "source.notified", {}, source=name, actor=SYSTEM)
            case 1 | 2:
                body: dict[str, Any] = {"sync": f"s{self.scribe.number()}", "feeds": FEEDS[b[3] % len(FEEDS)]}
                self.scribe.say(account, "source.sync_started", body, source=name, actor=SYSTEM)
            case 3 | 4 | 5:
                body = {"sync": sync, "cursor": f"k{b[3]}"}
                named = (None, sync, "s0")[b[4] % 3] if b[4] > 127 else sync
                self.scribe.say(account, "source.synced", body, source=name, actor=SYSTEM, sync=named)
            case _:
                self.fact(account, bytes((b[3], b[4], b[1], b[2], b[0])), sync=sync, source=name)

    # -- the log's own records, and poison --------------------------------------------------------------------------

    def own(self, account: Account, b: bytes) -> None:
        match b[0] % 6:
            case 0 | 1 | 2:
                dropped = {"bank.account"} if b[2] % 8 == 7 else set[str]()
                self.scribe.activate(POLICIES[b[1] % len(POLICIES)], set(KINDS) - dropped)
            case 3:
                to = self.world.log_time + (-HOUR, -MINUTE, MINUTE)[b[1] % 3]
                self.scribe.own("log.time_reset", {"to": to, "reason": "the broker's clock ran ahead"})
            case 4:
                self.scribe.own("log.moved", {"origin": "elsewhere"})
            case _:
                body = {"log_id": bytes(16).hex(), "partitions": 3, "kinds": [], "fold_version": 7}
                self.scribe.own("log.opened", {**body, "policy": POLICIES[0].to_body()})

    def poison(self, account: Account, b: bytes) -> None:
        """What decoding or validation refuses."""
        ref = happenings.entity(account, b[1])
        envelope = Envelope(f"x{self.scribe.number()}", "test", "mail.received", USER, ref.kind, ref.id)
        received = REGISTRY.encode("mail.received", {"message": "m1", "sender": "x"})
        match b[0] % 10:
            case 0:
                self.scribe.record(account, envelope, received[: 10 + b[2] % (len(received) - 10)])
            case 1:
                self.scribe.record(account, envelope._replace(type="mail.sent"), received)
            case 2:
                self.scribe.record(ELSEWHERE, envelope, received)
            case 3:
                proposal = f"p{1 + b[2] % 8}" if b[3] % 2 else envelope.id
                self.scribe.record(account, envelope._replace(id=proposal, type="proposal.submitted"), received)
            case 4:
                self.scribe.record(account, envelope._replace(kind="", entity=""), received)
            case 5:
                self.scribe.stored(b"no/such/key", to_headers(envelope), received)
            case 6:
                self.scribe.stored(account_key(*account), to_headers(envelope)[2:], received)
            case 7:
                self.scribe.record(account, envelope._replace(type="mail.reply"), {})
            case 8:
                claim = envelope._replace(type="claim.taken", kind="", entity="")
                self.scribe.record(account, claim, {"claim": "c0", "until": 2 * START})
            case _:
                self.scribe.record(account, envelope._replace(kind="no.such"), received)


def foreseen_state(world: Naive, intent: Thing) -> Any:
    """What the facts will be once this intent alone is carried out."""
    return world.all_kinds[intent.ref[2]].foresee(world.facts.get(intent.ref), intent.type, intent.data)


MOVES: Final[tuple[Callable[[Author, Account, bytes], None], ...]] = (
    *(Author.fact,) * 6,
    *(Author.propose,) * 9,
    *(Author.deliver,) * 4,
    *(Author.answer,) * 4,
    *(Author.sync,) * 4,
    Author.claim,
    Author.repeat,
    Author.own,
    Author.poison,
)


def written(policy: int, moves: Sequence[bytes]) -> list[Stored]:
    """The history that these moves make."""
    author = Author(POLICIES[policy % len(POLICIES)])
    for move in moves:
        author.move(move)
    return author.scribe.records


def moves(max_size: int = 50) -> st.SearchStrategy[list[bytes]]:
    """Lists of moves: short ones, in which a fault is plain, and long ones, in which much comes together."""
    move = st.binary(min_size=MOVE_BYTES, max_size=MOVE_BYTES)
    return st.lists(move, max_size=max_size) | st.lists(move, min_size=max_size // 2, max_size=max_size)


def histories(max_size: int = 50) -> st.SearchStrategy[list[Stored]]:
    """Histories of up to about ``max_size`` records after the opening."""
    return st.builds(written, st.integers(0, len(POLICIES) - 1), moves(max_size))
