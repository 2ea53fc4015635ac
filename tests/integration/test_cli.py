"""The real ``headrace`` as a process: against a running ``headrace dev``, and its end."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from headrace.cli import exits
from headrace.demo.caldav_server import CaldavServer
from headrace.producers.signatures import sign
from tests.integration import stores
from tests.integration.processes import HEADRACE, PATIENCE_S, Following, Ran, environment, headrace


class Dev(NamedTuple):
    store: Path
    said: dict[str, Any]

    def event(self, account: str, type_: str, thread: str, **data: object) -> str:
        """One event as a provider sends it, faster than by the command line; its position."""
        event = event_of(account, type_, thread, data)
        secret = Path(self.said["webhook_secret_file"]).read_text(encoding="ascii").strip()
        body = json.dumps(event).encode()
        headers = sign(secret, "msg_1", int(time.time()), body) | {"content-type": "application/cloudevents+json"}
        answer = httpx.post(self.said["webhooks"]["default"], content=body, headers=headers)
        (place,) = answer.raise_for_status().json()["positions"]
        return f"{place['partition']}:{place['offset']}"

    def received(self, account: str, thread: str) -> str:
        """A mail from Bob."""
        return self.event(account, "mail.received", thread, message=f"<{thread}@example.com>", sender="bob@example.com")


def event_of(account: str, type_: str, thread: str, data: dict[str, object]) -> dict[str, object]:
    """A CloudEvent about a thread."""
    event: dict[str, object] = {"specversion": "1.0", "id": f"{type_}-{thread}", "source": "test"}
    return event | {"type": type_, "subject": f"mail.thread/{thread}", "account": account, "data": data}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One ``headrace dev``; every test has an account of its own on it."""
    store = tmp_path_factory.mktemp("dev") / "store"
    with Following("dev", "--store", store, "--port", 0, "--json") as process:
        yield Dev(store, process.line())
        assert process.ends(signal.SIGTERM) == exits.OK
    assert not (store / "server.json").exists()


def send(store: Path, account: str, type_: str, thread: str, **data: object) -> Ran:
    """One event through the command line."""
    return headrace(
        *("send", "--store", store, "--json", "--account", account, "--type", type_),
        *("--subject", f"mail.thread/{thread}", "--data", json.dumps(data)),
    )


def basis_of(store: Path, account: str, thread: str) -> str:
    """What a proposal on a thread is based on now."""
    shown = headrace(
        "entity", "show", f"mail.thread/{thread}", "--account", account, "--json", HEADRACE_STORE=str(store)
    )
    assert shown.code == exits.OK, shown.err
    basis: str = shown.json["basis"]
    return basis


def test_a_proposal_is_accepted_and_a_stale_one_refused_and_explained(dev: Dev) -> None:
    dev.received("ann", "t-1")
    dev.received("ann", "t-2")
    stale, fresh = basis_of(dev.store, "ann", "t-1"), basis_of(dev.store, "ann", "t-2")
    sent = send(dev.store, "ann", "mail.sent", "t-1", message="<2@example.com>", sender="ann@example.com")
    (reply,) = sent.json["positions"]
    propose = ("propose", "--store", dev.store, "--account", "ann", "--type", "mail.reply", "--basis", stale)
    refused = headrace(*propose, "--subject", "mail.thread/t-1", "--id", "p-1")
    assert refused.code == exits.STALE
    assert "superseded" in refused.out
    assert "overtaken by mail.sent of user/webhook" in refused.out
    assert "headrace audit explain p-1 --account ann" in refused.err
    asked = {"account": "ann", "id": "p-2", "entity": {"kind": "mail.thread", "id": "t-2"}, "basis": fresh}
    accepted = headrace("propose", "--store", dev.store, "--json", stdin=json.dumps(asked | {"type": "mail.archive"}))
    assert (accepted.code, accepted.json["verdict"]) == (exits.OK, "accepted"), accepted.err
    explained = headrace("audit", "explain", "p-1", "--account", "ann", "--store", dev.store)
    assert explained.code == exits.OK
    assert "what the agent knew\n  mail.thread/t-1 as of " in explained.out
    (overtaking,) = [one for one in explained.out.splitlines() if "<- this overtook it" in one]
    assert overtaking.split()[0] == reply
    listed = headrace("proposal", "ls", "--store", dev.store, "--account", "ann", "--json").json
    assert {one["id"]: one["verdict"] for one in listed} == {"p-1": "superseded", "p-2": "accepted"}


def test_everything_can_be_read_while_it_runs(dev: Dev) -> None:
    position = dev.received("cleo", "t-1")
    records = headrace("log", "ls", "--store", dev.store, "--account", "cleo", "--json").json
    assert [(one["position"], one["type"]) for one in records] == [(position, "mail.received")]
    record = headrace("log", "show", position, "--store", dev.store, "--json").json
    assert record["body"]["message"].startswith("p-")
    tailed = headrace("log", "tail", "-n", 1, "--account", "cleo", "--store", dev.store, "--json")
    assert json.loads(tailed.out)["position"] == position
    listed = headrace("entity", "ls", "--account", "cleo", "--store", dev.store)
    assert [row.split()[0] for row in listed.out.splitlines()] == ["ENTITY", "mail.thread/t-1"]
    verified = headrace("audit", "verify", "--store", dev.store)
    assert (verified.code, verified.err) == (exits.OK, "")
    assert "nothing differs" in verified.out


def test_watch_follows_with_verdicts_and_tail_with_bodies(dev: Dev) -> None:
    with Following("watch", "--store", dev.store, "--account", "dora", "--json") as watch:
        assert watch.err.readline().startswith("headrace: watching dora, from ")
        position = dev.received("dora", "t-1")
        seen = watch.line()
        assert (seen["position"], seen["disposition"]) == (position, "applied")
        again = dev.received("dora", "t-2")
        assert watch.line()["position"] == again
        with Following("log", "tail", "-f", "-n", 2, "--store", dev.store, "--account", "dora", "--json") as late:
            assert [late.line()["position"], late.line()["position"]] == [position, again]
            third = dev.received("dora", "t-3")
            assert late.line()["body"]["sender"].startswith("p-")
            assert watch.line()["position"] == third
            assert late.ends(signal.SIGINT) == exits.INTERRUPTED
        assert watch.ends(signal.SIGINT) == exits.INTERRUPTED
        assert "Traceback" not in watch.err.read()


def test_events_come_by_the_line_and_twice_is_once(dev: Dev) -> None:
    events = [
        event_of(
            "eve", "mail.received", f"t-{number % 3}", {"message": f"<{number}@x.example>", "sender": "bob@x.example"}
        )
        | {"id": f"e-{number}"}
        for number in range(120)
    ]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    first = headrace("send", "--store", dev.store, "--json", stdin=lines)
    assert (first.code, first.json["accepted"], first.json["to"]) == (exits.OK, 120, dev.said["url"])
    assert headrace("send", "-", "--store", dev.store, stdin=json.dumps(events)).code == exits.OK
    threads = headrace("entity", "ls", "--account", "eve", "--store", dev.store, "--json").json
    assert [one["state"]["messages"] for one in threads] == [40, 40, 40]


def test_a_refused_event_is_told_and_leaves_nothing(dev: Dev, tmp_path: Path) -> None:
    event = ("--account", "fred", "--subject", "mail.thread/t-1", "--type", "mail.sent", "--store", dev.store)
    lacking = headrace("send", *event)
    assert lacking.code == exits.ERROR
    assert "data lacks message" in lacking.err
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "A" * 32, encoding="utf-8")
    forged = headrace("send", *event, "--secret-file", secret)
    assert forged.code == exits.ERROR
    assert "(forged)" in forged.err
    assert headrace("send", *event, "--endpoint", "nope").code == exits.NOT_FOUND
    assert headrace("log", "ls", "--store", dev.store, "--account", "fred", "--json").json == []


def test_url_leads_to_the_process_without_the_store(dev: Dev, tmp_path: Path) -> None:
    dev.received("gus", "t-1")
    basis = basis_of(dev.store, "gus", "t-1")
    proposal = ("--account", "gus", "--subject", "mail.thread/t-1", "--type", "mail.archive", "--basis", basis)
    elsewhere = {"HEADRACE_URL": dev.said["url"], "HEADRACE_STORE": str(tmp_path / "none")}
    assert headrace("propose", *proposal, "--id", "p-9", **elsewhere).code == exits.OK
    assert headrace("proposal", "withdraw", "p-9", "--account", "gus", **elsewhere).code == exits.OK
    assert headrace("proposal", "withdraw", "p-9", "--account", "gus", **elsewhere).code == exits.STALE
    assert headrace("proposal", "dismiss", "p-0", "--account", "gus", **elsewhere).code == exits.NOT_FOUND
    nobody = headrace("propose", *proposal, "--url", "http://127.0.0.1:1")
    assert nobody.code == exits.UNAVAILABLE
    assert "is `headrace dev` running?" in nobody.err


@pytest.mark.embedded("on Kafka any number of processes write a log: there is no lock")
def test_a_second_process_is_refused(dev: Dev) -> None:
    second = headrace("dev", "--store", dev.store, "--port", 0, "--json")
    assert (second.code, second.out) == (exits.UNAVAILABLE, "")
    error = json.loads(second.err.splitlines()[-1])["error"]
    assert error["type"] == "WriterLockedError"
    assert f"pid {dev.said['pid']}" in error["message"]


def test_a_reader_that_has_enough_is_no_error(dev: Dev) -> None:
    dev.received("hal", "t-1")
    with Following("log", "ls", "--opening", "--limit", 1000, "--json", "--store", dev.store) as listing:
        listing.out.close()
        assert listing.process.wait(PATIENCE_S) == exits.OK
        assert listing.err.read() == ""


def on_terminal(*words: object, **variables: str) -> str:
    """What a command prints on a terminal."""
    ours, its = pty.openpty()
    try:
        process = subprocess.Popen(
            [*HEADRACE, *map(str, words)],
            stdout=its,
            stderr=its,
            stdin=its,
            env=environment(words, {"TERM": "xterm"} | variables),
        )
        os.close(its)
        printed = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # Linux: the other side is closed
                break
            if not chunk:
                break
            printed += chunk
        assert process.wait(PATIENCE_S) == exits.OK
        return printed.decode()
    finally:
        os.close(ours)


def test_colour_is_for_terminals_that_want_it(dev: Dev) -> None:
    dev.received("ida", "t-1")
    basis = basis_of(dev.store, "ida", "t-1")
    headrace(
        *("propose", "--account", "ida", "--subject", "mail.thread/t-1", "--type", "mail.archive", "--basis", basis),
        *("--id", "p-1", "--store", dev.store),
    )
    listing = ("proposal", "ls", "--account", "ida", "--store", dev.store)
    assert "\x1b[32maccepted" in on_terminal(*listing)
    assert "\x1b[32m" not in on_terminal(*listing, NO_COLOR="1")
    piped = headrace(*listing).out
    assert "\x1b" not in piped
    assert piped.splitlines()[1].split()[0] == "p-1"


def test_a_signal_ends_dev_and_whoever_watches_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    stores.prepare(store)
    with Following("dev", "--store", store, "--port", 0, "--json") as process:
        process.line()
        with Following("watch", "--store", store, "--account", "ann") as watch:
            watch.err.readline()
            assert process.ends(signal.SIGINT) == exits.OK
            assert watch.process.wait(PATIENCE_S) == exits.UNAVAILABLE
            assert "go on behind what you have seen with --after" in watch.err.read()
        told = process.err.read()
    assert "Ctrl-C ends it." in told
    assert told.endswith("headrace: stopped\n")
    # Nothing stays behind: the next one needs no process, and gets the store.
    assert headrace("watch", "--store", store, "--account", "ann").code == exits.UNAVAILABLE
    with stores.others_fold(store):
        assert send(store, "ann", "mail.deleted", "t-1").json["to"] == "in process"


def test_a_killed_process_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    store = tmp_path / "store"
    stores.prepare(store)
    with Following("dev", "--store", store, "--port", 0, "--json") as process:
        process.line()
        send(store, "ann", "mail.deleted", "t-1")
        process.ends(signal.SIGKILL)
    assert (store / "server.json").exists()
    with stores.others_fold(store):
        again = send(store, "ann", "mail.deleted", "t-2")
    assert (again.code, again.json["to"]) == (exits.OK, "in process"), again.err
    assert headrace("audit", "verify", "--store", store).code == exits.OK


def test_a_file_left_behind_never_leads_to_another_store(dev: Dev, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(PATIENCE_S)
    store = tmp_path / "store"
    store.mkdir()
    left = {"url": dev.said["url"], "pid": gone.pid}
    (store / "server.json").write_text(json.dumps(left), encoding="utf-8")
    with stores.others_fold(store):
        assert send(store, "jo", "mail.deleted", "t-1").json["to"] == "in process"
    assert headrace("log", "ls", "--store", dev.store, "--account", "jo", "--json").json == []


def test_dev_keeps_a_calendar_in_sync(tmp_path: Path, caldav_server: CaldavServer) -> None:
    url = caldav_server.make_calendar("Cli")
    caldav_server.put_event(url, ICS)
    password = tmp_path / "password"
    password.write_text(caldav_server.password + "\n", encoding="utf-8")
    address = caldav_server.url.replace("://", f"://{caldav_server.username}@")
    store = tmp_path / "store"
    stores.prepare(store)
    syncing = ("--caldav", address, "--calendar", url, "--account", "ann", "--password-file", password)
    with Following("dev", "--store", store, "--port", 0, "--json", *syncing) as process:
        process.line()
        with Following("log", "tail", "-f", "-n", 100, "--store", store, "--account", "ann", "--json") as tail:
            seen = [tail.line()["type"]]
            while seen[-1] != "source.synced":
                seen.append(tail.line()["type"])
        assert seen == ["source.sync_started", "calendar.created", "source.synced"]
        assert process.ends(signal.SIGTERM) == exits.OK
    (source,) = headrace("source", "ls", "--store", store, "--json").json
    assert (source["feeds"], source["state"]) == (["calendar.event"], "idle")


ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//test//EN
BEGIN:VEVENT
UID:cli-1
DTSTAMP:20261121T100000Z
DTSTART:20261122T140000Z
DTEND:20261122T150000Z
SUMMARY:Design review
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")


def test_completion_is_there() -> None:
    script = headrace(_HEADRACE_COMPLETE="source_bash")
    assert script.code == exits.OK
    assert "complete" in script.out
    assert "_HEADRACE_COMPLETE=complete_bash" in script.out
