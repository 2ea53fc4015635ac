"""The API on a PostgreSQL that has no connection left for whoever reads."""

from pathlib import Path

import pytest

from headrace.processors.replay import replay
from headrace.projections.postgres import PostgresTables
from tests.integration.api_desk import Desk, problem, serving


def test_when_every_connection_is_taken_readers_are_told_to_come_again(
    database: str, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as desk:
        shown, store = desk.thread("busy"), desk.store
        with (
            PostgresTables(database, store.registry, store.kinds, schema=schema, readers=2, reader_wait=0.1) as tables,
            monkeypatch.context() as patch,
        ):
            replay(store.log, store.registry, store.kinds, tables)
            patch.setattr(store, "tables", tables)
            assert _read(desk) == shown
            with tables.snapshot(), tables.snapshot():
                for path in ("entities/mail.thread/t1", "entities", "proposals/none", "entities/mail.thread/t1/events"):
                    answer = desk.http.get(f"/v1/accounts/busy/{path}")
                    problem(answer, 503, "unavailable")
                    assert answer.headers["retry-after"]
                assert desk.http.get("/health/ready").status_code == 200
            assert _read(desk) == shown


def _read(desk: Desk) -> object:
    return desk.entity("busy", "mail.thread", "t1").json()
