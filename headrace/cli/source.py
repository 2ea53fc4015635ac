"""``headrace source``: where events come from, and how fresh it is."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import exits, output
from headrace.cli.options import AccountOption, JsonOption, StoreOption, TenantOption

source = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

WhoseOption = Annotated[str, typer.Option("--account", metavar="ACCOUNT", help="Whose it is.", show_default=False)]
OfOption = Annotated[str, typer.Option("--tenant", metavar="TENANT", help="The account's tenant.")]
NameArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="Its name, as `source ls` shows it.")]


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(source, name="source", help="Connect mailboxes and calendars, and see how fresh they are.")


@source.command("add")
def add(
    *,
    provider: Annotated[
        str, typer.Argument(metavar="PROVIDER", help="gmail, google_calendar, graph, imap, caldav, or a package's.")
    ],
    account: WhoseOption,
    tenant: OfOption = "local",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What finds it, as address=ann@example.com; repeat it. See docs/providers.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What to call it.  [default: the provider and a digest]"),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file",
            metavar="FILE",
            help="The password, where there is one.  [default: HEADRACE_SOURCE_PASSWORD]",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    paste: Annotated[
        bool,
        typer.Option("--paste", help="The browser is on another machine: read its answer here.", show_default=False),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Connect a source, or connect it again with another grant. `headrace dev`, or a worker, then syncs it.

    Where a person has to consent (Google, Microsoft, IMAP with auth=oauth) it prints an address to open in a browser of
    this machine, and waits ten minutes for the answer. With --paste the browser may be anywhere: the address that it
    is sent to in the end is read from standard input. What it is given is kept sealed, and shown nowhere.
    """
    from headrace.cli.connected import add as connect
    from headrace.cli.connecting import Wanted, parse_settings

    wanted = Wanted(provider, tenant, account, name, parse_settings(settings or []))
    done = connect(store, wanted, password_file, paste=paste)
    if as_json:
        output.document(done)
        return
    output.text(f"{done['source']} of {done['account']} is connected{'' if done['new'] else ' again'}")


@source.command("ls")
def list_(
    *,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """List sources with the time up to which each is known to be complete."""
    from headrace.cli.reading import reading
    from headrace.cli.sources import listed, never_begun, print_list

    with reading(store) as opened:
        found = listed(opened.tables, opened.intake, tenant, account)
        found += never_begun(opened, tenant, account, found)
    output.document(found) if as_json else print_list(found)


@source.command("sync")
def sync(
    *,
    name: NameArgument,
    account: WhoseOption,
    tenant: OfOption = "local",
    full: Annotated[bool, typer.Option("--full", help="Compare everything.", show_default=False)] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sync a source now: in the process that runs on the store, in the worker that has its account, or else here."""
    from headrace.cli.connected import sync as run
    from headrace.producers.schedule import SourceKey

    done = run(store, SourceKey(tenant, account, name), full=full)
    if as_json:
        output.document(done)
    elif done.get("asked"):
        output.text(f"{name} of {account}: the process that syncs it was asked")
    else:
        output.text(f"{name} of {account}: {done['events']} events{', compared in full' if done['compared'] else ''}")


@source.command("rm")
def rm(
    *,
    name: NameArgument,
    account: WhoseOption,
    tenant: OfOption = "local",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Disconnect a source: its provider notifies no more, and its grant is forgotten. What it brought stays."""
    from headrace.cli.connected import remove
    from headrace.producers.schedule import SourceKey

    done = remove(store, SourceKey(tenant, account, name))
    output.document(done) if as_json else output.text(f"{name} of {account} is no longer connected")


@source.command("doctor")
def doctor(*, store: StoreOption = None, as_json: JsonOption = False) -> int:
    """Look at every connected source: its settings, its grant, its watch, its freshness. Exits 1 if one ails."""
    from headrace.cli.connected import examined

    found = examined(store)
    if as_json:
        output.document([one._asdict() for one in found])
    elif not found:
        output.note("headrace: no sources are connected; `headrace source add` connects one")
    else:
        rows = ((one.source, one.check, one.said if one.fault is None else f"{one.said} {one.fault}") for one in found)
        output.table(("SOURCE", "CHECK", "SAID"), rows)
    return exits.ERROR if any(one.fault is not None for one in found) else exits.OK
