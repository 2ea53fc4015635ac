"""``docs/cli.md`` tells of every command and option, in the words of ``--help``.

``python -m tests.unit.test_cli_docs`` writes its reference anew.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from headrace.cli import exits
from headrace.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BEGIN, END = "<!-- reference: written by tests/unit/test_cli_docs.py -->\n", "<!-- end of reference -->\n"


def leaves(command: Any, context: typer.Context) -> Iterator[tuple[Any, typer.Context]]:
    """Every command that does something, with its context."""
    inner: dict[str, Any] = getattr(command, "commands", {})
    if not inner:
        yield command, context
    for name, one in inner.items():
        yield from leaves(one, typer.Context(one, info_name=name, parent=context))


def reference() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts: list[str] = []
    for command, context in leaves(root, typer.Context(root, info_name="headrace")):
        usage = " ".join(["[OPTIONS]", *(piece for one in command.params for piece in one.get_usage_pieces(context))])
        parts.append(f"### `{context.command_path}`\n")
        parts.append(f"```\n{context.command_path} {usage}\n```\n")
        parts.append("\n\n".join(" ".join(one.split()) for one in command.help.strip().split("\n\n")) + "\n")
        records = [one.get_help_record(context) for one in command.params]
        rows = [f"| `{_cell(names)}` | {_cell(told).replace('<', '&lt;')} |" for names, told in filter(None, records)]
        parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def with_reference(page: str) -> str:
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin
    assert end
    return f"{before}{begin}\n{reference()}\n{end}{after}"


def test_the_reference_is_what_help_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_reference(page), "run python -m tests.unit.test_cli_docs"


def test_every_command_and_option_is_told_of() -> None:
    page = PAGE.read_text(encoding="utf-8")
    root = typer.main.get_command(app)
    found = list(leaves(root, typer.Context(root, info_name="headrace")))
    assert len(found) > 20
    for command, context in found:
        section = page.partition(f"### `{context.command_path}`\n")[2].partition("\n### ")[0]
        for parameter in command.params:
            shown = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
            assert all(name in section for name in shown), (context.command_path, shown)


def test_every_exit_code_is_told_of() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for code, meaning in exits.MEANINGS.items():
        assert f"| {code} | {meaning} |" in page


def test_every_command_line_in_the_text_is_one() -> None:
    """The words behind ``headrace`` in the examples name commands, their options exist."""
    root = typer.main.get_command(app)
    known = {
        context.command_path: command for command, context in leaves(root, typer.Context(root, info_name="headrace"))
    }
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0].replace("\\\n", " ")
    lines = re.findall(r"^ *(headrace [a-z].*)$", text, flags=re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        words = line.split()
        path = next(" ".join(words[:count]) for count in (3, 2) if " ".join(words[:count]) in known)
        options = {name for one in known[path].params for name in one.opts}
        used = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", re.sub(r"'[^']*'", "", line.partition("|")[0])))
        assert used <= options, (line, used - options)


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
