"""One service for all who join, which ends with the last of them; or one that stays until it is told to stop."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from headrace.errors import UnavailableError
from infra.stack.service import Wanted, addresses, joined
from tests.stack.test_processes import wait_ended

ROOT = Path(__file__).parents[2]
WANTED = Wanted(("postgres",), durable=False, way="local")
_JOIN = """
import sys
from pathlib import Path
from infra.stack.service import Wanted, joined
with joined(Path(sys.argv[1]), Wanted(("postgres",), durable=False, way="local")) as found:
    print(found["postgres"], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that PostgreSQL's user may pass through."""
    path = Path(tempfile.gettempdir()) / f"headrace-test-{secrets.token_hex(6)}"
    yield path
    command("down", "--remove", "--directory", str(path))


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.stack", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_all_who_join_share_one_and_it_ends_with_the_last_even_if_killed(place: Path) -> None:
    with ExitStack() as stack:
        users = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", _JOIN, place], cwd=ROOT, stdin=-1, stdout=-1, text=True)
            )
            for _ in range(3)
        ]
        found = {user.stdout.readline().strip() for user in users if user.stdout is not None}
        [dsn] = found
        assert answers(dsn)
        service = int((place / "addresses").read_text(encoding="utf-8").split('"pid": ')[1].split(",")[0])
        users[0].send_signal(signal.SIGKILL)  # the one that may have started it
        users[0].wait(20)
        users[1].communicate("bye\n", 20)
        with joined(place, WANTED) as mine:
            assert mine["postgres"] == dsn
        assert answers(dsn)
        users[2].send_signal(signal.SIGKILL)
        users[2].wait(20)
        assert wait_ended(service, 30)
    assert not answers(dsn)
    assert not place.exists()
    assert addresses(place) is None


def test_after_the_last_has_left_the_next_starts_anew(place: Path) -> None:
    seen: list[str] = []
    for _ in range(3):
        with joined(place, WANTED) as found:
            seen.append(found["postgres"])
            assert answers(found["postgres"])
    assert len(seen) == 3


def test_a_killed_service_takes_its_parts_along_and_is_replaced(place: Path) -> None:
    with joined(place, WANTED) as found:
        service = int((place / "addresses").read_text(encoding="utf-8").split('"pid": ')[1].split(",")[0])
        os.kill(service, signal.SIGKILL)
        assert wait_ended(service, 20)
        deadline = time.monotonic() + 20
        while answers(found["postgres"]):
            assert time.monotonic() < deadline
        with joined(place, WANTED) as again:
            assert answers(again["postgres"])


def test_up_status_and_down(place: Path) -> None:
    named = ("--directory", str(place))
    assert command("status", *named).returncode == 3
    up = command("up", *named, "--parts", "postgres", "--forgetful")
    assert up.returncode == 0, up.stderr
    dsn = dict(line.split("=", 1) for line in up.stdout.splitlines())["HEADRACE_TEST_POSTGRES"]
    assert answers(dsn)
    assert f"HEADRACE_DB_URL='{dsn}'" in up.stdout
    assert command("up", *named).stdout == command("status", *named).stdout == up.stdout
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    down = command("down", *named)
    assert (down.returncode, down.stderr) == (0, "stopped\n")
    assert not answers(dsn)
    assert command("down", *named).stderr == "no stack was running\n"
    again = command("up", *named, "--parts", "postgres", "--forgetful")
    assert again.stdout == up.stdout, "it is found where it was"
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_what_does_not_come_up_says_why_in_one_line(place: Path, tmp_path: Path) -> None:
    failed = command(
        "up", "--directory", str(place), "--parts", "kafka", PATH=str(tmp_path), HEADRACE_CACHE=str(tmp_path / "cache")
    )
    assert failed.returncode == 1
    [line] = failed.stderr.strip().splitlines()
    assert line.startswith("stack: the local stack needs Maven once")
    assert "apt-get install maven" in line
    unknown = command("up", "--directory", str(place), "--parts", "kafka,zookeeper")
    assert "no such part: zookeeper" in unknown.stderr


def test_a_directory_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UnavailableError, match="belongs to another user"), joined(tmp_path, WANTED):
        pytest.fail("joined a service of somebody else")
