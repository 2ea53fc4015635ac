"""The part of a Kafka log that was copied from another log; see :mod:`headrace.log.carrying` for what counts and why.

Where a partition's copied part ends is looked up once, and only by who reads in it: with some twenty reads, because the
brokers stamp what was copied differently from what came after. Only if what is found there is no such end (somebody had
the topic's settings changed for a while) is the part walked through from its beginning.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from headrace.errors import HaltError
from headrace.log.carrying import carried, ends_copy, original
from headrace.log.port import Stored

_WALKED_AT_ONCE: Final = 2_000

Fetch = Callable[[int, int, int], Sequence[Stored]]
"""Reads exactly so many records of a partition from an offset on, as the broker keeps them."""

End = Callable[[int], int]
"""Where a partition ends now."""


class CopiedPart:
    """Of the log whose partition 0 begins with ``copy``'s record. Safe to use from any thread."""

    def __init__(self, name: str, copy: str, fetch: Fetch, end: End) -> None:
        self._name: Final = name
        self._copy: Final = copy
        self._fetch: Final = fetch
        self._end: Final = end
        self._ends: Final[dict[int, int]] = {}
        self._guard: Final = threading.Lock()

    def originals(self, records: Sequence[Stored]) -> list[Stored]:
        """Records of one partition as they were where they came from; those behind the copied part as they are.

        :raises HaltError: the copy is not finished, or the topic was changed.
        """
        if all(record.log_append for record in records):
            return list(records)
        end = self.end(records[0].partition)
        return [self._original(record) if record.offset < end else record for record in records]

    def _original(self, record: Stored) -> Stored:
        found = original(record, self._copy)
        if found is None:
            raise HaltError(
                f"record {record.partition}:{record.offset} of {self._name} stands in the copied part and was not"
                " copied: the topic was changed; restore it"
            )
        return found

    def end(self, partition: int) -> int:
        """The offset of the partition's ``log.moved``; 0 where nothing was copied.

        :raises HaltError: there is none: the copy is not finished.
        """
        with self._guard:
            found = self._ends.get(partition)
        if found is None:
            found = self.sought(partition)
            if found is None:
                raise HaltError(
                    f"{self._name} is an unfinished copy of a log: repeat the `headrace log copy` that was making it"
                    " and it goes on, or throw it away with --discard"
                )
            with self._guard:
                self._ends[partition] = found
        return found

    def sought(self, partition: int) -> int | None:
        """:meth:`end`, looked for anew; ``None`` where there is none."""
        end = self._end(partition)
        if not end or not self._is_of_copy(self._one(partition, 0)):
            return 0 if end and partition else None
        first, last = 1, end  # between the two, inclusive, is the first record that was not copied
        while first < last:
            middle = (first + last) // 2
            if self._is_of_copy(self._one(partition, middle)):
                first = middle + 1
            else:
                last = middle
        if first < end and ends_copy(self._one(partition, first), self._copy):
            return first
        return self._walked(partition, end)

    def ended(self, partition: int) -> bool:
        """Whether a ``log.moved`` of the copy stands anywhere: everything is looked at."""
        end = self._end(partition)
        return any(
            ends_copy(record, self._copy)
            for offset in range(0, end, _WALKED_AT_ONCE)
            for record in self._fetch(partition, offset, min(_WALKED_AT_ONCE, end - offset))
        )

    def _walked(self, partition: int, end: int) -> int | None:
        for offset in range(0, end, _WALKED_AT_ONCE):
            for record in self._fetch(partition, offset, min(_WALKED_AT_ONCE, end - offset)):
                if not self._is_of_copy(record):
                    return record.offset if ends_copy(record, self._copy) else None
        return None

    def _is_of_copy(self, record: Stored) -> bool:
        found = carried(record)
        return found is not None and found.copy == self._copy

    def _one(self, partition: int, offset: int) -> Stored:
        return self._fetch(partition, offset, 1)[0]
