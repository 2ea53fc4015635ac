"""What only a log that many processes write can do, and what must go wrong there in order."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.server import BackgroundServer
from headrace.cli import exits
from headrace.errors import HaltError, LogMismatchError, UnavailableError
from headrace.keys import Keys
from headrace.places import Places
from headrace.processors.audit import verify
from headrace.settings import load_settings
from headrace.store import KEY_FILE, Store
from tests.contract.rich_history import Author, write
from tests.integration.api_desk import WAIT, Desk, received
from tests.integration.processes import Following, headrace
from tests.integration.stores import drop_tables, open_store, others_fold, places_of, prepare, replace_log

pytestmark = pytest.mark.shared("is about a log that many processes write")


def api_on(directory: Path, places: Places, stack: ExitStack) -> Desk:
    """An API server that folds nothing, on a log that is there."""
    store = stack.enter_context(Store(directory, writer=True, places=places, fold=False, make=False))
    server = stack.enter_context(BackgroundServer(store, load_settings(directory, port=0)))
    return Desk(store, stack.enter_context(httpx.Client(base_url=server.url, timeout=60)))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Desk, Desk]]:
    """Two API servers on one log, and a third process' place that folds."""
    with ExitStack() as stack:
        stack.enter_context(open_store(tmp_path / "folds", writer=True, partitions=2))
        places = places_of(tmp_path / "folds")._replace(key_file=tmp_path / "folds" / KEY_FILE)
        yield api_on(tmp_path / "a", places, stack), api_on(tmp_path / "b", places, stack)


# -- two API servers ------------------------------------------------------------------------------------------------


def test_what_is_proposed_at_one_is_read_and_watched_at_the_other(two: tuple[Desk, Desk]) -> None:
    here, there = two
    shown = here.thread("ann")
    path = "/v1/accounts/ann/watch"
    with (
        httpx.Client(base_url=there.http.base_url, timeout=WAIT) as http,
        http.stream("GET", path, params={"after": shown["position"]}) as stream,
    ):
        said = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        assert next(said)["position"] == shown["position"]
        for turn in range(10):
            made = here.propose("ann", f"p{turn}", shown["basis"], type="mail.label", data={"added": [f"l{turn}"]})
            assert made.status_code == 201, made.text
            read = there.entity("ann", "mail.thread", "t1", after=made.json()["token"])
            assert read.json()["basis"] == made.json()["token"]
            assert [one["proposal"] for one in read.json()["intents"]][-1] == f"p{turn}"
            assert there.http.get(f"/v1/accounts/ann/proposals/p{turn}").json()["verdict"] == "accepted"
            record = next(said)
            assert (record["token"], record["disposition"]) == (made.json()["token"], "accepted")
            shown = read.json()


def test_of_two_that_race_at_two_servers_one_is_accepted(two: tuple[Desk, Desk]) -> None:
    for turn in range(5):
        account = f"race-{turn}"
        basis = two[turn % 2].thread(account)["basis"]
        answers = [desk.propose(account, f"p-{place}", basis) for place, desk in zip("ab", two, strict=True)]
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        (refused,) = (answer.json() for answer in answers if answer.status_code == 409)
        assert refused["verdict"] == "superseded"
        assert refused["finding"]["event"]["effect"] == "accepted:mail.reply"


def test_an_id_sent_to_both_servers_has_one_effect(two: tuple[Desk, Desk]) -> None:
    basis = two[0].thread("same")["basis"]
    first, second = (desk.propose("same", "p1", basis).json() for desk in two)
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert first["token"] == second["token"]
    for desk in two:
        assert len(desk.entity("same", "mail.thread", "t1", after=second["position"]).json()["intents"]) == 1


def test_a_position_that_no_server_has_seen_is_refused_at_each(two: tuple[Desk, Desk]) -> None:
    position = two[0].tell("ann", "mail.received", "t1", received())
    token = two[0].token_of(position)
    for desk in two:
        assert desk.entity("ann", "mail.thread", "t1", after=token.encode()).status_code == 200
        for wrong in (token._replace(offset=token.offset + 1), token._replace(check=bytes(8))):
            answer = desk.entity("ann", "mail.thread", "t1", after=wrong.encode())
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:headrace:problem:unknown-position")


def test_a_read_of_what_is_folded_asks_no_broker(two: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    desk = two[0]
    position = desk.thread("cheap")["position"]
    assert desk.entity("cheap", "mail.thread", "t1", after=position).status_code == 200
    asked = list[str]()

    def describe() -> Any:
        asked.append("describe")
        raise UnavailableError("no broker answers")

    monkeypatch.setattr(desk.store.log, "describe", describe)
    answer = desk.entity("cheap", "mail.thread", "t1", after=position, at=position)
    assert (answer.status_code, asked) == (200, [])
    assert desk.propose("cheap", "p1", answer.json()["basis"]).status_code == 201
    assert asked == []
    assert desk.http.get("/health/ready").status_code == 503


# -- processes ------------------------------------------------------------------------------------------------------


def test_two_servers_as_processes_from_an_empty_place(tmp_path: Path) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    event = ("--account", "ann", "--type", "mail.deleted", "--subject", "mail.thread/t-1")
    refused = headrace("send", *event, "--store", store)
    assert refused.code == exits.NOT_FOUND
    assert refused.err.endswith("; `headrace log create` makes one\n")
    assert not (store / KEY_FILE).exists()
    prepare(store)
    refused = headrace("serve", "--store", store, "--port", 0)
    assert refused.code == exits.UNAVAILABLE
    assert "finish it with `headrace log create`" in refused.err
    made = headrace("log", "create", "--partitions", 4, "--json", "--store", store).json
    assert (made["partitions"], made["key_file"]) == (4, str(store / KEY_FILE))
    assert headrace("log", "create", "--partitions", 4, "--json", "--store", store).json == made
    refused = headrace("serve", "--store", store, "--port", 0)
    assert refused.code != exits.OK
    assert "headrace migrate" in refused.err
    assert "0001_core.sql" in headrace("migrate", "--json", "--store", store).json["ran"]
    assert headrace("migrate", "--json", "--store", store).json["ran"] == []
    (other / KEY_FILE).parent.mkdir(parents=True)
    shutil.copy(store / KEY_FILE, other / KEY_FILE)
    elsewhere = places_of(store)
    variables = {"HEADRACE_LOG_URL": str(elsewhere.log_url), "HEADRACE_DB_SCHEMA": elsewhere.db_schema}
    with (
        Following("serve", "--store", store, "--port", 0, "--json") as one,
        Following("serve", "--store", other, "--port", 0, "--json", **variables) as two,
        others_fold(store),
    ):
        urls = [process.line()["url"] for process in (one, two)]
        sent = headrace("send", *event, "--json", "--store", store)
        assert (sent.code, sent.json["to"]) == (exits.OK, urls[0]), sent.err
        shown = httpx.get(f"{urls[1]}/v1/accounts/ann/entities/mail.thread/t-1")
        assert shown.status_code == 200
        for process in (one, two):
            assert process.ends(signal.SIGTERM) == exits.OK
    assert not (store / "server.json").exists()


def test_what_nobody_folds_is_told_and_is_on_the_log(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with open_store(store, writer=True):
        pass
    sent = headrace("send", "--account", "a", "--type", "mail.deleted", "--subject", "mail.thread/t", "--store", store)
    assert sent.code == exits.OK
    assert "not folded yet; `headrace worker` folds it" in sent.err
    assert headrace("entity", "ls", "--store", store, "--json").json == []
    with others_fold(store) as folding:
        assert folding is not None
        for partition, end in enumerate(folding.log.describe().ends):
            assert folding.applied.wait(partition, end - 1, WAIT)
    assert len(headrace("entity", "ls", "--store", store, "--json").json) == 1


# -- what must be refused -------------------------------------------------------------------------------------------


def test_tables_that_were_dropped_are_made_and_folded_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with open_store(store, writer=True, partitions=2) as opened:
        author = Author(opened.log)
        write(author)
        last = author.fact("mail.read", "t-1", "very-last", {})
        assert opened.applied.wait(author.partition, last, WAIT)
        with opened.tables.snapshot() as reader:
            before = reader.rows("SELECT * FROM events ORDER BY partition, offset", {})
    drop_tables(store)
    refused = headrace("entity", "ls", "--store", store)
    assert refused.code == exits.ERROR
    assert "run `headrace migrate`" in refused.err
    assert headrace("migrate", "--store", store).code == exits.OK
    with open_store(store, writer=True) as opened:
        assert opened.applied.wait(author.partition, last, WAIT)
        with opened.tables.snapshot() as reader:
            assert reader.rows("SELECT * FROM events ORDER BY partition, offset", {}) == before


def test_another_master_key_is_refused(tmp_path: Path) -> None:
    with open_store(tmp_path / "store", writer=True, partitions=2) as store:
        ends = store.log.describe().ends
    places = places_of(tmp_path / "store")
    with pytest.raises(UnavailableError, match="master key"):
        Store(tmp_path / "none", writer=True, places=places)
    Keys.at(tmp_path / "other" / KEY_FILE)
    for fold in (True, False):
        with pytest.raises(LogMismatchError, match="another master key"):
            Store(tmp_path / "other", writer=True, places=places, fold=fold, make=fold)
    refused = headrace("serve", "--store", tmp_path / "store", HEADRACE_KEY_FILE=str(tmp_path / "other" / KEY_FILE))
    assert refused.code == exits.MISMATCH
    assert "another master key" in refused.err
    with open_store(tmp_path / "store", writer=False) as store:
        assert store.log.describe().ends == ends


def test_a_log_that_was_replaced_is_never_folded_on(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    with open_store(directory, writer=True, partitions=2) as store:
        author = Author(store.log)
        write(author)
        last = author.fact("mail.read", "t-1", "very-last", {})
        assert store.applied.wait(author.partition, last, WAIT)
        with store.tables.snapshot() as reader:
            before = reader.rows("SELECT * FROM partitions ORDER BY partition", {})
    replace_log(directory)  # the same records, appended again
    with open_store(directory, writer=False) as store:
        report = verify(store.log, store.tables, store.registry, store.kinds)
        assert not report.verified
        assert {finding.what for finding in report.findings} == {"log"}
        assert {(finding.partition, finding.offset) for finding in report.findings} >= {(0, 0), (1, 0)}
        assert headrace("audit", "verify", "--store", directory).code == exits.MISMATCH
    with pytest.raises(HaltError, match="is not the one that was folded"), open_store(directory, writer=True) as store:
        store.applied.wait(author.partition, last + 1, WAIT)
    with open_store(directory, writer=False) as store, store.tables.snapshot() as reader:
        assert reader.rows("SELECT * FROM partitions ORDER BY partition", {}) == before
