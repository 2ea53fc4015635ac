"""One source of one account, held against the log and the tables: what a synchronisation reads and appends."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

from headrace.errors import NotFoundError, UnavailableError
from headrace.log.port import Log, Record
from headrace.processors.applied import Applied
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import SourceRow
from headrace.producers.batches import batches
from headrace.producers.event import KnownEntity, NewEvent
from headrace.producers.intake import Intake
from headrace.producers.sync import Begun, OvertakenError
from headrace.projections import known as tables_known
from headrace.projections.port import Tables
from headrace.schemas.envelope import Envelope, rfc3339
from headrace.schemas.refs import ActorRef, Position

_ACTOR: Final = ActorRef("system", "sync")
_PATIENCE_SECONDS: Final = 30.0
_AT_ONCE: Final = 500
"""Events appended together."""


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


def _always() -> bool:
    return True


class Feed:
    """The :class:`headrace.producers.sync.SyncPort` of a source.

    ``feeds`` are the entity kinds whose truth the source is; ``actor`` is whose acts its events are; ``ours`` says
    whether this process still is the one to sync the account.
    """

    def __init__(
        self,
        log: Log,
        tables: Tables,
        applied: Applied,
        intake: Intake,
        kinds: Mapping[str, Kind],
        *,
        tenant: str,
        account: str,
        source: str,
        feeds: Sequence[str],
        actor: ActorRef,
        ours: Callable[[], bool] = _always,
        clock: Callable[[], int] = _wall_clock,
    ) -> None:
        self._log, self._tables, self._applied, self._intake, self._kinds = log, tables, applied, intake, kinds
        self._tenant, self._account, self._source = tenant, account, source
        self._feeds, self._actor, self._ours, self._clock = tuple(feeds), actor, ours, clock

    def begin(self, full: bool) -> Begun:
        """See :class:`headrace.producers.sync.SyncPort`."""
        sync = f"s-{secrets.token_hex(12)}"
        body = {"sync": sync, "full": full, "feeds": list(self._feeds)}
        self._reach(self._append([self._own("source.sync_started", sync, body, f"{sync}:start")]))
        row = self._row()
        return Begun(sync, row.cursor if row is not None else None, self)

    def where(self, kind: str, **columns: str | Set[str]) -> Iterator[KnownEntity]:
        """See :class:`headrace.producers.event.Known`."""
        found = self._kinds.get(kind)
        if found is None:
            raise NotFoundError(f"there is no entity kind {kind!r} here; install the package that brings it")
        for asked in _in_parts(columns):
            after: str | None = ""
            while after is not None:
                with self._tables.snapshot() as reader:
                    rows = tables_known.entities_where(reader, found, self._tenant, self._account, asked, after=after)
                for row in rows:
                    yield KnownEntity(row.id, row.state, f"{row.head_offset}.{row.head_check.hex()}")
                after = rows[-1].id if len(rows) == tables_known.AT_ONCE else None

    def found(self, sync: str, events: Sequence[NewEvent]) -> None:
        """See :class:`headrace.producers.sync.SyncPort`. A long page goes in parts, each once the one before is
        folded: however much a source brings at once, others on its partition get their turn, and what a later start has
        made ineffective ends soon."""
        self.check()
        observed_at = rfc3339(self._clock())
        records = [
            self._intake.event(
                self._tenant,
                self._account,
                event,
                source=self._source,
                actor=self._actor,
                observed_at=observed_at,
                sync=sync,
            )
            for event in events
        ]
        for first in range(0, len(records), _AT_ONCE):
            self._reach(self._append(records[first : first + _AT_ONCE]))
            row = self._row()
            if row is None or row.sync != sync:
                raise self._overtaken()

    def finish(self, sync: str, cursor: str | None) -> None:
        """See :class:`headrace.producers.sync.SyncPort`."""
        body = {"sync": sync, "cursor": cursor}
        position = self._append([self._own("source.synced", sync, body, f"{sync}:end")])
        self._reach(position)
        row = self._row()
        if row is None or row.synced_offset < position.offset:
            raise self._overtaken()

    def check(self) -> None:
        """Pass while this process is the one to sync the account.

        :raises OvertakenError: another one is.
        """
        if not self._ours():
            raise OvertakenError(f"{self._source} of {self._account} is synced by another process from here on")

    def _overtaken(self) -> OvertakenError:
        return OvertakenError(
            f"another sync of {self._source} of {self._account} has begun since this one did, and goes on in its place"
        )

    def _row(self) -> SourceRow | None:
        with self._tables.snapshot() as reader:
            return tables_known.source(reader, self._tenant, self._account, self._source)

    def _own(self, record_type: str, sync: str, body: Mapping[str, Any], record_id: str) -> Record:
        envelope = Envelope(record_id, self._source, record_type, _ACTOR, observed_at=rfc3339(self._clock()), sync=sync)
        return self._intake.record(self._tenant, self._account, envelope, body)

    def _append(self, records: Sequence[Record]) -> Position:
        self.check()
        return self._log.append(records)[-1]

    def _reach(self, position: Position) -> None:
        if not self._applied.wait(position.partition, position.offset, _PATIENCE_SECONDS):
            raise UnavailableError(
                f"the tables have not reached what was just appended within {_PATIENCE_SECONDS:.0f} s; the sync can be"
                " run again at any time"
            )


def _in_parts(columns: Mapping[str, str | Set[str]]) -> Iterator[Mapping[str, str | Set[str]]]:
    """The same, with no set that is larger than the tables are asked for at once."""
    many = next((name for name, values in columns.items() if not isinstance(values, str)), None)
    if many is None:
        yield columns
        return
    for values in batches(sorted(columns[many]), tables_known.AT_ONCE):
        yield {**columns, many: frozenset(values)}
