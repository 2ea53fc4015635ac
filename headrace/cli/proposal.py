"""``headrace proposal``: what agents proposed, what the log says of it, and answering what waits."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from typing import Annotated

import typer

from headrace.cli import output
from headrace.cli.options import AccountOption, JsonOption, LimitOption, StoreOption, TenantOption

proposal = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The proposal's id.")]


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(proposal, name="proposal", help="Look at proposals and their verdicts; answer those that wait.")


@proposal.command("ls")
def list_(
    *,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    verdict: Annotated[
        str | None, typer.Option("--verdict", metavar="VERDICT", help="Only with this verdict, as superseded.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List proposals; those judged last come first."""
    from headrace.cli import proposals
    from headrace.cli.reading import reading
    from headrace.errors import BadInputError
    from headrace.processors.core.verdicts import ROWS

    if verdict is not None and verdict not in ROWS:
        raise BadInputError(f"there is no verdict {verdict!r}; there are {', '.join(ROWS)}")
    with reading(store) as opened:
        found = proposals.listed(opened.tables, tenant, account, verdict, limit + 1)
    output.document(found[:limit]) if as_json else proposals.print_list(found[:limit])
    if len(found) > limit:
        output.note("headrace: there are more; raise --limit, or choose with --verdict and --account")


@proposal.command("show")
def show(
    *,
    proposal_id: IdArgument,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one proposal: what it had read, what it proposes, and every verdict it had."""
    from headrace.cli import proposals
    from headrace.cli.reading import reading

    with reading(store) as opened:
        found = proposals.one(opened, proposal_id, tenant, account)
    output.document(found) if as_json else proposals.print_one(found)
