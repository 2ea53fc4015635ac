"""What of the SQLite log survives power loss, full and failing disks, and damage; and how it is told."""

import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from headrace.errors import AppendUnknownError, HeadraceError, LogMismatchError, NotFoundError, UnavailableError
from headrace.log.sqlite import SqliteLog
from headrace.schemas.refs import Position
from tests.contract.log_conformance import event, opening, read_all
from tests.unit.simulated_disk import SimulatedDisk


def opened(directory: Path, *, vfs: str = "") -> SqliteLog:
    """A new log of two partitions, both opened."""
    log = SqliteLog.create(directory, 2, vfs=vfs)
    log.append([opening(0), opening(1)])
    return log


class TestPowerLoss:
    """Acknowledged records survive; what was in flight landed whole or not at all."""

    @pytest.mark.parametrize("decade", range(10))
    def test_acknowledged_records_survive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decade: int) -> None:
        for seed in range(decade * 40, decade * 40 + 40):
            chance = random.Random(seed)
            with SimulatedDisk(dies_after=chance.randrange(250), power_safe_overwrite=seed % 2 == 0) as disk:
                monkeypatch.setattr(apsw, "connection_hooks", [disk.prepare("wal_autocheckpoint = 8")])
                acknowledged, in_flight = self.append_until_dead(tmp_path / "locks", disk, chance)
                disk.save(tmp_path / str(seed), chance)
            with SqliteLog.create(tmp_path / str(seed), 2) as log:  # resumes even a creation that was cut
                found = [read_all(log, partition) for partition in range(2)]
                values = [[s.value for s in records] for records in found]
                both = [[*done, *flying] for done, flying in zip(acknowledged, in_flight, strict=True)]
                assert values in (acknowledged, both), f"seed {seed}"
                if not values[0]:
                    log.append([opening(0), opening(1)])
                assert log.append([event(0, b"on")]) == [Position(0, max(1, len(values[0])))]

    def append_until_dead(
        self, locks: Path, disk: SimulatedDisk, chance: random.Random
    ) -> tuple[list[list[bytes]], list[list[bytes]]]:
        """Append until the power goes: per partition, the values acknowledged, and those in flight at the end."""
        acknowledged: list[list[bytes]] = [[], []]
        try:
            log = SqliteLog.create(locks, 2, vfs=disk.name)
        except UnavailableError:
            return acknowledged, [[], []]
        records = [opening(0), opening(1)]
        with log:
            while True:
                try:
                    log.append(records)
                except UnavailableError:
                    return acknowledged, [[r.value for r in records if r.partition == p] for p in range(2)]
                for record in records:
                    acknowledged[record.partition].append(record.value)
                records = [
                    event(chance.randrange(2), chance.randbytes(chance.choice((3, 300, 3_000, 20_000))))
                    for _ in range(chance.randint(1, 4))
                ]

    def test_the_simulation_would_notice(self, tmp_path: Path) -> None:
        lost = 0
        for seed in range(20):
            chance = random.Random(seed)
            with SimulatedDisk(dies_after=chance.randrange(60, 120)) as disk:
                connection = apsw.Connection("weak.db", vfs=disk.name)
                committed = 0
                with suppress(apsw.Error):
                    connection.execute("CREATE TABLE numbers (n)")
                    disk.prepare("journal_mode = WAL", "synchronous = NORMAL")(connection)
                    while True:
                        connection.execute("INSERT INTO numbers VALUES (?)", (committed,))
                        committed += 1
                with suppress(apsw.Error):
                    connection.close()
                disk.save(tmp_path / str(seed), chance)
            survivor = apsw.Connection(str(tmp_path / str(seed) / "weak.db"))
            lost += committed > survivor.execute("SELECT count(*) FROM numbers").get
            survivor.close()
        assert lost > 10


class TestBadDisk:
    """A failure is definite where it can be, and otherwise said to be unknown."""

    def test_a_full_disk_refuses_definitely_and_recovers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with SimulatedDisk() as disk:
            monkeypatch.setattr(
                apsw, "connection_hooks", [disk.prepare("wal_autocheckpoint = 0")]
            )  # so that every append needs room
            with opened(tmp_path / "locks", vfs=disk.name) as log:
                expected = [b""]
                for room in range(0, 56_000, 1_777):  # fails at another write each time, the commit's own included
                    disk.room = room
                    with pytest.raises(UnavailableError, match="full; free some space") as refusal:
                        log.append([event(0, bytes(50_000)), event(0, b"no")])
                    assert not isinstance(refusal.value, AppendUnknownError)
                    assert log.describe().ends == (len(expected), 1)
                    disk.room = None
                    value = str(room).encode()
                    assert log.append([event(0, value)]) == [Position(0, len(expected))]
                    expected.append(value)
                disk.save(tmp_path / "saved")
        with SqliteLog.open(tmp_path / "saved") as log:
            assert [s.value for s in read_all(log, 0)] == expected

    def test_a_failed_sync_is_unknown_and_stops_the_writer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with SimulatedDisk() as disk:
            monkeypatch.setattr(apsw, "connection_hooks", [disk.prepare()])
            with opened(tmp_path / "locks", vfs=disk.name) as log:
                log.append([event(0, b"before")])
                disk.failing_syncs = True
                with pytest.raises(AppendUnknownError, match=r"check the disk.*retry the same records"):
                    log.append([event(0, b"perhaps")])
                disk.failing_syncs = False
                with pytest.raises(UnavailableError, match="open the log again") as refusal:
                    log.append([event(0, b"not now")])
                assert not isinstance(refusal.value, AppendUnknownError)
                assert log.describe().ends == (2, 1)
            with SqliteLog.open(tmp_path / "locks", vfs=disk.name) as log:
                end = log.describe().ends[0]
                assert end in (2, 3)
                assert log.append([event(0, b"after")]) == [Position(0, end)]

    def test_somebody_elses_lock_on_the_file_is_definite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("headrace.log.sqlite_file.BUSY_MILLISECONDS", 1)
        with opened(tmp_path) as log:
            shell = apsw.Connection(str(tmp_path / "log.db"))
            shell.execute("BEGIN IMMEDIATE")
            with pytest.raises(UnavailableError, match=r"locked by another program.*nothing was appended"):
                log.append([event(0, b"x")])
            shell.execute("ROLLBACK")
            shell.close()
            assert log.append([event(0, b"x")]) == [Position(0, 1)]


class TestDamagedFile:
    """Damage is told with what to do; never SQLite's own exception."""

    def test_no_log_there(self, tmp_path: Path) -> None:
        for writer in (True, False):
            with pytest.raises(NotFoundError, match="create it first"):
                SqliteLog.open(tmp_path / "nothing", writer=writer)

    @pytest.mark.parametrize("writer", [True, False])
    @pytest.mark.parametrize("keep", [1, 100, 8_192, 20_000])
    def test_a_truncated_file(self, tmp_path: Path, writer: bool, keep: int) -> None:
        with opened(tmp_path) as log:
            log.append([event(0, bytes(5_000)) for _ in range(50)])
        os.truncate(tmp_path / "log.db", keep)
        with pytest.raises(LogMismatchError, match="restore the log from a backup"):
            SqliteLog.open(tmp_path, writer=writer)

    @pytest.mark.parametrize("attempt", [SqliteLog.open, SqliteLog.create])
    def test_not_a_database(self, tmp_path: Path, attempt: Callable[[Path], SqliteLog]) -> None:
        (tmp_path / "log.db").write_bytes(b"Dear log, " * 2_000)
        with pytest.raises(LogMismatchError, match=r"log\.db is damaged or not this log"):
            attempt(tmp_path)

    def test_somebody_elses_database_is_left_alone(self, tmp_path: Path) -> None:
        other = apsw.Connection(str(tmp_path / "log.db"))
        other.execute("CREATE TABLE contacts (name)")
        other.close()
        before = (tmp_path / "log.db").read_bytes()
        for attempt in (SqliteLog.open, SqliteLog.create):
            with pytest.raises(LogMismatchError, match="other tables"):
                attempt(tmp_path)
        assert (tmp_path / "log.db").read_bytes() == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("UPDATE meta SET format = 2", "newer headrace"),
            ("DELETE FROM meta", r"meta table holds \[\]"),
            ('DELETE FROM records WHERE "offset" = 2', "hole"),
            ("UPDATE records SET headers = x'00000009' WHERE \"offset\" = 2", "headers are damaged"),
        ],
    )
    def test_a_changed_file(self, tmp_path: Path, change: str, message: str) -> None:
        with opened(tmp_path) as log:
            log.append([event(0, b"x") for _ in range(4)])
        shell = apsw.Connection(str(tmp_path / "log.db"))
        shell.execute("PRAGMA ignore_check_constraints = ON")
        shell.execute(change)
        shell.close()
        with pytest.raises(LogMismatchError, match=message), SqliteLog.open(tmp_path) as log:
            log.read(0, 0, 10)

    def test_flipped_bytes_never_show_as_anything_but_headraces_errors(self, tmp_path: Path) -> None:
        with opened(tmp_path) as log:
            for n in range(40):
                log.append([event(n % 2, bytes([n]) * 300)])
        good = (tmp_path / "log.db").read_bytes()
        told = 0
        for seed in range(150):
            chance = random.Random(seed)
            bad = bytearray(good)
            start = chance.choice((0, chance.randrange(len(bad))))
            for _ in range(60):
                bad[min(len(bad) - 1, start + chance.randrange(200))] = chance.randrange(256)
            (tmp_path / "log.db").write_bytes(bad)
            try:
                with SqliteLog.open(tmp_path, writer=False) as log:
                    for partition in range(2):
                        read_all(log, partition)
            except HeadraceError:
                told += 1
        assert told > 30
