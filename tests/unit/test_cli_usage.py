"""The command line's frame: usage errors, help, exit codes, and what an error looks like."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from headrace import errors
from headrace.api import server
from headrace.cli import exits, main, reading
from headrace.cli.main import app, run

HEAVY = (
    "anyio",
    "apsw",
    "caldav",
    "cryptography",
    "fastapi",
    "fastavro",
    "httpx",
    "icalendar",
    "pydantic",
    "rich",
    "starlette",
    "uvicorn",
    "headrace.api",
    "headrace.store",
    "headrace.processors",
    "headrace.projections",
    "headrace.settings",
)


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command's words, groups included."""
    inner: dict[str, Any] = getattr(group, "commands", {})
    return [path, *(found for name, one in inner.items() for found in commands(one, (*path, name)))]


ALL = commands(typer.main.get_command(app))


def test_every_command_is_there() -> None:
    words = {" ".join(path) for path in ALL}
    assert words >= {
        *("demo", "dev", "send", "propose", "watch", "replay", "log ls", "log show", "log tail", "entity ls"),
        *("entity show", "proposal ls", "proposal show", "proposal approve", "proposal dismiss", "proposal withdraw"),
        *("audit explain", "audit verify", "source ls", "key add", "key ls", "key rm"),
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_of_every_command_says_what_it_does(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == exits.OK
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(f"Usage: headrace{''.join(f' {word}' for word in path)}")
    assert len(printed.out.splitlines()) > 5


def test_help_is_the_same_however_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    printed: set[str] = set()
    for line in (["log", "ls", "--help"], ["log", "ls", "-h"], ["log", "ls", "--limit", "3", "--help"]):
        assert run(line) == exits.OK
        printed.add(capsys.readouterr().out)
    assert len(printed) == 1


def test_no_help_imports_anything_heavy() -> None:
    program = (
        "import sys; from headrace.cli.main import run\n"
        f"for path in {[list(path) for path in ALL]!r}: run([*path, '--help'])\n"
        "print('\\nLOADED', *sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.rpartition("LOADED")[2].split())
    assert "headrace.cli.main" in loaded
    assert not loaded.intersection(HEAVY)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["nope"], "no such command 'nope'; see `headrace --help`"),
        (["log", "nope"], "no such command 'nope'; see `headrace log --help`"),
        (["--nope"], "no such option: --nope; see `headrace --help`"),
        (["log", "ls", "--nope"], "no such option: --nope"),
        (["log", "show"], "missing argument 'POSITION'; see `headrace log show --help`"),
        (["log", "show", "1x"], "'1x' is no position: write PARTITION:OFFSET (as 17:42) or a token"),
        (["log", "show", "1:2", "3:4"], "unexpected extra argument"),
        (["log", "ls", "--limit", "0"], "'--limit': Input should be greater than or equal to 1"),
        (["log", "ls", "--partition", "-1"], "Input should be greater than or equal to 0"),
        (["log", "ls", "--after", "abc"], "'abc' is no position"),
        (["entity", "show", "t-17"], "'t-17' names no entity: write it kind/id"),
        (["entity", "show", "mail.thread/a@b"], "is not an opaque id"),
        (["entity", "show", "mail.thread/t", "--at", "1"], "'1' is no position"),
        (["replay"], "--at: say up to which POSITION, or --rebuild the tables; see `headrace replay --help`"),
        (["replay", "--at", "1:2", "--rebuild"], "--rebuild: it folds the whole log"),
        (["replay", "--at", "1:2", "--keep-old"], "--keep-old: it goes with --rebuild"),
        (["log", "copy", "--to", "sqlite:x"], "--from: say which log to copy, or --discard"),
        (["log", "copy", "--from", "sqlite:x"], "missing option '--to'"),
        (["log", "copy", "--from", "sqlite:x", "--to", "sqlite:y", "--discard"], "only that goes with it"),
        (["watch"], "missing option '--account'"),
        (["send", "--subject", "mail.thread/t-1"], "need --type too"),
        (["send", "--type", "mail.sent"], "needs --subject and --account too"),
        (["send", "x.json", "--type", "mail.sent"], "not both"),
        (["send", "--secret-file", "/no/such/file"], "does not exist"),
        (["propose", "--basis", "x"], "need --type too"),
        (["propose", "--basis"], "requires an argument; see `headrace propose --help`"),
        (["propose", "--type", "mail.reply", "--subject", "mail.thread/t"], "needs --subject, --account and --basis"),
        (["propose", "--wait", "31"], "Input should be less than or equal to 30"),
        (["propose", "--concerns", "ann"], "'ann' is no concern: write WHAT:VALUE"),
        (["send", "--concerns", "a:1,b:2"], "'a:1,b:2' is no concern"),
        (["dev", "--port", "70000"], "Input should be less than or equal to 65535"),
        (["dev", "--calendar", "Work"], "go with --caldav"),
        (["dev", "--caldav", "https://ann@dav.example/"], "say whose calendar it is with --account"),
        (["key", "add"], "missing argument 'NAME'"),
        (["audit", "verify", "--limit", "x"], "Input should be a valid integer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line_on_stderr(
    line: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line) == exits.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.startswith("headrace: ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("path", [path for path in ALL if path in ((), ("log",), ("proposal",))], ids=" ".join)
def test_a_bare_group_shows_its_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path) == exits.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Usage: headrace")


def test_with_json_a_usage_error_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "ls", "--json", "--limit", "0"]) == exits.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    error = json.loads(printed.err)["error"]
    assert error["type"] == "UsageError"
    assert error["exit_code"] == exits.USAGE


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == exits.OK
    assert capsys.readouterr().out.startswith("headrace 0.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadInputError("x"), exits.ERROR),
        (errors.UndecodableError("x"), exits.ERROR),
        (errors.LogClosedError("x"), exits.ERROR),
        (errors.FencedError("x"), exits.ERROR),
        (errors.HaltError("x"), exits.ERROR),
        (errors.UnsupportedFoldError("x"), exits.ERROR),
        (errors.NotFoundError("x"), exits.NOT_FOUND),
        (exits.StaleError("x"), exits.STALE),
        (errors.UnavailableError("x"), exits.UNAVAILABLE),
        (errors.AppendUnknownError("x"), exits.UNAVAILABLE),
        (errors.WriterLockedError("x"), exits.UNAVAILABLE),
        (errors.LogMismatchError("x"), exits.MISMATCH),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes_of_errors(error: errors.HeadraceError, code: int) -> None:
    assert exits.of_error(error) == code


def test_only_an_accepted_proposal_lets_a_script_go_on() -> None:
    assert exits.of_verdict("accepted") == exits.OK
    for verdict in ("superseded", "expired", "needs_review", "held", "claimed", "malformed"):
        assert exits.of_verdict(verdict) == exits.STALE
    assert sorted(exits.MEANINGS) == [0, 1, 2, 3, 4, 5, 6, 130]


@pytest.mark.parametrize("as_json", [False, True])
def test_our_errors_are_one_line_and_no_traceback(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["log", "ls", *(["--json"] if as_json else [])]
    error = errors.NotFoundError("no such\nthing \x1b[31m; look elsewhere")
    assert main.told(error, line) == exits.NOT_FOUND
    printed = capsys.readouterr()
    assert printed.out == ""
    told = "no such thing \\u001b[31m; look elsewhere"
    if as_json:
        said = {"type": "NotFoundError", "message": told, "exit_code": 3}
        assert json.loads(printed.err) == {"error": said}
    else:
        assert printed.err == f"headrace: {told}\n"


def raised(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_a_bug_is_one_line_and_its_traceback_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main.told(raised(ZeroDivisionError("a / 0")), ["log", "ls"]) == exits.ERROR
    printed = capsys.readouterr()
    assert printed.err.startswith(
        "headrace: this is a bug in headrace: ZeroDivisionError('a / 0'); the traceback is in "
    )
    (kept,) = tmp_path.iterdir()
    assert str(kept) in printed.err
    assert kept.read_text(encoding="utf-8").startswith("Traceback (most recent call last):")


def test_debug_prints_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.told(raised(errors.UnavailableError("try again")), ["--debug", "log", "ls"]) == exits.UNAVAILABLE
    printed = capsys.readouterr()
    assert "Traceback (most recent call last):" in printed.err
    assert printed.err.endswith("headrace: try again\n")


def test_the_server_file_is_the_servers() -> None:
    assert reading.SERVER_FILE == server.SERVER_FILE
