"""The command line's small parts: what is printed how, and what is read how."""

import io
import json
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli import output
from headrace.cli.developing import CalendarSync, calendar_of
from headrace.cli.options import Place, parse_place
from headrace.cli.proposals import why
from headrace.cli.proposing import parse_read
from headrace.cli.sending import read_events
from headrace.cli.watching import Event, events
from headrace.errors import BadInputError
from headrace.processors.core.verdicts import ROWS
from headrace.schemas.refs import Position, Token

TOKEN = Token(b"0123456789abcdef", 17, 42, b"checksum")


@given(st.text())
def test_printed_text_is_printable_and_says_the_same(text: str) -> None:
    shown = output.plain(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 王", "Grüße, 王"),
        ("\x1b[2J", "\\u001b[2J"),
        ("a\nb\tc", "a\\u000ab\\u0009c"),
        ("\u202eabc", "\\u202eabc"),
        ("\x9b31m", "\\u009b31m"),
        (None, "-"),
        (7, "7"),
    ],
)
def test_what_would_move_a_cursor_is_escaped(text: object, shown: str) -> None:
    assert output.plain(text) == shown


def test_a_piped_table_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "WIDE", "LAST"), [("x", "王王", "y" * 500), ("xyz", None, "")], indent=2)
    assert capsys.readouterr().out.splitlines() == [
        "  A    WIDE  LAST",
        f"  x    王王  {'y' * 500}",
        "  xyz  -",
    ]


def test_json_of_a_pipe_is_one_line_and_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "Grüße \x1b \u2028", "list": [1, None]}
    output.document(value)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "Grüße" in printed
    assert json.loads(printed) == value


def test_places_are_positions_or_tokens() -> None:
    assert parse_place("17:42") == Place(Position(17, 42), None)
    assert parse_place(TOKEN.encode()) == Place(Position(17, 42), TOKEN)
    for wrong in ("", "17", "17:", ":1", "-1:2", "1:2:3", "１:2", TOKEN.encode()[:-1], "9999999999:1"):
        with pytest.raises(typer.BadParameter, match="write PARTITION:OFFSET"):
            parse_place(wrong)


def test_reads_are_entities_absences_and_scopes() -> None:
    token = TOKEN.encode()
    entity = {"what": "entity", "kind": "mail.thread", "id": "t-1", "basis": token}
    assert parse_read(f"mail.thread/t-1@{token}") == entity
    assert parse_read(f"absent:mail.thread/t-1@{token}") == entity | {"what": "absent"}
    whole = {"what": "scope", "kind": "calendar", "id": "ann@x/Work [old]", "basis": token, "start": None, "end": None}
    assert parse_read(f"scope:calendar/ann@x/Work [old]@{token}") == whole
    hour = parse_read(f"scope:calendar/ann@x/Work [old][2026-11-21T10:00Z,]@{token}")
    assert hour == whole | {"start": "2026-11-21T10:00:00.000Z"}


def test_every_verdict_has_its_words() -> None:
    event = {"effect": "mail.sent", "type": "mail.sent", "id": "e", "actor": "user/ann", "offset": 3, "time": 0}
    findings: dict[str, dict[str, object]] = {
        "malformed": {"reason": "no"},
        "duplicate": {"first": 3},
        "conflicting_id": {"first": 3},
        "unknown_basis": {"reason": "the basis is no token", "read": {}},
        "expired": {"reason": "basis_age", "age_ms": 9000, "bound_ms": 3000, "read": {}},
        "superseded": {"event": event},
        "claimed": {"holder": "bot", "claim": "c", "until": 0},
        "rejected": {"rule": "already_replied"},
        "needs_review": {"event": event},
        "held": {"source": "caldav/work", "staleness_ms": None, "bound_ms": 1},
        "accepted": {},
    }
    assert findings.keys() == ROWS.keys()
    told = {verdict: why(verdict, finding) for verdict, finding in findings.items()}
    assert told["superseded"] == "overtaken by mail.sent of user/ann at offset 3, 1970-01-01T00:00:00.000Z"
    assert told["expired"] == "its basis was 9 s old, the policy allows 3"
    assert why("expired", {"reason": "expires_at", "expires_at": 0}) == "it expired at 1970-01-01T00:00:00.000Z"
    accepted = event | {"effect": "accepted:mail.reply", "type": "proposal.submitted", "id": "p-1"}
    assert why("superseded", {"event": accepted}).startswith("overtaken by accepted mail.reply p-1 of user/ann")
    assert all(told.values())


def test_server_sent_events_are_read_as_the_standard_says() -> None:
    lines = [
        ": a comment",
        "",
        "event: record",
        "id: 7",
        "data: one",
        "data:two",
        "retry: 10",
        "",
        "data: alone",
        "",
        "id: 8",
        "",
        "data: cut off",
    ]
    assert list(events(lines)) == [Event("record", "7", "one\ntwo"), Event("message", "", "alone")]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('{"id": 1}', [1]),
        ('{\n "id": 1\n}\n', [1]),
        ('[{"id": 1}, {"id": 2}]', [1, 2]),
        ('{"id": 1}\n\n{"id": 2}\n', [1, 2]),
    ],
)
def test_events_are_one_an_array_or_one_a_line(
    text: str, ids: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "events.json"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    for given_file in (file, Path("-"), None):
        sys.stdin.seek(0)
        assert [event["id"] for event in read_events(given_file)] == ids


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("[]", "the array is empty"),
        ("[1]", "event 1 is no JSON object"),
        ('"x"', "event 1 is no JSON object"),
        ('{"id": 1}\n{"id"\n', "line 2 is not JSON"),
    ],
)
def test_what_is_no_event_is_told(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "events.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=told):
        read_events(file)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        read_events(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_events(tmp_path / "latin")


def test_a_calendars_address_names_its_user_and_keeps_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADRACE_CALDAV_PASSWORD", "from-environment")
    file = tmp_path / "password"
    file.write_text(" from-file \n", encoding="utf-8")
    sync = CalendarSync("https://ann%40x.example@dav.example:8443/ann/work/", None, "ann", None, 30)
    found = calendar_of(sync)
    assert (found.url, found.username, found.calendar) == (
        "https://dav.example:8443/ann/work/",
        "ann@x.example",
        "/ann/work/",
    )
    assert found.password == "from-environment"
    assert calendar_of(sync._replace(password_file=file)).password == " from-file "
    assert calendar_of(sync._replace(calendar="Work")).source != found.source
    assert "ann@x.example" not in found.source
    for wrong in ("https://dav.example/", "ftp://ann@dav.example/", "dav.example"):
        with pytest.raises(BadInputError, match="the user's name in it"):
            calendar_of(sync._replace(url=wrong))
