"""One source on a log with real tables, all in memory: what its syncs put there, and the state that this leads to."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from headrace.keys import Keys
from headrace.kinds import installed_kinds, installed_schemas
from headrace.processors.applied import Applied
from headrace.processors.core.model import Entry, Event
from headrace.processors.core.policy import DEFAULT_POLICY
from headrace.processors.engine import Engine
from headrace.producers.event import Changes, Known, NewEvent, Source
from headrace.producers.feed import Feed
from headrace.producers.intake import Intake
from headrace.producers.opening import open_log
from headrace.producers.sync import Begun, Synced, run_sync
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import ActorRef
from tests.contract.rich_history import KINDS as IN_FORCE
from tests.contract.rich_history import START, MemoryLog

TENANT: Final = "acme"
ACCOUNT: Final = "a-1"
SOURCE: Final = "mailbox/ann"
_REGISTRY: Final = installed_schemas()
_KINDS: Final = installed_kinds()


class CrashError(Exception):
    """The process ends here."""


class Fact(NamedTuple):
    """An event on the log: what became of it (``applied``, ``duplicate``, …), and whose act it is."""

    type: str
    entity: str
    id: str
    body: dict[str, Any]
    disposition: str
    occurred_at: str | None
    concerns: tuple[str, ...]
    actor: str = ""
    offset: int = -1


class Folding(Applied):
    """Whoever waits for the tables has them folded."""

    def __init__(self, fold: Callable[[], object]) -> None:
        super().__init__()
        self._fold = fold

    def wait(self, partition: int, offset: int, timeout: float) -> bool:
        self._fold()
        return True


class Desk:
    """A log, its tables, and the feed of one source. ``kinds`` are those that the source feeds."""

    def __init__(self, tables: SqliteTables, kinds: Sequence[str]) -> None:
        self.log: Final = MemoryLog()
        self.facts: Final[list[Fact]] = []
        self.tables: Final = tables
        self._engine: Final = Engine(_REGISTRY, _KINDS, tables)
        open_log(self.log, _REGISTRY, IN_FORCE, DEFAULT_POLICY)
        self._next = self._engine.resume(self.log, 0)
        self.intake: Final = Intake(_REGISTRY, Keys(bytes(32)), 1, _KINDS)
        self.pseudonym: Final = self.intake.pseudonyms(TENANT, ACCOUNT)
        self.feed: Final = Feed(
            self.log,
            tables,
            Folding(self.fold),
            self.intake,
            _KINDS,
            tenant=TENANT,
            account=ACCOUNT,
            source=SOURCE,
            feeds=kinds,
            actor=ActorRef("user", "ann"),
            clock=lambda: START,
        )

    def fold(self) -> None:
        """Everything that is on the log."""
        while records := self.log.read(0, self._next, 1000):
            memory = self._engine.apply(0, records)
            self._next += len(records)
            for mark in memory.marks:
                entry = mark.entry
                assert isinstance(entry, Entry), f"quarantined: {memory.notes}"
                if entry.role == "event":
                    said = entry.envelope
                    subject = said.entity or ""
                    self.facts.append(
                        Fact(
                            said.type,
                            subject,
                            said.id,
                            dict(entry.body),
                            mark.disposition,
                            said.occurred_at,
                            tuple(said.concerns),
                            (mark.effect.actor if mark.effect is not None else said.actor).name,
                            entry.offset,
                        )
                    )

    def sync(self, source: Source, *, full: bool = False, crash_after: int | None = None) -> Synced:
        """One sync; with ``crash_after``, broken off once that many events are on the log."""
        return run_sync(source, _Crashing(self.feed, crash_after), full=full)

    def found(self, source: Source, *, full: bool = False) -> list[Fact]:
        """What one sync put on the log."""
        before = len(self.facts)
        self.sync(source, full=full)
        return self.facts[before:]

    def told(self, source: Source, *, full: bool = False) -> list[str]:
        """The types of what one sync put on the log."""
        return [fact.type for fact in self.found(source, full=full)]

    def states(self, kind: str) -> dict[str, dict[str, Any]]:
        """The deciding state by entity id."""
        return {entity.id: dict(entity.state) for entity in self.feed.where(kind)}

    def applied(self) -> list[Fact]:
        """The facts that had an effect."""
        return [fact for fact in self.facts if fact.disposition in {"applied", "echo"}]

    def idle(self, kind: str) -> list[Fact]:
        """Facts that were applied and changed nothing: a change that was told twice."""
        states: dict[str, dict[str, Any]] = {}
        found: list[Fact] = []
        for fact in self.applied():
            before = states.get(fact.entity)
            after = _KINDS[kind].evolve(before, Event(fact.type, fact.body, ActorRef("user", "ann")))
            states[fact.entity] = after
            if after == before:
                found.append(fact)
        return found


class _Crashing:
    def __init__(self, feed: Feed, left: int | None) -> None:
        self._feed, self._left = feed, left

    def begin(self, full: bool) -> Begun:
        return self._feed.begin(full)

    def found(self, sync: str, events: Sequence[NewEvent]) -> None:
        if self._left is None:
            self._feed.found(sync, events)
            return
        if events[: self._left]:
            self._feed.found(sync, events[: self._left])
        if len(events) >= self._left:
            raise CrashError
        self._left -= len(events)

    def finish(self, sync: str, cursor: str | None) -> None:
        if self._left is not None:
            raise CrashError
        self._feed.finish(sync, cursor)


@contextmanager
def desk(*kinds: str) -> Generator[Desk]:
    """A desk with an empty log."""
    with SqliteTables.in_memory(_REGISTRY, _KINDS) as tables:
        yield Desk(tables, kinds)


class Pages:
    """A source's pages one by one, for what happens between two of them."""

    def __init__(self, source: Source, between: Callable[[], object]) -> None:
        self._source, self._between = source, between

    @property
    def feeds(self) -> tuple[str, ...]:
        return self._source.feeds

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        for page in self._source.pages(cursor, known):
            yield page
            self._between()
