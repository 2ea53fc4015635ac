"""The real parts that integration tests run against, started once and shared."""

from collections.abc import Iterator

import pytest

from headrace.demo.caldav_server import CaldavServer


@pytest.fixture(scope="session")
def caldav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaldavServer]:
    """A Radicale per test process; every test makes calendars of its own in it."""
    with CaldavServer(tmp_path_factory.mktemp("radicale")) as server:
        yield server
