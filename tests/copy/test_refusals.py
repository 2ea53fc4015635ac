"""What must not pass: half a copy for a log, another log for its copy, other content for the same."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from headrace.errors import BadInputError, HaltError, LogClosedError, LogMismatchError, NotFoundError, WriterLockedError
from headrace.log import copy_to_kafka, copy_to_sqlite
from headrace.log.copy_to_kafka import KafkaDestination
from headrace.log.copy_to_sqlite import SqliteDestination
from headrace.log.copying import Copy
from headrace.log.kafka import KafkaLog
from headrace.log.sqlite import SqliteLog
from headrace.store import Store
from tests.contract.rich_history import ANN, Author, mail
from tests.copy.copies import NAME, closes, half, moved_to_kafka, replicated, same, topic_of
from tests.kafka.topics import Cluster

# -- half a copy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["closing", "moving"])
def test_half_a_copy_in_kafka_is_no_log(origin: SqliteLog, cluster: Cluster, at: str) -> None:
    url = cluster.url()
    with closing(KafkaDestination.open(url, origin.describe())) as destination:
        half(origin, destination, at)
    openings: list[Callable[[], object]] = [
        lambda: KafkaLog.open(url),
        lambda: KafkaLog.open(url, writer=False),
        lambda: KafkaLog.create(url, 3),
    ]
    for opened in openings:
        with pytest.raises(HaltError, match="unfinished copy"):
            opened()
    cluster.configure(topic_of(url), {"message.timestamp.type": "LogAppendTime"})  # as if it were only a setting
    with pytest.raises(HaltError, match="unfinished copy"):
        KafkaLog.open(url)
    outcome = moved_to_kafka(origin, url)
    with KafkaLog.open(url) as moved:
        same(origin, moved, outcome.ends)
        assert outcome.records <= origin.describe().partitions  # the closings at the most: the rest was there


@pytest.mark.parametrize("at", ["closing", "moving"])
def test_half_a_copy_in_a_file_is_no_log(origin: SqliteLog, tmp_path: Path, at: str) -> None:
    home = tmp_path / "home"
    with closing(SqliteDestination.open(home, origin.describe(), NAME, moving=True)) as destination:
        half(origin, destination, at)
    openings: list[Callable[[], object]] = [
        lambda: SqliteLog.open(home),
        lambda: SqliteLog.open(home, writer=False),
        lambda: SqliteLog.create(home, 3),
        lambda: Store(home, writer=True),
        lambda: Store(home, writer=False),
    ]
    for opened in openings:
        with pytest.raises(LogMismatchError, match="unfinished copy"):
            opened()
    with closing(SqliteDestination.open(home, origin.describe(), NAME, moving=True)) as destination:
        outcome = Copy(origin, NAME, destination).move(closes(origin))
    with SqliteLog.open(home) as moved:
        same(origin, moved, outcome.ends)


def test_a_finished_move_may_be_repeated(origin: SqliteLog, cluster: Cluster, tmp_path: Path) -> None:
    """It may have been interrupted between its end and saying so; meanwhile the log may have grown."""
    url, home = cluster.url(), tmp_path / "home"
    first = moved_to_kafka(origin, url)
    with KafkaLog.open(url) as log:
        Author(log, "a-8").fact("mail.received", "t-1", "m-1", mail(1))
        again = moved_to_kafka(origin, url)
        assert (again.ends, again.chains, again.records) == (first.ends, first.chains, 0)
        with closing(SqliteDestination.open(home, log.describe(), url, moving=True)) as destination:
            back = Copy(log, url, destination).move(closes(log))
        with SqliteLog.open(home) as moved:
            Author(moved, "a-8").fact("mail.received", "t-1", "m-2", mail(2))
            ends = moved.describe().ends
        with closing(SqliteDestination.open(home, log.describe(), url, moving=True)) as destination:
            repeated = Copy(log, url, destination).move(closes(log))
        assert (repeated.ends, repeated.records) == (back.ends, 0)
        with SqliteLog.open(home) as moved:
            assert (moved.describe().ends, moved.describe().successor) == (ends, None)


def test_nothing_is_copied_into_a_log_that_goes_on(origin: SqliteLog, cluster: Cluster) -> None:
    """Somebody wrote to the old log all the same, around everything: that must not end up behind ``log.moved``."""
    url = cluster.url()
    ends = moved_to_kafka(origin, url).ends
    late = origin.read(1, ends[1] - 1, 1)[0]._replace(offset=ends[1])
    with (
        closing(KafkaDestination.open(url, origin.describe())) as destination,
        pytest.raises(LogMismatchError, match="append it to the new log"),
    ):
        destination.write([late])
    with KafkaLog.open(url) as moved:
        assert moved.describe().ends == tuple(end + 1 for end in ends)


# -- another log ------------------------------------------------------------------------------------------------------


def test_a_closed_log_goes_on_in_one_place(origin: SqliteLog, cluster: Cluster) -> None:
    moved_to_kafka(origin, cluster.url())
    with pytest.raises(LogClosedError, match="goes on at kafka://"):
        moved_to_kafka(origin, cluster.url())


def test_a_place_that_holds_something_else_is_refused(origin: SqliteLog, cluster: Cluster, tmp_path: Path) -> None:
    described = origin.describe()
    url, junk, other = cluster.url(), cluster.url(), cluster.url()
    with KafkaLog.create(url, 3) as own:
        Author(own)
    with pytest.raises(BadInputError, match="something else than a copy"):
        KafkaDestination.open(url, described)
    cluster.make(topic_of(junk), 3)
    cluster.put(topic_of(junk), 1, [b"x"])
    with pytest.raises(BadInputError, match="something else than a copy"):
        KafkaDestination.open(junk, described)
    cluster.make(topic_of(other), 5)
    with pytest.raises(BadInputError, match="5 partitions"):
        KafkaDestination.open(other, described)
    with SqliteLog.create(tmp_path / "own", 3) as own_file:
        Author(own_file)
    with pytest.raises(BadInputError, match="a log of its own"):
        SqliteDestination.open(tmp_path / "own", described, NAME, moving=False)
    with SqliteLog.create(tmp_path / "five", 5):
        pass
    with pytest.raises(BadInputError, match="5 partitions"):
        SqliteDestination.open(tmp_path / "five", described, NAME, moving=False)


def test_a_copy_of_another_log_is_refused(origin: SqliteLog, cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.url()
    with SqliteLog.create(tmp_path / "other", 3) as other:
        Author(other)
        with closing(KafkaDestination.open(url, other.describe())) as destination:
            half(other, destination)
        replicated(other, tmp_path / "replica")
    with pytest.raises(BadInputError, match="a copy of another log"):
        KafkaDestination.open(url, origin.describe())
    with pytest.raises(BadInputError, match="a copy of another log"):
        SqliteDestination.open(tmp_path / "replica", origin.describe(), NAME, moving=False)


def test_one_copy_at_a_time_into_a_file(origin: SqliteLog, tmp_path: Path) -> None:
    with (
        closing(SqliteDestination.open(tmp_path / "c", origin.describe(), NAME, moving=False)),
        pytest.raises(WriterLockedError),
    ):
        SqliteDestination.open(tmp_path / "c", origin.describe(), NAME, moving=False)


def test_a_topic_whose_settings_are_no_logs_is_refused(origin: SqliteLog, cluster: Cluster) -> None:
    url = cluster.url()
    cluster.make(topic_of(url), 3, {"cleanup.policy": "compact"})
    with pytest.raises(HaltError, match=r"cleanup\.policy"):
        KafkaDestination.open(url, origin.describe())


def test_a_topic_that_an_operator_made_is_taken(origin: SqliteLog, cluster: Cluster) -> None:
    url = cluster.url()
    cluster.make(topic_of(url), 3, {"max.message.bytes": "8388608"})
    outcome = moved_to_kafka(origin, url)
    assert cluster.settings(topic_of(url))["message.timestamp.type"] == "LogAppendTime"
    with KafkaLog.open(url) as moved:
        same(origin, moved, outcome.ends)


# -- other content ---------------------------------------------------------------------------------------------------


def test_other_content_is_noticed_and_named(origin: SqliteLog, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with closing(SqliteDestination.open(home, origin.describe(), NAME, moving=True)) as destination:
        half(origin, destination)
    connection = apsw.Connection(str(home / "log.db"))
    connection.execute("UPDATE records SET value = x'00' WHERE partition = 1 AND \"offset\" = 3")
    connection.close()
    with (
        closing(SqliteDestination.open(home, origin.describe(), NAME, moving=True)) as destination,
        pytest.raises(LogMismatchError, match="record 1:3 of"),
    ):
        Copy(origin, NAME, destination).move(lambda _: pytest.fail("closed before all was compared"))
    copy_to_sqlite.discard(home)
    assert not (home / "log.db").exists()
    replicated(origin, home)


@pytest.mark.parametrize(
    "column", ["appended_at = appended_at + 1", "log_append = 0", "key = x'00'", "headers = x'0000000400000000'"]
)
def test_no_field_may_differ(origin: SqliteLog, tmp_path: Path, column: str) -> None:
    home = tmp_path / "home"
    with closing(SqliteDestination.open(home, origin.describe(), NAME, moving=True)) as destination:
        half(origin, destination)
    connection = apsw.Connection(str(home / "log.db"))
    connection.execute(f'UPDATE records SET {column} WHERE partition = 0 AND "offset" = 1')
    connection.close()
    with (
        closing(SqliteDestination.open(home, origin.describe(), NAME, moving=True)) as destination,
        pytest.raises(LogMismatchError, match="record 0:1 of"),
    ):
        Copy(origin, NAME, destination).catch_up()


# -- throwing away ----------------------------------------------------------------------------------------------------


def test_only_an_unfinished_copy_is_thrown_away(origin: SqliteLog, cluster: Cluster, tmp_path: Path) -> None:
    finished, own, junk, nothing = (cluster.url() for _ in range(4))
    outcome = moved_to_kafka(origin, finished)
    with KafkaLog.create(own, 2) as log:
        Author(log)
    cluster.make(topic_of(junk), 1)
    for url, why in ((finished, "finished copy"), (own, "no unfinished copy"), (junk, "no unfinished copy")):
        with pytest.raises(BadInputError, match=why):
            copy_to_kafka.discard(url)
    with pytest.raises(NotFoundError):
        copy_to_kafka.discard(nothing)
    with KafkaLog.open(finished) as log:
        same(origin, log, outcome.ends)
    replicated(origin, tmp_path / "replica")
    for directory in (tmp_path / "replica", tmp_path / "origin"):
        with pytest.raises((BadInputError, WriterLockedError)):
            copy_to_sqlite.discard(directory)
        with SqliteLog.open(directory, writer=False) as kept:
            same(origin, kept, outcome.ends)
    with pytest.raises(NotFoundError):
        copy_to_sqlite.discard(tmp_path / "nothing")


def test_a_copy_that_has_only_a_topic_is_thrown_away(origin: SqliteLog, cluster: Cluster) -> None:
    url = cluster.url()
    KafkaDestination.open(url, origin.describe()).close()
    copy_to_kafka.discard(url)
    with pytest.raises(NotFoundError):
        KafkaLog.open(url)


def test_who_appends_to_the_old_log_is_told_where_it_goes_on(
    origin: SqliteLog, cluster: Cluster, tmp_path: Path
) -> None:
    url = cluster.url()
    moved_to_kafka(origin, url)
    origin.close()
    with SqliteLog.open(tmp_path / "origin") as reopened, pytest.raises(LogClosedError, match=topic_of(url)):
        Author(reopened, "a-1").note("claim.released", "c-1", {"claim": "c-1"}, entity="mail.thread/t-1", actor=ANN)
