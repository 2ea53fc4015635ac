"""Closing a Kafka log, so that nothing comes after.

Kafka cannot refuse a write because of what another one says, so the topic is shut behind the last records, and whoever
slipped in before it was shut is let in properly.

Partition 0's last record says that the log is closed; that it is for certain the topic says, which takes 0 bytes then
and not before. Between the two whoever closes may die. A writer that has heard nothing may then still be let in, so
nobody builds on the end of such a log before it is closed again.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from headrace.errors import AppendUnknownError
from headrace.log.admission import CLOSED, SUCCESSOR_HEADER
from headrace.log.kafka_appender import Outcome
from headrace.log.kafka_faults import is_too_large
from headrace.log.kafka_topic import CLOSED_MESSAGE_BYTES, MAX_MESSAGE_BYTES, SHUTTING_MESSAGE_BYTES, Topic, is_shut
from headrace.log.port import Record, Stored
from headrace.schemas.refs import Position

_ROUNDS: Final = 20
_SHUT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02

Send = Callable[[Sequence[Record]], list[Outcome]]


def successor_in(record: Stored) -> str | None:
    """Where the log goes on, if this record closes its partition."""
    if CLOSED not in record.headers:
        return None
    return next((value.decode(errors="replace") for name, value in record.headers if name == SUCCESSOR_HEADER), None)


class Tail:
    """What the last record of partition 0 says, which is closed last. ``at`` reads one. Safe to use from any thread."""

    def __init__(self, topic: Topic, at: Callable[[int], Stored]) -> None:
        self._topic: Final = topic
        self._at: Final = at
        self._seen: tuple[int, str | None] = (0, None)
        self._whole = False

    @property
    def successor(self) -> str | None:
        """Where the log goes on, by what was seen last."""
        return self._seen[1]

    def look(self, end: int) -> None:
        """Partition 0 ends at ``end`` now."""
        if end > max(1, self._seen[0]) and not self._whole:
            self._seen = (end, successor_in(self._at(end - 1)))

    def now(self) -> str | None:
        """Where the log goes on now: as long as it is not closed for certain, somebody may have slipped in behind the
        closing, which was then given up."""
        if self.successor is not None and not self._whole:
            self.look(self._topic.ends([0])[0])
            _, successor = self._seen
            self._whole = successor is not None and self._topic.taken_bytes() == CLOSED_MESSAGE_BYTES
        return self._seen[1]

    def is_half_closed(self, records: Sequence[Record]) -> bool:
        """Whether these records are the closings of a log that has been closed with them, and not for certain."""
        successor = self.now()
        if successor is None or self._whole or not all(CLOSED in record.headers for record in records):
            return False
        named = (SUCCESSOR_HEADER, successor.encode())
        return all(named in record.headers for record in records)


def close_whole(
    records: Sequence[Record], send: Send, topic: Topic, last: Callable[[int], Stored], *, begun: bool
) -> list[Position]:
    """Append ``records``, which close every partition, as the last the topic ever takes; partition 0's closing is the
    last of all. Returns the records' positions.

    :param send: appends and says what became of each record.
    :param last: reads a partition's last record.
    :param begun: partition 0 is closed already, by somebody who did not finish.
    :raises AppendUnknownError: it was not finished; closing again goes on with it.
    :raises UnavailableError: the topic's settings may not be changed; nothing was appended.
    """
    taken = topic.taken_bytes()
    topic.limit(CLOSED_MESSAGE_BYTES, try_only=True)
    if is_shut(taken):  # a closing that was not finished has left it so
        taken = MAX_MESSAGE_BYTES
        if not begun:
            _set(topic, taken)
    places = {} if begun else _append(records, send)
    closings = {record.partition: record for record in records if CLOSED in record.headers}
    for _ in range(_ROUNDS):
        _shut(topic)
        tails = {partition: last(partition) for partition in closings}
        if not _overtaken(tails):
            _until_shut(send, list(closings.values()))
            tails = {partition: last(partition) for partition in closings}
        overtaken = _overtaken(tails)
        if not overtaken:
            _set(topic, CLOSED_MESSAGE_BYTES)
            for n, record in enumerate(records):
                if CLOSED in record.headers:
                    places[n] = Position(record.partition, tails[record.partition].offset)
            return [places[n] for n in range(len(records))]
        topic.limit(taken)
        _until_landed(send, [closings[partition] for partition in overtaken])
    raise _unfinished("other writers kept appending: stop them")


def _append(records: Sequence[Record], send: Send) -> dict[int, Position]:
    """Append ``records``, partition 0's closing last; their positions by their numbers."""
    final = [n for n, record in enumerate(records) if record.partition == 0 and CLOSED in record.headers]
    places: dict[int, Position] = {}
    for some in ([n for n in range(len(records)) if n not in final], final):
        for n, outcome in zip(some, send([records[n] for n in some]), strict=True):
            if outcome.offset is None:
                raise _unfinished(str(outcome.error))
            places[n] = Position(records[n].partition, outcome.offset)
    return places


def _overtaken(tails: Mapping[int, Stored]) -> list[int]:
    """The partitions where something came after the closing; partition 0, which says that the log is closed, last."""
    return sorted((partition for partition, tail in tails.items() if CLOSED not in tail.headers), reverse=True)


def _shut(topic: Topic) -> None:
    """Let the topic take nothing any more, in two steps: a broker tells of a setting just before it obeys it, and takes
    one change after the other. So one that tells of the second obeys the first."""
    for size in SHUTTING_MESSAGE_BYTES:
        _set(topic, size)


def _set(topic: Topic, size: int) -> None:
    """Return once the brokers tell of it."""
    deadline = time.monotonic() + _SHUT_SECONDS
    pause = threading.Event()
    topic.limit(size)
    while topic.taken_bytes() != size:
        if time.monotonic() > deadline:
            raise _unfinished("the brokers do not learn what the topic takes")
        pause.wait(_LOOK_SECONDS)


def _until_shut(send: Send, closings: Sequence[Record]) -> None:
    """Return once every partition's leader refuses records: the one that told may be another. Tried with the closings
    themselves: one that is let in is a closing like the one before it."""
    deadline = time.monotonic() + _SHUT_SECONDS
    left = list(closings)
    while left:
        tried = zip(left, send(left), strict=True)
        left = [closing for closing, outcome in tried if outcome.error is None or not is_too_large(outcome.error)]
        if left and time.monotonic() > deadline:
            raise _unfinished("some brokers do not learn that the topic is shut")


def _until_landed(send: Send, closings: Sequence[Record]) -> None:
    """Append, once the brokers have learnt that the topic is open again."""
    deadline = time.monotonic() + _SHUT_SECONDS
    for closing in closings:
        while send([closing])[0].offset is None:
            if time.monotonic() > deadline:
                raise _unfinished("the brokers do not learn that the topic is open again")


def _unfinished(why: str) -> AppendUnknownError:
    return AppendUnknownError(f"the log is not closed whole: {why}; then close it again, with the same successor")
