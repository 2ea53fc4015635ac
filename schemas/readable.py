"""Record bodies as people and agents read them: JSON, tokens as text, what is in clear decoded."""

import json
from collections.abc import Mapping
from typing import Any

from headrace.errors import BadInputError, SchemaMissingError
from headrace.schemas.refs import Token
from headrace.schemas.registry import HEAD, MARKER, Registry


def readable(registry: Registry, body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` without its content, every value fit for JSON: tokens as text, nested records decoded, other bytes in
    hexadecimal digits."""
    return {name: _value(registry, value) for name, value in body.items() if name != "content"}


def _value(registry: Registry, value: Any) -> Any:
    if isinstance(value, bytes):
        token = Token.unpack(value)
        if token is not None:
            return token.encode()
        return _record(registry, value) if value[: len(MARKER)] == MARKER and len(value) >= HEAD else value.hex()
    if isinstance(value, Mapping):
        return {name: _value(registry, inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(registry, inner) for inner in value]
    return value


def _record(registry: Registry, raw: bytes) -> Any:
    try:
        return {name: _value(registry, value) for name, value in registry.decode(raw).body.items()}
    except (BadInputError, SchemaMissingError):
        return raw.hex()


def readable_content(registry: Registry, raw: bytes | None, content_key: str | None) -> Any:
    """Personal content, ``None`` where there is none, it is sealed, or this headrace cannot read it."""
    if raw is None or content_key is not None:
        return None
    if raw[: len(MARKER)] == MARKER:
        decoded = _record(registry, raw)
        return decoded if isinstance(decoded, dict) else None
    try:
        return json.loads(raw)
    except ValueError:
        return None
