"""The distributed host: one thread that folds the partitions its consumer group gives it.

Workers of one group share the log's partitions; one that joins or leaves moves some of them. Where a partition goes on
is what the tables say, never the group's offsets, which are written for lag tools only. The group keeps two workers
from doing the same work; that only one of them can write is the tables' doing (the fence).

==========================================  ====================================================================
a schema is missing, the tables or the      the partition is paused, loudly, while the worker stays in the group, and
verdicts' topic do not answer               goes on by itself once that is mended; the others go on meanwhile
another worker has moved a partition on     what was fetched of it is dropped; it goes on from where the tables are,
                                            for as long as the group leaves it here
an entity kind's code raises                the partition stops: it is a bug, and skipping the record would be worse
the log is not the one that was folded,     everything stops and leaves the group: this process must not judge this
the log asks for what is not installed      log
==========================================  ====================================================================
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Set
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.errors import FencedError, HaltError, HeadraceError, SchemaMissingError, UnavailableError
from headrace.log.kafka import KafkaLog
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_faults import Trouble, is_beyond, make_sure, meaning
from headrace.log.kafka_reader import consumer_settings, stored
from headrace.log.port import Stored
from headrace.processors.applied import Applied
from headrace.processors.engine import Engine
from headrace.processors.partition_folding import BATCH, PartitionFolding

GROUP: Final = "headrace-fold"
SESSION_SECONDS: Final = 6.0
"""How long a worker may be silent before its partitions are given to others: the least that brokers allow by default.
What is silent longer without being dead is fenced."""
_IDLE_SECONDS: Final = 0.1
"""How long something new is waited for at a time: so long may :meth:`GroupFold.stop` take while nothing happens."""
_DRAIN: Final = 4
"""How many batches' worth of records are taken from the client at once, at the most."""
_TELL_SECONDS: Final = 1.0
"""How often the group's offsets are written."""
_CHECK_SECONDS: Final = 2.0
"""How often it is looked whether the tables are where they were left."""
_log: Final = logging.getLogger("headrace.fold")


_Batch = tuple[int, list[Stored]]
"""A partition and records of it that follow one another."""


class FoldCounts(NamedTuple):
    """What a fold has done since it started."""

    records: int
    batches: int
    pauses: int
    rebalances: int


class GroupFold:
    """Runs an engine over the partitions of a log in Kafka that a consumer group assigns, until :meth:`stop`.

    ``address`` and ``log`` name the same log: records come by a consumer of this class's own, ``log`` is asked where it
    ends and read after trouble. ``applied`` tells how far the partitions that are folded here are. ``ended`` is called
    once, from the fold's thread, when that ends, with why if it was not asked to.
    """

    def __init__(
        self,
        address: KafkaAddress | str,
        log: KafkaLog,
        engine: Engine,
        applied: Applied | None = None,
        *,
        group: str = GROUP,
        batch: int = BATCH,
        session_seconds: float = SESSION_SECONDS,
        ended: Callable[[HeadraceError | None], object] | None = None,
    ) -> None:
        self.address: Final = KafkaAddress.parse(address) if isinstance(address, str) else address
        self.applied: Final = applied or Applied()
        self.group: Final = group
        self._log: Final = log
        self._engine: Final = engine
        passing = (SchemaMissingError, UnavailableError, FencedError)
        self._folding: Final = PartitionFolding(log, engine, self.applied, _log, batch=batch, passing=passing)
        self._most: Final = batch * _DRAIN
        self._session_seconds: Final = session_seconds
        self._ended: Final = ended
        self._trouble: Final = Trouble()
        self._consumer: Consumer | None = None
        self._failure: HeadraceError | None = None
        self._joined = False
        self._rebalances = 0
        self._listeners: Final[set[Callable[[], object]]] = set()
        self._told: Final[dict[int, int]] = {}
        self._told_at = 0.0
        self._checked_at = 0.0
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-fold", daemon=True)

    # -- for any thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Check that the log is the one that was folded, join the group, and go on in a thread of its own.

        :raises HaltError: this process must not judge this log; nothing was started.
        :raises UnavailableError: log or tables cannot be read now; nothing was started.
        """
        self._engine.resume(self._log, 0)
        self._engine.forget(0)
        try:
            self._consumer = Consumer(self._settings())
            self._consumer.subscribe(
                [self.address.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
        except KafkaException as error:
            raise meaning(error.args[0], self.address, "joining the readers of", self._trouble) from error
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish the batch at hand, leave the group and end the thread; whether it ended within ``timeout`` seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the thread folds."""
        return self._thread.is_alive()

    @property
    def joined(self) -> bool:
        """Whether the group has ever given this worker its share, be it nothing."""
        return self._joined

    @property
    def folded(self) -> Mapping[int, int]:
        """The partitions assigned to this worker that it folds or waits to fold, with the first offset that is not."""
        return dict(self._folding.next)

    @contextmanager
    def listening(self, listener: Callable[[], object]) -> Generator[None]:
        """While it lasts ``listener`` is called when partitions have been given or taken, from the fold's thread: it
        must return at once."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    @property
    def paused(self) -> Mapping[int, HeadraceError]:
        """Those that wait for something, and for what."""
        return self._folding.paused

    @property
    def failure(self) -> HeadraceError | None:
        """Why all of it has stopped, if it was not asked to."""
        return self._failure

    @property
    def stopped(self) -> Mapping[int, HeadraceError]:
        """Those assigned to this worker that go no further, and why."""
        return dict(self._folding.stopped)

    @property
    def counts(self) -> FoldCounts:
        """What it has done so far."""
        folding = self._folding
        return FoldCounts(folding.records, folding.batches, folding.pauses, self._rebalances)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        session_ms = int(self._session_seconds * 1000)
        return {
            **consumer_settings(self.address, self._trouble),
            "group.id": self.group,
            "partition.assignment.strategy": "cooperative-sticky",  # what stays where it is goes on meanwhile
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": min(1_000, session_ms // 4),
            "fetch.wait.max.ms": 100,  # what joins a fetch that waits is held up so long
        }

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
        except HeadraceError as error:
            self._failure = error
        except KafkaException as error:
            self._failure = meaning(error.args[0], self.address, "folding", self._trouble)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever it was
            _log.critical("the fold has stopped on a bug", exc_info=True)
            self._failure = HaltError(f"the fold has stopped on a bug: {error!r}; see the log, mend it, start again")
        if self._failure is not None:
            _log.critical("the fold has stopped: %s", self._failure)
            self.applied.fail(self._failure)
        self._leave()
        if self._ended is not None:
            self._ended(self._failure)

    def _turn(self) -> None:
        """Fold what is there, a batch at a time; if nothing is, wait for it a while."""
        first = self._open.poll(self._folding.until_due(_IDLE_SECONDS))
        if first is not None:
            arrived: dict[int, list[Stored]] = {}
            messages = (first, *self._open.consume(self._most - 1, 0))
            for message in messages:
                error = message.error()
                if error is None:
                    record = stored(message)
                    arrived.setdefault(record.partition, []).append(record)
                else:
                    self._judge(error, message)
            if self._failure is None:  # records may come with the very partition that cannot be begun with
                self._take_all(arrived, more=len(messages) == self._most)
        if self._failure is not None:
            raise self._failure
        for partition in self._folding.due[:1]:  # one at a time: what it waits for may take long to say no
            self._retry(partition)
        self._check_places()
        self._tell()

    @property
    def _open(self) -> Consumer:
        assert self._consumer is not None
        return self._consumer

    def _take_all(self, arrived: Mapping[int, list[Stored]], *, more: bool) -> None:
        """Fold what was fetched, the partitions in turn: one's batch is folded while another's is committed. ``more``:
        the last one is left under way, since there is more to fold than was fetched."""
        before = self._folding.paused.keys()
        self._folding.settle()
        trouble = self._hold_failed(before)
        queues: list[list[_Batch]] = []
        for partition, records in arrived.items():
            try:
                queues.append([(partition, records)] if trouble is not None else self._batches(partition, records))
            except UnavailableError as error:
                self._pause(partition, error)
                trouble = error
        before = self._folding.paused.keys()
        turns = [batch for turn in zip_longest(*queues) for batch in turn if batch is not None]
        for number, (partition, records) in enumerate(turns, 1):
            if self._stopping.is_set():
                break
            if trouble is None:
                self._folding.fold(partition, records, more=more or number < len(turns))
                trouble = self._hold_failed(before)
            elif partition in self._folding.next and partition not in self._folding.paused:
                # What does not answer for one will not for the next: do not wait for each.
                self._pause(partition, trouble)
        if not more:
            self._folding.settle()
            self._hold_failed(before)

    def _batches(self, partition: int, records: list[Stored]) -> list[_Batch]:
        """What was fetched of a partition, as batches, if it is still ours and follows what was folded.

        :raises UnavailableError: the log, which was copied from elsewhere, does not say what the records were there.
        """
        place = self._folding.next.get(partition)
        if place is None or partition in self._folding.paused:
            return []  # given away, stopped or paused since: whoever goes on with it reads it again
        behind = next((n for n, record in enumerate(records) if record.offset >= place), len(records))
        found = records[behind:]  # what was fetched before a seek is left out
        if found and (found[0].offset, found[-1].offset) != (place, place + len(found) - 1):
            # Either the log has a hole, or the tables went back: reading from where they are tells.
            self._pause(partition, UnavailableError(f"offset {place} was not fetched, but {found[-1].offset} was"))
            return []
        found, size = self._log.originals(found), self._folding.batch
        return [(partition, found[start : start + size]) for start in range(0, len(found), size)]

    def _hold_failed(self, before: Set[int]) -> HeadraceError | None:
        """Fetch nothing more of partitions that wait or have stopped. Returns the trouble that one which did not wait
        ``before`` has met, where others will meet it too."""
        paused = self._folding.paused
        self._hold({**paused, **self._folding.stopped})
        new = (why for partition, why in paused.items() if partition not in before)
        return next((why for why in new if isinstance(why, UnavailableError)), None)

    def _retry(self, partition: int) -> None:
        """Try a paused partition with what the log has now; once that works, fetch it again."""
        self._folding.catch_up(partition)
        if partition in self._folding.paused or partition not in self._folding.next:
            return
        place = TopicPartition(self.address.topic, partition, self._folding.next[partition])
        try:
            self._open.seek(place)
            self._open.resume([place])
        except KafkaException as error:
            self._pause(partition, meaning(error.args[0], self.address, "going on with", self._trouble))

    def _check_places(self) -> None:
        if time.monotonic() - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = time.monotonic()
            self._folding.check()
            self._hold(self._folding.paused)

    def _pause(self, partition: int, error: HeadraceError) -> None:
        self._folding.pause(partition, error)
        self._hold([partition])

    def _hold(self, partitions: Iterable[int]) -> None:
        """Fetch nothing more of these; the group still counts them as ours."""
        places = [TopicPartition(self.address.topic, partition) for partition in partitions]
        if places:
            self._open.pause(places)

    def _judge(self, error: KafkaError, message: Message) -> None:
        if is_beyond(error) or error.fatal():
            raise meaning(error, self.address, f"reading partition {message.partition()} of", self._trouble)
        self._trouble(error)
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC):
            make_sure(self._log.describe, _CHECK_SECONDS)

    # -- what the group says; called while polling ----------------------------------------------------------------

    def _assigned(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._joined = True
        self._rebalances += 1
        trouble: HeadraceError | None = None
        for place in places:
            self._folding.next[place.partition] = 0
            try:
                with self._folding.guarded(place.partition):
                    if trouble is not None:
                        raise trouble  # what does not answer for one will not for the next: do not wait for each
                    self._folding.begin(place.partition)
            except HeadraceError as error:
                self._failure = self._failure or error
            place.offset = self._folding.next[place.partition]
            trouble = self._folding.paused.get(place.partition)
        self._open.incremental_assign(places)
        # The client holds what it held before it was given away, and never would fetch it again.
        self._open.resume([TopicPartition(place.topic, place.partition) for place in places])
        self._hold(place.partition for place in places if place.partition in self._folding.paused)
        _log.info("assigned partitions %s", sorted(self._folding.next))
        self._moved()

    def _revoked(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._tell(at_once=True)
        self._forget(places)

    def _lost(self, _: Consumer, places: list[TopicPartition]) -> None:
        _log.warning("lost partitions %s: this worker was silent for too long", sorted(one.partition for one in places))
        self._forget(places)

    def _forget(self, places: list[TopicPartition]) -> None:
        self._rebalances += 1
        for place in places:
            try:
                self._folding.forget(place.partition)
            except HeadraceError as error:
                self._failure = self._failure or error
            self._told.pop(place.partition, None)
        self._open.incremental_unassign(places)
        _log.info("left with partitions %s", sorted(self._folding.next))
        self._moved()

    def _moved(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _tell(self, *, at_once: bool = False) -> None:
        """Write the group's offsets, for lag tools; headrace never reads them, so nobody waits for it."""
        now = time.monotonic()
        if not at_once and now - self._told_at < _TELL_SECONDS:
            return
        news = {p: offset for p, offset in self._folding.next.items() if offset and self._told.get(p) != offset}
        self._told_at = now
        if not news:
            return
        self._told.update(news)
        places = [TopicPartition(self.address.topic, partition, offset) for partition, offset in news.items()]
        try:
            self._open.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            _log.info("the group's offsets were not written: %s", error)

    def _leave(self) -> None:
        try:
            self._folding.close()
        except HeadraceError as error:
            self._failure = self._failure or error
        try:
            self._tell(at_once=True)
            self._open.close()
        except Exception as error:  # noqa: BLE001 - it is over either way; the group notices by itself
            _log.warning("leaving the group failed: %s", error)
