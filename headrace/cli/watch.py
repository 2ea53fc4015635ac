"""``headrace watch``: an account, live."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

from typing import Annotated

import typer

from headrace.cli.options import ApiKeyOption, JsonOption, KindOption, StoreOption, Subject, UrlOption, parse_entity

AccountOption = Annotated[str, typer.Option("--account", metavar="ACCOUNT", help="The account to watch.")]
EntityOption = Annotated[
    Subject | None, typer.Option("--entity", parser=parse_entity, metavar="KIND/ID", help="Only this entity.")
]
AfterOption = Annotated[
    str | None,
    typer.Option("--after", metavar="TOKEN", help="Begin behind this token, as an earlier watch printed it."),
]


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command("watch")(watch)


def watch(
    *,
    account: AccountOption,
    entity: EntityOption = None,
    kind: KindOption = None,
    after: AfterOption = None,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print every record of an account as the running process folds it, with what became of it, until Ctrl-C.

    Needs a running `headrace dev`; `log tail -f` does without, and shows bodies instead of verdicts.
    """
    from headrace.cli.watching import Watch, follow

    follow(Watch(account, str(entity) if entity else None, kind, after), store, url, api_key, as_json=as_json)
