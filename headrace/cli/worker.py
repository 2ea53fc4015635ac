"""``headrace worker``: folds a share of a log in Kafka into PostgreSQL, and syncs the sources of its accounts."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from typing import Annotated

import typer

from headrace.cli.options import JsonOption, StoreOption

HostOption = Annotated[
    str | None,
    typer.Option(
        "--host", metavar="HOST", help="Address for metrics and health (HEADRACE_HOST).  [default: 127.0.0.1]"
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65535,
        metavar="PORT",
        help="Port for metrics and health; 0 takes a free one (HEADRACE_WORKER_PORT).  [default: 8417]",
    ),
]
LevelOption = Annotated[
    str, typer.Option("--log-level", metavar="LEVEL", help="How much to say on stderr: debug, info, warn, error.")
]


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("worker")(worker)


def worker(
    *,
    store: StoreOption = None,
    host: HostOption = None,
    port: PortOption = None,
    log_level: LevelOption = "info",
    as_json: JsonOption = False,
) -> None:
    """Fold a share of the log in Kafka into PostgreSQL until SIGTERM or Ctrl-C, and publish the verdicts.

    It also syncs the connected sources of the accounts that it folds, where it has the log's master key.

    Start as many as there is work for: those of the same tables share the log's partitions among themselves. Where the
    log and the tables are: HEADRACE_LOG_URL and HEADRACE_DB_URL, or headrace.toml. Answers /metrics, /health/live and
    /health/ready over HTTP.
    """
    from headrace.cli.working import run

    run(store, host, port, log_level, as_json=as_json)
