"""``headrace audit``: check that nothing was changed behind headrace's back, and see why a verdict is what it is."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from typing import Annotated

import typer

from headrace.cli import exits, output
from headrace.cli.options import AccountOption, JsonOption, StoreOption, TenantOption

audit = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(audit, name="audit", help="Verify the whole store; explain one verdict.")


@audit.command("explain")
def explain(
    *,
    proposal_id: Annotated[str, typer.Argument(metavar="ID", help="The proposal's id.")],
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a proposal's verdict: what the agent knew, what overtook it, when, and which rule decided."""
    from headrace.cli.explaining import explanation, print_explanation
    from headrace.cli.proposals import account_of
    from headrace.cli.reading import reading

    with reading(store) as opened:
        owner = account_of(opened, proposal_id, tenant, account)
        told = explanation(opened, proposal_id, *owner)
    if as_json:
        output.document(told.to_json() | {"tenant": owner[0], "account": owner[1]})
    else:
        print_explanation(told, *owner)


@audit.command("verify")
def verify(
    *,
    store: StoreOption = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Describe at most this many findings; all are counted.")
    ] = 20,
    as_json: JsonOption = False,
) -> int:
    """Fold the log again, aside, and compare every row, verdict and chain value with the store's tables.

    Exits with 6 when anything differs, and names it. Works while another process writes to the store.
    """
    from headrace.cli.auditing import print_report, progress
    from headrace.cli.reading import reading
    from headrace.processors.audit import verify as verified

    with reading(store) as opened, progress("verifying") as said:
        report = verified(opened.log, opened.tables, opened.registry, opened.kinds, said, limit=limit)
    output.document(report.to_json()) if as_json else print_report(report)
    return exits.OK if report.verified else exits.MISMATCH
