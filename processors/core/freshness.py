"""Which sources a verdict depends on: those whose truth a proposal would change, or was read for it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from headrace.processors.core.kind import Kind
from headrace.processors.core.model import Read, SourceRow

NOTHING: Final = "-"
"""What a source feeds that is connected no more. No kind's name; so it bears on nothing."""


def bearing(
    kind: str, reads: Iterable[Read], in_force: Callable[[], Mapping[str, Kind]], sources: Iterable[SourceRow]
) -> tuple[SourceRow, ...]:
    """The ``sources`` of an account whose freshness bears on a proposal about an entity of ``kind`` that had ``reads``.

    ``in_force`` gives the entity kinds that the log names; it is asked where a scope was read, which entities of any
    kind may meet.
    """
    kinds = {kind}
    for read in reads:
        if read.what != "scope":
            kinds.add(read.kind)
        else:
            kinds.update(name for name, one in in_force().items() if read.kind in one.containers)
    return tuple(row for row in sources if not row.feeds or kinds.intersection(row.feeds))
