"""``headrace policy``: what events do to proposals, and which entity kinds are in force."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import output
from headrace.cli.options import JsonOption, StoreOption

policy = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(policy, name="policy", help="Look at the policy and entity kinds in force, and put others in force.")


@policy.command()
def show(*, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the policy and the entity kinds in force. The JSON is what `policy activate --file` takes."""
    from headrace.cli.policies import in_force, print_policy
    from headrace.cli.reading import reading

    with reading(store) as opened:
        found = in_force(opened)
    output.document(found) if as_json else print_policy(found)


@policy.command()
def activate(
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="The policy, as `policy show --json` prints it.  [default: the one in force]",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a policy, and every entity kind that is installed, in force from here on. Earlier verdicts stay."""
    from headrace.cli.policies import put_in_force

    found = put_in_force(store, file)
    if as_json:
        output.document(found)
    else:
        kinds = ", ".join(found["kinds"])
        output.note(f"headrace: policy {found['policy']['name']!r} and the kinds {kinds} are in force from here on")
