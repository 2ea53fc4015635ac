"""The log in Apache Kafka: one topic, many writers, as many readers as there are.

What Kafka has no means to refuse by itself is arranged so that it cannot happen:

- *Openings.* Two creators may race; whose opening is record 0 of a partition has opened it, and the other is told.
  Partition 0's goes first and alone, and the others must name the same log.
- *Closings.* After the last record of every partition is ``log.closed`` the topic is told to take no records at all
  (``max.message.bytes``), so a writer who has heard nothing is refused by the broker. Should one have slipped in
  between, the closing is repeated behind its record: a log is closed when ``log.closed`` is the *last* record
  everywhere. See :mod:`headrace.log.kafka_closing`.
- *Holes.* Compaction, deleted records and transactions leave holes between offsets; whoever reads over one is told that
  this is no log any more.

A written record is acknowledged once every in-sync replica has it (``acks=all``). Brokers acknowledge before they sync
to disk; what is durable is the copies: three, two of them in sync, unless the address says otherwise.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from headrace.errors import AppendUnknownError, BadInputError, LogClosedError, LogMismatchError, UnavailableError
from headrace.log.admission import CLOSED, OPENED, Admission, check_partition, closed, log_id_of
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_appender import Appender, Outcome, check_sizes
from headrace.log.kafka_closing import Tail, close_whole
from headrace.log.kafka_faults import is_too_large, meaning, patiently
from headrace.log.kafka_follower import Follower
from headrace.log.kafka_gate import Gate
from headrace.log.kafka_reader import MOST_RECORDS, Reader
from headrace.log.kafka_survey import Survey
from headrace.log.kafka_topic import MAX_MESSAGE_BYTES, Topic, TopicState, check_beginning, check_opening, is_shut
from headrace.log.port import LogDescription, Record, Stored
from headrace.schemas.refs import Position

_ON_ITS_WAY_SECONDS: Final = 0.1
"""How long a record that is known to be there is waited for before it is fetched anew."""


class KafkaLog:
    """A log in a topic. Made by :meth:`create` or :meth:`open`; safe to use from any thread; close it when done."""

    def __init__(self, address: KafkaAddress, *, writer: bool) -> None:
        """For :meth:`create` and :meth:`open` only."""
        self._address: Final = address
        self._writer: Final = writer
        self._topic: Final = Topic(address)
        self._state: TopicState = self._topic.state()
        self._reader: Final = Reader(address)
        self._gate: Final = Gate()
        self._making: Final = threading.Lock()
        self._process: Final = os.getpid()
        self._closed = False
        self._appender: Appender | None = None
        self._retired: Final[list[Appender]] = []
        self._follower: Follower | None = None
        self._record_bytes = 0
        self._known: Final = [0] * self._state.partitions
        self._survey: Final = Survey(address, self._topic, self._state, self._known)
        self._opened: Final[set[int]] = set()
        self._log_id: bytes | None = None
        reader = self._reader  # not this object: a cycle would keep its clients until garbage is collected
        self._tail: Final = Tail(self._topic, lambda offset: reader.fetch(0, offset, 1, offset + 1)[0])

    @classmethod
    def create(cls, url: str, partitions: int = 64) -> Self:
        """Create the log at ``url`` and open it for writing.

        Resumable: repeat it after a crash, or on a log that is there already. The partitions' opening records are the
        caller's next appends.

        :param url: see :mod:`headrace.log.kafka_address`.
        :param partitions: 1 to 65,536; fixed for the log's life.
        :raises BadInputError: the address is none, or there is a log with another number of partitions.
        :raises HaltError: there is a topic that cannot be a log; the message says what to change.
        :raises UnavailableError: the brokers do not answer.
        """
        if not 1 <= partitions <= 65_536:
            raise BadInputError(f"a log cannot have {partitions} partitions: give it 1 to 65536")
        address = KafkaAddress.parse(url)
        Topic(address).create(partitions)
        return cls.open(url)

    @classmethod
    def open(cls, url: str, *, writer: bool = True) -> Self:
        """Open the log at ``url``; with ``writer=False`` to read only.

        :raises BadInputError: the address is none.
        :raises NotFoundError: there is no such topic.
        :raises HaltError: the topic cannot be a log, or is no whole log any more; the message says what to change.
        :raises UnavailableError: the brokers do not answer.
        """
        log = cls(KafkaAddress.parse(url), writer=writer)
        try:
            log._verify()
        except BaseException:
            log.close()
            raise
        return log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the appends under way, then let go of the brokers. Harmless when repeated."""
        if self._process != os.getpid():
            return  # a forked child's copy: connections and threads are the parent's
        with self._making:
            self._closed = True
            appenders = [one for one in (self._appender, *self._retired) if one is not None]
            follower = self._follower
            self._appender = self._follower = None
        for appender in appenders:
            appender.close()
        if follower is not None:
            follower.close()
        self._reader.close()

    def append(self, records: Sequence[Record]) -> list[Position]:
        """See :meth:`headrace.log.port.Log.append`. Here some records of an append may land and others not.

        :raises LogMismatchError: they went where other records were: the topic was cut off or replaced.
        :raises UnavailableError: the brokers refused everything, or this object cannot write.
        """
        self._check_usable()
        if not self._writer:
            raise UnavailableError(f"{self._address} is open for reading; open it with writer=True to append")
        self._survey.check_taken()
        for record in records:
            check_partition(record.partition, self._state.partitions)
        if not records:
            return []
        if self._tail.successor is None:
            check_sizes(self._address, records, self._record_bytes)
        if any(OPENED in record.headers or CLOSED in record.headers for record in records):
            with self._gate.alone():
                return self._append_marks(records)
        with self._gate.shared():
            unknown = {record.partition for record in records} - self._opened
            if unknown:
                self._learn(self._topic.ends(unknown))
            self._admit(records, self._tail.now())
            return self._send(records)

    def read(self, partition: int, offset: int, limit: int) -> list[Stored]:
        """See :meth:`headrace.log.port.Log.read`. At most 10,000 records at a time.

        :raises BadInputError: no such partition, a negative offset, or a limit below 1.
        :raises LogMismatchError: also when records are missing between, or from the beginning.
        :raises UnavailableError: the brokers do not answer.
        """
        check_partition(partition, self._state.partitions)
        if offset < 0 or limit < 1:
            raise BadInputError(f"cannot read {limit} records from offset {offset}: give offset >= 0 and limit >= 1")
        self._check_usable()
        limit = min(limit, MOST_RECORDS)
        follower = self._follower
        if follower is not None:
            recent = follower.recent(partition, offset, limit, _ON_ITS_WAY_SECONDS)
            self._survey.reached(partition, follower.end(partition))
            if recent:
                return self._reader.originals(recent)
        end = self._known[partition]
        if offset >= end:
            first, end = self._reader.bounds(partition)
            if offset > end:
                end = self._topic.confirmed({partition: offset})[partition]
            self._survey.reached(partition, end)
            check_beginning(self._address, partition, first)
            if offset > end:
                raise LogMismatchError(
                    f"partition {partition} of {self._address} ends at {end}, before offset {offset}: the log was cut"
                    " off or replaced; restore it, or rebuild what was folded from it"
                )
            if offset == end:
                return []
        return self._reader.fetch(partition, offset, min(limit, end - offset), end)

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        """See :meth:`headrace.log.port.Log.wait`.

        :raises BadInputError: no such partition.
        :raises LogMismatchError: the log was cut off or replaced meanwhile.
        :raises UnavailableError: this object was closed meanwhile, or the brokers do not answer.
        """
        for partition in after:
            check_partition(partition, self._state.partitions)
        grown = self._following().wait(after, timeout)
        self._check_usable()
        return grown

    def describe(self) -> LogDescription:
        """See :meth:`headrace.log.port.Log.describe`. Cheap: see :mod:`headrace.log.kafka_survey`.

        :raises LogMismatchError: the topic is another one now, or has more partitions; noticed within a second.
        :raises UnavailableError: the brokers do not answer.
        """
        self._check_usable()
        found = self._survey.ends()
        self._learn(found)
        self._look_at_beginning()
        self._tail.look(found[0])
        ends = tuple(found[partition] for partition in range(self._state.partitions))
        return LogDescription(self._log_id, self._state.partitions, ends, self._tail.successor)

    def originals(self, records: Sequence[Stored]) -> list[Stored]:
        """A run of one partition's records, fetched by a consumer of one's own, as :meth:`read` gives them."""
        for last in records[-1:]:
            self._survey.reached(last.partition, last.offset + 1)
        return self._reader.originals(records)

    # What is known of the log

    def _verify(self) -> None:
        """Refuse what cannot be this log, and shut what is closed."""
        found = self._topic.ends(range(self._state.partitions), whole=True)
        self._learn(found)
        self._look_at_beginning()
        self._tail.look(found[0])
        taken = self._topic.verify(closed=True)
        self._record_bytes = MAX_MESSAGE_BYTES if is_shut(taken) else taken
        if not self._writer:
            return
        if self._tail.successor is None:
            self._appending()  # a producer takes half a second to get its id: let it begin
        elif not is_shut(taken):
            self._topic.shut()

    def _learn(self, ends: Mapping[int, int]) -> None:
        self._opened.update(partition for partition, end in ends.items() if end > 0)

    def _look_at_beginning(self) -> None:
        """The log's id, and whether the topic has been given more partitions since, once partition 0 is opened."""
        if self._log_id is not None or 0 not in self._opened:
            return
        [first] = self._reader.fetch_kept(0, 0, 1)
        log_id = check_opening(self._address, first, self._state.partitions)
        self._reader.look_for_copy(first)
        self._log_id = log_id

    # Appending

    def _admit(self, records: Sequence[Record], successor: str | None) -> None:
        ends = tuple(int(partition in self._opened) for partition in range(self._state.partitions))
        Admission(LogDescription(self._log_id, self._state.partitions, ends, successor)).admit(records)

    def _append_marks(self, records: Sequence[Record]) -> list[Position]:
        """An append that opens or closes, alone in this process, on what the brokers say now."""
        found = self._topic.ends(range(self._state.partitions))
        self._learn(found)
        self._look_at_beginning()
        self._tail.look(found[0])
        begun = self._tail.is_half_closed(records)
        self._admit(records, None if begun else self._tail.now())
        if not any(CLOSED in record.headers for record in records):
            return self._open(records)
        positions = close_whole(records, self._send_each, self._topic, self._read_last, begun=begun)
        self._tail.look(self._topic.ends([0])[0])
        return positions

    def _open(self, records: Sequence[Record]) -> list[Position]:
        """Partition 0's opening before everything else: it decides which log this is."""
        first = [n for n, record in enumerate(records) if record.partition == 0 and OPENED in record.headers]
        positions: dict[int, Position] = {}
        for some in (first, [n for n in range(len(records)) if n not in first]):
            chosen = [records[n] for n in some]
            for record in chosen:
                named = log_id_of(record.headers)
                if OPENED in record.headers and named and self._log_id and named != self._log_id:
                    raise BadInputError(
                        f"partition {record.partition}'s log.opened names another log than partition 0's: another"
                        " process opened this one; describe it and go on with its id"
                    )
            if chosen:
                positions.update(zip(some, self._send(chosen), strict=True))
            for record, position in zip(chosen, (positions[n] for n in some), strict=True):
                if OPENED in record.headers and position.offset:
                    raise BadInputError(
                        f"partition {record.partition} is open already: another process opened it first; describe the"
                        " log and go on with what it says"
                    )
                self._opened.add(record.partition)
            self._look_at_beginning()
        return [positions[n] for n in range(len(records))]

    def _send(self, records: Sequence[Record]) -> list[Position]:
        while True:
            before = {record.partition: self._known[record.partition] for record in records}
            outcomes = self._send_each(records)
            positions = [
                Position(record.partition, outcome.offset)
                for record, outcome in zip(records, outcomes, strict=True)
                if outcome.offset is not None
            ]
            self._survey.landed(positions, before)
            if self._follower is not None:
                self._follower.acknowledged(positions)
            if len(positions) == len(records):
                return positions
            self._refuse(records, outcomes)

    def _refuse(self, records: Sequence[Record], outcomes: Sequence[Outcome]) -> None:
        """Raise what outcomes that are not all good mean; return if the records are to be sent again."""
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        nowhere = all(outcome.nowhere for outcome in outcomes)
        if any(map(is_too_large, errors)):
            try:
                self._await_end()
            except LogClosedError as end:
                if nowhere:
                    raise
                raise AppendUnknownError(f"not every record landed before the log's end; retry them: {end}") from end
        fatal = None if self._appender is None else self._appender.fatal
        error = fatal or next(iter(errors), None)
        if error is None or not nowhere:
            why = f"{error.str()} ({error.name()})" if error is not None else "the client never said"
            raise AppendUnknownError(
                f"{self._address} could not say whether records landed: {why}{self._trouble()}; retry the same records,"
                " that is always safe"
            )
        if not all(map(is_too_large, errors)):
            raise meaning(error, self._address, "appending to", self._trouble())
        check_sizes(self._address, records, self._record_bytes)

    def _await_end(self) -> None:
        """The topic takes less than it did. Usually it is being shut: wait until the log is closed, or goes on.

        :raises LogClosedError: it is closed.
        :raises UnavailableError: neither happens.
        """

        def look() -> int:
            taken = self._topic.taken_bytes()
            if is_shut(taken):
                self._tail.look(self._topic.ends([0])[0])
                if self._tail.successor is not None:
                    raise closed(self._tail.successor)
                raise UnavailableError(
                    f"{self._address} is shut and not closed: close it again, or set max.message.bytes back"
                )
            return taken

        # Not too soon: whoever closes the log needs a moment without us.
        taken = patiently(look, lambda error: isinstance(error, UnavailableError), self._address.request_seconds, 0.1)
        with self._making:
            if taken != self._record_bytes and self._appender is not None:
                # It must learn to make smaller batches. Others may be using it: it is closed with the log.
                self._retired.append(self._appender)
                self._appender = None
            self._record_bytes = taken

    def _send_each(self, records: Sequence[Record]) -> list[Outcome]:
        return self._appending().send(records)

    def _appending(self) -> Appender:
        with self._making:
            self._check_usable()
            if self._appender is not None and self._appender.fatal is not None:
                self._retired.append(self._appender)
                self._appender = None
            if self._appender is None:
                self._appender = Appender(self._address, self._record_bytes)
            return self._appender

    def _read_last(self, partition: int) -> Stored:
        return self.read(partition, self._topic.ends([partition])[partition] - 1, 1)[0]

    def _trouble(self) -> str:
        return "" if self._appender is None else str(self._appender.trouble)

    def _following(self) -> Follower:
        with self._making:
            self._check_usable()
            if self._follower is not None and self._follower.worn_out:
                self._follower.close()
                self._follower = None
            if self._follower is None:
                ends = self._topic.ends(range(self._state.partitions))
                self._follower = Follower(self._address, [ends[one] for one in range(self._state.partitions)])
            return self._follower

    def _check_usable(self) -> None:
        if self._closed:
            raise UnavailableError(f"this object for {self._address} is closed; open the log again")
        if self._process != os.getpid():
            raise UnavailableError(
                f"{self._address} was opened before this process was forked; open it in this process"
            )
