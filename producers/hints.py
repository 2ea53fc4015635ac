"""Hints on the log (``source.notified``), as few as say the same: a source is to be synced when its last hint has no
start of a sync after it, so while that is so another hint tells nothing new."""

import json
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import anyio
from anyio.to_thread import run_sync

from headrace.errors import BadInputError
from headrace.log.port import Log
from headrace.processors.applied import Applied
from headrace.producers.intake import Intake
from headrace.producers.provider import Delivery
from headrace.producers.schedule import SourceKey
from headrace.projections import known
from headrace.projections.port import Tables
from headrace.schemas.envelope import Envelope, rfc3339
from headrace.schemas.refs import OPAQUE_ID, ActorRef

_ACTOR: Final = ActorRef("system", "notify")
_CATCH_UP_SECONDS: Final = 1.0
"""How long the tables are waited for to know whether a hint is needed; then one is appended."""
_THREADS: Final = 64
MOST_KEPT_BYTES: Final = 256 * 1024
"""Of a delivery's body. A hint has to fit on every log, whatever came with it: nothing but looking hangs on it."""
_SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization", "x-goog-channel-token"})


class _Turn:
    """Deliveries for one source that share one append."""

    def __init__(self) -> None:
        self.done: Final = anyio.Event()
        self.added = False
        self.error: Exception | None = None


class Hints:
    """Appends hints. One for each event loop: deliveries that come while an append for the same source is under way
    share the next one, so a burst of any size is few appends, one after the other."""

    def __init__(
        self, log: Log, tables: Tables, applied: Applied, intake: Intake, clock: Callable[[], float] = time.time
    ) -> None:
        self._log, self._tables, self._applied, self._intake, self._clock = log, tables, applied, intake, clock
        self._guard: Final = threading.Lock()
        self._last: Final[dict[SourceKey, int]] = {}
        self._next: Final[dict[SourceKey, _Turn]] = {}
        self._one: Final[dict[SourceKey, anyio.Lock]] = {}
        self._limiter: anyio.CapacityLimiter | None = None

    async def put(self, source: SourceKey, delivery: Delivery | None, delivery_id: str | None) -> bool:
        """Return once a hint for ``source`` that has no start of a sync after it stands on the log; whether one was
        added for this.

        :raises HeadraceError: what :meth:`headrace.log.port.Log.append` raises. Put it again.
        """
        turn = self._next.get(source)
        if turn is not None:
            await turn.done.wait()
            if turn.error is not None:
                raise turn.error
            return False
        turn = self._next[source] = _Turn()
        lock = self._one.setdefault(source, anyio.Lock())
        with anyio.CancelScope(shield=True):  # others wait for it
            async with lock:
                del self._next[source]  # who comes from now on may know of what this one does not
                await self._take(turn, source, delivery, delivery_id)
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._one.pop(source, None)
        if turn.error is not None:
            raise turn.error
        return turn.added

    async def _take(self, turn: _Turn, source: SourceKey, delivery: Delivery | None, delivery_id: str | None) -> None:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_THREADS)
        try:
            turn.added = await run_sync(self.append, source, delivery, delivery_id, limiter=self._limiter)
        except Exception as error:  # noqa: BLE001 - each of them is told
            turn.error = error
        finally:
            turn.done.set()

    def append(self, source: SourceKey, delivery: Delivery | None = None, delivery_id: str | None = None) -> bool:
        """:meth:`put` for a thread."""
        tenant, account, name = source
        partition = self._intake.partition(tenant, account)
        end = self._log.describe().ends[partition]
        if self._stands(source, partition, end):
            return False
        id_ = delivery_id if delivery_id is not None and OPAQUE_ID.match(delivery_id) else None
        body = {"delivery": id_, "content": raw_delivery(delivery) if delivery is not None else None}
        observed_at = rfc3339(int(self._clock() * 1_000))
        envelope = Envelope(f"n-{secrets.token_hex(12)}", name, "source.notified", _ACTOR, observed_at=observed_at)
        (position,) = self._log.append([self._intake.record(tenant, account, envelope, body)])
        with self._guard:
            self._last[source] = position.offset
        return True

    def _stands(self, source: SourceKey, partition: int, end: int) -> bool:
        """Whether the last hint on the log up to ``end`` has no start of a sync after it."""
        with self._guard:
            last = self._last.get(source)
        if last is not None and end == last + 1:
            return True  # nothing at all came after it
        if not self._applied.wait(partition, end - 1, _CATCH_UP_SECONDS):
            return False
        with self._tables.snapshot() as reader:
            row = known.source(reader, *source)
        return row is not None and row.hint_offset > row.sync_offset


def raw_delivery(delivery: Delivery) -> bytes:
    """A delivery as it came, to be looked at or run again: JSON, without what the sender is let in by, and without a
    body of more than :data:`MOST_KEPT_BYTES`."""
    kept = len(delivery.body) <= MOST_KEPT_BYTES
    said: dict[str, Any] = {
        **({"to": delivery.to} if delivery.to is not None else {}),
        "method": delivery.method,
        "headers": [
            [name.decode("latin-1"), value.decode("latin-1")]
            for name, value in delivery.headers
            if name.decode("latin-1") not in _SECRET
        ],
        "query": [list(pair) for pair in delivery.query],
        "body": delivery.body.decode("latin-1") if kept else None,
        **({} if kept else {"body_bytes": len(delivery.body)}),
        "received_at": delivery.received_at,
    }
    return json.dumps(said, separators=(",", ":")).encode()


def stored_delivery(raw: bytes) -> Delivery:
    """The delivery that :func:`raw_delivery` kept.

    :raises BadInputError: it is none.
    """
    try:
        said = json.loads(raw)
        if said["body"] is None:
            raise BadInputError("its body was too large to be kept: only that it came is known")
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in said["headers"])
        query = tuple((str(name), str(value)) for name, value in said["query"])
        body = said["body"].encode("latin-1")
        return Delivery(said["method"], headers, query, body, float(said["received_at"]), said.get("to"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInputError("what this record keeps is no delivery: choose a source.notified with content") from None
