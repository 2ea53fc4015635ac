"""A worker that may not sync folds all the same, says once what it lacks, and syncs as soon as it has it."""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

from headrace.keys import Keys
from headrace.processors.worker_parts import WorkerParts
from headrace.settings import Settings
from headrace.store import KEY_FILE
from headrace.worker_sources import WorkerSources
from tests.stack.databases import own_database as new_database
from tests.worker.site import until
from tests.worker.sources_site import SourcesSite, sources_site

ROLES: Final = Path(__file__).parents[2] / "infra" / "roles.sql"


@pytest.fixture
def own_database(postgres_dsn: str) -> Iterator[str]:
    """A database of the test's own, with headrace's roles."""
    with new_database(postgres_dsn) as name:
        found = urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
        with psycopg.connect(found, autocommit=True) as connection:
            connection.execute(ROLES.read_bytes())
        yield found


@pytest.fixture
def site(kafka_bootstrap: str, own_database: str, tmp_path: Path) -> Iterator[SourcesSite]:
    with sources_site(kafka_bootstrap, own_database, tmp_path, each=1) as found:
        yield found


@pytest.fixture
def role(own_database: str) -> Iterator[str]:
    """A login that may fold; its password is its name."""
    name = f"w_{secrets.token_hex(6)}"
    with psycopg.connect(own_database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE headrace_processor".encode())
        yield name
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


class Attempts:
    """How often somebody has looked for the key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        at = Keys.at

        def counted(path: Path, *, create: bool = True) -> Keys:
            self.count += 1
            return at(path, create=create)

        monkeypatch.setattr(Keys, "at", counted)

    def more(self) -> None:
        """Return after a few more."""
        until(lambda seen=self.count: self.count >= seen + 4)  # type: ignore[misc]


def figure(sources: WorkerSources) -> float:
    [metric] = [one for one in sources.collect() if one.name == "headrace_worker_syncs_sources"]
    value: float = metric.samples[0].value
    return value


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of syncing; a broker's client may say something of its own at any time."""
    return [record.getMessage() for record in caplog.records if record.name == "headrace.sync"]


def test_what_it_lacks_is_told_once_and_made_up_for(
    site: SourcesSite, role: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, logger="headrace.sync")
    key = site.directory / KEY_FILE
    aside = key.rename(key.with_name("aside"))
    server = urlsplit(site.postgres)
    db_url = server._replace(netloc=f"{role}:{role}@{server.netloc.rpartition('@')[2]}").geturl()
    settings = Settings(store=site.directory, log_url=site.url, db_url=db_url, db_schema=site.schema)
    parts, sources = WorkerParts(settings.places), WorkerSources(settings, retry_seconds=0.02)
    attempts = Attempts(monkeypatch)
    parts.open()
    fold = parts.fold(lambda _: None)
    fold.start()
    try:
        sources.start(fold)
        attempts.more()
        [told] = said(caplog)
        assert "folds, and syncs no sources: the master key" in told
        assert "HEADRACE_KEY_FILE" in told
        assert figure(sources) == 0

        aside.rename(key)
        until(lambda: len(said(caplog)) == 2)
        attempts.more()
        [_, told] = said(caplog)
        assert "member of headrace_connector" in told
        assert figure(sources) == 0
        until(lambda: sum(fold.folded.values()) == sum(site.store.log.describe().ends))

        with psycopg.connect(site.postgres, autocommit=True) as connection:
            connection.execute(f"GRANT headrace_connector TO {role}".encode())
        site.wait_synced()
        until(lambda: figure(sources) == 1)
        site.check_every_change_once()
        assert said(caplog)[2:] == ["this worker syncs sources now"]
    finally:
        ended = sources.stop(20), fold.stop()
        parts.close()
    assert ended == (True, True)
    assert figure(sources) == 0
