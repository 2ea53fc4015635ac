"""What a copy writes itself: ``log.closed`` at the end of the log it moves, ``log.moved`` behind what it copied."""

from typing import Final

from headrace.log.admission import SUCCESSOR_HEADER
from headrace.log.carrying import COPY_HEADER, ending
from headrace.log.port import Record, Stored
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.refs import ActorRef
from headrace.schemas.registry import Registry, built_in

_OPERATOR: Final = ActorRef("system", "operator")
_SOURCE: Final = "headrace/operator"


def closings(partitions: int, copy: str, successor: str) -> list[Record]:
    """``log.closed`` for every partition of a log that goes on at ``successor``."""
    value = Registry(built_in()).encode("log.closed", {"successor": successor})
    more = ((SUCCESSOR_HEADER, successor.encode()), (COPY_HEADER, copy.encode()))

    def closing(partition: int) -> Record:
        envelope = Envelope(f"close-{copy}-{partition}", _SOURCE, "log.closed", _OPERATOR)
        return Record(partition, None, (*to_headers(envelope), *more), value)

    return [closing(partition) for partition in range(partitions)]


def movings(ends: tuple[int, ...], copy: str, origin: str) -> list[Record]:
    """``log.moved`` for every partition, to stand at these offsets."""
    value = Registry(built_in()).encode("log.moved", {"origin": origin})

    def moving(partition: int, offset: int) -> Record:
        envelope = Envelope(f"move-{copy}-{partition}", _SOURCE, "log.moved", _OPERATOR)
        return Record(partition, None, (*to_headers(envelope), ending(copy, offset)), value)

    return [moving(partition, offset) for partition, offset in enumerate(ends)]


def closed_for(record: Stored, copy: str) -> bool:
    """Whether this record closed a log because of this copy."""
    return (COPY_HEADER, copy.encode()) in record.headers
