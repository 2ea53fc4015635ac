"""``headrace demo``."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import JsonOption


class On(StrEnum):
    """What the races are played on."""

    EMBEDDED = "embedded"
    KAFKA = "kafka"


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
    on: Annotated[
        On,
        typer.Option(
            "--on",
            help="embedded: in a directory. kafka: in a topic and a schema of its own, removed at the end, on the Kafka"
            " and the PostgreSQL that HEADRACE_LOG_URL and HEADRACE_DB_URL name.",
        ),
    ] = On.EMBEDDED,
    as_json: JsonOption = False,
) -> int:
    """Watch stale agent output being refused: a real CalDAV server, signed webhooks, and three races."""
    from headrace.demo.run import run_demo

    return run_demo(store=store, as_json=as_json, on_kafka=on is On.KAFKA)
