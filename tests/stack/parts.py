"""Where the tests find the real parts: an address from the environment first, then Docker, then the local stack.

Test processes of one run share what is started; it ends with the last of them, also when they are killed. Import the
fixtures in a ``conftest.py``.
"""

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.stack.service import Wanted, joined


@contextmanager
def _address(part: str, run: str) -> Generator[str, None, None]:
    named = os.environ.get(f"HEADRACE_TEST_{part.upper()}")
    if named:
        yield named
        return
    # Not below pytest's own directory: PostgreSQL may run as a user that cannot go there.
    directory = Path(tempfile.gettempdir()) / f"headrace-test-{run[:12]}-{part}"
    with joined(directory, Wanted((part,), durable=False)) as found:
        yield found[part]


@pytest.fixture(scope="session")
def kafka_bootstrap(testrun_uid: str) -> Iterator[str]:
    """``host:port`` of a Kafka of one broker; tests make topics of their own on it."""
    with _address("kafka", testrun_uid) as address:
        yield address


@pytest.fixture(scope="session")
def postgres_dsn(testrun_uid: str) -> Iterator[str]:
    """``postgresql://…`` of a superuser on a PostgreSQL; tests make databases of their own on it."""
    with _address("postgres", testrun_uid) as address:
        yield address


@pytest.fixture(scope="session")
def registry_url(testrun_uid: str) -> Iterator[str]:
    """The base URL of a schema registry that speaks Confluent's API; tests use subjects of their own."""
    with _address("registry", testrun_uid) as address:
        yield address
