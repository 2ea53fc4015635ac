"""Follows the end of every partition: one consumer in one thread behind all waiting, so that waiting costs nothing.

What it fetches it keeps for a while, so that a record which has just been announced is read from memory.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from headrace.errors import HaltError, HeadraceError
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_faults import Trouble, is_beyond, meaning
from headrace.log.kafka_reader import check_run, consumer_settings, stored
from headrace.log.port import Stored
from headrace.schemas.refs import Position

_KEPT_BYTES: Final = 16 * 1024 * 1024
_OVERHEAD_BYTES: Final = 500
"""Of a kept record in memory, besides its bytes."""
_DRAIN: Final = 2_000
_LOOK_SECONDS: Final = 0.1
"""How long closing may take: the thread looks up so often."""


class Follower:
    """``ends`` are the partitions' next offsets to begin with. Safe to use from any thread."""

    def __init__(self, address: KafkaAddress, ends: Sequence[int]) -> None:
        self._address: Final = address
        self._ends: Final = list(ends)
        self._next: Final = list(ends)
        self._runs: Final[list[deque[Stored]]] = [deque() for _ in ends]
        self._order: Final[deque[int]] = deque()
        self._bytes = 0
        self._failure: HeadraceError | None = None
        self._closing = False
        self._changed: Final = threading.Condition()
        self._trouble: Final = Trouble()
        # At the ends nothing is there yet: let the brokers hold the answer until something is.
        settings = {**consumer_settings(address, self._trouble), "fetch.wait.max.ms": 500}
        self._consumer: Final = Consumer(settings)
        self._consumer.assign([TopicPartition(address.topic, one, end) for one, end in enumerate(ends)])
        self._thread: Final = threading.Thread(target=self._run, name="headrace-kafka-follow", daemon=True)
        self._thread.start()

    def wait(self, after: Mapping[int, int], timeout: float) -> frozenset[int]:
        """See :meth:`headrace.log.port.Log.wait`.

        :raises HeadraceError: following failed; why.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                grown = frozenset(partition for partition, offset in after.items() if self._ends[partition] > offset)
                if grown:
                    return grown
                self._check()
                left = deadline - time.monotonic()
                if left <= 0:
                    return grown
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def acknowledged(self, positions: Iterable[Position]) -> None:
        """Records of this process are in the log: nobody need wait for them to come round."""
        with self._changed:
            for partition, offset in positions:
                self._ends[partition] = max(self._ends[partition], offset + 1)
            self._changed.notify_all()

    def end(self, partition: int) -> int:
        """As far as the partition is known to go."""
        return self._ends[partition]

    def recent(self, partition: int, offset: int, limit: int, patience: float) -> list[Stored]:
        """Records from memory; empty when they are not there. What is on its way is waited for ``patience`` seconds."""
        deadline = time.monotonic() + patience
        with self._changed:
            while self._next[partition] <= offset < self._ends[partition] and self._failure is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            run = self._runs[partition]
            if not run or not run[0].offset <= offset < self._next[partition]:
                return []
            first = offset - run[0].offset
            return list(islice(run, first, first + limit))

    def close(self) -> None:
        """End the thread; whoever waits is let go. Harmless when repeated."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def worn_out(self) -> bool:
        """Whether it has stopped for a reason that another one may not meet. A log that was cut off stays so."""
        return self._failure is not None and not isinstance(self._failure, HaltError)

    def _check(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))  # raised in many threads: one each

    def _run(self) -> None:
        try:
            while not self._closing:
                message = self._consumer.poll(_LOOK_SECONDS)
                if message is not None:
                    self._take([message, *self._consumer.consume(_DRAIN, 0)])
        except HeadraceError as error:
            self._fail(error)
        except KafkaException as error:
            self._fail(meaning(error.args[0], self._address, "following", self._trouble))
        finally:
            self._consumer.close()

    def _take(self, messages: Sequence[Message]) -> None:
        arrived: dict[int, list[Stored]] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                if is_beyond(error) or error.fatal():
                    raise meaning(error, self._address, "following", self._trouble)
                self._trouble(error)  # the client goes on by itself
                continue
            record = stored(message)
            arrived.setdefault(record.partition, []).append(record)
        for partition, records in arrived.items():
            check_run(self._address, partition, self._next[partition], records)
        with self._changed:
            for partition, records in arrived.items():
                self._keep(partition, records)
            self._changed.notify_all()

    def _keep(self, partition: int, records: Sequence[Stored]) -> None:
        self._runs[partition].extend(records)
        self._next[partition] += len(records)
        self._ends[partition] = max(self._ends[partition], self._next[partition])
        for record in records:
            self._order.append(partition)
            self._bytes += _size(record)
        while self._bytes > _KEPT_BYTES:
            self._bytes -= _size(self._runs[self._order.popleft()].popleft())

    def _fail(self, error: HeadraceError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()


def _size(record: Stored) -> int:
    return _OVERHEAD_BYTES + len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
