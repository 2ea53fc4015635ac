"""The deliveries that came lately, for whoever looks on (``headrace listen``): in memory, only so many, and of each
what became of it. Nothing of what was in them, and nothing that names a person.
"""

import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from headrace.producers.schedule import SourceKey

KEPT: Final = 500
"""How many are remembered."""
_DIGEST_BYTES: Final = 6


class Hinted(NamedTuple):
    """A source that a delivery gave a hint for; ``added``: a record was put on the log for it."""

    source: SourceKey
    kind: str
    added: bool


class Seen(NamedTuple):
    """A delivery. ``number`` counts from 1 in this process; ``at`` is epoch milliseconds; ``door`` is
    ``notifications`` or ``webhooks``, ``name`` the provider, hook or endpoint, ``(unknown)`` where there is none.

    ``reason`` is why it was refused, ``dropped`` what else of it was; ``hints`` what it led to, ``events`` how many
    events were put on the log. ``size`` and ``digest`` are the body's, ``None`` where it was not read; the digest is
    keyed anew in every process, so it tells equal bodies and nothing more. ``tenant`` is the endpoint's, where it has
    one. ``ms`` is how long it took.
    """

    number: int
    at: int
    door: str
    name: str
    method: str
    status: int
    reason: str | None
    dropped: tuple[str, ...]
    hints: tuple[Hinted, ...]
    events: int
    size: int | None
    digest: str | None
    tenant: str | None
    ms: float


class Noting:
    """What is noted of a delivery while it is taken."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.hints: Final[list[Hinted]] = []
        self.events = 0
        self.tenant: str | None = None
        self.began: Final = time.perf_counter()


class Deliveries:
    """Of one process. Safe from any thread; ``clock`` gives epoch seconds."""

    def __init__(self, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        self._clock: Final = clock
        self._key: Final = secrets.token_bytes(32)
        self._lock: Final = threading.Lock()
        self._seen: Final[deque[Seen]] = deque(maxlen=kept)
        self._wakes: Final[set[Callable[[], None]]] = set()
        self._number = 0

    def put(
        self,
        noting: Noting,
        *,
        door: str,
        name: str,
        method: str,
        status: int,
        reason: str | None = None,
        dropped: tuple[str, ...] = (),
    ) -> None:
        """Remember a delivery, and tell those who listen."""
        body, ms = noting.body, (time.perf_counter() - noting.began) * 1_000
        digest = None
        if body is not None:
            digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES, key=self._key).hexdigest()
        size = len(body) if body is not None else None
        at, hints = int(self._clock() * 1_000), tuple(noting.hints)
        with self._lock:
            self._number += 1
            self._seen.append(
                Seen(
                    self._number, at, door, name, method, status, reason, dropped, hints, noting.events, size, digest,
                    noting.tenant, ms,
                )
            )  # fmt: skip
            wakes = tuple(self._wakes)
        for wake in wakes:
            wake()

    @property
    def number(self) -> int:
        """Of the last one, 0 before any."""
        return self._number

    def after(self, number: int) -> list[Seen]:
        """Those that came after this one, as far as they are remembered, oldest first."""
        with self._lock:
            return [one for one in self._seen if one.number > number]

    @contextmanager
    def listening(self, wake: Callable[[], None]) -> Generator[None]:
        """While it lasts, ``wake`` is called after every delivery, from any thread."""
        with self._lock:
            self._wakes.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakes.discard(wake)
