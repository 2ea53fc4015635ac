"""The rule, said as plainly as possible: one record after another over plain lists, looking everything up anew.

No engine, no tables, no index, nothing from ``processors/core``; of headrace only the entity kinds' pure functions and
what reads bytes. Written from DESIGN.md §2, §7 and §8, to disagree with the fold wherever either of them is wrong.
Reasons in words (why something is malformed, which way a basis is unknown) are left to the fold.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace as Thing

from headrace.errors import UndecodableError
from headrace.log.framing import chain
from headrace.log.partitioner import partition_of
from headrace.log.port import Stored
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import Event
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import Token, parse_account_key
from headrace.schemas.registry import Registry
from tests.core.naive_rule import Finding, Rule, Verdict, hashed


class Naive(Rule):
    """``step`` takes the next record. ``became`` and ``effects`` say by offset what became of it and what policies call
    it; ``verdicts`` by offset (proposal id, verdict, finding or ``None`` where words are the fold's, log time)."""

    def __init__(self, registry: Registry, kinds: Mapping[str, Kind], partition: int, partitions: int) -> None:
        super().__init__(kinds, partition)
        self.registry, self.partitions = registry, partitions
        self.became: list[str] = []
        self.seen: dict[tuple[str, ...], object] = {}

    # -- one record -----------------------------------------------------------------------------------------------

    def step(self, stored: Stored) -> None:
        self.last = chain(self.last, stored)
        self.checks.append(self.last[:8])
        if stored.log_append:
            self.log_time = max(self.log_time, stored.appended_at)
        record = self.understood(stored)
        became = self.set_aside(record) if record.poison else self.take(record)
        self.became.append(became)
        self.times.append(self.log_time)

    def understood(self, stored: Stored) -> Thing:
        record = Thing(offset=stored.offset, poison=True, account=(), proposal=None, reads=[])
        try:
            account = parse_account_key(stored.key) if stored.key is not None else ()
            if account and partition_of(stored.key or b"", self.partitions) != self.partition:
                return record
            record.account = account
            envelope = from_headers(dict(stored.headers))
            if envelope.type == "proposal.submitted" and account:
                record.proposal = envelope.id
            decoded = self.registry.decode(stored.value)
            own = envelope.type.startswith(("log.", "policy."))
            about_one = decoded.role == "event" or envelope.type in ("proposal.submitted", "claim.taken")
            wrong = decoded.type != envelope.type or decoded.role in ("content", "proposal") or own == bool(account)
            if wrong or (about_one and not envelope.kind):
                return record
            record.envelope, record.type, record.body, record.role = envelope, envelope.type, decoded.body, decoded.role
            record.actor, record.value = envelope.actor, stored.value
            record.ref = (*account, envelope.kind, envelope.entity)
            if record.type == "proposal.submitted":
                record.data = self.registry.decode(decoded.body["data"])
                record.reads = [Thing(**one, token=Token.unpack(one["basis"])) for one in decoded.body["reads"]]
            rules = decoded.body["policy"]["rules"] if "policy" in decoded.body and own else []
            record.poison = any(rule["effect"] not in ("invalidate", "review", "ignore") for rule in rules)
        except UndecodableError:
            pass
        return record

    def set_aside(self, record: Thing) -> str:
        if record.proposal is not None:
            key = (*record.account, record.proposal)
            self.verdicts[record.offset] = (record.proposal, "malformed", None, self.log_time)
            self.proposals.setdefault(key, Thing(verdict="malformed", outcome=None, accepted_at=-1, waived=-1))
        return "quarantined"

    def take(self, record: Thing) -> str:
        if record.type == "proposal.submitted":
            return self.submitted(record)
        envelope, body = record.envelope, record.body
        source = self.sources.get((*record.account, envelope.source))
        named = {envelope.sync, body["sync"] if record.type == "source.synced" else None} - {None}
        if named and record.type != "source.sync_started" and (source is None or named != {source.sync}):
            return "stale_sync"
        identity = (*record.account, envelope.source, envelope.id)
        said = (record.type, record.ref, envelope.concerns, record.value)
        if identity in self.seen:
            return "duplicate" if self.seen[identity] == said else "conflicting_id"
        if record.role == "event" and envelope.kind not in self.kinds:
            return "quarantined"
        self.seen[identity] = said
        if record.role == "event":
            return self.fact(record)
        answer: str = getattr(self, record.type.replace(".", "_"))(record)
        return answer

    # -- facts -----------------------------------------------------------------------------------------------------

    def fact(self, record: Thing) -> str:
        ref, before = record.ref, self.touches(record.ref)
        event = Event(record.type, record.body, record.actor)
        self.facts[ref] = self.kinds[ref[2]].evolve(self.facts.get(ref), event)
        echoed = self.echo_of(record)
        self.pass_by(ref, echoed)
        told = echoed is not None and (echoed.echo is not None or echoed.mark is not None)
        self.happen(
            record,
            ref,
            "echo" if echoed is not None else record.type,
            before,
            concerns=record.envelope.concerns,
            proposal=echoed.id if echoed is not None else None,
            actor=self.proposals[(*ref[:2], echoed.id)].actor if echoed is not None and told else None,
        )
        return "echo" if echoed is not None else "applied"

    def echo_of(self, record: Thing) -> Thing | None:
        """The first attempt, of those that are under way or have succeeded, that this fact may be the echo of."""
        ref, state = record.ref, self.facts[record.ref]
        kind = self.kinds[ref[2]]
        for intent in self.attempts(ref):
            if intent.echo is None and intent.mark is None:
                if intent.clean and intent.foreseen == hashed(state):
                    return intent
                continue
            carries = intent.mark is None or record.envelope.causation == intent.mark
            version = state.get(kind.version) if kind.version else None
            if intent.echo is None and carries:
                return intent
            settled = hashed({name: value for name, value in state.items() if name not in kind.stamps})
            of_version = version is not None and version == intent.reference
            if intent.echo == settled and intent.clean and (carries or of_version):
                return intent
        return None

    def attempts(self, ref: tuple[str, ...]) -> list[Thing]:
        """Those whose echo may be still to come, in the order they were made."""
        under_way = [one for one in self.open_intents(ref) if one.attempt is not None]
        return [one for one in self.awaited if one.ref == ref] + under_way

    def pass_by(self, ref: tuple[str, ...], echoed: Thing | None) -> None:
        """Nobody waits any more for the state that somebody foresaw before another fact came, or in which the one that
        came was foreseen to be; those foreseen on top of what came, and messages, are still waited for."""
        snapshot = echoed is not None and (echoed.echo is not None or echoed.mark is None)
        earlier = True
        for one in self.attempts(ref):
            if one is echoed:
                earlier = False
            elif one.echo is not None or one.mark is None:
                one.clean = one.clean and snapshot and not earlier
        if echoed in self.intents:
            self.drop(echoed, "echoed")
        self.awaited = [
            one
            for one in self.awaited
            if one is not echoed and (one.ref != ref or one.clean or (one.echo is None and one.mark is not None))
        ]
        if not snapshot:
            for one in self.open_intents(ref):
                one.clean = one.clean and one.attempt is None

    # -- proposals ------------------------------------------------------------------------------------------------

    def submitted(self, record: Thing) -> str:
        envelope, body, key = record.envelope, record.body, (*record.account, record.envelope.id)
        made = Thing(
            id=envelope.id,
            type=body["proposal"],
            ref=record.ref,
            actor=envelope.actor,
            reads=record.reads,
            expires_at=body["expires_at"],
            data=record.data.body,
            concerns=envelope.concerns,
            payload=body["payload_hash"],
            offset=record.offset,
            verdict="",
            outcome=None,
            accepted_at=-1,
            waived=-1,
        )
        known = self.proposals.get(key)
        if self.is_malformed(record):
            self.verdicts[record.offset] = (made.id, "malformed", None, self.log_time)
            made.verdict = "malformed"
            self.proposals.setdefault(key, made)
            return "malformed"
        if known is not None and known.verdict != "malformed":
            verdict = "duplicate" if known.payload == made.payload else "conflicting_id"
            self.verdicts[record.offset] = (made.id, verdict, {"first": known.offset}, self.log_time)
            return verdict
        self.proposals[key] = made
        return self.settle(record, made, *self.judge(made, record.offset))

    def is_malformed(self, record: Thing) -> bool:
        ref, kind = record.ref, self.kinds.get(record.ref[2])
        containers = [container for one in self.kinds.values() for container in one.containers]
        for read in record.reads:
            if read.kind not in (containers if read.what == "scope" else self.kinds):
                return True
            if read.start is not None and read.end is not None and read.end < read.start:
                return True
        says, data = record.body["proposal"], record.data
        return (
            (kind is None or says not in kind.proposals or data.type != says or data.role != "proposal")
            or (record.actor.kind != "agent" or len(record.body["payload_hash"]) != 32)
            or not any(one.what != "scope" and (one.kind, one.id) == ref[2:] for one in record.reads)
        )

    def settle(self, record: Thing, made: Thing, verdict: str, finding: Finding | None) -> str:
        made.verdict = verdict
        self.verdicts[record.offset] = (made.id, verdict, finding, self.log_time)
        if verdict == "accepted":
            before = self.touches(made.ref)
            made.accepted_at, made.outcome = record.offset, "open"
            self.intents.append(
                Thing(
                    id=made.id,
                    ref=made.ref,
                    type=made.type,
                    data=made.data,
                    accepted_at=record.offset,
                    attempt=None,
                    foreseen=None,
                    clean=True,
                    unknown=False,
                    echo=None,
                    mark=None,
                    agent="",
                    reference=None,
                )
            )
            effect = f"accepted:{made.type}"
            self.happen(record, made.ref, effect, before, concerns=made.concerns, proposal=made.id)
        return verdict

    # -- answers --------------------------------------------------------------------------------------------------

    def named(self, record: Thing) -> Thing | None:
        return self.proposals.get((*record.account, record.body["proposal"]))

    def review_approved(self, record: Thing) -> str:
        made, read = self.named(record), Token.unpack(record.body["read"])
        if made is None or made.verdict not in ("needs_review", "held") or record.actor.kind != "user":
            return "ignored"
        if read is None or read.offset >= record.offset:
            return "ignored"
        if read != (self.log_id, self.partition, read.offset, self.checks[read.offset]):
            return "ignored"
        made.waived = max(made.waived, read.offset)
        return self.settle(record, made, *self.judge(made, record.offset))

    def source_confirmed(self, record: Thing) -> str:
        made = self.named(record)
        if made is None or made.verdict != "held":
            return "ignored"
        return self.settle(record, made, *self.judge(made, record.offset))

    def review_dismissed(self, record: Thing) -> str:
        made = self.named(record)
        if made is None or made.verdict not in ("needs_review", "held") or record.actor.kind != "user":
            return "ignored"
        return self.settle(record, made, "rejected", self.by(record))

    def proposal_withdrawn(self, record: Thing) -> str:
        made = self.named(record)
        if made is None or (record.actor.kind != "user" and record.actor != getattr(made, "actor", None)):
            return "ignored"
        if made.verdict in ("needs_review", "held"):
            return self.settle(record, made, "rejected", self.by(record))
        intent = self.intent(record)
        if intent is None or intent.attempt is not None:
            return "ignored"
        return self.end(record, intent, "withdrawn", record.type, ("rejected", self.by(record)))

    def by(self, record: Thing) -> Finding:
        return {"rule": record.type, "by": f"{record.actor.kind}/{record.actor.id}", "offset": record.offset}

    # -- delivery -------------------------------------------------------------------------------------------------

    def intent(self, record: Thing) -> Thing | None:
        wanted = (record.account, record.body["proposal"])
        return next((one for one in self.intents if (one.ref[:2], one.id) == wanted), None)

    def drop(self, intent: Thing, outcome: str) -> None:
        self.intents.remove(intent)
        self.proposals[(*intent.ref[:2], intent.id)].outcome = outcome

    def end(self, record: Thing, intent: Thing, outcome: str, effect: str, verdict: Verdict | None = None) -> str:
        ref, made = intent.ref, self.proposals[(*intent.ref[:2], intent.id)]
        before = self.touches(ref)
        if verdict is not None:
            made.accepted_at, made.verdict = -1, verdict[0]
            self.verdicts[record.offset] = (made.id, *verdict, self.log_time)
        if outcome == "succeeded" and intent.clean:
            self.facts[ref] = self.all_kinds[ref[2]].foresee(self.facts.get(ref), intent.type, intent.data)
        if outcome == "succeeded" and (intent.clean if intent.echo is not None else intent.mark):
            intent.reference = record.body["reference"]
            self.awaited.append(intent)
            mine = [one for one in self.awaited if one.ref == ref]
            self.awaited = [one for one in self.awaited if one not in mine[:-16]]
        self.drop(intent, outcome)
        self.happen(record, ref, effect, before, concerns=made.concerns, proposal=made.id)
        return outcome

    def delivery_attempted(self, record: Thing) -> str:
        intent = self.intent(record)
        if intent is None or any(one.attempt is not None for one in self.open_intents(intent.ref)):
            return "ignored"
        verdict = self.judge(self.proposals[(*intent.ref[:2], intent.id)], record.offset, attempt=True)
        if verdict[0] != "accepted":
            return self.end(record, intent, verdict[0], "intent.ended", verdict)
        intent.attempt, intent.foreseen = record.body["attempt"], record.body["foreseen"]
        intent.echo, intent.mark = record.body["echo"], record.body["mark"]
        intent.agent = self.proposals[(*intent.ref[:2], intent.id)].actor.id
        return "granted"

    def outcome(self, record: Thing) -> str:
        intent = self.intent(record)
        if intent is None or intent.attempt != record.body["attempt"]:
            return "ignored"
        return self.end(record, intent, record.type.removeprefix("delivery."), record.type)

    delivery_succeeded = delivery_refused = delivery_failed = outcome

    def delivery_unknown(self, record: Thing) -> str:
        intent = self.intent(record)
        if intent is None or intent.attempt != record.body["attempt"]:
            return "ignored"
        intent.unknown = True
        return "unknown"

    # -- claims, sources, the log's own records ---------------------------------------------------------------------

    def claim_taken(self, record: Thing) -> str:
        held, holder = self.claims.get(record.ref), f"{record.actor.kind}/{record.actor.id}"
        if held is not None and held.until > self.log_time and held.holder != holder:
            return "ignored"
        self.claims[record.ref] = Thing(holder=holder, claim=record.body["claim"], until=record.body["until"])
        return "noted"

    def claim_released(self, record: Thing) -> str:
        held = self.claims.get(record.ref)
        if held is None or held.claim != record.body["claim"]:
            return "ignored"
        if record.actor.kind == "agent" and held.holder != f"agent/{record.actor.id}":
            return "ignored"
        del self.claims[record.ref]
        return "noted"

    def source(self, record: Thing) -> Thing:
        fresh = Thing(feeds=[], cursor=None, sync=None, sync_at=(-1, 0), hint=-1, fresh_offset=-1, fresh_time=0)
        return self.sources.setdefault((*record.account, record.envelope.source), fresh)

    def source_notified(self, record: Thing) -> str:
        self.source(record).hint = record.offset
        return "noted"

    def source_sync_started(self, record: Thing) -> str:
        source = self.source(record)
        source.sync, source.sync_at = record.body["sync"], (record.offset, self.log_time)
        source.feeds = record.body["feeds"]
        return "noted"

    def source_synced(self, record: Thing) -> str:
        source = self.source(record)
        source.cursor = record.body["cursor"]
        source.fresh_offset, source.fresh_time = source.sync_at
        return "noted"

    def policy_activated(self, record: Thing) -> str:
        self.policy = record.body["policy"]
        self.kinds = {name: self.all_kinds[name] for name in record.body["kinds"]}
        return "noted"

    def log_opened(self, record: Thing) -> str:
        if record.offset:
            return "ignored"
        self.log_id = bytes.fromhex(record.body["log_id"])
        return self.policy_activated(record)

    def log_time_reset(self, record: Thing) -> str:
        self.log_time = record.body["to"]
        return "noted"

    def log_moved(self, record: Thing) -> str:
        return "noted"

    log_closed = log_moved


def naive_fold(records: Sequence[Stored], world: Naive) -> Naive:
    """``world`` after these records."""
    for record in records:
        world.step(record)
    return world
