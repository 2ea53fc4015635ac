"""A record of the log as people and programs read it: envelope and body decoded, content only when asked for."""

import json
from collections.abc import Mapping
from typing import Any, Final

from headrace.cli import output
from headrace.errors import HeadraceError
from headrace.log.port import Stored
from headrace.schemas.envelope import from_headers
from headrace.schemas.refs import Token, parse_account_key
from headrace.schemas.registry import MARKER, Registry

_TOKENS: Final = frozenset({"basis", "read"})
COLUMNS: Final = ("POSITION", "TIME", "ENTITY", "TYPE", "ACTOR", "ID", "ACCOUNT")


class RecordView:
    """Decodes stored records for showing."""

    def __init__(self, registry: Registry, *, content: bool) -> None:
        self._registry: Final = registry
        self._content: Final = content

    def shown(self, stored: Stored) -> dict[str, Any]:
        """The record as JSON values. What cannot be read is told under ``error``, never raised."""
        found: dict[str, Any] = {
            "position": f"{stored.partition}:{stored.offset}",
            "partition": stored.partition,
            "offset": stored.offset,
            "time": output.time(stored.appended_at),
            "tenant": None,
            "account": None,
            "entity": None,
            "type": None,
            "id": None,
            "source": None,
            "actor": None,
            "error": None,
        }
        try:
            if stored.key is not None:
                found["tenant"], found["account"] = parse_account_key(stored.key)
            envelope = from_headers(stored.headers)
            found |= {
                "entity": f"{envelope.kind}/{envelope.entity}" if envelope.kind else None,
                "type": envelope.type,
                "id": envelope.id,
                "source": envelope.source,
                "actor": f"{envelope.actor.kind}/{envelope.actor.id}",
                "concerns": list(envelope.concerns),
            }
            for name in ("occurred_at", "observed_at", "causation", "correlation", "sync", "traceparent"):
                found[name] = getattr(envelope, name)
            found["body"] = self._body(self._registry.decode(stored.value).body)
        except HeadraceError as error:
            found["error"] = str(error)
            found["body"] = {"bytes": len(stored.value)}
        return found

    def _body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._value(name, value, body) for name, value in body.items()}

    def _value(self, name: str, value: Any, body: Mapping[str, Any]) -> Any:
        if isinstance(value, Mapping):
            return self._body(value)
        if isinstance(value, list):
            return [self._value(name, one, body) for one in value]
        if not isinstance(value, bytes):
            return value
        if name == "content":
            return self.content(value, body.get("content_key"))
        if name in _TOKENS:
            token = Token.unpack(value)
            return token.encode() if token is not None else value.hex()
        if value[:2] == MARKER:
            return self._body(self._registry.decode(value).body)
        return value.hex()

    def content(self, raw: bytes | None, key: str | None) -> Any:
        """Personal content: its size, and in clear only when that was asked for and it is not sealed."""
        if raw is None:
            return None
        if key is not None:
            return {"bytes": len(raw), "sealed_by": key}
        if not self._content:
            return {"bytes": len(raw), "shown_with": "--content"}
        try:
            return self._registry.decode(raw).body if raw[:2] == MARKER else json.loads(raw)
        except (HeadraceError, ValueError):
            return {"bytes": len(raw), "error": "it is of no known form"}


def row(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The record under :data:`COLUMNS`."""
    account = f"{record['tenant']}/{record['account']}" if record["account"] else None
    what = record["type"] or "unreadable"
    return (record["position"], record["time"], record["entity"], what, record["actor"], record["id"], account)
