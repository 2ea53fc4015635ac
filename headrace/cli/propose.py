"""``headrace propose``: an agent's output, offered to the log."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from pathlib import Path
from typing import Annotated, Literal

import typer

from headrace.cli import exits, output
from headrace.cli.options import (
    ApiKeyOption,
    ConcernsOption,
    JsonOption,
    StoreOption,
    Subject,
    UrlOption,
    parse_entity,
)

FileArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        help="The proposal in JSON as the HTTP API takes it, with account and id beside. Without FILE, or with -,"
        " stdin is read.",
        show_default=False,
    ),
]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="Build it: what is proposed, as mail.reply.")
]
SubjectOption = Annotated[
    Subject | None,
    typer.Option("--subject", parser=parse_entity, metavar="KIND/ID", help="The entity it would change."),
]
AccountOption = Annotated[str | None, typer.Option("--account", metavar="ACCOUNT", help="The entity's account.")]
BasisOption = Annotated[
    str | None,
    typer.Option("--basis", metavar="TOKEN", help="What it is based on: the basis that `entity show` printed."),
]
AbsentOption = Annotated[
    bool, typer.Option("--absent", help="The entity was found not to exist at --basis.", show_default=False)
]
ReadsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--read",
        metavar="READ",
        help="What else was read; repeat it. KIND/ID@TOKEN, absent:KIND/ID@TOKEN, or"
        " scope:CONTAINER/ID[FROM,TO]@TOKEN (times in RFC 3339; either may be left out).",
        show_default=False,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="JSON", help="Its fields, as the type's schema names them; @FILE reads a file."),
]
BodyOption = Annotated[
    str | None,
    typer.Option("--content", metavar="JSON", help="The output itself, as a draft's text; @FILE reads a file."),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="Its id: proposing the same again has no effect.  [default: random]"),
]
ExpiresOption = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="From when on it is worth nothing (RFC 3339).")
]
WaitOption = Annotated[
    int | None,
    typer.Option(
        "--wait",
        min=0,
        max=30,
        metavar="SECONDS",
        help="How long to wait for the verdict.  [default: 2; with --verify 10]",
        show_default=False,
    ),
]
VerifyOption = Annotated[
    Literal["live"] | None,
    typer.Option(
        "--verify",
        metavar="live",
        help="Sync what it reads first, and judge after. If that does not end within --wait, nothing is proposed.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("propose")(propose)


def propose(
    file: FileArgument = None,
    *,
    type_: TypeOption = None,
    subject: SubjectOption = None,
    account: AccountOption = None,
    basis: BasisOption = None,
    absent: AbsentOption = False,
    reads: ReadsOption = None,
    data: DataOption = None,
    content: BodyOption = None,
    proposal_id: IdOption = None,
    expires: ExpiresOption = None,
    concerns: ConcernsOption = None,
    verify: VerifyOption = None,
    wait: WaitOption = None,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """Propose something and print the verdict.

    Exits with 0 when it is accepted, with 4 when it is not (superseded, expired, claimed, rejected, ...) or waits
    (needs_review, held), with 5 when there is no verdict within --wait.
    """
    import asyncio

    from headrace.cli.proposing import built, print_verdict, read_proposal, submitted

    building = (subject, account, basis, absent, reads, data, content, proposal_id, expires, concerns)
    if type_ is None and any(building):
        raise typer.BadParameter("the options that build a proposal need --type too", param_hint="--type")
    if type_ is None:
        asked = read_proposal(file)
    elif file is not None:
        raise typer.BadParameter("give a FILE, or build it with --type: not both", param_hint="--type")
    elif subject is None or account is None or basis is None:
        raise typer.BadParameter("a proposal needs --subject, --account and --basis too", param_hint="--type")
    else:
        asked = built(type_, subject, basis, data, content, absent=absent, reads=reads or [], expires=expires)
        asked |= {"account": account, "concerns": concerns or [], "id": proposal_id}
    verdict = asyncio.run(submitted(asked, store, url, api_key, wait=wait, verify=verify))
    output.document(verdict) if as_json else print_verdict(verdict)
    return exits.of_verdict(verdict["verdict"]) if verdict.get("verdict") else exits.UNAVAILABLE
