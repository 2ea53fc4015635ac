"""``headrace dev``: everything in one process."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import JsonOption, StoreOption

HostOption = Annotated[
    str | None,
    typer.Option("--host", metavar="HOST", help="Address to listen on (HEADRACE_HOST).  [default: 127.0.0.1]"),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        "--port", min=0, max=65535, metavar="PORT", help="Port; 0 takes a free one (HEADRACE_PORT).  [default: 8416]"
    ),
]
CaldavOption = Annotated[
    str | None,
    typer.Option("--caldav", metavar="URL", help="Sync a calendar of this CalDAV server too: https://USER@HOST/..."),
]
CalendarOption = Annotated[
    str | None,
    typer.Option(
        "--calendar", metavar="NAME", help="Which of its calendars, by name or path.  [default: the URL's own]"
    ),
]
AccountOption = Annotated[
    str | None, typer.Option("--account", metavar="ACCOUNT", help="The account whose calendar it is.")
]
PasswordOption = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="The CalDAV password.  [default: HEADRACE_CALDAV_PASSWORD]",
        exists=True,
        dir_okay=False,
    ),
]
EveryOption = Annotated[
    float, typer.Option("--every", min=1, max=86400, metavar="SECONDS", help="How often to sync the calendar.")
]


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("dev")(dev)


def dev(
    *,
    store: StoreOption = None,
    host: HostOption = None,
    port: PortOption = None,
    caldav: CaldavOption = None,
    calendar: CalendarOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    every: EveryOption = 30,
    as_json: JsonOption = False,
) -> int:
    """Run everything in this process until Ctrl-C: the store, its fold, the HTTP API, and the webhook endpoint.

    The store is made if it is not there. Says on stderr what listens where and how to try it; with --json one object
    on stdout, once it answers.
    """
    from headrace.cli.developing import CalendarSync, run

    if caldav is None and (calendar or account or password_file):
        raise typer.BadParameter("--calendar, --account and --password-file go with --caldav", param_hint="--caldav")
    if caldav is not None and account is None:
        raise typer.BadParameter("say whose calendar it is with --account", param_hint="--caldav")
    sync = CalendarSync(caldav, calendar, account, password_file, every) if caldav and account else None
    return run(store, host, port, sync, as_json=as_json)
