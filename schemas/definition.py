"""What a schema defines, spelt out, and the part of Avro that headrace takes.

Avro allows more than a log that is folded for ever can bear: floats that compute differently, unions whose branch a
reader must guess, recursion without a bound, arrays of nothing that cost nothing to write and everything to read.
:func:`spelt_out` refuses those (Avro 1.12 specification, "Schema Declaration") and returns the schema with every name
written in full and every reference replaced by what it refers to, so that nobody else need look names up.

Types, as :func:`spelt_out` gives them: a primitive's name; ``["null", type]`` or ``[type, "null"]``; or a mapping with
``type`` one of ``array`` (``items``), ``map`` (``values``), ``enum`` (``name``, ``symbols``), ``fixed`` (``name``,
``size``) and ``record`` (``name``, ``fields``, each with ``name``, ``type`` and whatever else was said of it).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headrace.errors import HaltError
from headrace.schemas.datum import misfit
from headrace.schemas.refs import KIND_NAME

PSEUDONYM: Final = "headrace.pseudonym"
CONTENT: Final = "headrace.content"
ROLES: Final = ("event", "proposal", "content", "record")
_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "string", "bytes"})
_SIMPLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NULLABLE_BYTES: Final = ["null", "bytes"]
_NULLABLE_STRING: Final = ["null", "string"]


class _UnsoundError(Exception):
    """What is wrong, in words; :func:`spelt_out` says where and makes it a :class:`HaltError`."""


def spelt_out(source: Any) -> dict[str, Any]:
    """The schema in a parsed ``.avsc`` file, every name in full and every reference resolved.

    :raises HaltError: the file says what headrace does not take; the message names the place and the remedy.
    """
    if not isinstance(source, Mapping):
        raise HaltError("a schema file holds one JSON object; mend the .avsc file")
    try:
        shape: Any = _Spelling().type(source, "", "")
        _check_head(source, shape)
        _check_fields(source["headrace.role"], shape, "", top=True)
    except _UnsoundError as fault:
        name = source.get("headrace.type") or source.get("name")
        raise HaltError(f"schema {name or '?'!s:.80} cannot be used: {fault}; mend the .avsc file") from fault
    found: dict[str, Any] = shape
    return found


class _Spelling:
    """One file's names, while it is spelt out."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def type(self, said: Any, namespace: str, path: str) -> Any:
        """``said`` spelt out, in the namespace around it."""
        if isinstance(said, list):
            return self._union(said, namespace, path)
        if isinstance(said, str):
            return self._named(said, namespace, path)
        if not isinstance(said, Mapping) or "type" not in said:
            raise _UnsoundError(f"{path or 'the schema'} has no type")
        for forbidden, instead in (
            ("logicalType", "read times and dates as plain longs (epoch milliseconds UTC)"),
            ("aliases", "a name is for ever; add a field instead of renaming one"),
        ):
            if forbidden in said:
                raise _UnsoundError(f"{path or 'the schema'} has {forbidden}, which headrace does not take: {instead}")
        match said["type"]:
            case "array":
                return {"type": "array", "items": self._items(said, namespace, path)}
            case "map":
                return {"type": "map", "values": self.type(said.get("values"), namespace, f"{path}{{}}")}
            case "record" | "enum" | "fixed":
                return self._definition(said, namespace, path)
            case inner:
                return self.type(inner, namespace, path)

    def _union(self, branches: list[Any], namespace: str, path: str) -> list[Any]:
        spelt = [self.type(branch, namespace, path) for branch in branches]
        if len(spelt) != 2 or spelt.count("null") != 1 or any(isinstance(branch, list) for branch in spelt):
            raise _UnsoundError(
                f"{path} is a union of other than null and one type, which a reader would have to guess"
            )
        return spelt

    def _named(self, said: str, namespace: str, path: str) -> Any:
        if said in _PRIMITIVES:
            return said
        if said in ("float", "double"):
            raise _UnsoundError(
                f"{path} is a {said}, which computes and compares differently elsewhere: use long or string"
            )
        name = said if "." in said or not namespace else f"{namespace}.{said}"
        if name not in self._known:
            raise _UnsoundError(f"{path} names {said!r}, which is not defined before it")
        if self._known[name] is None:
            raise _UnsoundError(f"{path} is recursive ({said}); its depth must have a bound")
        return self._known[name]

    def _items(self, said: Mapping[str, Any], namespace: str, path: str) -> Any:
        items = self.type(said.get("items"), namespace, f"{path}[]")
        if not _smallest(items):
            raise _UnsoundError(f"{path} is an array of items that take no byte: its length would have no bound")
        return items

    def _definition(self, said: Mapping[str, Any], namespace: str, path: str) -> dict[str, Any]:
        name = said.get("name")
        if not isinstance(name, str) or not name:
            raise _UnsoundError(f"{path or 'the schema'} has no name")
        if "." not in name:
            namespace = said.get("namespace", namespace)
            name = f"{namespace}.{name}" if namespace else name
        if not all(map(_SIMPLE_NAME.match, name.split("."))):
            raise _UnsoundError(f"{path} {name[:60]!r} is no Avro name")
        if name in self._known:
            raise _UnsoundError(f"{path or 'the schema'} defines {name} a second time; refer to it by its name")
        self._known[name] = None
        spelt: dict[str, Any] = {"type": said["type"], "name": name}
        if said["type"] == "record":
            spelt["fields"] = list(self._fields(said, name.rpartition(".")[0], path))
        elif said["type"] == "enum":
            spelt["symbols"] = _symbols(said.get("symbols"), name)
        else:
            spelt["size"] = said.get("size")
            if type(spelt["size"]) is not int or spelt["size"] < 1:
                raise _UnsoundError(f"{path} {name} must have a size in bytes, 1 or more")
        self._known[name] = spelt
        return spelt

    def _fields(self, said: Mapping[str, Any], namespace: str, path: str) -> Iterator[dict[str, Any]]:
        fields, seen = said.get("fields"), set[str]()
        if not isinstance(fields, list):
            raise _UnsoundError(f"{path or 'the schema'} has no list of fields")
        for field in fields:
            name = field.get("name") if isinstance(field, Mapping) else None
            if not isinstance(name, str) or not _SIMPLE_NAME.match(name) or name in seen:
                raise _UnsoundError(f"{path or 'the schema'}: {name!r:.60} is no field's name, or used twice")
            seen.add(name)
            inner = f"{path}.{name}" if path else name
            if "aliases" in field or "logicalType" in field:
                raise _UnsoundError(f"{inner} has aliases or a logicalType, which headrace does not take")
            spelt = {key: value for key, value in field.items() if key != "doc"}
            spelt["type"] = self.type(field.get("type"), namespace, inner)
            if "default" in spelt:
                _check_default(spelt, inner)
            yield spelt


def _symbols(symbols: Any, name: str) -> list[str]:
    sound = (
        isinstance(symbols, list)
        and symbols
        and all(isinstance(one, str) and _SIMPLE_NAME.match(one) for one in symbols)
    )
    if not sound or len(set(symbols)) != len(symbols):
        raise _UnsoundError(f"{name} must have symbols, each an Avro name and each once")
    return list(symbols)


def _check_default(field: Mapping[str, Any], path: str) -> None:
    """Defaults are values as decoding gives them, so bytes have none but null. A union's is of its first branch."""
    type_, default = field["type"], field["default"]
    wrong = misfit(type_[0] if isinstance(type_, list) else type_, default, path, complete=True)
    if wrong is not None:
        raise _UnsoundError(f"the default does not fit: {wrong}")


def _smallest(type_: Any) -> int:
    """The fewest bytes that a datum of this type takes."""
    if type_ == "null":
        return 0
    if isinstance(type_, Mapping):
        if type_["type"] == "record":
            return sum(_smallest(field["type"]) for field in type_["fields"])
        if type_["type"] == "fixed":
            size: int = type_["size"]
            return size
    return 1


def _check_head(source: Mapping[str, Any], shape: Any) -> None:
    if _kind_of(shape) != "record" or "." not in shape["name"]:
        raise _UnsoundError("a schema is a record with a namespace")
    type_, role, version = (source.get(f"headrace.{one}") for one in ("type", "role", "version"))
    if not isinstance(type_, str) or not KIND_NAME.match(type_):
        raise _UnsoundError("headrace.type must be a name such as mail.received")
    if role not in ROLES:
        raise _UnsoundError(f"headrace.role must be one of {', '.join(ROLES)}")
    if type(version) is not int or version < 1:
        raise _UnsoundError("headrace.version must be a number from 1 on")


def _check_fields(role: str, record: Mapping[str, Any], path: str, *, top: bool) -> None:
    """What the role asks of the fields, and what headrace's own properties ask of the fields they are on."""
    names = {field["name"]: field for field in record["fields"]}
    for field in record["fields"]:
        inner = f"{path}{field['name']}"
        if PSEUDONYM in field and (field[PSEUDONYM] is not True or not _is_text(field["type"])):
            raise _UnsoundError(f"{inner}: {PSEUDONYM} must be true, on a string, or on null or an array of them")
        if CONTENT in field:
            key = names.get("content_key", {}).get("type")
            if not (top and role == "event" and inner == "content" and field["type"] == _NULLABLE_BYTES):
                raise _UnsoundError(
                    f"{inner}: {CONTENT} may stand only on an event's field content of type null or bytes"
                )
            if key != _NULLABLE_STRING or field.get("default", "") is not None:
                raise _UnsoundError(
                    f"{inner} must have the default null, and beside it a field content_key: null or string"
                )
        if role == "event" and top and inner in ("content", "content_key") and CONTENT not in names.get("content", {}):
            raise _UnsoundError(f"{inner} is the name of sealed content: say {CONTENT}, or choose another name")
        for within in _parts(field["type"]):
            if role == "proposal" and (within == "bytes" or _kind_of(within) == "fixed"):
                raise _UnsoundError(f"{inner} holds bytes, but what is proposed is kept as JSON: use a string")
            if _kind_of(within) == "record":
                _check_fields(role, within, f"{inner}.", top=False)


def _kind_of(type_: Any) -> Any:
    return type_["type"] if isinstance(type_, Mapping) else type_


def _is_text(type_: Any) -> bool:
    if isinstance(type_, list):
        return all(branch == "null" or _is_text(branch) for branch in type_)
    return type_ == "string" or (_kind_of(type_) == "array" and _is_text(type_["items"]))


def _parts(type_: Any) -> Iterator[Any]:
    """A type and what it is made of, down to records (not into them)."""
    yield type_
    for inner in (
        type_
        if isinstance(type_, list)
        else [type_.get("items"), type_.get("values")]
        if isinstance(type_, Mapping)
        else []
    ):
        if inner is not None:
            yield from _parts(inner)
