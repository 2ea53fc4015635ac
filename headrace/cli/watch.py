"""``headrace watch``."""

import typer


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
