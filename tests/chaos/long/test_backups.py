"""PostgreSQL is restored from an older base backup while everything else goes on: the tables catch up by themselves."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from infra.stack.postgres import PostgresServer
from tests.chaos.distributed import Distributed
from tests.chaos.run import Report, Run
from tests.chaos.tenants import logins

CLIENTS = 6
BEFORE, SINCE, AFTER = 150, 300, 150
Passed = Callable[[Report], Report]


def back_up(server: PostgresServer, backup: Path) -> None:
    """A base backup of a server that is at work (``pg_basebackup``, with the log that belongs to it)."""
    assert server.server is not None
    programs = Path(f"/proc/{server.server.pid}/exe").resolve().parent
    found = conninfo_to_dict(server.dsn)
    where = ["--host=127.0.0.1", f"--port={server.port}", f"--username={found['user']}"]
    command = [str(programs / "pg_basebackup"), *where, f"--pgdata={backup}", "--checkpoint=fast"]
    environment = {**os.environ, "PGPASSWORD": str(found["password"])}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)


def restore(server: PostgresServer, backup: Path) -> None:
    """The backup in the place of what there was."""
    data = server.directory / "data"
    owner = data.stat()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    data.chmod(0o700)


def test_tables_restored_from_an_older_backup_catch_up(chaos_directory: Path, seed: int, passed: Passed) -> None:
    who = logins(CLIENTS)
    with Distributed(chaos_directory, who, apis=2, workers=2) as stage:
        run = Run(stage, who, seed, chaos_directory / "history")
        run.answered(BEFORE)
        back_up(stage.postgres, chaos_directory / "backup")
        then = stage.folded()
        run.answered(SINCE)
        now = stage.folded()
        assert sum(now.values()) > sum(then.values())
        stage.kill_postgres()
        restore(stage.postgres, chaos_directory / "backup")
        run.struck["PostgreSQL restored from an older backup"] += 1
        run.rest(2.0)  # clients, workers and APIs see that it is away
        stage.start_postgres()
        run.answered(AFTER)
        report = passed(run.end())
    assert report.revived == []
