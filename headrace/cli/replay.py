"""``headrace replay``: the log folded again, aside, up to a position."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from typing import Annotated

import typer

from headrace.cli import output
from headrace.cli.options import (
    AccountOption,
    ContentOption,
    JsonOption,
    KindOption,
    Place,
    StoreOption,
    TenantOption,
    parse_place,
)


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("replay")(replay)


def replay(
    *,
    at: Annotated[
        Place,
        typer.Option(
            "--at", parser=parse_place, metavar="POSITION", help="Up to and with PARTITION:OFFSET, or a token."
        ),
    ],
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    kind: KindOption = None,
    content: ContentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fold a partition again, aside, up to a position, and print its entities as they were then.

    The store's tables are neither used nor changed: what is printed comes from the log alone.
    """
    from headrace.cli.entities import EntityView, folded_to, print_list
    from headrace.cli.reading import reading

    with reading(store) as opened, folded_to(opened, at) as tables:
        found = EntityView(opened, tables, content=content).list(kind, tenant, account, None)
    position = f"{at.position.partition}:{at.position.offset}"
    if as_json:
        output.document({"position": position, "entities": found})
    else:
        output.text(f"as folded up to {position}")
        print_list(found)
