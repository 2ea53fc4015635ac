"""A Faust worker in this process, until a signal."""

import os
from pathlib import Path
from typing import NoReturn

import typer

from headrace.cli import output
from headrace.cli.reading import directory
from headrace.processors.worker import Worker, WorkerApp
from headrace.settings import load_settings
from headrace.worker_sources import worker_app

LEVELS = ("debug", "info", "warn", "error")


def run(store: Path | None, host: str | None, port: int | None, level: str, *, as_json: bool) -> NoReturn:
    """Work until SIGTERM or SIGINT; ends the process with its exit code (:mod:`headrace.processors.worker`).

    :raises BadInputError: the settings cannot be used.
    :raises UnavailableError: the database does not answer.
    """
    if level not in LEVELS:
        raise typer.BadParameter(f"say one of {', '.join(LEVELS)}", param_hint="--log-level")
    app = worker_app(load_settings(directory(store), host=host), port=port)
    app.announce = lambda url: _ready(url, app, as_json=as_json)
    app.finalize()
    Worker(app, loglevel=level, quiet=True).execute_from_commandline()


def _ready(url: str, app: WorkerApp, *, as_json: bool) -> None:
    parts = app.parts
    if as_json:
        output.line(
            {
                "url": url,
                "pid": os.getpid(),
                "log": str(parts.address),
                "verdicts": str(parts.verdicts),
                "group": parts.group,
                "delivery_group": parts.delivery_group,
            }
        )
    output.note(
        f"headrace folds its share of {parts.address} in the group {parts.group}\n"
        f"  metrics    {url}/metrics\n"
        f"  health     {url}/health/live, {url}/health/ready\n"
        "SIGTERM or Ctrl-C ends it; a second one at once."
    )
