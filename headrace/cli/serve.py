"""``headrace serve``: the HTTP API and the webhook endpoint, on a log that others fold."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

import typer

from headrace.cli.dev import HostOption, PortOption
from headrace.cli.options import JsonOption, StoreOption


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("serve")(serve)


def serve(
    *, store: StoreOption = None, host: HostOption = None, port: PortOption = None, as_json: JsonOption = False
) -> int:
    """Run the HTTP API and the webhook endpoint until Ctrl-C, on a log in Kafka and tables in PostgreSQL.

    Any number of these may run. Who folds is `headrace worker`; who makes the log and the tables, once, `headrace log
    create` and `headrace migrate`. Where they are: HEADRACE_LOG_URL and HEADRACE_DB_URL, or headrace.toml.
    """
    from headrace.cli.developing import run

    return run(store, host, port, None, as_json=as_json, fold=False)
