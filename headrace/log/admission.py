"""What the log's port lets in, and at which position: the rules that do not depend on where the log is kept."""

import re
from collections.abc import Sequence
from typing import Final

from headrace.errors import BadInputError, LogClosedError
from headrace.log.port import Headers, LogDescription, Record
from headrace.schemas.refs import Position

OPENED: Final = ("ce_type", b"log.opened")
"""The header that makes a record a partition's opening."""

CLOSED: Final = ("ce_type", b"log.closed")
"""The header that makes a record a partition's end."""

LOG_ID_HEADER: Final = "headrace-logid"
"""On partition 0's opening: the log's id, 32 lowercase hexadecimal digits."""

KEY_ID_HEADER: Final = "headrace-keyid"
"""On the openings: which master key the log's pseudonyms and payload hashes derive from (:attr:`Keys.id`)."""

SUCCESSOR_HEADER: Final = "headrace-successor"
"""On every ``log.closed``: where the log goes on, as text for people."""

_LOG_ID: Final = re.compile(rb"[0-9a-f]{32}\Z")


class Admission:
    """A draft of the log's next state: admits whole appends, one after another, or refuses them without a trace.

    Pure. The adapter makes one from the state that is durable, writes what was admitted, and only then takes
    :meth:`description` for the new state.
    """

    def __init__(self, durable: LogDescription) -> None:
        self._log_id = durable.log_id
        self._successor = durable.successor
        self._ends = list(durable.ends)

    def admit(self, records: Sequence[Record]) -> list[Position]:
        """The positions that ``records`` take.

        :raises LogClosedError: the log has a successor.
        :raises BadInputError: a partition that does not exist or is not opened, a second opening, an opening of
            partition 0 without a log id, or a closing that does not close every partition.
        """
        if self._successor is not None:
            raise closed(self._successor)
        ends: dict[int, int] = {}
        positions: list[Position] = []
        closings: dict[int, str] = {}
        for record in records:
            partition = record.partition
            check_partition(partition, len(self._ends))
            end = ends.get(partition, self._ends[partition])
            _check_opening(record, end)
            if partition in closings:
                raise BadInputError(f"log.closed ends partition {partition}; append nothing after it")
            if CLOSED in record.headers:
                closings[partition] = _successor(record.headers)
            positions.append(Position(partition, end))
            ends[partition] = end + 1
        if closings:
            self._successor = self._closing(closings)
        for partition, end in ends.items():
            self._ends[partition] = end
        for record, position in zip(records, positions, strict=True):
            if position == (0, 0):
                self._log_id = log_id_of(record.headers)
        return positions

    def description(self) -> LogDescription:
        """The state once everything admitted is durable."""
        return LogDescription(self._log_id, len(self._ends), tuple(self._ends), self._successor)

    def _closing(self, closings: dict[int, str]) -> str:
        successors = set(closings.values())
        if len(closings) != len(self._ends) or len(successors) != 1:
            raise BadInputError(
                f"a log is closed whole: append one log.closed for each of the {len(self._ends)} partitions in one "
                f"call, all with the same {SUCCESSOR_HEADER}"
            )
        return successors.pop()


def closed(successor: str) -> LogClosedError:
    """The refusal that every append to a closed log gets."""
    return LogClosedError(f"this log is closed; it goes on at {successor}: append there")


def check_partition(partition: int, count: int) -> None:
    """Pass when the log has this partition.

    :raises BadInputError: it has not.
    """
    if not 0 <= partition < count:
        raise BadInputError(f"partition {partition} does not exist: this log has 0 to {count - 1}")


def log_id_of(headers: Headers) -> bytes | None:
    """The 16 bytes that an opening record names, ``None`` when it names none."""
    for name, value in headers:
        if name == LOG_ID_HEADER and _LOG_ID.match(value):
            return bytes.fromhex(value.decode())
    return None


def _check_opening(record: Record, end: int) -> None:
    opening = OPENED in record.headers
    if opening and end:
        raise BadInputError(f"partition {record.partition} is open already: log.opened can only be its record 0")
    if not opening and not end:
        raise BadInputError(
            f"partition {record.partition} is not opened: only log.opened may be its record 0; finish creating the log"
        )
    if opening and record.partition == 0 and log_id_of(record.headers) is None:
        raise BadInputError(
            f"partition 0's log.opened names no log id: give it a {LOG_ID_HEADER} header of 32 lowercase hex digits"
        )


def _successor(headers: Headers) -> str:
    for name, value in headers:
        if name == SUCCESSOR_HEADER and value:
            try:
                return value.decode()
            except UnicodeDecodeError:
                break
    raise BadInputError(f"log.closed names no successor: give it a {SUCCESSOR_HEADER} header with UTF-8 text")
