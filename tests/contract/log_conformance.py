"""What every log adapter must do. Subclass :class:`LogConformance` and supply its ``logs`` fixture; nothing else."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInputError, LogClosedError, LogMismatchError
from headrace.log.port import Headers, Log, Record, Stored
from headrace.schemas.refs import Position
from tests.contract.log_large_records import LargeRecords

PARTITIONS: Final = 4
LOG_ID: Final = bytes(range(16))
PATIENCE_SECONDS: Final = 30.0
"""How long something that must happen may take before the test fails. Nothing ever waits this long when it works."""

_NAMES: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
# Hypothesis finds the log's own record types in the source and draws them; they have tests of their own.
_HEADER: Final = st.tuples(_NAMES, st.binary(max_size=12)).filter(lambda header: header[0] != "ce_type")
_HEADERS: Final = st.lists(_HEADER, max_size=5).map(tuple)
_RECORDS: Final = st.builds(
    Record,
    partition=st.integers(0, PARTITIONS - 1),
    key=st.none() | st.binary(min_size=1, max_size=20),
    headers=_HEADERS,
    value=st.binary(max_size=200),
)


class Logs(Protocol):
    """What an adapter's tests supply."""

    def fresh(self) -> Log:
        """A new log of :data:`PARTITIONS` partitions, none opened."""
        ...

    def reopen(self) -> Log:
        """Let go of the handle that :meth:`fresh` gave and open the same log again, for writing."""
        ...

    def second(self) -> Log:
        """Another handle on the same log, for reading, while the first stays open."""
        ...


def opening(partition: int) -> Record:
    """A partition's opening record."""
    return Record(partition, None, (("ce_type", b"log.opened"), ("headrace-logid", LOG_ID.hex().encode())), b"")


def closing(partition: int, successor: str = "kafka://elsewhere") -> Record:
    """A partition's end."""
    return Record(partition, None, (("ce_type", b"log.closed"), ("headrace-successor", successor.encode())), b"")


def event(partition: int, value: bytes, headers: Headers = (("ce_type", b"mail.received"),)) -> Record:
    """An ordinary record."""
    return Record(partition, b"tenant/account", headers, value)


def read_all(log: Log, partition: int, offset: int = 0) -> list[Stored]:
    """Everything from ``offset`` on, read in small steps."""
    found: list[Stored] = []
    while batch := log.read(partition, offset + len(found), 7):
        found.extend(batch)
    return found


def as_record(stored: Stored) -> Record:
    """What was appended, of what was read."""
    return Record(stored.partition, stored.key, stored.headers, stored.value)


def handles(logs: Logs, log: Log) -> Iterator[Log]:
    """``log``, a second handle beside it, and last the same log opened again."""
    yield log
    yield logs.second()
    yield logs.reopen()


class LogConformance(LargeRecords):
    """The suite."""

    @pytest.fixture
    def logs(self) -> Logs:
        """Supplied by the adapter's subclass."""
        raise NotImplementedError("override the fixture logs")

    @pytest.fixture
    def log(self, logs: Logs) -> Log:
        """A log with every partition opened."""
        log = logs.fresh()
        log.append([opening(partition) for partition in range(PARTITIONS)])
        return log

    # Positions and order

    def test_positions_are_contiguous_per_partition(self, log: Log) -> None:
        positions = log.append([event(1, b"a"), event(2, b"b"), event(1, b"c")])
        assert positions == [Position(1, 1), Position(2, 1), Position(1, 2)]
        assert log.append([event(1, b"d")]) == [Position(1, 3)]

    def test_order_is_kept_inside_one_append_and_across_appends(self, log: Log) -> None:
        values = [str(n).encode() for n in range(60)]
        log.append([event(3, value) for value in values[:40]])
        for value in values[40:]:
            log.append([event(3, value)])
        assert [stored.value for stored in read_all(log, 3, 1)] == values

    def test_appending_nothing_is_nothing(self, log: Log) -> None:
        before = log.describe()
        assert log.append([]) == []
        assert log.describe() == before

    def test_concurrent_appends_lose_and_double_nothing(self, log: Log) -> None:
        together = threading.Barrier(32)

        def work(worker: int) -> list[tuple[Record, Position]]:
            together.wait(PATIENCE_SECONDS)
            mine: list[tuple[Record, Position]] = []
            for turn in range(8):
                records = [
                    event((worker + n) % PARTITIONS, f"{worker}/{turn}/{n}".encode()) for n in range(turn % 6 + 1)
                ]
                mine.extend(zip(records, log.append(records), strict=True))
            return mine

        with ThreadPoolExecutor(32) as pool:
            each = list(pool.map(work, range(32)))
        stored = {Position(s.partition, s.offset): s for p in range(PARTITIONS) for s in read_all(log, p, 1)}
        told = [pair for mine in each for pair in mine]
        assert {position: as_record(s) for position, s in stored.items()} == {at: record for record, at in told}
        assert len(told) == len(stored)
        for mine in each:
            for partition in range(PARTITIONS):
                offsets = [at.offset for _, at in mine if at.partition == partition]
                assert offsets == sorted(offsets)

    # Reading

    def test_read_honours_limit_and_offset(self, log: Log) -> None:
        log.append([event(0, str(n).encode()) for n in range(10)])
        assert [s.offset for s in log.read(0, 3, 4)] == [3, 4, 5, 6]
        assert [s.offset for s in log.read(0, 9, 100)] == [9, 10]

    def test_read_at_the_end_is_empty_and_beyond_it_an_error(self, log: Log) -> None:
        log.append([event(0, b"a")])
        assert log.read(0, 2, 5) == []
        with pytest.raises(LogMismatchError, match="partition 0"):
            log.read(0, 3, 5)

    def test_an_unopened_partition_reads_empty(self, logs: Logs) -> None:
        log = logs.fresh()
        assert log.read(0, 0, 5) == []
        with pytest.raises(LogMismatchError):
            log.read(0, 1, 5)

    @pytest.mark.parametrize("partition", [-1, PARTITIONS])
    def test_a_partition_that_does_not_exist_is_refused(self, log: Log, partition: int) -> None:
        with pytest.raises(BadInputError, match="does not exist"):
            log.append([event(0, b"good"), event(partition, b"bad")])
        with pytest.raises(BadInputError, match="does not exist"):
            log.read(partition, 0, 1)
        with pytest.raises(BadInputError, match="does not exist"):
            log.wait({partition: 0}, 0)
        assert log.describe().ends == (1,) * PARTITIONS

    @pytest.mark.parametrize(("offset", "limit"), [(-1, 1), (0, 0), (0, -1)])
    def test_a_read_that_makes_no_sense_is_refused(self, log: Log, offset: int, limit: int) -> None:
        with pytest.raises(BadInputError):
            log.read(0, offset, limit)

    # What comes back is what went in

    @pytest.mark.parametrize(
        "record",
        [
            Record(0, None, (), b""),
            Record(0, b"tenant/account", (("ce_type", b"x"),), b""),
            Record(0, "zürich/東京".encode(), (("ünïcode-东", "wört".encode()), ("empty", b"")), b"\0\xff"),
            Record(0, b"k", (("twice", b"1"), ("other", b"\0"), ("twice", b"2"), ("twice", b"1")), b"v"),
            Record(0, b"k" * 500, tuple((f"h{n}", bytes([n])) for n in range(100)), b"v"),
            Record(0, b"k", (), bytes(range(256)) * 3_600),
        ],
        ids=["nothing", "empty value", "non-ASCII", "duplicate headers", "many headers", "900 kB"],
    )
    def test_a_record_comes_back_exactly(self, logs: Logs, log: Log, record: Record) -> None:
        [position] = log.append([record])
        for handle in handles(logs, log):
            [stored] = handle.read(position.partition, position.offset, 1)
            assert as_record(stored) == record
            assert (stored.partition, stored.offset) == position

    def test_append_times_are_the_logs_own_and_sane(self, log: Log) -> None:
        before = time.time_ns() // 1_000_000
        for n in range(5):
            log.append([event(0, str(n).encode())])
        stored = read_all(log, 0, 1)
        times = [s.appended_at for s in stored]
        assert all(s.log_append for s in stored)
        assert times == sorted(times)
        # Another machine's clock may keep the log: a day's tolerance still tells milliseconds from all other units.
        assert abs(times[0] - before) < 86_400_000

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(batches=st.lists(st.lists(_RECORDS, max_size=8), max_size=6))
    def test_any_appends_read_back_as_a_dict_of_lists(self, log: Log, batches: Sequence[list[Record]]) -> None:
        starts = log.describe().ends  # one log serves all examples, for adapters whose logs are dear to make
        model: defaultdict[int, list[Record]] = defaultdict(list)
        for batch in batches:
            expected: list[Position] = []
            for record in batch:
                expected.append(Position(record.partition, starts[record.partition] + len(model[record.partition])))
                model[record.partition].append(record)
            assert log.append(batch) == expected
        for partition, start in enumerate(starts):
            stored = read_all(log, partition, start)
            assert [as_record(s) for s in stored] == model[partition]
            assert [s.offset for s in stored] == list(range(start, start + len(stored)))
        assert log.describe().ends == tuple(start + len(model[p]) for p, start in enumerate(starts))

    # Waiting

    def test_wait_returns_at_once_what_is_there(self, log: Log) -> None:
        log.append([event(2, b"a")])
        assert log.wait(dict.fromkeys(range(PARTITIONS), 1), PATIENCE_SECONDS) == {2}
        assert log.wait({0: 0, 1: 1, 2: 0}, PATIENCE_SECONDS) == {0, 2}
        assert log.wait({2: 1}, 0) == {2}

    def test_wait_times_out_empty(self, logs: Logs, log: Log) -> None:
        for handle in (log, logs.second()):
            assert handle.wait(dict.fromkeys(range(PARTITIONS), 1), 0.05) == frozenset()
            assert handle.wait({0: 1}, 0) == frozenset()
            assert handle.wait({}, 0) == frozenset()

    def test_wait_wakes_on_append(self, logs: Logs, log: Log) -> None:
        with ThreadPoolExecutor(3) as pool:
            for turn in range(1, 20):
                handles = (log, log, logs.second()) if turn == 1 else (log, log)
                waiting = [pool.submit(handle.wait, {0: turn, 1: 1}, PATIENCE_SECONDS) for handle in handles]
                log.append([event(2, b"not waited for")])
                log.append([event(0, b"waited for")])
                assert [answer.result(PATIENCE_SECONDS) for answer in waiting] == [{0}] * len(handles)

    def test_what_wait_announced_can_be_read(self, logs: Logs, log: Log) -> None:
        reader = logs.second()

        def follow() -> list[bytes]:
            seen: list[bytes] = []
            while len(seen) < 30 and reader.wait({1: 1 + len(seen)}, PATIENCE_SECONDS):
                batch = reader.read(1, 1 + len(seen), 100)
                assert batch
                seen.extend(stored.value for stored in batch)
            return seen

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(follow)
            for n in range(30):
                log.append([event(1, str(n).encode())])
            assert following.result(PATIENCE_SECONDS) == [str(n).encode() for n in range(30)]

    # Opening and closing

    def test_nothing_comes_before_the_opening(self, logs: Logs) -> None:
        log = logs.fresh()
        log.append([opening(0)])
        for records in ([event(1, b"a")], [event(0, b"good"), event(1, b"bad")], [opening(2), event(1, b"bad")]):
            with pytest.raises(BadInputError, match=r"log\.opened"):
                log.append(records)
        assert log.describe().ends == (1, 0, 0, 0)
        assert log.append([opening(1)]) == [Position(1, 0)]
        assert log.append([event(1, b"now")]) == [Position(1, 1)]

    def test_a_partition_is_opened_once(self, log: Log) -> None:
        for records in ([opening(1)], [event(1, b"a"), opening(1)]):
            with pytest.raises(BadInputError, match="open already"):
                log.append(records)
        assert log.describe().ends == (1,) * PARTITIONS

    def test_of_concurrent_openings_one_succeeds_and_the_others_are_told(self, logs: Logs) -> None:
        log = logs.fresh()
        together = threading.Barrier(16)

        def work(_: int) -> bool:
            together.wait(PATIENCE_SECONDS)
            try:
                return log.append([opening(0)]) == [Position(0, 0)]
            except BadInputError:
                return False

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(work, range(16))) == 1
        assert log.describe().ends[0] == 1

    @pytest.mark.parametrize("log_id", [None, b"", b"AB" * 16, b"ab" * 15, b"ab" * 16 + b"\n", b"zz" * 16])
    def test_the_first_opening_must_name_the_log(self, logs: Logs, log_id: bytes | None) -> None:
        log = logs.fresh()
        headers = (("ce_type", b"log.opened"),) + (() if log_id is None else (("headrace-logid", log_id),))
        with pytest.raises(BadInputError, match="log id"):
            log.append([Record(0, None, headers, b"")])
        assert log.describe().log_id is None

    def test_a_closed_log_names_its_successor_and_takes_nothing(self, logs: Logs, log: Log) -> None:
        assert log.append([closing(p) for p in range(PARTITIONS)]) == [Position(p, 1) for p in range(PARTITIONS)]
        late: list[list[Record]] = [[event(0, b"late")], [opening(0)], [closing(p) for p in range(PARTITIONS)]]
        for records in late:
            with pytest.raises(LogClosedError, match="kafka://elsewhere"):
                log.append(records)
        for handle in handles(logs, log):
            assert handle.describe().successor == "kafka://elsewhere"
            assert handle.describe().ends == (2,) * PARTITIONS
            assert [s.offset for s in handle.read(0, 0, 9)] == [0, 1]
        with pytest.raises(LogClosedError, match="kafka://elsewhere"):
            logs.reopen().append([event(0, b"later still")])

    @pytest.mark.parametrize(
        "records",
        [
            [closing(0)],
            [closing(p) for p in range(PARTITIONS - 1)],
            [closing(p, f"other{p}") for p in range(PARTITIONS)],
            [closing(p, "") for p in range(PARTITIONS)],
            [*(closing(p) for p in range(PARTITIONS)), event(1, b"after the end")],
            [*(closing(p) for p in range(PARTITIONS)), closing(1)],
        ],
        ids=["one partition", "all but one", "different successors", "no successor", "something after", "twice"],
    )
    def test_a_log_is_closed_whole_or_not_at_all(self, log: Log, records: list[Record]) -> None:
        with pytest.raises(BadInputError, match=r"log\.closed"):
            log.append(records)
        assert log.describe().successor is None
        assert log.append([event(0, b"still open")]) == [Position(0, 1)]

    def test_appends_racing_a_closing_land_before_it_or_are_refused(self, log: Log) -> None:
        together = threading.Barrier(9)

        def work(worker: int) -> list[Position]:
            together.wait(PATIENCE_SECONDS)
            landed: list[Position] = []
            try:
                for turn in range(200):
                    if worker == 8 and turn == 5:
                        landed.extend(log.append([closing(p) for p in range(PARTITIONS)]))
                    landed.extend(log.append([event(worker % PARTITIONS, b"x")]))
            except LogClosedError:
                pass
            return landed

        with ThreadPoolExecutor(9) as pool:
            landed = [position for mine in pool.map(work, range(9)) for position in mine]
        ends = log.describe().ends
        assert sorted(landed) == [Position(p, o) for p in range(PARTITIONS) for o in range(1, ends[p])]
        for partition in range(PARTITIONS):
            assert ("ce_type", b"log.closed") in log.read(partition, ends[partition] - 1, 1)[0].headers

    # Describing and opening again

    def test_describe_follows_the_log(self, logs: Logs) -> None:
        log = logs.fresh()
        reader = logs.second()
        assert log.describe() == reader.describe() == (None, PARTITIONS, (0,) * PARTITIONS, None)
        log.append([opening(1)])
        assert log.describe().log_id is None
        log.append([opening(0)])
        log.append([event(1, b"a"), event(1, b"b")])
        assert reader.describe().ends == (1, 3, 0, 0)
        for handle in handles(logs, log):
            assert handle.describe() == (LOG_ID, PARTITIONS, (1, 3, 0, 0), None)

    def test_reopening_shows_the_same_log_and_goes_on(self, logs: Logs, log: Log) -> None:
        log.append([event(p, f"{p}".encode()) for p in range(PARTITIONS) for _ in range(p + 1)])
        described = log.describe()
        before = [read_all(log, p) for p in range(PARTITIONS)]
        again = logs.reopen()
        assert again.describe() == described
        assert [read_all(again, p) for p in range(PARTITIONS)] == before
        assert again.append([event(3, b"on")]) == [Position(3, 5)]

    def test_a_second_handle_sees_what_was_acknowledged(self, logs: Logs, log: Log) -> None:
        reader = logs.second()
        for n in range(10):
            [position] = log.append([event(0, str(n).encode())])
            [stored] = reader.read(*position, 1)
            assert stored.value == str(n).encode()
            assert reader.describe().ends[0] == position.offset + 1
