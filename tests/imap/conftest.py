"""A real Dovecot for these tests, one for each test process; every test has users of its own on it."""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.stack.dovecot import DovecotServer
from tests.imap.parts import Box, box


@contextmanager
def server(capability: str | None = None, *, special: bool = True, more: str = "") -> Generator[DovecotServer]:
    """One that runs, in a folder that it may enter as the user that it runs as."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-imap-"))
    folder.chmod(0o755)
    try:
        with DovecotServer(folder, capability=capability, special=special, more=more) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def dovecot() -> Iterator[DovecotServer]:
    """With all that it can."""
    with server() as made:
        yield made


_LESS = "IMAP4rev1 SASL-IR LITERAL+ ENABLE IDLE UNSELECT NAMESPACE UIDPLUS MOVE SPECIAL-USE"


@pytest.fixture(scope="session")
def condstore_only() -> Iterator[DovecotServer]:
    """Without QRESYNC and NOTIFY."""
    with server(f"{_LESS} CONDSTORE") as made:
        yield made


@pytest.fixture(scope="session")
def plain_server() -> Iterator[DovecotServer]:
    """Without CONDSTORE either, nor does it say what its folders are for."""
    with server("IMAP4rev1 UIDPLUS MOVE", special=False) as made:
        yield made


@pytest.fixture(params=["dovecot", "condstore_only", "plain_server"])
def any_server(request: pytest.FixtureRequest) -> DovecotServer:
    """Each of them."""
    made: DovecotServer = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def mine(dovecot: DovecotServer) -> Iterator[Box]:
    """A mailbox on the server that can everything."""
    with box(dovecot) as made:
        yield made
