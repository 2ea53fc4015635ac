"""``headrace send``: events in, by a signed webhook."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import output
from headrace.cli.options import ConcernsOption, JsonOption, StoreOption, Subject, parse_entity

FileArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        help="CloudEvents JSON: one, an array, or one a line. Without FILE, or with -, stdin is read.",
        show_default=False,
    ),
]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="Build one event: its type, as mail.received.")
]
SubjectOption = Annotated[
    Subject | None,
    typer.Option("--subject", parser=parse_entity, metavar="KIND/ID", help="The entity it is about."),
]
AccountOption = Annotated[str | None, typer.Option("--account", metavar="ACCOUNT", help="The account it happened in.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="JSON", help="Its fields, as the type's schema names them; @FILE reads a file."),
]
BodyOption = Annotated[
    str | None,
    typer.Option("--content", metavar="JSON", help="Its personal content, kept apart; @FILE reads a file."),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="Its id: sending the same again changes nothing.  [default: random]"),
]
TimeOption = Annotated[str | None, typer.Option("--time", metavar="TIME", help="When it happened (RFC 3339).")]
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="NAME", help="The webhook endpoint.  [default: default, or the only one]"),
]
SecretOption = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="The endpoint's secret.  [default: the store's]",
        exists=True,
        dir_okay=False,
    ),
]


FixtureOption = Annotated[
    str | None,
    typer.Option("--fixture", metavar="NAME", help="Instead: play a provider's delivery; --list shows which."),
]
ListOption = Annotated[bool, typer.Option("--list", help="List the fixtures.", show_default=False)]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        "--to",
        envvar="HEADRACE_URL",
        metavar="URL",
        help="Where headrace answers.  [default: the process that runs on the store, else no process is needed]",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("send")(send)


def send(
    file: FileArgument = None,
    *,
    type_: TypeOption = None,
    subject: SubjectOption = None,
    account: AccountOption = None,
    data: DataOption = None,
    content: BodyOption = None,
    event_id: IdOption = None,
    time: TimeOption = None,
    concerns: ConcernsOption = None,
    endpoint: EndpointOption = None,
    secret_file: SecretOption = None,
    fixture: FixtureOption = None,
    list_: ListOption = False,
    store: StoreOption = None,
    url: ToOption = None,
    as_json: JsonOption = False,
) -> int:
    """Send events as a signed webhook: over HTTP to the process that runs on the store, else straight into the store.

    A store that is not there yet is made. Example:

    headrace send --type mail.received --account ann --subject mail.thread/t-1
    --data '{"message": "<1@example.com>", "sender": "bob@example.com"}' --content '{"subject": "Lunch?"}'

    With --fixture it plays what a provider would deliver, named after a source that is connected here (--account), and
    signed where the secret is known here; it exits 0 when the answer is the one to expect.
    """
    import asyncio

    if list_ or fixture is not None:
        if file is not None or any((type_, subject, data, content, event_id, time, concerns)):
            raise typer.BadParameter("a fixture is sent as it is: no events go with it", param_hint="--fixture")
        from headrace.cli.playing import play, print_list, told

        if list_ or fixture is None:
            print_list(as_json=as_json)
            return 0
        done = asyncio.run(play(fixture, store, url, account=account, endpoint=endpoint, secret_file=secret_file))
        return told(done, as_json=as_json)

    from headrace.cli.sending import Delivery, built, read_events, webhook

    building = (subject, account, data, content, event_id, time, concerns)
    if type_ is None and any(building):
        raise typer.BadParameter("the options that build an event need --type too", param_hint="--type")
    if type_ is None:
        events = read_events(file)
    elif file is not None:
        raise typer.BadParameter("give a FILE, or build one event with --type: not both", param_hint="--type")
    elif subject is None or account is None:
        raise typer.BadParameter("an event needs --subject and --account too", param_hint="--type")
    else:
        events = [built(type_, subject, account, data, content, event_id=event_id, time=time, concerns=concerns or [])]
    delivery = Delivery(store, url, webhook(store, endpoint, secret_file, remote=url is not None))
    positions = asyncio.run(delivery.send(events))
    if as_json:
        output.document({"accepted": len(positions), "positions": positions, "to": delivery.where})
        return 0
    columns = ("type", "subject", "account", "id")
    output.table(
        ("POSITION", *(column.upper() for column in columns)),
        ((at, *(event.get(name) for name in columns)) for at, event in zip(positions, events, strict=True)),
    )
    return 0
