"""Where all partitions of a log end now, and whether its topic still is the one that was opened: cheap enough to be
asked with every request.

Questions are shared: who comes while one is under way waits for the next, together with all others who came meanwhile.
So an answer is never older than its question, and the brokers get one request at a time however many ask.

Where a partition is said to end before where it was known to end, that is asked again until it is sure.

That the topic is the same one is asked once a second at the most, and at once when a partition ends before where it
was known to end. A topic made again under the same name is noticed by what is in it, too, by whoever begins to fold
(:meth:`headrace.processors.engine.Engine.resume` compares the last record it folded with the chain). A fold that runs
does not compare that with every fetch: should other brokers with another log of as many records answer at the same
address from one moment to the next, the look at the topic's id is what notices. A partition that was added is nobody's.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from headrace.errors import LogMismatchError
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_topic import Topic, TopicState, check_count
from headrace.schemas.refs import Position

SAME_SECONDS: Final = 1.0
"""How long a topic counts as the same without being asked for its id."""

Ends = dict[int, int]


class Survey:
    """Safe to use from any thread. ``state`` is the topic as it was when the log was opened, ``known`` how far its
    partitions are known to go (kept up here, and by whoever shares it); ``clock`` in seconds."""

    def __init__(
        self,
        address: KafkaAddress,
        topic: Topic,
        state: TopicState,
        known: list[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address: Final = address
        self._topic: Final = topic
        self._state: Final = state
        self._guard: Final = threading.Lock()
        self._asking: Final = threading.Lock()
        self._coming: Future[Ends] | None = None
        self._clock: Final = clock
        self._same_until = clock() + SAME_SECONDS
        self._known: Final = known
        self._stands: Ends = {}
        self._other: str | None = None

    def ends(self) -> Ends:
        """Each partition's next offset, as it was at some moment after the call.

        :raises LogMismatchError: the topic is another one now, or has more partitions.
        :raises UnavailableError: the brokers do not answer.
        """
        with self._guard:
            found, first = self._coming, self._coming is None
            if found is None:
                found = self._coming = Future()
        if first:
            with self._asking:
                with self._guard:
                    self._coming = None  # what is asked now may be answered with the past of who comes later
                try:
                    found.set_result(self._ask())
                except BaseException as error:  # noqa: BLE001 - raised in every thread that waits for it
                    found.set_exception(error)
        return found.result()

    def landed(self, positions: Sequence[Position], before: Mapping[int, int]) -> None:
        """Records were appended there when their partitions were known to end at ``before``.

        :raises LogMismatchError: one is in front of that end: the topic is not the one it was.
        """
        for partition, offset in positions:
            if offset < before[partition]:
                self._other = (
                    f"a record went to {partition}:{offset} of {self._address}, which went on to {before[partition]}"
                    " already: the log was cut off or made again; restore the old,"
                    " then start this process again and append the same records"
                )
        self.check_taken()
        for partition, offset in positions:
            self.reached(partition, offset + 1)

    def check_taken(self) -> None:
        """Pass until :meth:`landed` has seen that the topic is not the one it was.

        :raises LogMismatchError: it has.
        """
        if self._other is not None:
            raise LogMismatchError(self._other)

    def reached(self, partition: int, end: int) -> None:
        """The partition goes at least as far as this."""
        self._known[partition] = max(self._known[partition], end)

    def _ask(self) -> Ends:
        known = list(self._known)
        least = {partition: self._stands.get(partition, end) for partition, end in enumerate(known)}
        ends = self._topic.ends(range(self._state.partitions))
        shorter = any(ends[partition] < end for partition, end in least.items())
        if shorter or self._clock() >= self._same_until:
            self._check_same()
        if shorter:
            ends = self._topic.confirmed(least)
        self._stands = {partition: ends[partition] for partition, end in enumerate(known) if ends[partition] < end}
        for partition, end in ends.items():
            self.reached(partition, end)
        return ends

    def _check_same(self) -> None:
        now = self._clock()
        state = self._topic.state()
        if state.id != self._state.id:
            raise LogMismatchError(
                f"{self._address} was deleted and made again: it is another log now; restore the old"
            )
        check_count(self._address, state.partitions, self._state.partitions)
        self._same_until = now + SAME_SECONDS
