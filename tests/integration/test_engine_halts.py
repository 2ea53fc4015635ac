"""The engine stops where going on would be wrong, and only there; poison is set aside, and only poison."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import (
    FencedError,
    HaltError,
    KindError,
    LogMismatchError,
    SchemaMissingError,
    UnavailableError,
    UnsupportedFoldError,
)
from headrace.kinds import installed_schemas
from headrace.log.port import LogDescription, Stored
from headrace.processors.core.kind import Kind
from headrace.processors.engine import Engine, fold_all, require_kinds
from headrace.processors.kinds.mail_thread import MailThread
from headrace.projections.port import Publish
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.registry import Registry, built_in
from tests.contract.rich_history import ANN, Author, MemoryLog, mail
from tests.contract.rich_history import KINDS as IN_FORCE
from tests.integration.folding import KINDS, REGISTRY, Broken, contents, fold_by, folded, history
from tests.integration.stores import fresh_tables


def half_folded(path: Path, log: MemoryLog, until: int = 30) -> None:
    """Tables that hold the log up to an offset."""
    with fresh_tables(KINDS, path) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 0, until=until)


def _replaced(log: MemoryLog) -> None:
    other = history()
    log.records, log.log_id = other.records, other.log_id


def _cut_off(log: MemoryLog) -> None:
    del log.records[0][29:]


def _emptied(log: MemoryLog) -> None:
    log.records[0].clear()


def _changed(log: MemoryLog) -> None:
    log.records[0][29] = log.records[0][29]._replace(value=log.records[0][29].value + b"x")


def _retimed(log: MemoryLog) -> None:
    log.records[0][29] = log.records[0][29]._replace(appended_at=1)


def _more_partitions(log: MemoryLog) -> None:
    log.records.append([])


@pytest.mark.parametrize("fault", [_replaced, _cut_off, _emptied, _changed, _retimed, _more_partitions])
def test_a_log_that_is_not_the_one_that_was_folded_halts(tmp_path: Path, fault: Callable[[MemoryLog], None]) -> None:
    log = history()
    half_folded(tmp_path / "t.db", log)
    fault(log)
    with fresh_tables(KINDS, tmp_path / "t.db") as tables:
        before = contents(tables)
        with pytest.raises(LogMismatchError, match=r"rebuild|point"):
            Engine(REGISTRY, KINDS, tables).resume(log, 0)
        assert contents(tables) == before


def test_a_log_that_only_grew_goes_on(tmp_path: Path) -> None:
    log = history()
    for until in (1, 2, 29, 30):
        half_folded(tmp_path / "t.db", log, until)
        with fresh_tables(KINDS, tmp_path / "t.db") as tables:
            assert Engine(REGISTRY, KINDS, tables).resume(log, 0) == until


class Behind(MemoryLog):
    """Asked where it ends, a broker answers that stood still while another one took over; records are read there."""

    def describe(self) -> LogDescription:
        """See :class:`headrace.log.port.Log`."""
        return super().describe()._replace(ends=(7,))


def test_a_log_that_is_only_said_to_be_shorter_goes_on(tmp_path: Path) -> None:
    log, behind = history(), Behind()
    half_folded(tmp_path / "t.db", log)
    behind.records, behind.log_id = log.records, log.log_id
    with fresh_tables(KINDS, tmp_path / "t.db") as tables:
        assert Engine(REGISTRY, KINDS, tables).resume(behind, 0) == 30


def test_a_hole_in_what_is_read_halts(tmp_path: Path) -> None:
    log = history()
    with fresh_tables(KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        records = log.read(0, 0, 20)
        with pytest.raises(LogMismatchError, match="hole"):
            engine.apply(0, [*records[:7], *records[8:]])
        assert tables.resume(0) is None


@pytest.mark.parametrize("first", [1, 5])
def test_a_beginning_that_is_none_halts(first: int) -> None:
    log = history()
    log.records[0] = [record._replace(offset=n) for n, record in enumerate(log.records[0][first:])]
    with fresh_tables(KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        with pytest.raises(LogMismatchError, match=r"log\.opened"):
            engine.apply(0, log.read(0, 0, 5))
        assert tables.resume(0) is None


def test_another_logs_opening_on_one_partition_halts() -> None:
    log, other = MemoryLog(2), MemoryLog(2)
    Author(log)
    Author(other)
    log.records[1] = other.records[1]
    with fresh_tables(KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        for partition in (0, 1):
            engine.resume(log, partition)
        engine.apply(0, log.read(0, 0, 5))
        with pytest.raises(LogMismatchError, match="another log's opening"):
            engine.apply(1, log.read(1, 0, 5))
        assert tables.resume(1) is None


def test_a_missing_schema_halts_and_comes_back() -> None:
    log = history()
    before = folded(log)
    lacking = Registry(source for source in built_in() if source["headrace.type"] != "mail.labelled")
    with fresh_tables(KINDS) as tables:
        engine = Engine(lacking, KINDS, tables, schemas=installed_schemas)
        engine.resume(log, 0)
        with pytest.raises(SchemaMissingError, match="upgrade"):
            engine.apply(0, log.read(0, 0, 100))
        assert tables.resume(0) is None
        engine.look_for_schemas()
        engine.apply(0, log.read(0, 0, 100))
        assert contents(tables) == before


def test_a_bug_in_a_kind_halts_and_writes_nothing() -> None:
    log = history()
    kinds: dict[str, Kind] = {**KINDS, "mail.thread": Broken()}
    with fresh_tables(kinds) as tables:
        engine = Engine(REGISTRY, kinds, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 0, 10))
        before = contents(tables)
        for _ in range(2):
            with pytest.raises(KindError, match="a bug"):
                engine.apply(0, log.read(0, 10, 60))
        assert contents(tables) == before
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 10, 60))


@pytest.mark.parametrize("body", [{"fold_version": 99}, {"kinds": ["mail.thread", "no.such.kind"]}])
def test_what_the_log_asks_for_and_is_not_here_halts(body: dict[str, Any]) -> None:
    log = history()
    author = Author.__new__(Author)
    author.log, author.account, author.registry, author.partition = log, "a-4", REGISTRY, 0
    policy = REGISTRY.decode(log.records[0][0].value).body["policy"]
    author.own("policy.activated", "policy-9", {"policy": policy, "kinds": list(IN_FORCE), "fold_version": 1} | body)
    last = len(log.records[0]) - 1
    with fresh_tables(KINDS) as tables:
        engine = Engine(REGISTRY, KINDS, tables)
        engine.resume(log, 0)
        engine.apply(0, log.read(0, 0, last))
        with pytest.raises(UnsupportedFoldError, match=f"offset {last}"):
            engine.apply(0, log.read(0, last, 5))
        row = tables.resume(0)
        assert row is not None
        assert row.next_offset == last


def test_a_kind_of_the_tables_that_is_gone_halts_before_judging(tmp_path: Path) -> None:
    log = history()
    half_folded(tmp_path / "t.db", log)
    kinds = {"mail.thread": KINDS["mail.thread"]}
    with fresh_tables(kinds, tmp_path / "t.db") as tables:
        engine = Engine(REGISTRY, kinds, tables)
        engine.resume(log, 0)
        with pytest.raises(UnsupportedFoldError, match=r"calendar\.event"):
            engine.apply(0, log.read(0, 30, 1))


def test_poison_is_set_aside_and_only_poison() -> None:
    log = MemoryLog()
    author = Author(log)
    good = log.append([])
    assert good == []
    author.fact("mail.received", "t-1", "m-1", mail(1))
    record = log.records[0][-1]
    headers = dict(record.headers)

    def damaged(**changes: Any) -> Stored:
        return replace_headers(record, {**headers, **changes})

    poison = [
        record._replace(value=record.value[:-3]),
        record._replace(value=record.value + b"\x00"),
        record._replace(value=b""),
        record._replace(key=None),
        record._replace(key=b"no-slash"),
        record._replace(key=b"\xff/a-1"),
        record._replace(headers=()),
        damaged(ce_type=b"mail.sent"),
        damaged(ce_type=b"\xff"),
        damaged(ce_specversion=b"0.3"),
        damaged(ce_subject=b"mail.thread"),
        damaged(ce_subject=b"account/x", ce_id=b"m-9"),
        damaged(ce_actor=b"nobody/x"),
        damaged(ce_id=b"ann@example.com"),
    ]
    for offset, one in enumerate(poison, start=len(log.records[0])):
        log.records[0].append(one._replace(offset=offset))
    author.fact("mail.read", "t-1", "m-2", {})
    with fresh_tables(KINDS) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 0)
        with tables.snapshot() as reader:
            aside = reader.rows("SELECT * FROM quarantine ORDER BY offset", {})
            kept = reader.rows("SELECT disposition FROM events WHERE disposition <> 'quarantined' ORDER BY offset", {})
    assert [row["offset"] for row in aside] == list(range(2, 2 + len(poison)))
    assert [(row["key"], row["value"]) for row in aside] == [(one.key, one.value) for one in poison]
    assert all(row["reason"] for row in aside)
    assert [row["disposition"] for row in kept] == ["noted", "applied", "applied"]


def replace_headers(record: Stored, headers: dict[str, bytes]) -> Stored:
    """The record with other headers."""
    return record._replace(headers=tuple(headers.items()))


def test_a_misrouted_record_is_set_aside() -> None:
    log = MemoryLog(2)
    author = Author(log)
    headers = to_headers(Envelope("m-1", "mailbox/ann", "mail.read", ANN, "mail.thread", "t-1"))
    author.raw(REGISTRY.encode("mail.read", {}), headers, b"acme/a-1")
    assert author.partition == 1
    with fresh_tables(KINDS) as tables:
        fold_all(Engine(REGISTRY, KINDS, tables), log, 1)
        with tables.snapshot() as reader:
            (row,) = reader.rows("SELECT reason FROM quarantine", {})
    assert "partition 0" in row["reason"]


def test_an_answer_to_a_commit_that_got_lost_is_found_again(tmp_path: Path) -> None:
    log = history()
    with fresh_tables(KINDS, tmp_path / "t.db") as tables:

        class Forgetful:
            resume, load, snapshot = tables.resume, tables.load, tables.snapshot

            def commit(self, memory: Any, batch: Sequence[Stored], publish: Publish | None = None) -> None:
                tables.commit(memory, batch, publish)
                raise UnavailableError("the answer got lost")

        engine = Engine(REGISTRY, KINDS, Forgetful())
        for _ in range(len(log.records[0])):
            offset = engine.resume(log, 0)
            records = log.read(0, offset, 10)
            if not records:
                break
            with suppress(UnavailableError):
                engine.apply(0, records)
        assert contents(tables) == folded(log)


def test_a_zombie_that_stumbles_over_rows_of_the_future_is_no_bug(tmp_path: Path) -> None:
    log = history()
    kinds: dict[str, Kind] = {**KINDS, "mail.thread": Broken()}
    path = tmp_path / "t.db"
    with fresh_tables(KINDS, path) as one, fresh_tables(kinds, path) as two:
        zombie = Engine(REGISTRY, kinds, two)
        zombie.resume(log, 0)
        fold_by(one, log, [10])
        with pytest.raises(FencedError):
            zombie.apply(0, log.read(0, 0, 60))


def test_two_kinds_of_one_name_or_table_are_refused() -> None:
    thread = KINDS["mail.thread"]
    with pytest.raises(HaltError, match="two entity kinds"):
        require_kinds([thread, thread])

    class Other(MailThread):
        name = "other.thread"

    with pytest.raises(HaltError, match="two entity kinds"):
        require_kinds([thread, Other()])
