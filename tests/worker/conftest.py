"""A log in Kafka and tables in PostgreSQL for each test, and whatever folds one into the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.parts import kafka_bootstrap, postgres_dsn
from tests.worker.site import Site

__all__ = ("kafka_bootstrap", "postgres_dsn")


@pytest.fixture
def site(kafka_bootstrap: str, postgres_dsn: str, tmp_path: Path) -> Iterator[Site]:
    """A log of four partitions of the test's own, and an empty schema."""
    with Site(kafka_bootstrap, postgres_dsn, tmp_path) as found:
        yield found
