"""What every peer does with an event: read its Avro body, fold it with headrace's own ``evolve``.

Nothing is checked: no canonical encoding, no chain, no identities, no content. Peers get the cheapest of everything.
"""

import io
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from headrace.processors.core.model import Event
from headrace.processors.kinds.calendar_event import KIND as CALENDAR
from headrace.processors.kinds.mail_thread import KIND as MAIL
from headrace.schemas.refs import ActorRef

_SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
_PERSON = ActorRef("user", "person")


class Fact(NamedTuple):
    """``subject`` is ``kind/id``."""

    account: str
    subject: str
    type: str
    body: Mapping[str, Any]


class Facts:
    """Reads records."""

    def __init__(self) -> None:
        self._types: dict[bytes, tuple[str, Any]] = {}
        for path in _SCHEMAS.rglob("*.avsc"):
            source = json.loads(path.read_text(encoding="utf-8"))
            parsed = fastavro.parse_schema(source)
            crc = bytes.fromhex(fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO"))
            self._types[crc] = (source["headrace.type"], parsed)

    def read(self, key: bytes | None, headers: Iterable[tuple[str, Any]], value: bytes) -> Fact | None:
        """The fact in a record, ``None`` where it holds none."""
        if key is None:
            return None
        type_, schema = self._types[value[2:10]]
        body: Any = fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None)
        return Fact(key.decode(), dict(headers)["ce_subject"].decode(), type_, body)


def folded(state: Mapping[str, Any] | None, fact: Fact) -> dict[str, Any]:
    """The entity's state after a fact."""
    kind = MAIL if fact.subject.startswith("mail.thread/") else CALENDAR
    return kind.evolve(state, Event(fact.type, fact.body, _PERSON))


class Clock:
    """How long a run took, from its ``warm``-th event on."""

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self._begun = 0.0
        self.seen = 0

    def tick(self) -> None:
        """An event was dealt with."""
        self.seen += 1
        if self.seen == self._warm:
            self._begun = time.perf_counter()

    def tell(self, begun: float | None = None) -> None:
        """Print events and seconds, for whoever started this process."""
        spent = time.perf_counter() - (self._begun if begun is None else begun)
        counted = self.seen if begun is not None else self.seen - self._warm
        print(json.dumps({"events": counted, "seconds": spent}), flush=True)
