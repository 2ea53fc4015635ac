"""``headrace migrate``: the tables in PostgreSQL, brought to this release."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

import typer

from headrace.cli import output
from headrace.cli.options import JsonOption, StoreOption


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("migrate")(migrate)


def migrate(*, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Make the tables in PostgreSQL, or bring them to this release. Safe to repeat, and from several at once.

    Run it as a role that may make tables (infra/roles.sql); workers and API servers need not be allowed to.
    """
    from headrace.cli.preparing import migrated

    ran, named = migrated(store)
    if as_json:
        output.document({"tables": named, "ran": ran})
    elif ran:
        output.text(f"{named}: {', '.join(ran)}")
    else:
        output.text(f"{named}: nothing to do")
