"""``headrace proposal``: what agents proposed, what the log says of it, and answering what waits."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from typing import Annotated

import typer

from headrace.cli import output
from headrace.cli.options import (
    AccountOption,
    ApiKeyOption,
    JsonOption,
    LimitOption,
    StoreOption,
    TenantOption,
    UrlOption,
    WaitOption,
)

proposal = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The proposal's id.")]
ReadOption = Annotated[
    str | None,
    typer.Option(
        "--read",
        metavar="TOKEN",
        help="What you had read: only what came up to there is waived.  [default: where it was last judged]",
    ),
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="WORDS", help="Why, in words.")]


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


@proposal.command("approve")
def approve(
    proposal_id: IdArgument,
    *,
    read: ReadOption = None,
    account: AccountOption = None,
    wait: WaitOption = 2,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """Approve a proposal that waits for review. It is judged again: an approval can itself come too late.

    Exits with 0 when it is accepted now, with 4 when it is not.
    """
    from headrace.cli.answering import Answer, answered

    said = Answer("approve", proposal_id, account, wait, read=read)
    return answered(said, store, url, api_key, as_json=as_json)


@proposal.command("dismiss")
def dismiss(
    proposal_id: IdArgument,
    *,
    reason: ReasonOption = None,
    account: AccountOption = None,
    wait: WaitOption = 2,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """Dismiss a proposal that waits. Exits with 4 when it waited for nothing any more."""
    from headrace.cli.answering import Answer, answered

    said = Answer("dismiss", proposal_id, account, wait, reason=reason)
    return answered(said, store, url, api_key, as_json=as_json)


@proposal.command("withdraw")
def withdraw(
    proposal_id: IdArgument,
    *,
    reason: ReasonOption = None,
    account: AccountOption = None,
    wait: WaitOption = 2,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take a proposal back: one that waits, or one accepted but not yet under way. Exits with 4 when it is too late."""
    from headrace.cli.answering import Answer, answered

    said = Answer("withdraw", proposal_id, account, wait, reason=reason)
    return answered(said, store, url, api_key, as_json=as_json)
