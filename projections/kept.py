"""Entities as they were last committed, kept in memory by whoever folds: what was just written need not be read again.

A partition's are good for one place of it only: where the commit left it. Whoever folds on from another place (the
partition was somebody else's meanwhile, the tables were restored or rebuilt) finds nothing here and reads the tables.
"""

import threading
from collections.abc import Iterable
from typing import Final

from headrace.processors.core.memory import Memory
from headrace.processors.core.model import EntityRow
from headrace.schemas.refs import EntityRef

MOST_BYTES: Final = 64 * 1024 * 1024
_ROW_BYTES: Final = 1_500
"""Of a row in memory, roughly, besides its content; an intent takes half of that."""


class _Shelf:
    """A partition's entities, good at offset ``at``: those of late, and those before them."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.young: dict[EntityRef, EntityRow] = {}
        self.old: dict[EntityRef, EntityRow] = {}


class Kept:
    """About ``most_bytes`` of them; of more, those used longest ago go. Safe from any thread; of one partition
    one thread at a time."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._half: Final = most_bytes // 2
        self._young = 0
        self._guard: Final = threading.RLock()
        self._shelves: Final[dict[int, _Shelf]] = {}

    def take(self, memory: Memory, wanted: Iterable[EntityRef]) -> set[EntityRef]:
        """Put those that are here into ``memory``; returns the others. What is taken is here no more until it is kept
        again: a batch changes it."""
        with self._guard:
            row = memory.partition
            shelf = self._shelves.get(row.partition)
            if shelf is None or shelf.at != row.next_offset:
                self.forget(row.partition)
                return set(wanted)
            missing: set[EntityRef] = set()
            for ref in wanted:
                found = shelf.young.pop(ref, None)
                if found is not None:
                    self._young -= _size(found)
                else:
                    found = shelf.old.pop(ref, None)
                if found is None:
                    missing.add(ref)
                else:
                    memory.entities[ref] = found
            return missing

    def keep(self, memory: Memory) -> None:
        """What a batch looked at and changed, once it is committed. Nobody may change its rows any more."""
        with self._guard:
            row = memory.partition
            shelf = self._shelves.get(row.partition)
            if shelf is None or shelf.at != memory.first_offset:
                self.forget(row.partition)
                shelf = self._shelves[row.partition] = _Shelf(memory.first_offset)
            shelf.at = row.next_offset
            for ref, entity in memory.entities.items():
                if entity.exists:
                    before = shelf.young.get(ref)
                    if before is not None:
                        self._young -= _size(before)
                    entity.renewed = False
                    self._young += _size(entity)
                    shelf.young[ref] = entity
            if self._young > self._half:
                self._age()

    def forget(self, partition: int) -> None:
        """The tables may hold something else by now."""
        with self._guard:
            shelf = self._shelves.pop(partition, None)
            if shelf is not None:
                self._young -= sum(map(_size, shelf.young.values()))

    def forget_all(self) -> None:
        """The connection broke, and with it all that was known."""
        with self._guard:
            self._shelves.clear()
            self._young = 0

    def _age(self) -> None:
        for shelf in self._shelves.values():
            shelf.old, shelf.young = shelf.young, {}
        self._young = 0


def _size(row: EntityRow) -> int:
    content = len(row.content) if row.content is not None else 0
    return _ROW_BYTES + content + _ROW_BYTES // 2 * len(row.intents)
