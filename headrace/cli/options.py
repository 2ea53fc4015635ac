"""Options that mean the same wherever they appear. Nothing heavy is imported here: ``--help`` needs this module."""

import re
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from headrace.errors import BadInputError
from headrace.schemas.refs import Position, Token, parse_subject

_POSITION: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,18})\Z")

_CONCERN: Final = re.compile(r"[A-Za-z0-9]+:[^,\0]+\Z")


class Place(NamedTuple):
    """A position as somebody gave it; with a token, the log's id and the chain are checked too."""

    position: Position
    token: Token | None


def parse_place(text: str) -> Place:
    """``PARTITION:OFFSET`` or a token."""
    found = _POSITION.match(text)
    if found is not None:
        return Place(Position(int(found[1]), int(found[2])), None)
    try:
        token = Token.parse(text)
    except BadInputError:
        raise typer.BadParameter(
            f"{text[:60]!r} is no position: write PARTITION:OFFSET (as 17:42) or a token"
        ) from None
    return Place(Position(token.partition, token.offset), token)


class Subject(NamedTuple):
    """An entity within an account."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


def parse_entity(text: str) -> Subject:
    """``KIND/ID``."""
    try:
        return Subject(*parse_subject(text))
    except BadInputError as error:
        raise typer.BadParameter(str(error)) from None


def parse_concern(text: str) -> str:
    """``what:value``, without a comma: CloudEvents carry them separated by commas."""
    if not _CONCERN.match(text):
        raise typer.BadParameter(f"{text[:60]!r} is no concern: write WHAT:VALUE, as person:ann@example.com, one each")
    return text


StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar="HEADRACE_STORE",
        metavar="DIR",
        help="The store's directory.  [default: ~/.local/share/headrace]",
        file_okay=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON: one document, or of a stream one object a line.", show_default=False)
]
TenantOption = Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="Only this tenant.")]
AccountOption = Annotated[
    str | None, typer.Option("--account", metavar="ACCOUNT", help="Only this account (one mailbox or calendar owner).")
]
KindOption = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only this kind, as mail.thread.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, metavar="N", help="At most this many.")]
ContentOption = Annotated[
    bool,
    typer.Option("--content", help="Show personal content (subjects, texts, names) in clear too.", show_default=False),
]
PlaceOption = Annotated[
    Place | None,
    typer.Option(
        "--at", parser=parse_place, metavar="POSITION", help="As it was right after PARTITION:OFFSET, or a token."
    ),
]
PlaceArgument = Annotated[
    Place, typer.Argument(parser=parse_place, metavar="POSITION", help="PARTITION:OFFSET, or a token.")
]
EntityArgument = Annotated[
    Subject, typer.Argument(parser=parse_entity, metavar="KIND/ID", help="The entity, for example mail.thread/t-17.")
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="HEADRACE_URL",
        metavar="URL",
        help="Where headrace answers.  [default: the process that runs on the store, else no process is needed]",
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", envvar="HEADRACE_API_KEY", metavar="KEY", help="API key, where the server asks for one."),
]
ConcernsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--concerns",
        parser=parse_concern,
        metavar="WHAT:VALUE",
        help="What it concerns, as person:ann; repeat it.",
        show_default=False,
    ),
]
WaitOption = Annotated[
    int, typer.Option("--wait", min=0, max=30, metavar="SECONDS", help="How long to wait for the verdict.")
]
