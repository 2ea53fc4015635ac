"""Text on its way into PostgreSQL and back, and portable SQL as PostgreSQL wants it.

PostgreSQL's ``text`` and ``jsonb`` take every character but U+0000, which a record's strings may hold. So U+0000 is
kept as U+0001 U+0001, and U+0001 as U+0001 U+0002: no two texts become one, and their order stays what it was. Both
are control characters that real data hardly ever has, so all that the fold's hot path pays is a look.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from headrace.processors.core.verdicts import canonical

_MARK: Final = "\x01"
_IN_JSON: Final = ("\\u0000", "\\u0001")
"""How the two characters stand in JSON text. Behind a backslash they only look so: then the long way finds nothing."""

_PIECES: Final = re.compile(
    r"""
    (?P<kept> ' (?:[^']|'')* ' | " (?:[^"]|"")* " | --[^\n]* | :: )
    | : (?P<asked> [A-Za-z_][A-Za-z0-9_]*) \s+ IS \s+ NULL \b
    | : (?P<name> [A-Za-z_][A-Za-z0-9_]*)
    | (?P<percent> %)
    | (?P<offset> \b offset \b)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def escaped(text: str) -> str:
    """``text`` as PostgreSQL can keep it."""
    if "\0" not in text and _MARK not in text:
        return text
    return text.replace(_MARK, "\x01\x02").replace("\0", "\x01\x01")


def unescaped(text: str) -> str:
    """What :func:`escaped` was given."""
    if _MARK not in text:
        return text
    return text.replace("\x01\x01", "\0").replace("\x01\x02", _MARK)


def escaped_json(text: str) -> str:
    """JSON text as PostgreSQL can keep it: its strings as :func:`escaped` gives them."""
    if _IN_JSON[0] not in text and _IN_JSON[1] not in text:
        return text
    return canonical(_each(json.loads(text), escaped)).decode()


def unescaped_json(text: str) -> str:
    """What :func:`escaped_json` was given, if that was canonical."""
    return canonical(_each(json.loads(text), unescaped)).decode() if _IN_JSON[1] in text else text


def canonical_json(text: str) -> str:
    """What :func:`escaped_json` was given, from the order and the spaces that ``jsonb`` gives a text."""
    return canonical(_each(json.loads(text), unescaped)).decode()


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _each(one, change) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [_each(one, change) for one in value]
    return value


@lru_cache(1_000)
def translated_sql(sql: str) -> str:
    """Portable SQL with ``:name`` parameters as psycopg takes it, with those of :func:`bound`.

    ``offset`` is a column here, never a clause: to PostgreSQL that word is reserved, and pages are asked for by key.
    ``:name IS NULL`` becomes a parameter of its own: PostgreSQL cannot tell the type of a parameter from that.
    """
    return _PIECES.sub(_piece, sql)


def bound(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for :func:`translated_sql`."""
    found = {name: escaped(value) if isinstance(value, str) else value for name, value in parameters.items()}
    return found | {f"{name}?": value is None for name, value in parameters.items()}


def _piece(found: re.Match[str]) -> str:
    if found["asked"] is not None:
        return f"%({found['asked']}?)s"
    if found["name"] is not None:
        return f"%({found['name']})s"
    if found["percent"] is not None:
        return "%%"
    if found["offset"] is not None:
        return '"offset"'
    return found[0].replace("%", "%%")
