"""JSON from outside, taken only where it means one thing to everybody (RFC 8259; I-JSON, RFC 7493).

Refused beyond what is no JSON: nesting that would exhaust a parser, an object with a key twice, NaN and infinities,
integers beyond 64 bits, strings that are no Unicode text or hold U+0000 (which databases do not keep).
"""

import json
import math
import re
from typing import Any, Final

from headrace.producers.refusal import RefusedError

MAX_DEPTH: Final = 32
_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|[\[{]|[\]}]', re.DOTALL)
"""Strings are skipped whole, unterminated ones to the end, so that one pass is linear whatever comes."""
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")
_INT64_DIGITS: Final = 20
_INT64: Final = range(-(2**63), 2**63)


def parse_json(body: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The JSON value in ``body``.

    :raises RefusedError: ``not_utf8``, ``not_json``, ``too_deep``, ``duplicate_key``, ``bad_number`` or ``bad_text``.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise RefusedError("not_utf8", f"byte {error.start} of the body is not UTF-8: send UTF-8") from None
    if _depth(text, max_depth) > max_depth:
        raise RefusedError("too_deep", f"objects and arrays may be {max_depth} deep: send flatter data")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise RefusedError("not_json", f"{error.msg} at character {error.pos}: send valid JSON") from None
    if "\\u" in text:  # nothing but an escape brings such a character past the two decoders
        _check_text(value)
    return value


def _depth(text: str, enough: int) -> int:
    """How deep brackets nest; counting stops beyond ``enough``."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        match text[found.start()]:
            case "[" | "{":
                depth += 1
                deepest = max(deepest, depth)
                if deepest > enough:
                    break
            case "]" | "}":
                depth -= 1
            case _:
                pass
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise RefusedError("duplicate_key", "an object names one of its keys twice: name each once")
    return made


def _int(text: str) -> int:
    if len(text) > _INT64_DIGITS or int(text) not in _INT64:
        raise RefusedError("bad_number", "an integer does not fit 64 bits: send it as text")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RefusedError("bad_number", "a number is beyond double precision: send it as text")
    return value


def _constant(_: str) -> None:
    raise RefusedError("bad_number", "NaN and infinities are no JSON: leave the value out")


def _check_text(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if _NO_TEXT.search(item):
                raise RefusedError("bad_text", "a string holds U+0000 or half a surrogate pair: send Unicode text")
        elif isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
