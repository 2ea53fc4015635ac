"""The delivery journal: once, whatever comes how often, and by whatever role."""

from pathlib import Path
from typing import Final

import psycopg
import pytest

from headrace.errors import HaltError, UnavailableError
from headrace.processors.journal import Journal
from headrace.processors.verdict_topic import PublishedVerdict
from tests.worker.process import migrated
from tests.worker.site import Site

FIRST: Final = PublishedVerdict(bytes(16), 1, 5, "acme", "ann", "p-1", "held", '{"verdict":"held"}')
THEN: Final = FIRST._replace(offset=9, verdict="accepted", text='{"verdict":"accepted"}')


def test_each_verdict_is_written_down_once(site: Site) -> None:
    migrated(site)
    journal = Journal(site.postgres, site.schema)
    try:
        assert journal.write([]) == 0
        assert journal.write([FIRST, FIRST]) == 1
        assert journal.write([FIRST, THEN]) == 1
        assert journal.write([FIRST, THEN]) == 0
        assert journal.write([THEN._replace(account="bob")]) == 1
        repeated = [THEN._replace(offset=n, verdict=name) for n, name in enumerate(("duplicate", "conflicting_id"), 10)]
        assert journal.write(repeated) == 0
    finally:
        journal.close()
        journal.close()
    assert site.ask('SELECT account, proposal, "offset", verdict, text FROM delivery_journal ORDER BY 1, 3') == [
        ("ann", "p-1", 5, "held", FIRST.text),
        ("ann", "p-1", 9, "accepted", THEN.text),
        ("bob", "p-1", 9, "accepted", THEN.text),
    ]


def test_it_goes_on_after_its_connection_broke(site: Site) -> None:
    migrated(site)
    journal = Journal(site.postgres, site.schema)
    try:
        assert journal.write([FIRST]) == 1
        site.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            f"headrace journal {site.schema}",
        )
        with pytest.raises(UnavailableError):
            journal.write([FIRST, THEN])
        assert journal.write([FIRST, THEN]) == 1
    finally:
        journal.close()


def test_without_its_table_it_halts(site: Site) -> None:
    with pytest.raises(HaltError, match="migrate"):
        Journal(site.postgres, site.schema).write([FIRST])


def test_a_processor_may_add_to_it_and_change_nothing(site: Site) -> None:
    roles = (Path(__file__).parents[2] / "infra" / "roles.sql").read_text(encoding="utf-8")
    with psycopg.connect(site.postgres, autocommit=True) as connection:
        connection.execute(roles.encode())
    migrated(site)
    granted = site.ask(
        "SELECT privilege_type FROM information_schema.role_table_grants WHERE grantee = 'headrace_processor'"
        " AND table_name = 'delivery_journal' AND table_schema = %s ORDER BY 1",
        site.schema,
    )
    assert granted == [("INSERT",), ("SELECT",)]
