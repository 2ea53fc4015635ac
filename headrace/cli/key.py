"""``headrace key``: API keys of a store."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from datetime import datetime
from typing import Annotated

import typer

from headrace.cli import output
from headrace.cli.options import JsonOption, StoreOption

key = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(key, name="key", help="Make, list and remove API keys (kept as hashes in headrace.toml).")


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The key's name: proposals made with it are agent/NAME's.")
]


@key.command("add")
def add(
    *,
    name: NameArgument,
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="The one tenant it opens.")] = "local",
    verbs: Annotated[
        list[str] | None,
        typer.Option(
            "--verb",
            metavar="VERB",
            help="What it may do: read, propose, review, send or admin; repeat it.  [default: all]",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option("--expires", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"], help="When it runs out (UTC)."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and print it, once: only its hash is kept. A running process takes it when it starts again."""
    from headrace.cli.key_file import KeyFile
    from headrace.cli.reading import directory

    file = KeyFile(directory(store))
    made = file.add(name, tenant, verbs or [], expires)
    if as_json:
        output.document({"name": name, "tenant": tenant, "key": made, "file": str(file.path)})
    else:
        output.text(made)
        output.note(
            f"headrace: keep it now, it is stored nowhere; its hash is in {file.path}."
            " From the next start on, every request needs a key"
        )


@key.command("ls")
def list_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the API keys by name; the keys themselves are not known."""
    from headrace.cli.key_file import KeyFile
    from headrace.cli.reading import directory

    found = KeyFile(directory(store)).listed()
    if as_json:
        output.document(found)
    elif found:
        columns = ("name", "tenant", "verbs", "expires_at")
        shown = ((one["name"], one["tenant"], " ".join(one["verbs"]), one["expires_at"] or "never") for one in found)
        output.table([column.upper() for column in columns], shown)
    else:
        output.note("headrace: no API keys: only this machine may ask, without a key")


@key.command("rm")
def remove(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove an API key. A running process takes that when it starts again."""
    from headrace.cli.key_file import KeyFile
    from headrace.cli.reading import directory

    file = KeyFile(directory(store))
    file.remove(name)
    if as_json:
        output.document({"removed": name, "file": str(file.path)})
    else:
        output.note(f"headrace: {name} is removed from {file.path}; restart headrace for it to take effect")
