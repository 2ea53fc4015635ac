"""Whether a later version of a schema reads everything that an earlier one wrote, and as the same facts.

Stricter than Avro's own resolution (Avro 1.12 specification, "Schema Resolution"; what this allows, that allows),
because every record is folded again for ever, by the newest version: what a field once said must go on being said. So a
later version only adds: fields with a default, symbols, the permission to be null, more bits.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headrace.schemas.definition import CONTENT, PSEUDONYM

_WIDENED: Final = ["int", "long"]


def breaks(earlier: Any, later: Any, path: str = "") -> Iterator[str]:
    """What a reader with ``later`` would not get, or get differently, of data written with ``earlier``. Both as
    :func:`headrace.schemas.definition.spelt_out` gives them."""
    where = path or "the record"
    if isinstance(later, list):
        yield from breaks(_present(earlier), _present(later), path)
    elif isinstance(earlier, list):
        yield f"{where} may no longer be null, but was allowed to be"
    elif isinstance(earlier, str) or isinstance(later, str):
        if earlier != later and [earlier, later] != _WIDENED:
            yield f"{where} was {_said(earlier)} and became {_said(later)}"
    elif earlier["type"] != later["type"] or earlier.get("name") != later.get("name"):
        yield f"{where} was {_said(earlier)} and became {_said(later)}"
    else:
        yield from _inside(earlier, later, path)


def _inside(earlier: Mapping[str, Any], later: Mapping[str, Any], path: str) -> Iterator[str]:
    match earlier["type"]:
        case "array":
            yield from breaks(earlier["items"], later["items"], f"{path}[]")
        case "map":
            yield from breaks(earlier["values"], later["values"], f"{path}{{}}")
        case "enum":
            for symbol in earlier["symbols"]:
                if symbol not in later["symbols"]:
                    yield f"{path} has lost the symbol {symbol}"
        case "fixed":
            if earlier["size"] != later["size"]:
                yield f"{path} had {earlier['size']} bytes and now has {later['size']}"
        case _:
            yield from _fields(earlier, later, f"{path}." if path else "")


def _fields(earlier: Mapping[str, Any], later: Mapping[str, Any], prefix: str) -> Iterator[str]:
    were = {field["name"]: field for field in earlier["fields"]}
    are = {field["name"]: field for field in later["fields"]}
    for name, was in were.items():
        field = are.get(name)
        if field is None:
            yield f"{prefix}{name} is gone: keep it (with a default, if it is written no more), or old facts lose it"
            continue
        yield from breaks(was["type"], field["type"], prefix + name)
        for mark in (PSEUDONYM, CONTENT):
            if was.get(mark) != field.get(mark):
                yield f"{prefix}{name} was {mark} {was.get(mark)!r} and became {field.get(mark)!r}"
        if "default" in was and "default" not in field:
            yield f"{prefix}{name} has lost its default, which whoever leaves it out relies on"
        elif "default" in was and json.dumps(was["default"]) != json.dumps(field["default"]):
            yield f"{prefix}{name} has another default, so records that lack it would say something else"
    for name, field in are.items():
        if name not in were and "default" not in field:
            yield f"{prefix}{name} is new and has no default, but old records lack it"


def _present(type_: Any) -> Any:
    if isinstance(type_, list):
        return type_[0] if type_[1] == "null" else type_[1]
    return type_


def _said(type_: Any) -> str:
    if isinstance(type_, list):
        return f"null or {_said(_present(type_))}"
    return type_ if isinstance(type_, str) else f"{type_['type']} {type_.get('name', '')}".rstrip()
