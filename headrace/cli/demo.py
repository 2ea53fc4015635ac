"""``headrace demo``."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("demo")(demo)


def demo(
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            envvar="HEADRACE_STORE",
            metavar="DIR",
            file_okay=False,
            help="Keep the store here, to look at it afterwards.  [default: a temporary one, removed at the end]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Watch stale agent output being refused: a real CalDAV server, signed webhooks, and three races."""
    from headrace.demo.run import run_demo

    return run_demo(store=store, as_json=as_json)
