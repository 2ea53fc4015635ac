"""The SQLite adapter keeps the log port's promises."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.log.sqlite import SqliteLog
from tests.contract.log_conformance import PARTITIONS, LogConformance, Logs


class SqliteLogs:
    """Logs in one directory after another."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._log: SqliteLog | None = None

    def fresh(self) -> SqliteLog:
        """See :class:`Logs`."""
        self._log = self._stack.enter_context(SqliteLog.create(self._directory, PARTITIONS))
        return self._log

    def reopen(self) -> SqliteLog:
        """See :class:`Logs`."""
        assert self._log is not None
        self._log.close()
        self._log = self._stack.enter_context(SqliteLog.open(self._directory))
        return self._log

    def second(self) -> SqliteLog:
        """See :class:`Logs`."""
        return self._stack.enter_context(SqliteLog.open(self._directory, writer=False))


class TestSqliteLog(LogConformance):
    """The suite, unchanged."""

    @pytest.fixture
    def logs(self, tmp_path: Path) -> Iterator[Logs]:
        """One directory a test."""
        with ExitStack() as stack:
            yield SqliteLogs(tmp_path / "log", stack)
