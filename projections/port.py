"""The tables: what is promised of them, whoever keeps them.

The log is the truth; the tables are the log folded, and can be folded again. A partition's rows and its ``next_offset``
change in one transaction, fenced by the ``next_offset`` that was read. Adapters: :mod:`headrace.projections.sqlite`,
later PostgreSQL. Both pass the one suite in ``tests/contract/tables_conformance.py``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace.log.port import Stored
from headrace.processors.core.memory import ContainerKey, Memory, PartitionRow, ProposalKey
from headrace.processors.core.model import AccountKey
from headrace.schemas.refs import EntityRef

Publish = Callable[[Memory], Callable[[], object]]
"""Begins to make known what a batch did; what it returns waits until that has worked, or raises."""


@dataclass(slots=True)
class Wants:
    """What a batch needs loaded. ``since`` and ``touching`` give the offset after which effective events are wanted."""

    proposals: set[ProposalKey] = field(default_factory=set)
    entities: set[EntityRef] = field(default_factory=set)
    identities: set[bytes] = field(default_factory=set)
    accounts: set[AccountKey] = field(default_factory=set)
    claims: set[EntityRef] = field(default_factory=set)
    known: set[int] = field(default_factory=set)
    since: dict[EntityRef, int] = field(default_factory=dict)
    touching: dict[ContainerKey, int] = field(default_factory=dict)


class Reader(Protocol):
    """A consistent view of the tables for queries, for as long as the context that gave it lasts."""

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one ``SELECT`` with ``:name`` parameters, by column name."""
        ...

    def values(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The same rows one after another, as tuples: for results that need not fit into memory. Text whose bytes are
        damaged comes with backslash escapes for them, so that its row can be named.

        :raises HaltError: what is stored cannot be read: the tables are damaged.
        """
        ...


class Tables(Protocol):
    """The port. ``resume``, ``load`` and ``commit`` are the processor's, one partition at a time; one thread may load
    for a partition while another commits a batch of another partition."""

    def resume(self, partition: int) -> PartitionRow | None:
        """How far the partition is folded, ``None`` before its first commit."""
        ...

    def load(self, memory: Memory, wants: Wants) -> None:
        """Put the wanted rows into ``memory``: a fixed number of queries, whatever the batch's size."""
        ...

    def commit(self, memory: Memory, batch: Sequence[Stored], publish: Publish | None = None) -> None:
        """Write everything the fold of ``batch`` changed, and the next offset, in one transaction. ``publish`` is
        called within it, once nobody else can move the partition on, and waited for before it is committed; if that
        raises, nothing is written.

        :raises FencedError: the partition is not where ``memory`` began: another owner moved it on. Nothing was
            written.
        :raises HaltError: the tables refuse what was folded, or are damaged. Nothing was written.
        :raises UnavailableError: the tables cannot be written now. Nothing was, unless only the answer got lost:
            :meth:`resume` tells.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Reader]:
        """A consistent view for queries; any number at once, from any thread.

        :raises UnavailableError: the tables cannot be read now.
        """
        ...
