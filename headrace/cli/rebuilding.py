"""``headrace replay --rebuild``: new tables from the log, beside the live ones, then in their place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headrace.cli.auditing import progress
from headrace.cli.reading import directory
from headrace.errors import LogMismatchError
from headrace.kinds import installed_kinds, installed_schemas, schema_registry_at
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log, LogDescription
from headrace.log.sqlite import SqliteLog
from headrace.places import Places
from headrace.processors.core.kind import Kind
from headrace.processors.replay import Progress, replay
from headrace.projections.port import Tables
from headrace.projections.postgres import PostgresTables
from headrace.projections.postgres_connection import Address
from headrace.projections.postgres_rebuild import Positions, rebuilding
from headrace.projections.sqlite import FILE, SqliteTables
from headrace.projections.sqlite_rebuild import rebuilding_file
from headrace.schemas.registry import Registry
from headrace.settings import load_settings


def rebuild(store: Path | None, *, keep_old: bool) -> dict[str, Any]:
    """Build new tables and put them into the live ones' place; what was done.

    :raises HeadraceError: what :func:`in_database` or :func:`in_file` raise, or there is no such store.
    """
    settings = load_settings(directory(store))
    places, place = settings.places, settings.store
    with schema_registry_at(places) as confluent, progress("folding anew") as said:
        registry = installed_schemas(confluent, register=False)
        if places.db_url is None:
            with SqliteLog.open(place, writer=False) as log:
                return in_file(log, place, registry, said, keep_old=keep_old)
        with _log(place, places) as log:
            return in_database(log, places.db_url, places.db_schema, registry, said, keep_old=keep_old)


def _log(place: Path, places: Places) -> KafkaLog | SqliteLog:
    if places.log_url is not None:
        return KafkaLog.open(places.log_url, writer=False)
    return SqliteLog.open(place, writer=False)


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def in_database(
    log: Log, database: str, schema: str, registry: Registry, said: Progress | None = None, *, keep_old: bool = False
) -> dict[str, Any]:
    """Build new tables of ``log`` in a database and put them into the place of those in ``schema``; what was done.

    :raises LogMismatchError: the live tables were folded further than the log goes.
    :raises BadInputError: something that is not headrace's hangs on the live tables.
    :raises NotFoundError: there are none.
    :raises UnavailableError: another rebuild is under way, or somebody reads the tables without a pause.
    """
    kinds, live = installed_kinds(), Address(database, schema)
    with rebuilding(live) as run:
        run.prepare()
        _check_live(
            run.positions(), run.log_ids(), log.describe(), live.named, "drop the schema and `headrace migrate`"
        )
        with PostgresTables(database, registry, kinds, schema=run.built) as built:
            run.check()
            follower = _Follower(log, registry, kinds, built, said)
            kept = run.switch(follower, keep_old=keep_old)
        return {"tables": live.named, "records": follower.records, "old": kept}


class _Follower:
    """Folds new tables up to where the live ones are, and no further: at the switch the two are equally far, and who
    folds goes on as if nothing had happened."""

    def __init__(
        self, log: Log, registry: Registry, kinds: Mapping[str, Kind], built: Tables, said: Progress | None
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


def _check_live(positions: Positions, log_ids: set[bytes], described: LogDescription, named: str, anew: str) -> None:
    """That tables were folded from this log, as far as can be said before it is folded again."""
    advice = f"Restore the log; if this one is the log from now on, {anew}"
    if log_ids - {described.log_id}:
        raise LogMismatchError(f"what is in {named} was folded from another log than this one. {advice}")
    for partition, end in positions.items():
        if partition >= described.partitions or end > described.ends[partition]:
            raise LogMismatchError(
                f"partition {partition} in {named} is folded up to {end}, further than this log goes: it is another"
                f" log, or was cut off. {advice}"
            )


# -- a file -----------------------------------------------------------------------------------------------------------


def in_file(
    log: Log, place: Path, registry: Registry, said: Progress | None = None, *, keep_old: bool = False
) -> dict[str, Any]:
    """The same with the tables of the store at ``place``. While a process runs on it they are folded as far as that has
    come, else to the log's end.

    :raises LogMismatchError: the live tables were not folded from this log.
    :raises BadInputError: something that is not headrace's stands in the file.
    :raises WriterLockedError: a process runs on the store, and the new tables are such that it may not.
    :raises UnavailableError: another rebuild is under way, or the file cannot be written.
    """
    kinds, live = installed_kinds(), place / FILE
    with rebuilding_file(live) as run:
        positions = run.positions()
        described = log.describe()
        if positions is not None:
            _check_live(positions, run.log_ids(), described, str(live), f"delete {FILE} and the next start folds it")
        kept: Path | None = None
        with SqliteTables(run.built, registry, kinds) as built:
            follower = _Follower(log, registry, kinds, built, said)
            if positions is not None:
                run.check()
            alone = run.alone
            follower(dict(enumerate(described.ends)) if positions is None or alone else positions)
            if positions is not None:
                follower(run.positions() or {})
                kept = run.switch(follower, keep_old=keep_old)
        if positions is None:
            kept = run.put(keep_old=keep_old)
    return {"tables": str(live), "records": follower.records, "old": str(kept) if kept is not None else None}
