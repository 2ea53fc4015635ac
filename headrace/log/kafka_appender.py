"""Sends records to a topic and learns where they went.

One idempotent producer for all threads: batches of a partition keep their order, and a resent batch is hardly ever
appended twice. Hardly: a restart or an outage longer than the delivery timeout ends that, and under repeated failovers
one attempt has been seen twice on the log. The record's own id is what makes that harmless.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headrace.errors import BadInputError
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_faults import Trouble, client_settings, nothing_landed, served
from headrace.log.port import Record

_POLL_SECONDS: Final = 0.1
_FULL_SECONDS: Final = 0.05
_MARGIN_SECONDS: Final = 10.0
"""The client reports every record within its delivery timeout; this much later it never will."""

_HEADER_BYTES: Final = 12
_RECORD_BYTES: Final = 200
"""What a header and a record take besides their bytes, at the most."""


class Outcome(NamedTuple):
    """``offset`` once the record is acknowledged, else ``error``; neither when nothing is known of it. ``nowhere``: it
    was refused, or never sent."""

    offset: int | None
    error: KafkaError | None
    nowhere: bool


_NOTHING_KNOWN: Final = Outcome(None, None, nowhere=False)


class _Delivery:
    """One append under way. Reports come in on the poll thread."""

    def __init__(self, count: int) -> None:
        self._outcomes: Final = [_NOTHING_KNOWN] * count
        self._left = count
        self._guard: Final = threading.Lock()
        self._done: Final = threading.Event()

    def report(self, index: int, error: KafkaError | None, message: Message) -> None:
        """A record's delivery report."""
        offset = message.offset() if error is None else None
        self.settle(index, Outcome(offset, error, nowhere=error is not None and nothing_landed(error)))

    def settle(self, index: int, outcome: Outcome) -> None:
        """What became of a record."""
        with self._guard:
            self._outcomes[index] = outcome
            self._left -= 1
            if not self._left:
                self._done.set()

    def wait(self, timeout: float) -> list[Outcome]:
        """What became of every record, once all is known or never will be."""
        self._done.wait(timeout)
        return list(self._outcomes)


class Appender:
    """Safe to use from any thread. ``record_bytes`` is what the topic takes in one record."""

    def __init__(self, address: KafkaAddress, record_bytes: int) -> None:
        self._address: Final = address
        self._timeout: Final = address.delivery_timeout_ms / 1000 + _MARGIN_SECONDS
        self.trouble: Final = Trouble()
        self._settings: Final[dict[str, Any]] = {
            **client_settings(address, self.trouble),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,  # a crowd gathers by itself while a request is under way
            "socket.nagle.disable": True,
            "delivery.timeout.ms": address.delivery_timeout_ms,
            "message.max.bytes": max(record_bytes, 1_000),
            "queue.buffering.max.kbytes": 256 * 1024,
        }
        self._fatal: KafkaError | None = None
        self._producer: Final = Producer(self._settings)
        self._closing: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._poll, name="headrace-kafka-append", daemon=True)
        self._thread.start()

    def send(self, records: Sequence[Record]) -> list[Outcome]:
        """Send in order per partition; return once something is known of every record, or never will be."""
        return self.begin(records)()

    def begin(self, records: Sequence[Record]) -> Callable[[], list[Outcome]]:
        """Begin to send in order per partition. What is returned waits until something is known of every record, or
        never will be."""
        delivery = _Delivery(len(records))
        for index, record in enumerate(records):
            error = self._produce(record, partial(delivery.report, index))
            if error is not None:
                # Not even queued, and what comes after must not overtake it.
                for unsent in range(index, len(records)):
                    delivery.settle(unsent, Outcome(None, error, nowhere=True))
                break
        return partial(delivery.wait, self._timeout)

    def close(self) -> None:
        """Wait for what is under way and end. Harmless when repeated."""
        if self._closing.is_set():
            return
        self._serve(self._producer.flush, self._timeout)
        self._closing.set()
        self._thread.join()

    @property
    def fatal(self) -> KafkaError | None:
        """The error that the producer does not recover from, if it has met one: a new appender is needed."""
        return self._fatal

    def _produce(self, record: Record, report: Any) -> KafkaError | None:
        while True:
            try:
                self._producer.produce(
                    self._address.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=report,
                    headers=list(record.headers),
                )
            except BufferError:
                self._serve(self._producer.poll, _FULL_SECONDS)  # the queue is full: help to empty it
                if self._fatal is not None:
                    return self._fatal
            except KafkaException as error:
                found: KafkaError = error.args[0]
                if found.fatal():
                    self._fatal = self._fatal or found
                return found
            else:
                return None

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._serve(self._producer.poll, _POLL_SECONDS)

    def _serve(self, serve: Callable[[float], int], seconds: float) -> None:
        """What was queued or under way when the producer met an error that it does not recover from, is reported all
        the same."""
        fatal = served(serve, seconds)[1]
        self._fatal = self._fatal or fatal


def check_sizes(address: KafkaAddress, records: Sequence[Record], most: int) -> None:
    """Pass when every record fits into ``most`` bytes, as Kafka counts them at the most.

    :raises BadInputError: one does not.
    """
    for record in records:
        size = _RECORD_BYTES + len(record.value) + len(record.key or b"")
        size += sum(_HEADER_BYTES + 4 * len(name) + len(value) for name, value in record.headers)
        if size > most:
            raise BadInputError(
                f"a record of {size} bytes is too large for {address}: keep it under {most} and store the rest beside"
                " the log"
            )
