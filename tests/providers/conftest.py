"""The real servers that sources of IMAP and CalDAV are tried on, started once for each test process that needs them."""

from collections.abc import Iterator

import pytest

from headrace.demo.caldav_server import CaldavServer
from infra.stack.dovecot import DovecotServer
from tests.imap.conftest import server


@pytest.fixture(scope="session")
def dovecot() -> Iterator[DovecotServer]:
    """It can all that Dovecot can."""
    with server() as made:
        yield made


@pytest.fixture(scope="session")
def radicale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaldavServer]:
    """A Radicale."""
    with CaldavServer(tmp_path_factory.mktemp("radicale")) as made:
        yield made
