"""The command line on a store that no process serves: everything happens in the command's own process (only folding is
others' business on Kafka)."""

import json
from pathlib import Path

import apsw
import pytest

from headrace.cli import exits
from headrace.log.sqlite_file import NAME as LOG_FILE
from headrace.projections.sqlite import FILE as TABLES_FILE
from headrace.schemas.refs import Token
from tests.integration.cli_desk import Cli, basis_of, cli, mail, own_environment, propose
from tests.integration.stores import no_store, open_store, partitions_of_any, tamper

__all__ = ("cli", "own_environment")

HOUR_MS = 3_600_000


@pytest.mark.embedded("on Kafka `headrace log create` makes the log, and no event does (test_shared_store.py)")
def test_the_first_event_makes_the_store_and_says_so(cli: Cli, tmp_path: Path) -> None:
    event = ("--account", "ann", "--type", "mail.deleted", "--subject", "mail.thread/t-1")
    first = cli("send", *event)
    assert (first.code, first.err) == (exits.OK, f"headrace: made a new store at {tmp_path / 'store'}\n")
    assert first.out.splitlines()[0].split() == ["POSITION", "TYPE", "SUBJECT", "ACCOUNT", "ID"]
    assert cli("send", *event).err == ""


@pytest.mark.parametrize(
    "line",
    [
        ("log", "ls"),
        ("log", "tail"),
        ("log", "show", "0:0"),
        ("entity", "ls"),
        ("entity", "show", "mail.thread/t-1"),
        ("proposal", "ls"),
        ("proposal", "show", "p-1"),
        ("proposal", "approve", "p-1", "--account", "ann"),
        ("audit", "verify"),
        ("audit", "explain", "p-1"),
        ("replay", "--at", "0:0"),
        ("source", "ls"),
    ],
    ids=" ".join,
)
def test_no_store_is_not_found_and_none_is_made(cli: Cli, tmp_path: Path, line: tuple[str, ...]) -> None:
    for place, ran in ((tmp_path / "store", cli(*line)), (tmp_path / "data" / "headrace", cli(*line, store=None))):
        assert (ran.code, ran.out) == (exits.NOT_FOUND, "")
        assert ran.err == f"headrace: {no_store(tmp_path / 'store', place)}\n"
        assert not place.exists()


def test_what_is_not_there_is_not_found(cli: Cli) -> None:
    position = mail(cli)
    partition, offset = map(int, position.split(":"))
    count = partitions_of_any()
    for line, told in (
        (("log", "show", f"{partition}:{offset + 1}"), f"its last one is {position}"),
        (("log", "show", f"{count}:0"), f"there is no partition {count}; this log has 0 to {count - 1}"),
        (("log", "ls", "--partition", count), f"there is no partition {count}"),
        (("entity", "show", "mail.thread/t-9"), "there is no mail.thread/t-9"),
        (("entity", "show", "mail.threat/t-1"), "there is no entity kind 'mail.threat'; installed: calendar.event"),
        (("proposal", "show", "p-9"), "there is no proposal p-9"),
        (("audit", "explain", "p-9"), "there is no proposal p-9"),
        (("replay", "--at", Token(b"x" * 16, partition, offset, b"y" * 8).encode()), "of another log"),
    ):
        ran = cli(*line)
        assert (ran.code, ran.out) == (exits.NOT_FOUND, ""), line
        assert told in ran.err
    event = cli("log", "show", position, "--json").json["id"]
    assert f"is no proposal but a mail.received at {position}" in cli("audit", "explain", event).err


def test_the_log_is_filtered_and_paged(cli: Cli) -> None:
    first, second, third = mail(cli), mail(cli, "mail.sent"), mail(cli, thread="t-2")
    assert [one["position"] for one in cli("log", "ls", "--json").json] == [first, second, third]
    paged = cli("log", "ls", "--limit", 1)
    assert paged.err == f"headrace: there are more; raise --limit, or go on with --after {first}\n"
    assert [one["position"] for one in cli("log", "ls", "--after", first, "--json").json] == [second, third]
    assert [one["position"] for one in cli("log", "ls", "--type", "mail.sent", "--json").json] == [second]
    assert len(cli("log", "ls", "--type", "mail.*", "--json").json) == 3
    assert len(cli("log", "ls", "--opening", "--limit", 1000, "--json").json) == partitions_of_any() + 3
    assert cli("log", "ls", "--account", "bob", "--json").json == []
    assert cli("log", "ls", "--account", "bob").err == "headrace: no such records\n"
    tail = cli("log", "tail", "-n", 2, "--json").out.splitlines()
    assert [json.loads(line)["position"] for line in tail] == [second, third]
    elsewhere = cli("log", "ls", "--after", first, "--partition", (int(first.split(":")[0]) + 1) % partitions_of_any())
    assert elsewhere.code == exits.ERROR


def test_personal_content_is_shown_only_when_asked_for_and_harmless(cli: Cli) -> None:
    position = mail(cli)
    shown = cli("log", "show", position)
    assert "Lunch" not in shown.out
    assert "bob@example.com" not in shown.out
    asked = cli("log", "show", position, "--content")
    assert "Lunch?\\u001b[31m" in asked.out
    assert "\x1b" not in asked.out
    assert cli("log", "show", position, "--content", "--json").json["body"]["content"]["subject"] == "Lunch?\x1b[31m"
    assert "Lunch" not in cli("entity", "ls").out + cli("entity", "show", "mail.thread/t-1", "--json").out
    assert "subject=Lunch?" in cli("entity", "ls", "--content").out


def test_state_as_it_was(cli: Cli) -> None:
    first, second = mail(cli), mail(cli, "mail.sent")
    then = cli("entity", "show", "mail.thread/t-1", "--at", first, "--json").json
    assert (then["state"]["messages"], then["head"]["position"]) == (1, first)
    by_token = cli("entity", "show", "mail.thread/t-1", "--at", then["basis"], "--json").json
    assert by_token == then
    replayed = cli("replay", "--at", first, "--json").json
    assert replayed == {"position": first, "entities": [then]}
    now = cli("entity", "show", "mail.thread/t-1", "--json").json
    assert now == cli("replay", "--at", second, "--json").json["entities"][0]
    assert now["state"]["messages"] == 2
    before = f"{first.split(':')[0]}:0"
    assert cli("entity", "show", "mail.thread/t-1", "--at", before).code == exits.NOT_FOUND
    assert cli("replay", "--at", before).err == "headrace: no such entities\n"


def event(cli: Cli, type_: str, **data: object) -> None:
    said = ("--account", "ann", "--type", type_, "--subject", "calendar.event/c-1", "--data", json.dumps(data))
    sent = cli("send", *said)
    assert sent.code == exits.OK, sent.err


def moved(hours: int) -> str:
    return json.dumps({"start": hours * HOUR_MS, "end": (hours + 1) * HOUR_MS})


def test_a_proposal_that_waits_is_approved_dismissed_or_withdrawn(cli: Cli) -> None:
    event(cli, "calendar.created", calendar="work", uid="u-1", occurrences=[{"start": 0, "end": HOUR_MS}])
    basis = basis_of(cli, "calendar.event/c-1")
    event(cli, "calendar.responded", responses=[{"who": "bob@example.com", "response": "declined"}], etag=None)
    for proposal in ("p-1", "p-2", "p-3"):
        waits = propose(cli, proposal, "calendar.move", "calendar.event/c-1", basis, "--data", moved(5))
        assert (waits.code, waits.json["verdict"]) == (exits.STALE, "needs_review"), waits
    shown = cli("proposal", "show", "p-1")
    assert "a person must look at calendar.responded of user/webhook" in shown.out
    dismissed = cli("proposal", "dismiss", "p-2", "--reason", "not now")
    assert (dismissed.code, "rejected" in dismissed.out) == (exits.OK, True)
    assert cli("proposal", "dismiss", "p-2").code == exits.STALE
    withdrawn = cli("proposal", "withdraw", "p-3", "--json")
    assert (withdrawn.code, withdrawn.json["verdict"]) == (exits.OK, "rejected")
    approved = cli("proposal", "approve", "p-1", "--json")
    assert (approved.code, approved.json["verdict"]) == (exits.OK, "accepted"), approved
    too_late = cli("proposal", "approve", "p-1", "--json")
    assert (too_late.code, too_late.out) == (exits.STALE, "")
    error = json.loads(too_late.err)["error"]
    assert (error["type"], error["exit_code"]) == ("StaleError", exits.STALE)
    explained = cli("audit", "explain", "p-1")
    assert "every verdict on this id" in explained.out
    assert "brought about by review.approved of user/local" in explained.out
    assert cli("audit", "verify").code == exits.OK


def test_reads_by_option_reach_the_log(cli: Cli) -> None:
    event(cli, "calendar.created", calendar="work", uid="u-1", occurrences=[{"start": 0, "end": HOUR_MS}])
    basis = basis_of(cli, "calendar.event/c-1")
    said = propose(
        *(cli, "p-1", "calendar.book", "calendar.event/new", basis),
        *("--absent", "--read", f"calendar.event/c-1@{basis}"),
        *("--read", f"scope:calendar/work day[1970-01-01T02:00Z,1970-01-01T03:00:00+00:00]@{basis}"),
        *("--read", f"scope:mail.label/INBOX[,]@{basis}", "--read", f"absent:mail.thread/t-9@{basis}"),
        *("--data", json.dumps({"calendar": "work"} | json.loads(moved(2))), "--expires", "2999-01-01T00:00:00Z"),
    )
    assert said.code == exits.OK, said.out + said.err
    shown = cli("proposal", "show", "p-1", "--json").json
    assert [(read["what"], read["kind"], read["start"], read["end"]) for read in shown["reads"]] == [
        ("absent", "calendar.event", None, None),
        ("entity", "calendar.event", None, None),
        ("scope", "calendar", 2 * HOUR_MS, 3 * HOUR_MS),
        ("scope", "mail.label", None, None),
        ("absent", "mail.thread", None, None),
    ]
    assert shown["expires_at"] == "2999-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--read", "calendar/x"), "--read 'calendar/x' cannot be read"),
        (("--read", "mail.thread/x[,]@" + "A" * 50), "cannot be read; write KIND/ID@TOKEN"),
        (("--data", "[1]"), "--data must be a JSON object"),
        (("--data", "{"), "--data is not JSON"),
        (("--data", "@/no/such/file"), "--data: /no/such/file cannot be read"),
        (("--expires", "tomorrow"), "'tomorrow' is no time"),
        (("--type", "mail.nope"), "mail.nope cannot be proposed on a mail.thread"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_a_proposal_that_cannot_be_read_is_told(cli: Cli, words: tuple[str, ...], told: str) -> None:
    mail(cli)
    refused = propose(cli, "p-1", "mail.archive", "mail.thread/t-1", basis_of(cli, "mail.thread/t-1"), *words)
    assert (refused.code, refused.out) == (exits.ERROR, "")
    assert told in json.loads(refused.err)["error"]["message"]
    assert cli("proposal", "ls", "--json").json == []


def execute(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    try:
        connection.execute(sql)
    finally:
        connection.close()


def test_a_changed_row_is_named(cli: Cli, tmp_path: Path) -> None:
    mail(cli)
    assert tamper(tmp_path / "store", "UPDATE threads SET messages = 7") == 1
    found = cli("audit", "verify")
    assert found.code == exits.MISMATCH
    line = found.out.splitlines()[0]
    assert line.startswith("MISMATCH  row")
    for word in ("threads", "messages", "t-1", "ann"):
        assert word in line
    assert "in the tables      7" in found.out
    assert "the log leads to   1" in found.out
    assert "the log is sound" in found.err
    report = cli("audit", "verify", "--json")
    assert (report.code, report.json["verified"], report.json["found"]) == (exits.MISMATCH, False, 1)
    assert report.json["findings"][0]["column"] == "messages"


@pytest.mark.embedded("a record in Kafka cannot be changed; of a log that was replaced test_shared_store.py tells")
def test_a_changed_byte_of_the_log_is_named(cli: Cli, tmp_path: Path) -> None:
    position = mail(cli)
    partition, offset = position.split(":")
    changed = "UPDATE records SET value = CAST(substr(value, 1, length(value) - 1) || x'7f' AS BLOB)"
    execute(tmp_path / "store" / LOG_FILE, f'{changed} WHERE partition = {partition} AND "offset" = {offset}')
    found = cli("audit", "verify")
    assert found.code == exits.MISMATCH
    assert found.out.splitlines()[0].startswith(f"MISMATCH  log         {position}")
    assert "restore log.db from a backup" in found.err
    # Whoever would go on folding is refused, too.
    assert (
        cli("send", "--account", "ann", "--type", "mail.deleted", "--subject", "mail.thread/t-1").code == exits.MISMATCH
    )


@pytest.mark.embedded("on Kafka any number of processes write a log: there is no lock")
def test_a_store_that_somebody_else_writes_is_unavailable_for_writing_only(cli: Cli, tmp_path: Path) -> None:
    mail(cli)
    with open_store(tmp_path / "store", writer=True):
        refused = cli("send", "--account", "ann", "--type", "mail.deleted", "--subject", "mail.thread/t-1", "--json")
        assert refused.code == exits.UNAVAILABLE
        assert json.loads(refused.err)["error"]["type"] == "WriterLockedError"
        assert cli("entity", "show", "mail.thread/t-1").code == exits.OK
        assert cli("audit", "verify").code == exits.OK


@pytest.mark.embedded("the tables' file is deleted; test_shared_store.py drops a schema")
def test_missing_tables_say_how_to_fold_them_again(cli: Cli, tmp_path: Path) -> None:
    mail(cli)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / "store" / f"{TABLES_FILE}{suffix}").unlink(missing_ok=True)
    refused = cli("entity", "ls")
    assert refused.code == exits.UNAVAILABLE
    assert "`headrace dev" in refused.err
    mail(cli, "mail.sent")
    assert cli("entity", "show", "mail.thread/t-1", "--json").json["state"]["messages"] == 2


def test_one_entity_in_two_accounts_asks_which(cli: Cli) -> None:
    mail(cli)
    cli("send", "--account", "bob", "--type", "mail.deleted", "--subject", "mail.thread/t-1")
    asked = cli("entity", "show", "mail.thread/t-1")
    assert asked.code == exits.ERROR
    assert "2 accounts have a mail.thread/t-1; say which one: --tenant local --account ann, " in asked.err
    assert cli("entity", "show", "mail.thread/t-1", "--account", "bob").code == exits.OK


@pytest.mark.embedded("`headrace demo --on kafka` takes a topic of its own, so there is nothing to play over")
def test_the_demo_is_wired(cli: Cli, tmp_path: Path) -> None:
    mail(cli)
    refused = cli("demo", "--json")
    assert refused.code == exits.ERROR
    assert f"{tmp_path / 'store'} already holds a store" in json.loads(refused.err)["error"]["message"]
