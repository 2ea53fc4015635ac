"""Replay: a log folded once more, aside, up to its end or to a position.

The live tables are not touched: give it fresh ones, in memory or in a file. What comes out is what the live tables held
when they were there, byte for byte.
"""

from collections.abc import Callable, Mapping

from headrace.errors import BadInputError
from headrace.log.port import Log
from headrace.processors.core.kind import Kind
from headrace.processors.engine import Engine
from headrace.projections.port import Tables
from headrace.schemas.registry import Registry

BATCH = 2_000
"""Records folded in one transaction at most."""

Progress = Callable[[int, int], None]
"""Called with how many records are done and how many there are."""


def replay(
    log: Log,
    registry: Registry,
    kinds: Mapping[str, Kind],
    tables: Tables,
    *,
    until: Mapping[int, int] | None = None,
    progress: Progress | None = None,
) -> dict[int, int]:
    """Fold ``log`` into ``tables``; returns each folded partition's next offset.

    ``until`` maps partition to the first offset *not* folded; partitions it does not name are left out. ``None`` folds
    everything that is on the log now. Tables that hold a part of the fold already are taken further.

    :raises BadInputError: a position beyond the log's end, or before what the tables hold already.
    :raises HaltError: this installation must not judge this log, or the log is not the one in ``tables``.
    """
    described = log.describe()
    wanted = dict(until) if until is not None else dict(enumerate(described.ends))
    for partition, end in wanted.items():
        if not 0 <= partition < described.partitions or not 0 <= end <= described.ends[partition]:
            raise BadInputError(
                f"there is no position {partition}/{end} on this log: it has partitions 0 to {described.partitions - 1}"
                + (
                    f", and that one ends at {described.ends[partition]}"
                    if 0 <= partition < described.partitions
                    else ""
                )
            )
    engine = Engine(registry, kinds, tables)
    done, total = 0, sum(wanted.values())
    for partition, end in sorted(wanted.items()):
        offset = engine.resume(log, partition)
        if offset > end:
            raise BadInputError(
                f"the tables hold partition {partition} up to {offset} already, beyond {end}; replay into fresh tables"
            )
        done += offset
        while offset < end:
            records = log.read(partition, offset, min(BATCH, end - offset))
            engine.apply(partition, records)
            offset += len(records)
            done += len(records)
            if progress is not None:
                progress(done, total)
        wanted[partition] = offset
    return wanted
