"""The real parts that integration tests run against, started once and shared."""

from collections.abc import Iterator

import pytest

from headrace.demo.caldav_server import CaldavServer


@pytest.fixture(scope="session")
def caldav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaldavServer]:
    """A Radicale per test process; every test makes calendars of its own in it."""
    with CaldavServer(tmp_path_factory.mktemp("radicale")) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _stores_of_module(stores_of_module: None) -> None:
    """Every module here may open stores with :mod:`tests.integration.stores`."""


@pytest.fixture(autouse=True)
def _stores_of_test(stores_of_test: None) -> None:
    """Every test here may."""
