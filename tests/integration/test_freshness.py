"""How far behind sources are: in the API, in metrics, in ``headrace source ls``; and sources that are removed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from headrace import providers
from headrace.cli.sources import listed, never_begun, print_list
from headrace.errors import UnavailableError
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef
from headrace.settings import load_settings
from headrace.sourcing import setups_of
from tests.integration.live_desk import Gate, LiveDesk, serving

SYNC: Final = ActorRef("system", "sync")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LiveDesk]:
    with serving(tmp_path / "store", policy=DEFAULT_POLICY) as made:
        yield made


def say(desk: LiveDesk, account: str, source: str, type_: str, sync: str | None = None, **body: Any) -> None:
    said = body | ({"sync": sync} if sync is not None else {})
    envelope = Envelope(f"{type_}-{sync}", source, type_, SYNC)
    desk.put(desk.store.intake.record(desk.tenant, account, envelope, said))


def start(desk: LiveDesk, account: str, source: str, sync: str = "s1", *feeds: str) -> None:
    say(desk, account, source, "source.sync_started", sync, full=False, feeds=list(feeds))


def end(desk: LiveDesk, account: str, source: str, sync: str = "s1") -> None:
    say(desk, account, source, "source.synced", sync, cursor="c")


def sources(desk: LiveDesk, account: str) -> dict[str, Any]:
    found: dict[str, Any] = desk.http.get(f"/v1/accounts/{account}/sources").json()
    return found


def watermark(desk: LiveDesk, account: str) -> int | None:
    (found,) = [one for one in desk.http.get("/v1/accounts").json()["accounts"] if one["account"] == account]
    complete: int | None = found["complete_up_to"]
    assert complete == sources(desk, account)["complete_up_to"]
    return complete


def test_an_account_is_as_complete_as_the_source_that_is_furthest_behind(desk: LiveDesk) -> None:
    desk.thread("ann")
    assert watermark(desk, "ann") is None, "nothing says that this is all there is"
    start(desk, "ann", "imap/1")
    end(desk, "ann", "imap/1")
    (mail,) = sources(desk, "ann")["sources"]
    assert watermark(desk, "ann") == mail["fresh_at"]
    say(desk, "ann", "caldav/1", "source.notified", delivery=None, content=None)
    assert watermark(desk, "ann") is None, "a calendar was never synced"
    start(desk, "ann", "caldav/1")
    end(desk, "ann", "caldav/1")
    assert watermark(desk, "ann") == mail["fresh_at"], "the calendar is complete up to later"
    assert sources(desk, "ann")["max_staleness_ms"] == 15 * 60 * 1_000


def test_a_source_says_how_far_behind_it_is_and_whether_that_is_too_far(tmp_path: Path) -> None:
    bound = Policy("quick", DEFAULT_POLICY.rules, source_max_staleness_ms=1)
    with serving(tmp_path / "store", policy=bound) as desk:
        start(desk, "ann", "imap/1", "s1", "mail.thread")
        end(desk, "ann", "imap/1")
        basis = desk.thread("ann")["basis"]
        (mail,) = sources(desk, "ann")["sources"]
        assert mail["stale"] is True
        assert mail["lag_ms"] >= mail["staleness_ms"] > 1
        assert desk.propose("ann", "p1", basis).json()["verdict"] == "held", "as it was told"
        assert figures(desk)["headrace_proposals_held"] == 1.0


def figures(desk: LiveDesk) -> dict[str, float]:
    text = desk.http.get("/metrics").text
    found = re.findall(r"^(headrace_(?:freshness|proposals)_\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_metrics_tell_by_provider_and_name_nobody(desk: LiveDesk) -> None:
    start(desk, "ann", "imap/1")
    end(desk, "ann", "imap/1")
    start(desk, "ann", "google_calendar/ann-smith")
    say(desk, "bob", "gmail/1", "source.notified", delivery=None, content=None)
    start(desk, "bob", "bobs-own-name")
    end(desk, "bob", "bobs-own-name")
    text = desk.http.get("/metrics").text
    assert not re.search(r"ann|bob|smith", text)
    found = figures(desk)
    assert 0 <= found.pop('headrace_freshness_lag_seconds{provider="imap"}') < 60
    assert 0 <= found.pop('headrace_freshness_lag_seconds{provider="other"}') < 60

    def of(name: str) -> dict[str, float]:
        return {
            provider: found[f'headrace_freshness_{name}{{provider="{provider}"}}']
            for provider in ("gmail", "google_calendar", "imap", "other")
        }

    assert of("sources") == {"gmail": 1, "google_calendar": 1, "imap": 1, "other": 1}
    assert of("never") == of("stale") == {"gmail": 1, "google_calendar": 1, "imap": 0, "other": 0}
    assert of("waiting") == {"gmail": 1, "google_calendar": 0, "imap": 0, "other": 0}
    assert found["headrace_proposals_held"] == 0
    assert len(found) == 4 * 4 + 1, found


def test_every_provider_is_told_apart(tmp_path: Path) -> None:
    assert set(setups_of(load_settings(tmp_path))) <= set(providers.names())


def test_the_list_of_sources_reads_well(desk: LiveDesk, capsys: pytest.CaptureFixture[str]) -> None:
    start(desk, "ann", "imap/1", "s1", "mail.thread")
    end(desk, "ann", "imap/1")
    start(desk, "ann", "caldav/1", "s1", "calendar.event")
    found = listed(desk.store.tables, desk.store.intake, None, "ann")
    assert [(one["source"], one["stale"], one["state"]) for one in found] == [
        ("caldav/1", True, "syncing"),
        ("imap/1", False, "idle"),
    ]
    assert found[0]["lag_seconds"] is None
    assert 0 <= found[1]["lag_seconds"] < 60
    print_list([*found, {**found[1], "lag_seconds": 7_300.0}, {**found[1], "lag_seconds": 400.0}])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert re.split(r"\s{2,}", lines[0])[4] == "LAG"
    assert re.split(r"\s{2,}", lines[1])[3:5] == ["never", "-"]
    assert lines[1].endswith("syncing, stale")
    assert [re.split(r"\s{2,}", line)[4] for line in lines[3:]] == ["2 h", "7 min"]
    assert "held until it was synced" in said.err


def test_one_that_is_connected_and_was_never_synced_is_listed_too(
    desk: LiveDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    start(desk, "ann", "scripted/begun")
    for account, source in (("ann", "begun"), ("ann", "new"), ("bob", "new")):
        desk.connect(account, source)

    def shown(account: str | None = None) -> list[tuple[str, str, str]]:
        found = listed(desk.store.tables, desk.store.intake, None, account)
        found += never_begun(desk.store, None, account, found)
        print_list(found)
        return [(one["account"], one["source"], one["state"]) for one in found]

    assert shown() == [
        ("ann", "scripted/begun", "syncing"),
        ("ann", "scripted/new", "never synced"),
        ("bob", "scripted/new", "never synced"),
    ]
    assert shown("bob") == [("bob", "scripted/new", "never synced")]
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.split(r"\s{2,}", last)[1:] == ["local/bob", "-", "never", "-", "-", "never synced, stale"]


def test_a_source_that_was_removed_holds_nothing_up(tmp_path: Path) -> None:
    """Otherwise whatever it fed would be held for ever: no sync of it ever comes."""
    with serving(tmp_path / "store") as desk:
        basis = desk.thread("ann")["basis"]
        left, kept = desk.connect("ann", "left"), desk.connect("ann", "kept")
        gate = Gate()
        with desk.host():
            desk.synced("ann", "left")
            desk.synced("ann", "kept")
            desk.provider.does["ann", "left"] = gate
            assert desk.propose("ann", "p1", basis).json()["verdict"] == "held"
            desk.provider.until(lambda: desk.provider.fetched("ann", "left") == 2)
            assert desk.verdict("ann", "p1") == "held"
            desk.store.connections.remove(left)
            desk.judged("ann", "p1", "accepted")
            gate.let(desk.archived())
            by_name = {one["source"]: one for one in sources(desk, "ann")["sources"]}
            assert (by_name[left.source]["feeds"], by_name[left.source]["stale"]) == (["-"], False)
            assert by_name[kept.source]["feeds"] == ["mail.thread"]
            assert watermark(desk, "ann") == by_name[kept.source]["fresh_at"]
            shown = {one["source"]: one for one in listed(desk.store.tables, desk.store.intake, None, "ann")}
            assert shown[left.source]["state"] == "removed"
            assert figures(desk)['headrace_freshness_sources{provider="other"}'] == 1
            desk.until("ann", lambda: desk.store.connections.gone() == [])
            desk.provider.does.pop(("ann", "left"))
            desk.connect("ann", "left")
            desk.until("ann", lambda: sources(desk, "ann")["sources"][1]["feeds"] == ["mail.thread"])
        assert "applied" not in desk.became("ann", "mail.archived"), "what was under way is ineffective"


def test_a_removal_while_nothing_runs_is_said_by_who_runs_next(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as desk:
        basis = desk.thread("ann")["basis"]
        left = desk.connect("ann")
        with desk.host():
            desk.synced("ann")
        desk.store.connections.remove(left)
        assert desk.propose("ann", "p1", basis).json()["verdict"] == "held"
        with desk.host():
            desk.judged("ann", "p1", "accepted")


def test_the_other_figures_are_told_while_the_tables_do_not_answer(
    desk: LiveDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> NoReturn:
        raise UnavailableError("the database is away")

    monkeypatch.setattr(desk.store.tables, "snapshot", away)
    answer = desk.http.get("/metrics")
    assert answer.status_code == 200
    assert "headrace_fold_lag_records 0.0" in answer.text
