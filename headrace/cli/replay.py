"""``headrace replay``: the log folded again, aside, up to a position; or to its end, into the live tables' place."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from pathlib import Path
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
        Place | None,
        typer.Option(
            "--at", parser=parse_place, metavar="POSITION", help="Up to and with PARTITION:OFFSET, or a token."
        ),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Instead: build new tables and put them in place.", show_default=False),
    ] = False,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="With --rebuild: keep the old tables aside.", show_default=False)
    ] = False,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    kind: KindOption = None,
    content: ContentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fold a partition again, aside, up to a position, and print its entities as they were then.

    The store's tables are neither used nor changed: what is printed comes from the log alone.

    With --rebuild fold the whole log into new tables beside the live ones, and put them in their place at once, while
    queries and the fold go on. The delivery journal stays; so do rights on the tables.
    """
    if rebuild:
        if at is not None or (tenant, account, kind) != (None, None, None) or content:
            raise typer.BadParameter(
                "it folds the whole log: only --store, --keep-old and --json go with it", param_hint="--rebuild"
            )
        _rebuild(store, keep_old=keep_old, as_json=as_json)
        return
    if keep_old:
        raise typer.BadParameter("it goes with --rebuild", param_hint="--keep-old")
    if at is None:
        raise typer.BadParameter("say up to which POSITION, or --rebuild the tables", param_hint="--at")
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


def _rebuild(store: Path | None, *, keep_old: bool, as_json: bool) -> None:
    from headrace.cli.rebuilding import rebuild

    done = rebuild(store, keep_old=keep_old)
    if as_json:
        output.document(done)
        return
    output.text(f"{done['tables']}: built anew from {done['records']} records, and in place")
    if done["old"] is not None:
        output.text(f"the old ones are kept in {done['old']}")
