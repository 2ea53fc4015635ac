"""Whether a value fits a type, and if not, where: asked before it is encoded, because an encoder bends what it is
given (1.5 becomes 1, "no" becomes true) and names no place.

Types are shaped as :func:`headrace.schemas.definition.spelt_out` gives them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

_BITS: Final = {"int": 31, "long": 63}


def misfit(type_: Any, value: Any, path: str = "", *, complete: bool = False) -> str | None:
    """Why ``value`` is no datum of ``type_``, naming the place; ``None`` when it is one.

    Fields that have a default may be left out, unless ``complete``.
    """
    if isinstance(type_, list):
        if value is None:
            return None
        return misfit(type_[0] if type_[1] == "null" else type_[1], value, path, complete=complete)
    if isinstance(type_, str):
        return _primitive(type_, value, path)
    match type_["type"]:
        case "record":
            return _record(type_, value, path, complete=complete)
        case "array":
            if not isinstance(value, list):
                return _wrong(path, "a list", value)
            items = type_["items"]
            return _first(misfit(items, item, f"{path}[{at}]", complete=complete) for at, item in enumerate(value))
        case "map":
            if not isinstance(value, Mapping):
                return _wrong(path, "an object", value)
            values = type_["values"]
            wrong = _first(_primitive("string", key, f"a key of {path}") for key in value)
            return wrong or _first(
                misfit(values, one, f"{path}[{key!a}]", complete=complete) for key, one in value.items()
            )
        case "enum":
            fits = isinstance(value, str) and value in type_["symbols"]
            return None if fits else _wrong(path, f"one of {', '.join(type_['symbols'])}", value)
        case _:
            fits = isinstance(value, bytes) and len(value) == type_["size"]
            return None if fits else _wrong(path, f"{type_['size']} bytes", value)


def _record(type_: Mapping[str, Any], value: Any, path: str, *, complete: bool) -> str | None:
    if not isinstance(value, Mapping):
        return _wrong(path, "an object", value)
    prefix, known = f"{path}." if path else "", 0
    for field in type_["fields"]:
        name = field["name"]
        if name in value:
            known += 1
            wrong = misfit(field["type"], value[name], prefix + name, complete=complete)
            if wrong is not None:
                return wrong
        elif complete or "default" not in field:
            return f"{prefix}{name} is missing"
    if known != len(value):
        names = [field["name"] for field in type_["fields"]]
        extra = ", ".join(sorted(str(name)[:60] for name in value if name not in names))
        return f"no such field: {prefix}{extra}; known: {', '.join(names) or 'none'}"
    return None


def _primitive(type_: str, value: Any, path: str) -> str | None:
    match type_:
        case "string":
            if not isinstance(value, str):
                return _wrong(path, "text", value)
            return (
                None
                if value.isascii() or _is_unicode(value)
                else f"{path} holds half a surrogate pair: it is no Unicode text"
            )
        case "bytes":
            return None if isinstance(value, bytes) else _wrong(path, "bytes", value)
        case "boolean":
            return None if isinstance(value, bool) else _wrong(path, "true or false", value)
        case "null":
            return None if value is None else _wrong(path, "null", value)
        case _:
            bits = _BITS[type_]
            fits = type(value) is int and -(1 << bits) <= value < 1 << bits
            return None if fits else _wrong(path, f"a whole number of {bits + 1} bits", value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(found: Iterable[str | None]) -> str | None:
    return next((wrong for wrong in found if wrong is not None), None)


def _wrong(path: str, wanted: str, value: Any) -> str:
    return f"{path or 'the body'} must be {wanted}, not {value!a:.60}"
