"""Writing: data to stdout, everything else to stderr.

On a terminal tables are coloured and cut to its width; piped, they are plain, aligned and never cut. Text that came
from outside is made harmless first: a subject line must not move the cursor.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from headrace.schemas.envelope import rfc3339

_GAP: Final = 2
_LAST: Final = 24
"""What the last column of a table keeps on a terminal, however narrow that is."""
_STREAM_WIDTHS: Final = (8, 24, 28, 20, 14, 20, 0)
_STYLES: Final = {
    "accepted": "green",
    "superseded": "red",
    "expired": "red",
    "rejected": "red",
    "claimed": "red",
    "malformed": "red",
    "unknown_basis": "red",
    "conflicting_id": "red",
    "quarantined": "red",
    "needs_review": "yellow",
    "held": "yellow",
}


def plain(value: object) -> str:
    """One line of printable text; control and formatting characters are escaped, ``None`` is a dash."""
    if value is None:
        return "-"
    return _escaped(str(value))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    code = ord(one)
    return f"\\u{code:04x}" if code < 0x10000 else one.encode("unicode_escape").decode()


def time(epoch_ms: int | None) -> str | None:
    """Epoch milliseconds as RFC 3339 in UTC."""
    return rfc3339(epoch_ms) if epoch_ms is not None else None


def document(value: object) -> None:
    """One JSON document, for programs; on a terminal indented, and harmless there too."""
    if sys.stdout.isatty():
        shown = json.dumps(value, ensure_ascii=False, indent=2, default=str)
        sys.stdout.write("".join(f"{_escaped(one)}\n" for one in shown.splitlines()))
    else:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def line(value: object) -> None:
    """One object of a stream, at once (NDJSON)."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def text(value: object = "") -> None:
    """A line for people, as it is."""
    sys.stdout.write(f"{value}\n")


def columns(cells: Sequence[object]) -> None:
    """A line of a stream for people, at once: position, time, entity, type, actor and the rest, roughly aligned."""
    padded = (f"{plain(cell):<{width}}" for cell, width in zip(cells, _STREAM_WIDTHS, strict=False))
    sys.stdout.write("  ".join(padded).rstrip() + "\n")
    sys.stdout.flush()


def block(value: object) -> None:
    """Part of a screen for people, indented: a line for each field of an object or item of a list."""
    if isinstance(value, Mapping):
        width = max((len(str(name)) for name in value), default=0)
        lines = [f"{name:<{width}}  {_compact(item)}" for name, item in value.items()]
    elif isinstance(value, (list, tuple)):
        lines = [_compact(item) for item in value]
    else:
        lines = [_compact(value)]
    sys.stdout.write("".join(f"  {_escaped(one)}\n" for one in lines or ["none"]))


def _compact(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def note(message: str) -> None:
    """A hint or a warning."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def table(names: Sequence[str], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
    """Rows under a header, ``indent`` columns in; a verdict has its colour on a terminal.

    Only the last column is ever cut, and only on a terminal: what identifies a thing can always be copied.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - only who prints a table waits for rich
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(names, *shown, strict=True)]
    terminal = sys.stdout.isatty()
    before = indent + sum(widths[:-1]) + _GAP * (len(widths) - 1)
    if terminal:
        widths[-1] = min(widths[-1], max(_LAST, shutil.get_terminal_size().columns - before))
    console = Console(file=sys.stdout, force_terminal=terminal, highlight=False)
    for number, row in enumerate((names, *shown)):
        line = Text(" " * indent)
        for cell, width in zip(row, widths, strict=True):
            told = Text(cell, style="bold" if number == 0 else _STYLES.get(cell, ""))
            told.truncate(width, overflow="ellipsis", pad=True)
            line.append_text(told).append(" " * _GAP)
        line.rstrip()
        console.print(line, soft_wrap=True)


def fields(pairs: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line, values aligned. What is ``None`` is left out."""
    shown = [(name, value) for name, value in dict(pairs).items() if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name:<{width}}  {plain(value)}\n")
