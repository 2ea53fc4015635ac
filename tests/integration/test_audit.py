"""Audit of a real log file and real tables: whatever is changed is named, nothing else is."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from headrace.log.framing import pack_headers, unpack_headers
from headrace.processors.audit import verify
from headrace.processors.findings import Report
from headrace.processors.replay import replay
from headrace.projections.sqlite import FILE, SqliteTables
from tests.contract.rich_history import Author, mail, write
from tests.integration.audited_store import ACCOUNTS, COLUMNS, KEYS, KINDS, REGISTRY, build
from tests.integration.stores import made_parts, open_store, shared, tamper, to_tamper_with
from tests.integration.stores import read_parts as opened


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's log and tables, folded and closed."""
    directory: Path = tmp_path_factory.mktemp("audit") / "store"
    build(directory)
    return directory


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Iterator[Path]:
    """One to tamper with."""
    with to_tamper_with(original, tmp_path / "store") as directory:
        yield directory


def audited(directory: Path, limit: int = 100) -> Report:
    """The report on a store."""
    with opened(directory) as (log, tables):
        return verify(log, tables, REGISTRY, KINDS, limit=limit)


def log_sql(directory: Path, statement: str, *values: Any) -> None:
    """One statement against the log's file, behind everybody's back."""
    connection = apsw.Connection(str(directory / "log.db"))
    connection.execute(statement, values)
    assert connection.changes() == 1
    connection.close()


def sql(directory: Path, statement: str, *values: Any) -> None:
    """One statement against the tables, behind everybody's back."""
    assert tamper(directory, statement, *values) == 1


def changed(value: Any) -> Any:
    """The value with its last bit or character changed; a number far from the others."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1_000
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"\x01"
    if isinstance(value, str) and value.startswith(("{", "[")) and shared():
        return '["forged"]'  # PostgreSQL keeps only what is JSON
    if isinstance(value, str):
        return value[:-1] + ("y" if value[-1] != "y" else "z") if value else "y"
    assert value is None
    return None


# -- what is untouched --------------------------------------------------------------------------------------------


def test_an_untouched_store_verifies(store: Path) -> None:
    seen: list[tuple[int, int]] = []
    with opened(store) as (log, tables):
        report = verify(log, tables, REGISTRY, KINDS, lambda done, total: seen.append((done, total)))
        ends = log.describe().ends
    assert report.verified
    assert report.findings == ()
    assert report.records == sum(ends)
    assert seen[-1] == (sum(ends), sum(ends))
    with opened(store) as (_, tables), tables.snapshot() as reader:
        assert report.rows == sum(reader.rows(f"SELECT count(*) AS n FROM {table}", {})[0]["n"] for table in COLUMNS)
        chains = {row["partition"]: row["chain"].hex() for row in reader.rows("SELECT * FROM partitions", {})}
    assert report.chains == chains
    assert json.loads(json.dumps(report.to_json()))["verified"] is True


def test_tables_that_lag_behind_verify_as_far_as_they_are(store: Path, tmp_path: Path) -> None:
    with opened(store) as (log, _), SqliteTables(tmp_path / "lag.db", REGISTRY, KINDS) as tables:
        replay(log, REGISTRY, KINDS, tables, until={0: 20, 1: 0})
        report = verify(log, tables, REGISTRY, KINDS)
    assert report.verified
    assert report.records == 20


def test_the_history_fills_every_table_and_column(store: Path) -> None:
    """Else the tests below would pass over what they never touched."""
    with opened(store) as (_, tables), tables.snapshot() as reader:
        for table, columns in COLUMNS.items():
            filled = [f"count({column}) AS {column}" for column in columns]
            counts = reader.rows(f"SELECT {', '.join(filled)} FROM {table}", {})[0]
            bare = {column for column, count in counts.items() if not count}
            assert bare <= {"successor", "content_key", "unbounded_from"}, table


# -- the tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in COLUMNS for column in COLUMNS[table]])
def test_a_changed_value_of_a_row_is_named(store: Path, table: str, column: str) -> None:
    with opened(store) as (_, tables), tables.snapshot() as reader:
        key_sql = ", ".join(KEYS[table])
        found = reader.rows(f"SELECT * FROM {table} ORDER BY {column} IS NULL, {key_sql} DESC LIMIT 1", {})[0]
    place = {name: found[name] for name in KEYS[table]}
    value = changed(found[column]) if found[column] is not None else _something(table, column)
    where = " AND ".join(f"{name} = ?" for name in place)
    sql(store, f"UPDATE {table} SET {column} = ? WHERE {where}", value, *place.values())

    report = audited(store)

    assert not report.verified
    named = [finding for finding in report.findings if finding.table == table]
    if column in KEYS[table]:
        assert ("missing", place) in [(finding.what, finding.key) for finding in named]
        assert "unexpected" in [finding.what for finding in named]
    else:
        exact = [finding for finding in named if (finding.what, finding.key, finding.column) == ("row", place, column)]
        assert len(exact) == 1
        assert (exact[0].live, exact[0].refolded) == (value, found[column])
        assert report.found == 1
    assert str(place[KEYS[table][-1]]) in named[0].message
    json.dumps(report.to_json())


def _something(table: str, column: str) -> Any:
    return 1 if column == "unbounded_from" else "something"


@pytest.mark.parametrize("table", COLUMNS)
def test_a_deleted_row_is_named(store: Path, table: str) -> None:
    with opened(store) as (_, tables), tables.snapshot() as reader:
        order = ", ".join(f"{name} DESC" for name in KEYS[table])
        found = reader.rows(f"SELECT {', '.join(KEYS[table])} FROM {table} ORDER BY {order} LIMIT 1", {})[0]
    where = " AND ".join(f"{name} = ?" for name in found)
    sql(store, f"DELETE FROM {table} WHERE {where}", *found.values())

    report = audited(store)

    assert [(finding.what, finding.table, finding.key) for finding in report.findings] == [("missing", table, found)]


@pytest.mark.parametrize("table", COLUMNS)
@pytest.mark.parametrize("where", ["within", "beyond"])
def test_an_inserted_row_is_named(store: Path, table: str, where: str) -> None:
    last = KEYS[table][-1]
    with opened(store) as (_, tables), tables.snapshot() as reader:
        found = reader.rows(f"SELECT * FROM {table} ORDER BY {last} DESC LIMIT 1", {})[0]
    forged = dict(found)
    if table in ("partitions", "events") and where == "beyond":
        forged["partition"] = 7
    forged[last] = found[last] + 1 if isinstance(found[last], int) else found[last] + "-forged"
    if table == "events":
        forged["identity"] = None
    marks = ", ".join("?" * len(forged))
    sql(store, f"INSERT INTO {table} ({', '.join(forged)}) VALUES ({marks})", *forged.values())

    report = audited(store)

    assert [finding.what for finding in report.findings] == ["unexpected"]
    finding = report.findings[0]
    assert finding.table == table
    assert finding.key is not None
    assert finding.key[last] == forged[last] or table == "partitions"


@pytest.mark.embedded("PostgreSQL keeps no text that is none")
def test_text_that_is_no_text_any_more_is_named(store: Path) -> None:
    sql(store, "UPDATE verdicts SET text = CAST(x'7bff7d' AS TEXT) WHERE partition = 1 AND offset = 4")
    sql(store, "UPDATE events SET source = CAST(x'ff' AS TEXT) WHERE partition = 0 AND offset = 9")
    sql(store, "UPDATE threads SET subject = CAST(x'c3' AS TEXT) WHERE account = 'a-1' AND id = 't-1'")
    report = audited(store)
    assert [(finding.what, finding.table, finding.column) for finding in report.findings] == [
        ("row", "events", "source"),
        ("row", "verdicts", "text"),
        ("row", "threads", "subject"),
    ]
    assert [finding.live for finding in report.findings] == ["\\xff", "{\\xff}", "\\xc3"]


@pytest.mark.embedded("pages of the tables' file are damaged")
@pytest.mark.parametrize("spared", [20, 40])
def test_a_file_with_damaged_pages_is_no_verified_one(store: Path, spared: int) -> None:
    content = bytearray((store / FILE).read_bytes())
    content[spared * 4_096 :] = b"\x55" * (len(content) - spared * 4_096)
    (store / FILE).write_bytes(content)
    report = audited(store)
    assert not report.verified
    assert "damaged" in report.findings[-1].message


def test_a_store_verifies_while_it_is_written_to(tmp_path: Path) -> None:
    done, failed = threading.Event(), list[Report]()
    with open_store(tmp_path, writer=True, partitions=2) as live:
        author = Author(live.log)
        write(author)

        def look() -> None:
            with open_store(tmp_path, writer=False) as reading:
                while not done.is_set():
                    report = verify(reading.log, reading.tables, REGISTRY, KINDS)
                    if not report.verified:
                        failed.append(report)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            for number in range(300):
                author.fact("mail.received", f"t-{number % 7}", f"live-{number}", mail(1_000 + number))
        finally:
            done.set()
            looking.join()
    assert not failed


def test_many_findings_are_counted_and_some_described(store: Path) -> None:
    tamper(store, "UPDATE events SET note = 'forged'")
    report = audited(store, limit=5)
    assert len(report.findings) == 5
    assert report.found == report.records


# -- the log ------------------------------------------------------------------------------------------------------


def _offsets(directory: Path) -> dict[str, int]:
    """A record of each sort, by what it is."""
    with opened(directory) as (_, tables), tables.snapshot() as reader:
        rows = reader.rows("SELECT * FROM events WHERE partition = 1 ORDER BY offset", {})
    sorts = {row["type"] or "quarantined": row["offset"] for row in rows}
    echo = max(row["offset"] for row in rows if row["disposition"] == "echo")
    return sorts | {"echo": echo, "last": rows[-1]["offset"]}


SORTS: Final = (
    *("log.opened", "mail.received", "proposal.submitted", "delivery.succeeded", "echo", "quarantined", "last"),
)


@pytest.mark.embedded("a record in Kafka cannot be changed; of a log that was replaced test_shared_store.py tells")
@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("column", ["value", "headers", "key", "appended_at", "log_append"])
def test_a_changed_byte_of_the_log_is_named(store: Path, sort: str, column: str) -> None:
    offset = _offsets(store)[sort]
    with opened(store) as (log, _):
        record = log.read(1, offset, 1)[0]
    now: Any
    match column:
        case "headers":
            name, value = record.headers[-1]
            now = pack_headers((*record.headers[:-1], (name, changed(value))))
            assert unpack_headers(now) != record.headers
        case "key":
            now = changed(record.key) if record.key is not None else b"acme/a-6"
        case "log_append":
            now = 0
        case _:
            now = changed(getattr(record, column))
    statement = f'UPDATE records SET {column} = ? WHERE partition = 1 AND "offset" = ?'
    log_sql(store, statement, now, offset)

    report = audited(store)

    assert not report.verified
    assert [(finding.what, finding.partition, finding.offset) for finding in report.findings] == [("log", 1, offset)]
    said = report.findings[0].column
    assert said is None or column in said.split(",")
    assert said is not None or column in ("headers", "log_append")
    assert f"1/{offset}" in report.findings[0].message
    assert report.skipped == (1,)
    assert list(report.chains) == [0]


@pytest.mark.embedded("a record in Kafka cannot be changed; of a log that was replaced test_shared_store.py tells")
def test_several_changed_records_are_named_each(store: Path) -> None:
    for offset in (3, 4, 40):
        log_sql(store, 'UPDATE records SET appended_at = 1 WHERE partition = 0 AND "offset" = ?', offset)
    sql(store, "UPDATE threads SET subject = 'forged' WHERE account = 'a-4' AND id = 't-1'")
    report = audited(store)
    assert [(finding.offset, finding.column) for finding in report.findings if finding.what == "log"] == [
        (3, "appended_at"),
        (4, "appended_at"),
        (40, "appended_at"),
    ]
    assert [finding.table for finding in report.findings if finding.what == "row"] == ["threads"]


@pytest.mark.embedded("a record in Kafka cannot be changed; of a log that was replaced test_shared_store.py tells")
def test_a_record_that_cannot_be_read_is_named(store: Path) -> None:
    log_sql(store, "UPDATE records SET headers = x'00' WHERE partition = 1 AND \"offset\" = 30")
    log_sql(store, 'DELETE FROM records WHERE partition = 1 AND "offset" = 12')
    report = audited(store)
    assert [(finding.what, finding.partition, finding.offset) for finding in report.findings] == [
        ("log", 1, 12),
        ("log", 1, 30),
    ]


@pytest.mark.embedded("a record in Kafka cannot be changed; of a log that was replaced test_shared_store.py tells")
def test_a_log_cut_off_is_named(store: Path) -> None:
    last = _offsets(store)["last"]
    log_sql(store, 'DELETE FROM records WHERE partition = 1 AND "offset" = ?', last)
    report = audited(store)
    assert [(finding.what, finding.partition, finding.offset) for finding in report.findings] == [("log", 1, last)]
    assert "cut off" in report.findings[0].message


def test_another_log_is_named(store: Path, tmp_path: Path) -> None:
    with made_parts(tmp_path / "other", 2) as (other, _), opened(store) as (_, tables):
        for account in ACCOUNTS.values():
            write(Author(other, account))
        report = verify(other, tables, REGISTRY, KINDS)
    assert [finding.what for finding in report.findings] == ["log"]
    assert "another log" in report.findings[0].message or "this is log" in report.findings[0].message


def test_a_kind_that_is_not_installed_is_named(store: Path) -> None:
    kinds = {name: kind for name, kind in KINDS.items() if name != "calendar.event"}
    with opened(store) as (log, tables):
        report = verify(log, tables, REGISTRY, kinds)
    assert [finding.what for finding in report.findings] == ["halt", "halt"]
    assert report.skipped == (0, 1)
