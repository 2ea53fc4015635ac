"""``headrace entity``: current state, and state as it was."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

import typer

from headrace.cli import output
from headrace.cli.options import (
    AccountOption,
    ContentOption,
    EntityArgument,
    JsonOption,
    KindOption,
    LimitOption,
    PlaceOption,
    StoreOption,
    TenantOption,
)

entity = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(entity, name="entity", help="Look at entities: their state, their head, what is under way.")


@entity.command("ls")
def list_(
    *,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    kind: KindOption = None,
    content: ContentOption = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List entities; those that changed last come first."""
    from headrace.cli.entities import EntityView, print_list
    from headrace.cli.reading import reading

    with reading(store) as opened:
        found = EntityView(opened, opened.tables, content=content).list(kind, tenant, account, limit + 1)
    output.document(found[:limit]) if as_json else print_list(found[:limit])
    if len(found) > limit:
        output.note("headrace: there are more; raise --limit, or choose with --kind and --account")


@entity.command("show")
def show(
    *,
    entity: EntityArgument,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    at: PlaceOption = None,
    content: ContentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show one entity: state, basis token, head and open intents, now or --at a position."""
    from headrace.cli.entities import EntityView, folded_to, print_one
    from headrace.cli.reading import reading

    with reading(store) as opened, folded_to(opened, at) as tables:
        found = EntityView(opened, tables, content=content).one(entity, tenant, account)
    output.document(found) if as_json else print_one(found)
