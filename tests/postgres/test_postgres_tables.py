"""The PostgreSQL adapter keeps the tables port's promises."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from headrace.projections.port import Tables
from headrace.projections.postgres import PostgresTables
from tests.contract.rich_history import Author, mail
from tests.contract.tables_conformance import TablesConformance
from tests.contract.tables_recording import KINDS, REGISTRY, Commits, Stores, history


class CountingCursor(psycopg.Cursor[Any]):
    """Counts the statements that all of its kind have sent."""

    sent = 0

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """See psycopg."""
        type(self).sent += 1
        return super().execute(*args, **kwargs)

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        """See psycopg."""
        type(self).sent += 1
        return super().copy(*args, **kwargs)


class PostgresStores:
    """Tables in one schema."""

    def __init__(self, database: str, schema: str, stack: ExitStack) -> None:
        self._database = database
        self._schema = schema
        self._stack = stack

    def fresh(self) -> PostgresTables:
        """See :class:`Stores`."""
        tables = self.second()
        tables.connection.cursor_factory = tables.loading.cursor_factory = CountingCursor
        return tables

    def second(self) -> PostgresTables:
        """See :class:`Stores`."""
        return self._stack.enter_context(PostgresTables(self._database, REGISTRY, KINDS, schema=self._schema))

    def statements(self) -> int:
        """See :class:`Stores`."""
        return CountingCursor.sent


class TestPostgresTables(TablesConformance):
    """The suite, unchanged."""

    @pytest.fixture
    def stores(self, database: str, schema: str) -> Iterator[Stores]:
        """One schema a test."""
        with ExitStack() as stack:
            yield PostgresStores(database, schema, stack)

    def test_writing_takes_the_same_number_of_statements_whatever_the_batch(
        self, stores: Stores, tables: Tables
    ) -> None:
        log, partition = history()
        author, before = Author(log), len(log.records[partition])
        for number in range(425):
            thread = f"mail.thread/q-{number}"
            head = author.fact("mail.received", f"q-{number}", f"qm-{number}", mail(2_000 + number))
            author.propose(f"qp-{number}", "mail.archive", thread, [author.entity(thread, head)], {})
            author.note("claim.taken", f"qc-{number}", {"claim": f"qc-{number}", "until": 2**50}, entity=thread)
            author.raw(b"nonsense", ())

        def statements(records: int) -> int:
            commit = Commits(tables).prepared(log, partition, records)
            sent = stores.statements()
            commit()
            return stores.statements() - sent

        statements(before)
        few = statements(25 * 4)
        assert 0 < few <= 20
        assert statements(400 * 4) == few
