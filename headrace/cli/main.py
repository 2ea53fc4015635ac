"""The command line: ``headrace …``.

``--help`` of every command answers at once: the modules of this package import nothing heavy at their top; a command
imports what it needs when it runs.
"""

import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from headrace.cli import (
    audit,
    demo,
    dev,
    entity,
    exits,
    key,
    listen,
    log,
    migrate,
    output,
    policy,
    proposal,
    propose,
    replay,
    send,
    serve,
    source,
    watch,
    worker,
)
from headrace.errors import HeadraceError

HELP: Final = ("-h", "--help")

app = typer.Typer(
    name="headrace",
    help="The store where an AI agent's output never lands on a world that has moved on.",
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 stale, 5 unavailable, 6 mismatch.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": list(HELP)},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 - rarely asked

        sys.stdout.write(f"headrace {version('headrace')}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[  # its callback answers
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.", show_default=False)
    ] = False,
    debug: Annotated[  # `told` looks at the command line: errors come where no context is left
        bool,
        typer.Option("--debug", envvar="HEADRACE_DEBUG", help="Print the traceback of an error.", show_default=False),
    ] = False,
) -> None:
    """The store where an AI agent's output never lands on a world that has moved on."""


for module in (
    demo,
    dev,
    serve,
    worker,
    migrate,
    send,
    propose,
    watch,
    listen,
    log,
    entity,
    proposal,
    audit,
    replay,
    source,
    policy,
    key,
):
    module.register(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Never raises, and never shows a traceback unasked."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(given)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer answers a broken pipe with exit code 1
            return _reader_gone()
        raise
    return code


def _reader_gone() -> int:
    """Whoever read has enough: no error. What the interpreter flushes at its end goes into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return exits.OK


def _help(given: Sequence[str]) -> str | None:
    """The help that a command line asks for, where it asks for nothing else.

    Typer would coerce every option first, those that are not given too, and import pydantic for that: 0.2 s.
    """
    if not given or given[-1] not in HELP:
        return None
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="headrace", help_option_names=list(HELP))
    for word in given[:-1]:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            return None
        context = typer.Context(command, info_name=word, parent=context)
    return str(command.get_help(context))


def _invoke(given: list[str]) -> int:
    try:
        asked = _help(given)
        if asked is not None:
            sys.stdout.write(f"{asked}\n")
            return exits.OK
        result = typer.main.get_command(app).main(given, prog_name="headrace", standalone_mode=False)
    except BrokenPipeError:
        raise
    except (typer.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last door: what is a bug is told as one
        return told(error, given)
    return result if isinstance(result, int) else exits.OK


def told(error: Exception, given: Sequence[str]) -> int:
    """Say on stderr, in one line, what went wrong with the command line ``given``; returns the exit code.

    With ``--json`` the line is an object ``{"error": {"type", "message", "exit_code"}}``. A bug's traceback goes to a
    file, and like any other error's to stderr with ``--debug`` or ``HEADRACE_DEBUG``.
    """
    as_json = "--json" in given
    debug = "--debug" in given or os.environ.get("HEADRACE_DEBUG", "0").lower() not in ("", "0", "false", "no")
    if isinstance(error, typer.TyperException):
        return _usage(error, given, as_json=as_json)
    if debug:
        traceback.print_exception(error)
    if isinstance(error, HeadraceError):
        return _fail(str(error), type(error).__name__, exits.of_error(error), as_json=as_json)
    where = "see the traceback above" if debug else f"the traceback is in {_kept(error)}; please report it"
    return _fail(f"this is a bug in headrace: {error!r}; {where}", "Bug", exits.ERROR, as_json=as_json)


def _kept(error: Exception) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="headrace-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    return file.name


def _command_in(given: Sequence[str]) -> str:
    """The command that a command line begins with, as far as it names one."""
    words, found = ["headrace"], typer.main.get_command(app)
    for word in given:
        inner = getattr(found, "commands", {}).get(word)
        if inner is None:
            break
        words.append(word)
        found = inner
    return " ".join(words)


def _usage(error: typer.TyperException, given: Sequence[str], *, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else _command_in(given)
    message = error.format_message().strip() or "nothing to do"
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n")
        return exits.USAGE
    sentence = message[0].lower() + message[1:].rstrip(".")
    return _fail(f"{sentence}; see `{command} --help`", "UsageError", exits.USAGE, as_json=as_json)


def _fail(message: str, kind: str, code: int, *, as_json: bool) -> int:
    sys.stdout.flush()
    message = output.plain(" ".join(message.split()))
    if as_json:
        error = {"error": {"type": kind, "message": message, "exit_code": code}}
        sys.stderr.write(json.dumps(error, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"headrace: {message}\n")
    return code
