"""Schemas and data made up at random: what headrace takes of Avro, later versions of it, and bodies that fit."""

import copy
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

Source = dict[str, Any]

_TEXT: Final = st.text(max_size=12)
_LONGS: Final = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 200)
_SYMBOLS: Final = ("red", "green", "blue", "grey")
_FIELDS: Final = ("a", "b", "c", "d")


def data(type_: Any) -> st.SearchStrategy[Any]:
    """Values of a type as ``spelt_out`` gives it, as decoding gives them."""
    if isinstance(type_, list):
        return st.one_of(*(data(branch) for branch in type_))
    if isinstance(type_, str):
        primitives: dict[str, st.SearchStrategy[Any]] = {
            "null": st.none(),
            "boolean": st.booleans(),
            "int": st.integers(-(1 << 31), (1 << 31) - 1),
            "long": _LONGS,
            "string": _TEXT,
            "bytes": st.binary(max_size=12),
        }
        return primitives[type_]
    match type_["type"]:
        case "array":
            return st.lists(data(type_["items"]), max_size=3)
        case "map":
            return st.dictionaries(_TEXT, data(type_["values"]), max_size=3)
        case "enum":
            return st.sampled_from(type_["symbols"])
        case "fixed":
            return st.binary(min_size=type_["size"], max_size=type_["size"])
        case _:
            return st.fixed_dictionaries({field["name"]: data(field["type"]) for field in type_["fields"]})


def schema(fields: list[dict[str, Any]], *, version: int = 1, role: str = "event", **other: Any) -> Source:
    """A schema file of the type ``shop.sold``."""
    named = {"type": "record", "name": "Sold", "namespace": "example.shop", "doc": "Something was sold."}
    own = {"headrace.type": "shop.sold", "headrace.role": role, "headrace.version": version}
    return {**named, **own, "fields": fields, **other}


def field(name: str, type_: Any, **other: Any) -> dict[str, Any]:
    """A field of a schema file."""
    return {"name": name, "type": type_, **other}


class _Names:
    """Full names, each used once."""

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> str:
        """Another name."""
        self._count += 1
        return f"N{self._count}"


@st.composite
def _types(draw: st.DrawFn, names: _Names, depth: int) -> Any:
    simple = ["boolean", "int", "long", "string", "bytes", "enum", "fixed", "null"]
    kind = draw(st.sampled_from([*simple, "array", "map", "record", "nullable"] if depth else simple))
    match kind:
        case "enum":
            symbols = draw(st.lists(st.sampled_from(_SYMBOLS), min_size=1, max_size=3, unique=True))
            return {"type": "enum", "name": names.next(), "symbols": symbols}
        case "fixed":
            return {"type": "fixed", "name": names.next(), "size": draw(st.integers(1, 3))}
        case "array":
            items = draw(_types(names, depth - 1).filter(lambda one: one != "null" and _has_size(one)))
            return {"type": "array", "items": items}
        case "map":
            return {"type": "map", "values": draw(_types(names, depth - 1))}
        case "record":
            return {"type": "record", "name": names.next(), "fields": draw(_fields(names, depth - 1))}
        case "nullable":
            inner = draw(_types(names, depth - 1).filter(lambda one: one != "null" and not isinstance(one, list)))
            return draw(st.permutations(["null", inner]))
        case _:
            return kind


def _has_size(type_: Any) -> bool:
    if not isinstance(type_, Mapping) or type_["type"] != "record":
        return bool(type_ != "null")
    return any(_has_size(one["type"]) for one in type_["fields"])


@st.composite
def _fields(draw: st.DrawFn, names: _Names, depth: int) -> list[dict[str, Any]]:
    chosen = draw(st.lists(st.sampled_from(_FIELDS), max_size=3, unique=True))
    return [field(name, draw(_types(names, depth))) for name in chosen]


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2) -> Source:
    """A version 1 within what headrace takes."""
    return schema(draw(_fields(_Names(), depth)))


_DEFAULTS: Final[tuple[tuple[Any, Any], ...]] = (
    ("string", "new"),
    ("long", 7),
    ("boolean", False),
    (["null", "string"], None),
    ({"type": "array", "items": "string"}, ["x"]),
    ({"type": "map", "values": "long"}, {"k": 1}),
)


@st.composite
def later(draw: st.DrawFn, earlier: Source) -> Source:
    """A next version that only adds: fields with a default, symbols, null, bits; and puts fields in another order."""
    found = copy.deepcopy(earlier)
    found["headrace.version"] += 1
    _grow(draw, found)
    return found


def _grow(draw: st.DrawFn, record: dict[str, Any]) -> None:
    for one in record["fields"]:
        one["type"] = _grown(draw, one["type"])
        if isinstance(one["type"], list) and "default" in one:  # a default is of the first branch
            one["type"] = sorted(one["type"], key=lambda branch: (branch == "null") != (one["default"] is None))
    taken = {one["name"] for one in record["fields"]}
    if draw(st.booleans()):
        type_, default = draw(st.sampled_from(_DEFAULTS))
        name = next(f"added{number}" for number in range(100) if f"added{number}" not in taken)
        record["fields"].append(field(name, copy.deepcopy(type_), default=copy.deepcopy(default)))
    record["fields"] = draw(st.permutations(record["fields"]))


def _grown(draw: st.DrawFn, type_: Any) -> Any:
    if isinstance(type_, list):
        branches = [one if one == "null" else _grown_inside(draw, one) for one in type_]
        return draw(st.permutations(branches))
    grown = _grown_inside(draw, type_)
    return ["null", grown] if type_ != "null" and draw(st.booleans()) else grown


def _grown_inside(draw: st.DrawFn, type_: Any) -> Any:
    if type_ == "int" and draw(st.booleans()):
        return "long"
    if not isinstance(type_, dict):
        return type_
    match type_["type"]:
        case "array":
            type_["items"] = _grown(draw, type_["items"])
        case "map":
            type_["values"] = _grown(draw, type_["values"])
        case "enum":
            extra = [symbol for symbol in _SYMBOLS if symbol not in type_["symbols"]]
            type_["symbols"] = draw(st.permutations([*type_["symbols"], *extra]))
        case "record":
            _grow(draw, type_)
        case _:
            pass
    return type_
