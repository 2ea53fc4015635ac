"""A Kafka and a PostgreSQL for these tests, and logs to copy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.log.sqlite import SqliteLog
from tests.contract.rich_history import Author, write
from tests.kafka.topics import Cluster
from tests.stack.parts import kafka_bootstrap, postgres_dsn

__all__ = ("kafka_bootstrap", "postgres_dsn")

PARTITIONS = 3


@pytest.fixture
def cluster(kafka_bootstrap: str) -> Cluster:
    """The shared cluster of one broker."""
    return Cluster(kafka_bootstrap)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[SqliteLog]:
    """A log in a file, with everything in it that a log can hold."""
    with SqliteLog.create(tmp_path / "origin", PARTITIONS) as log:
        for account in ("a-1", "a-2", "a-3"):
            write(Author(log, account))
        yield log
