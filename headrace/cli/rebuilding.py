"""``headrace replay --rebuild``: new tables from the log, beside the live ones, then in their place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import apsw

from headrace.cli.auditing import progress
from headrace.cli.reading import directory
from headrace.errors import HaltError, LogMismatchError, WriterLockedError
from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, LogDescription
from headrace.log.sqlite import SqliteLog
from headrace.places import Places
from headrace.processors.core.kind import Kind
from headrace.processors.replay import Progress, replay
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_rebuild import Positions, rebuilding
from headrace.projections.sqlite import FILE, SqliteTables
from headrace.schemas.registry import Registry
from headrace.settings import load_settings

_BUILT: Final = f"{FILE}.rebuild"
_BESIDE: Final = ("-wal", "-shm", "-journal")


def rebuild(store: Path | None, *, keep_old: bool) -> dict[str, Any]:
    """Build new tables and put them into the live ones' place; what was done.

    :raises LogMismatchError: the live tables were folded from another log, or further than this one goes.
    :raises WriterLockedError: a process runs on the store, and its tables are in a file.
    :raises UnavailableError: log or tables do not answer, or somebody reads the tables without a pause.
    """
    settings = load_settings(directory(store))
    places, place = settings.places, settings.store
    with progress("folding anew") as said:
        if places.db_url is None:
            return _in_file(place, said, keep_old=keep_old)
        with _log(place, places) as log:
            return in_database(log, places.db_url, places.db_schema, said, keep_old=keep_old)


def _log(place: Path, places: Places) -> KafkaLog | SqliteLog:
    if places.log_url is not None:
        return KafkaLog.open(places.log_url, writer=False)
    return SqliteLog.open(place, writer=False)


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def in_database(
    log: Log, database: str, schema: str, said: Progress | None = None, *, keep_old: bool = False
) -> dict[str, Any]:
    """Build new tables of ``log`` in a database and put them into the place of those in ``schema``; what was done.

    :raises LogMismatchError: the live tables were folded further than the log goes.
    :raises BadInputError: something that is not headrace's hangs on the live tables.
    :raises NotFoundError: there are none.
    :raises UnavailableError: another rebuild is under way, or somebody reads the tables without a pause.
    """
    registry, kinds = installed_schemas(), installed_kinds()
    live = Address(database, schema)
    with rebuilding(live) as run:
        run.prepare()
        _check_live(run.positions(), log.describe(), live.named)
        with PostgresTables(database, registry, kinds, schema=run.built) as built:
            run.check()
            follower = _Follower(log, registry, kinds, built, said)
            follower(run.positions())
            kept = run.switch(follower, keep_old=keep_old)
        return {"tables": live.named, "records": follower.records, "old": kept}


class _Follower:
    """Folds new tables up to where the live ones are, and no further: at the switch the two are equally far, and who
    folds goes on as if nothing had happened."""

    def __init__(
        self, log: Log, registry: Registry, kinds: Mapping[str, Kind], built: PostgresTables, said: Progress | None
    ) -> None:
        self._log: Final = log
        self._registry: Final = registry
        self._kinds: Final = kinds
        self._built: Final = built
        self._said: Final = said
        self._at: Final[dict[int, int]] = {}

    @property
    def records(self) -> int:
        """How many are folded."""
        return sum(self._at.values())

    def __call__(self, positions: Positions) -> None:
        """Fold up to these."""
        behind = {one: end for one, end in positions.items() if end > self._at.get(one, 0)}
        if behind:
            replay(self._log, self._registry, self._kinds, self._built, until=behind, progress=self._said)
            self._at.update(behind)


def _check_live(positions: Positions, described: LogDescription, named: str) -> None:
    for partition, end in positions.items():
        if partition >= described.partitions or end > described.ends[partition]:
            raise LogMismatchError(
                f"partition {partition} in {named} is folded up to {end}, further than this log goes: it is another"
                " log, or was cut off. Restore it; if it is the log from now on, drop the schema and `headrace migrate`"
            )


# -- a file -----------------------------------------------------------------------------------------------------------


def _in_file(place: Path, said: Progress | None, *, keep_old: bool) -> dict[str, Any]:
    try:
        log = SqliteLog.open(place, writer=True)  # nobody else folds meanwhile
    except WriterLockedError as error:
        raise WriterLockedError(
            f"a process runs on the store at {place}, and its tables are a file of its own: stop it, then rebuild"
            f" ({error})"
        ) from None
    registry, kinds = installed_schemas(), installed_kinds()
    live, built = place / FILE, place / _BUILT
    with log:
        _remove(built)  # what a run that died has left
        try:
            with SqliteTables(built, registry, kinds) as tables:
                ends = replay(log, registry, kinds, tables, progress=said)
            _check_sound(built)
            kept = _keep(live) if keep_old else None
            _replace(live, built)
        finally:
            _remove(built)
    return {"tables": str(live), "records": sum(ends.values()), "old": str(kept) if kept is not None else None}


def _check_sound(built: Path) -> None:
    connection = apsw.Connection(str(built), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        found = connection.pragma("integrity_check")
        connection.pragma("wal_checkpoint", "truncate")
    finally:
        connection.close()
    if found != "ok":
        raise HaltError(f"what was written to {built} is not what is there ({found}): check the disk, rebuild again")


def _keep(live: Path) -> Path | None:
    """A copy of the live tables, whole, at one moment."""
    if not live.exists():
        return None
    number = 1
    while (kept := live.with_name(f"{live.name}.old.{number}")).exists():
        number += 1
    source, copy = apsw.Connection(str(live), flags=apsw.SQLITE_OPEN_READONLY), apsw.Connection(str(kept))
    try:
        with copy.backup("main", source, "main") as backup:
            backup.step()
    finally:
        copy.close()
        source.close()
    return kept


def _replace(live: Path, built: Path) -> None:
    """Write the new tables over the live ones in one transaction: who reads goes on with the old rows until the next
    query, also in another process, and a crash leaves either. Putting another file in place would not do: whoever has
    the old one open would meet the new one's write-ahead log.

    Where the live file cannot be written any more, nobody reads it either, and the new one takes its place."""
    try:
        target = apsw.Connection(str(live), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.CantOpenError:
        _put(live, built)
        return
    source = apsw.Connection(str(built), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        target.set_busy_timeout(5_000)
        target.pragma("journal_mode", "WAL")
        with target.backup("main", source, "main") as backup:
            backup.step()
    except (apsw.NotADBError, apsw.CorruptError):
        target.close()
        source.close()
        _put(live, built)
    finally:
        target.close()
        source.close()


def _put(live: Path, built: Path) -> None:
    for suffix in _BESIDE:
        live.with_name(live.name + suffix).unlink(missing_ok=True)
    built.replace(live)


def _remove(built: Path) -> None:
    for suffix in ("", *_BESIDE):
        built.with_name(built.name + suffix).unlink(missing_ok=True)
