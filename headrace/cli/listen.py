"""``headrace listen``: deliveries as they come in, live."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from typing import Annotated

import typer

from headrace.cli.options import ApiKeyOption, JsonOption, StoreOption, UrlOption

LastOption = Annotated[
    int, typer.Option("--lines", "-n", min=0, max=500, metavar="N", help="Begin with so many that came before.")
]


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("listen")(listen)


def listen(
    *,
    lines: LastOption = 10,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what providers, hooks and webhooks deliver to the running process, and what became of it, until Ctrl-C.

    Of each: when it came, for whom, the status it was answered with, the hint or the events it led to, or why it was
    refused; of its body the size and a digest. The process remembers the last 500, in memory.
    """
    from headrace.cli.listening import follow

    follow(lines, store, url, api_key, as_json=as_json)
