"""When a held proposal is judged again: after any history of syncs, failures, crashes and edits by hand."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.processors.engine import Engine
from headrace.producers.hints import Hints
from headrace.producers.live_checks import LiveChecks, confirmation_id
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import ActorRef
from tests.contract.rich_history import Author, MemoryLog
from tests.doubles.desk import Folding
from tests.unit.test_queries import KINDS, REGISTRY

STRICT: Final = Policy("strict", DEFAULT_POLICY.rules, source_max_staleness_ms=-1)
"""No source is ever fresh enough: only a live check helps."""
FEEDS: Final = {"mail": ["mail.thread"], "calendar": ["calendar.event"], "both": []}
"""What each source feeds; an empty list is everything."""
NAMES: Final = tuple(FEEDS)
ACCOUNT: Final = "a-4"
SYNC: Final = ActorRef("system", "sync")


class World:
    """A log and its tables, folded when it is asked for; ``intake`` and the rest are what live checks work with."""

    def __init__(self, policy: Policy = STRICT) -> None:
        self.log: Final = MemoryLog()
        self.author: Final = Author(self.log, ACCOUNT, policy=policy)
        self.intake: Final = self.author.intake
        self.kinds: Final = KINDS
        self.tables: Final = SqliteTables.in_memory(REGISTRY, KINDS)
        self.applied: Final = Folding(self.fold)
        self._engine: Final = Engine(REGISTRY, KINDS, self.tables)
        self._next = self._engine.resume(self.log, 0)
        self.fold()

    def fold(self) -> None:
        while records := self.log.read(0, self._next, 1_000):
            self._engine.apply(0, records)
            self._next += len(records)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        self.fold()
        with self.tables.snapshot() as reader:
            return reader.rows(sql, {})

    def checks(self, share: Callable[[str, str], bool] = lambda _tenant, _account: True) -> LiveChecks:
        hints = Hints(self.log, self.tables, self.applied, self.intake)
        return LiveChecks(self, hints, share, clock=lambda: self.log.now / 1_000)

    def started(self, source: str, sync: str) -> int:
        body = {"sync": sync, "full": False, "feeds": FEEDS[source]}
        return self.author.note(
            "source.sync_started", f"{sync}:start", body, actor=SYNC, sync=sync, source=f"test/{source}"
        )

    def synced(self, source: str, sync: str) -> int:
        body = {"sync": sync, "cursor": None}
        return self.author.note("source.synced", f"{sync}:end", body, actor=SYNC, sync=sync, source=f"test/{source}")

    def label(self, proposal: str, basis: int, expires_at: int | None = None) -> int:
        reads = [self.author.entity("mail.thread/t1", basis)]
        data = {"added": [proposal], "removed": []}
        return self.author.propose(proposal, "mail.label", "mail.thread/t1", reads, data, expires_at=expires_at)

    def mail(self, number: int) -> int:
        body = {"message": f"m{number}", "sender": "bob", "recipients": []}
        return self.author.fact("mail.received", "t1", f"e{number}", body)


class Histories(RuleBasedStateMachine):
    """Sources begin and end syncs, or fail at them; agents propose; checks are made by processes that die anywhere."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.number = 0
        self.running: dict[str, str] = {}
        self.head = self.world.mail(0)
        self.checks = self.world.checks()

    def next(self) -> int:
        self.number += 1
        return self.number

    @rule(source=st.sampled_from(NAMES))
    def a_sync_starts(self, source: str) -> None:
        sync = self.running[source] = f"s{self.next()}"
        self.world.started(source, sync)

    @precondition(lambda self: bool(self.running))
    @rule(data=st.data())
    def a_sync_ends(self, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(sorted(self.running)))
        self.world.synced(source, self.running.pop(source))

    @precondition(lambda self: bool(self.running))
    @rule(data=st.data())
    def a_sync_fails(self, data: st.DataObject) -> None:
        del self.running[data.draw(st.sampled_from(sorted(self.running)))]

    @rule(expiring=st.booleans())
    def an_agent_proposes(self, expiring: bool) -> None:
        expires_at = self.world.log.now + 2_500 if expiring else None
        self.world.label(f"p{self.next()}", self.head, expires_at)

    @rule()
    def somebody_writes(self) -> None:
        self.head = self.world.mail(self.next())

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.world.log.now += seconds * 1_000

    @rule()
    def the_tables_catch_up(self) -> None:
        self.world.fold()

    @rule()
    def somebody_looks(self) -> None:
        self.checks.turn()

    @rule()
    def the_process_is_another(self) -> None:
        self.checks = self.world.checks()

    @rule()
    def after_a_look_nothing_is_left_undone(self) -> None:
        self.world.fold()
        self.world.checks().turn()
        sources = self.bearing()
        for row in self.held():
            assert any(one["fresh_offset"] < row["judged_at"] for one in sources), "it waits for nothing any more"
            for one in sources:
                begun = one["sync_offset"] > row["judged_at"]
                assert begun or one["hint_offset"] > one["sync_offset"], f"nobody was told to sync {one['source']}"

    def teardown(self) -> None:
        self.after_a_look_nothing_is_left_undone()
        self.only_a_sync_that_started_after_it_releases_a_held_proposal()
        self.what_was_accepted_was_accepted_once()

    def only_a_sync_that_started_after_it_releases_a_held_proposal(self) -> None:
        starts: dict[str, int] = {}
        fresh: dict[str, int] = {}
        feeding = set[str]()
        held: dict[str, int] = {}
        for row in self.world.rows("SELECT * FROM events ORDER BY offset"):
            at, source, proposal = row["offset"], row["source"], row["event_id"]
            if row["type"] == "source.sync_started":
                starts[source] = at
                feeding |= {source} - {"test/calendar"}
            elif row["type"] == "source.synced" and row["disposition"] == "noted":
                fresh[source] = starts[source]
            elif row["type"] == "proposal.submitted" and row["disposition"] == "held":
                held[proposal] = at
            elif row["type"] == "source.confirmed" and row["disposition"] not in {"duplicate", "ignored"}:
                (named,) = [one for one in held if confirmation_id(one, held[one]) == row["event_id"]]
                if row["disposition"] == "held":  # by a source that the tables did not show yet
                    held[named] = at
                    continue
                checked = all(fresh.get(one, -1) > held[named] for one in feeding)
                assert checked or row["disposition"] == "expired", row
                del held[named]

    def what_was_accepted_was_accepted_once(self) -> None:
        rows = self.world.rows(
            "SELECT proposal, COUNT(*) AS n FROM verdicts WHERE verdict='accepted' GROUP BY proposal"
        )
        assert {row["n"] for row in rows} <= {1}

    def held(self) -> list[dict[str, Any]]:
        return self.world.rows("SELECT * FROM proposals WHERE verdict = 'held'")

    def bearing(self) -> list[dict[str, Any]]:
        rows = self.world.rows("SELECT * FROM sources WHERE source LIKE 'test/%'")
        return [row for row in rows if row["source"] != "test/calendar"]


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_one_that_is_held_again_is_checked_again() -> None:
    """By a source that began to feed it between the look at the tables and the confirmation."""
    world = World()
    head = world.mail(0)
    world.started("mail", "s1")
    world.label("p1", head)
    world.started("mail", "s2")
    world.synced("mail", "s2")
    world.fold()
    world.started("both", "s3")
    checks = world.checks()
    for number in range(4):
        checks.turn()
        world.started("both", f"t{number}")
        world.synced("both", f"t{number}")
        world.started("mail", f"u{number}")
        world.synced("mail", f"u{number}")
        world.fold()
    (row,) = world.rows("SELECT * FROM proposals")
    verdicts = world.rows("SELECT verdict FROM verdicts ORDER BY offset")
    assert row["verdict"] == "accepted"
    assert [one["verdict"] for one in verdicts] == ["held", "held", "accepted"]


def test_a_look_when_nothing_is_held_is_one_question_to_an_index() -> None:
    world = World()
    world.mail(0)
    asked = Asked(world)
    checks = LiveChecks(asked, Hints(world.log, world.tables, world.applied, world.intake), lambda _, __: True)
    assert checks.turn() is None
    (sql,) = asked.questions
    with world.tables.snapshot() as reader:
        plan = [row["detail"] for row in reader.rows(f"EXPLAIN QUERY PLAN {sql}", {})]
    assert plan == ["SCAN p USING INDEX proposals_waiting"]


def test_what_waits_in_vain_is_not_looked_at_again_and_again() -> None:
    world = World()
    head = world.mail(0)
    world.started("mail", "s1")
    for number in range(5):
        world.label(f"p{number}", head)
    world.fold()
    asked = Asked(world)
    checks = LiveChecks(asked, Hints(world.log, world.tables, world.applied, world.intake), lambda _, __: True)
    checks.turn()
    world.fold()
    checks.turn()
    asked.questions.clear()
    checks.turn()
    assert not [sql for sql in asked.questions if "p.*" in sql], "the proposals were read again"
    assert len(world.rows("SELECT * FROM events WHERE type = 'source.notified'")) == 1


class Asked:
    """A world whose tables write down what they are asked."""

    def __init__(self, world: World) -> None:
        self.log, self.applied, self.intake, self.kinds = world.log, world.applied, world.intake, world.kinds
        self.questions: list[str] = []
        self._world = world

    @property
    def tables(self) -> Any:
        return self

    @contextmanager
    def snapshot(self) -> Generator[Any]:
        with self._world.tables.snapshot() as self._reader:
            yield self

    def rows(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        self.questions.append(sql)
        return self._reader.rows(sql, parameters)
