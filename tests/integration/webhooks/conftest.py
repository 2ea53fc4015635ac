"""Receivers: one per test, and one for tests that only look at what they change themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.stores import open_store
from tests.integration.webhooks.receiver import Receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A store of the test's own."""
    with open_store(tmp_path / "store", writer=True, partitions=4) as store:
        yield Receiver(store)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One store for tests that only look at what their own requests change."""
    with open_store(tmp_path_factory.mktemp("webhooks") / "store", writer=True, partitions=4) as store:
        yield Receiver(store)
