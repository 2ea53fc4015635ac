"""The Kafka adapter keeps the log port's promises."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from headrace.log.kafka import KafkaLog
from tests.contract.log_conformance import PARTITIONS, LogConformance, Logs


class KafkaLogs:
    """One topic after another."""

    def __init__(self, bootstrap: str, stack: ExitStack) -> None:
        self._url = f"kafka://{bootstrap}/log-{secrets.token_hex(6)}?replication.factor=1"
        self._stack = stack
        self._log: KafkaLog | None = None

    def fresh(self) -> KafkaLog:
        """See :class:`Logs`."""
        self._log = self._stack.enter_context(KafkaLog.create(self._url, PARTITIONS))
        return self._log

    def reopen(self) -> KafkaLog:
        """See :class:`Logs`."""
        assert self._log is not None
        self._log.close()
        self._log = self._stack.enter_context(KafkaLog.open(self._url))
        return self._log

    def second(self) -> KafkaLog:
        """See :class:`Logs`."""
        return self._stack.enter_context(KafkaLog.open(self._url, writer=False))


class TestKafkaLog(LogConformance):
    """The suite, unchanged."""

    @pytest.fixture
    def logs(self, kafka_bootstrap: str) -> Iterator[Logs]:
        """One topic a test."""
        with ExitStack() as stack:
            yield KafkaLogs(kafka_bootstrap, stack)
