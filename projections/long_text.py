"""Texts that a record may hold in any length (a label, a proposal that an answer names) and that rows are looked up by.

An index of PostgreSQL's takes keys of 2,704 bytes, and what stands on the log must fold. So its indexes hold how such a
text begins, and whoever looks one up says that too. SQLite's hold all of it: there it is said in vain.
"""

from collections.abc import Sequence
from typing import Final

INDEXED: Final = 500
"""Characters. Of four bytes each they leave room for the other columns. Fixed for ever: migrations say it too."""


def beginning(value: str) -> str:
    """SQL for what an index holds of a text: ``value`` is a column or a parameter."""
    return f"substr({value}, 1, {INDEXED})"


def equal(column: str, value: str) -> str:
    """SQL for a column that has a value, to be found by index on both databases."""
    return f"{column} = {value} AND {beginning(column)} = {beginning(value)}"


def among(column: str, values: Sequence[str]) -> str:
    """:func:`equal` for one of several values."""
    return f"{column} IN ({', '.join(values)}) AND {beginning(column)} IN ({', '.join(map(beginning, values))})"
