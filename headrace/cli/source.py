"""``headrace source``: where events come from, and how fresh it is."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

import typer

from headrace.cli import output
from headrace.cli.options import AccountOption, JsonOption, StoreOption, TenantOption

source = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(source, name="source", help="Look at the mailboxes and calendars that events come from.")


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
    from headrace.cli.sources import listed, print_list

    with reading(store) as opened:
        found = listed(opened.tables, opened.intake, tenant, account)
    output.document(found) if as_json else print_list(found)
