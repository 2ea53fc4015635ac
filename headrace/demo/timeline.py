"""What the demo prints: who did what at which position, and what the log said."""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_PIPED_WIDTH: Final = 110
_STYLES: Final = {"accepted": "bold green", "superseded": "bold red"}


class Step(NamedTuple):
    """One thing that happened. ``position`` is partition:offset, where it is on the log; ``verdict`` of a proposal;
    ``why`` what overtook it; ``averted`` what the agent would have overwritten."""

    act: str
    at: str
    who: str
    did: str
    position: str | None = None
    verdict: str | None = None
    why: str | None = None
    averted: str | None = None


class Timeline:
    """Prints steps as they happen: for people, or one JSON object per line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json: Final = as_json
        width = None if sys.stdout.isatty() else _PIPED_WIDTH
        self._console: Final = Console(file=sys.stdout, highlight=False, width=width)
        self._table: Table | None = None
        self.steps: Final[list[Step]] = []

    def open(self, told: str) -> None:
        """What this is, before the first act."""
        if not self._as_json:
            self._console.print(Text(told))

    def act(self, title: str, told: str) -> None:
        """Begin an act."""
        if self._as_json:
            return
        self.curtain()
        self._console.print()
        self._console.print(Text(title, style="bold"))
        self._console.print(Text(told, style="dim"))
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
        for name, style in (("time", "dim"), ("position", "cyan"), ("who", ""), ("what", "")):
            table.add_column(name, style=style, no_wrap=name != "what")
        self._table = table

    def step(self, step: Step) -> None:
        """Something happened."""
        self.steps.append(step)
        if self._as_json:
            said = {name: value for name, value in step._asdict().items() if value is not None}
            print(json.dumps({"step": len(self.steps), **said}), flush=True)
        elif self._table is not None:
            self._table.add_row(step.at, step.position or "", _who(step.who), _what(step))

    def curtain(self) -> None:
        """End an act."""
        if self._table is not None:
            self._console.print(self._table)
            self._table = None

    def close(self, summary: Mapping[str, Any], look_further: list[tuple[str, str]]) -> None:
        """The end: what came of it all, and how to look further."""
        self.curtain()
        if self._as_json:
            print(json.dumps({"summary": dict(summary)}), flush=True)
            return
        verified = summary["verified"]
        said = Text()
        said.append(f"{summary['accepted']} accepted", style=_STYLES["accepted"])
        said.append(", ")
        said.append(f"{summary['superseded']} superseded", style=_STYLES["superseded"])
        said.append(", nothing landed on a world that had moved on.\n")
        said.append("The whole log was folded again and compared with every row, verdict and chain value: ")
        said.append(
            "it verifies." if verified else "IT DOES NOT VERIFY.", style="bold green" if verified else "bold red"
        )
        self._console.print()
        self._console.print(Panel(said, expand=False))
        for told, command in look_further:
            self._console.print(Text(f"  {told:<34}", style="dim") + Text(command), soft_wrap=True)


def _who(who: str) -> Text:
    return Text(who, style="magenta" if who.endswith("agent") else "yellow")


def _what(step: Step) -> Text:
    text = Text(step.did)
    if step.verdict is not None:
        text.append("\n→ ")
        text.append(step.verdict.upper(), style=_STYLES.get(step.verdict, "bold yellow"))
    if step.why is not None:
        text.append(f": {step.why}")
    if step.averted is not None:
        text.append(f"\naverted: {step.averted}", style="dim")
    return text
