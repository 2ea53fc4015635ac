"""Walking a partition's hash chain: are the records on the log those that the tables were folded from?

The chain runs, so one comparison at the end speaks for every record before it. Only where that fails is it looked for
which record it is, and which of its fields: the events index keeps most of them.
"""

from collections.abc import Iterator
from typing import Any, Final

from headrace.errors import HaltError, UndecodableError
from headrace.log.framing import GENESIS, chain, pack_headers
from headrace.log.port import Log, Stored
from headrace.processors.decode import body_hash
from headrace.processors.findings import Finding
from headrace.projections.port import Reader
from headrace.schemas.envelope import Envelope, from_headers
from headrace.schemas.refs import parse_account_key

_BATCH: Final = 2_000
_CHAINS: Final = (
    "SELECT offset, chain FROM events"
    " WHERE partition = :partition AND offset >= :first AND offset < :end ORDER BY offset"
)
_OF_OTHERS: Final = ("delivery.", "proposal.withdrawn", "review.", "source.")
"""Records that are effective on the entity of the proposal they name: their rows are about that entity."""


class ChainWalk:
    """A walk from record 0 up to offset ``end``, exclusive. ``chain`` is the value there; ``sound`` the offset up to
    which the records surely are those that were folded."""

    def __init__(self, log: Log, live: Reader, partition: int, end: int) -> None:
        self._log: Final = log
        self._live: Final = live
        self._partition: Final = partition
        self._end: Final = end
        self.sound = 0
        self.chain = self._sound_chain = GENESIS
        self.broken_off = False
        """Whether the log could not be read to the end."""
        self._walk()

    def _walk(self) -> None:
        for first in range(0, self._end, _BATCH):
            last = min(first + _BATCH, self._end)
            live = dict(self._live.values(_CHAINS, {"partition": self._partition, "first": first, "end": last}))
            try:
                records = self._read(first, last - first)
            except HaltError:
                self.broken_off = True
                return
            for stored in records:
                self.chain = chain(self.chain, stored)
                if live.get(stored.offset) == self.chain:
                    self.sound, self._sound_chain = stored.offset + 1, self.chain

    def _read(self, offset: int, count: int) -> list[Stored]:
        found: list[Stored] = []
        while len(found) < count:
            found += self._log.read(self._partition, offset + len(found), count - len(found))
        return found

    def damage(self, chain_in_partitions: bytes | None) -> Iterator[Finding]:
        """The records that are not those that were folded; none where the log is sound.

        ``chain_in_partitions`` is what the partition's own row says the chain is at the end: with it and the events
        index two witnesses speak, and a change to one of them is not taken for a change to the log.
        """
        if not self.broken_off and (self.sound == self._end or self.chain == chain_in_partitions):
            return
        found = False
        previous = self._sound_chain
        for offset in range(self.sound, self._end):
            rows = self._live.rows(
                "SELECT * FROM events WHERE partition = :p AND offset = :o", {"p": self._partition, "o": offset}
            )
            row = rows[0] if rows else None
            try:
                stored = self._read(offset, 1)[0]
            except HaltError as error:
                found = True
                yield self._finding(offset, None, f"cannot be read: {error}")
                previous = row["chain"] if row is not None else previous
                continue
            value = chain(previous, stored)
            if row is not None and value != row["chain"]:
                found = True
                yield self._changed(stored, row)
                value = row["chain"]
            previous = value
        if not found:
            yield self._finding(
                self._end - 1,
                None,
                f"or one between {self.sound} and it is not the one that was folded (no row tells which)",
            )

    def _changed(self, stored: Stored, row: dict[str, Any]) -> Finding:
        fields = self._fields(stored, row)
        said = " or ".join(fields) if fields else "a field that the tables do not keep"
        return self._finding(
            stored.offset, ",".join(fields) or None, f"is not the one that was folded: {said} was changed"
        )

    def _finding(self, offset: int, column: str | None, what: str) -> Finding:
        message = f"record {self._partition}/{offset} of the log {what}; restore the log from a backup"
        return Finding("log", message, self._partition, offset, column=column)

    def _fields(self, stored: Stored, row: dict[str, Any]) -> list[str]:
        """The fields of a record that are not what its row in the tables says."""
        set_aside = self._live.rows(
            "SELECT key, headers, value, appended_at FROM quarantine WHERE partition = :p AND offset = :o",
            {"p": stored.partition, "o": stored.offset},
        )
        if set_aside:
            now = {
                "key": stored.key,
                "headers": pack_headers(stored.headers),
                "value": stored.value,
                "appended_at": stored.appended_at,
            }
            return [name for name, value in now.items() if value != set_aside[0][name]]
        found: list[str] = []
        if _account(stored) != (row["tenant"], row["account"]):
            found.append("key")
        if stored.appended_at != row["appended_at"]:
            found.append("appended_at")
        try:
            envelope = from_headers(dict(stored.headers))
        except UndecodableError:
            return [*found, "headers"]
        if _differs(envelope, row):
            found.append("headers")
        elif body_hash(envelope, stored.value) != row["body_hash"]:
            found.append("value")
        return found


def _account(stored: Stored) -> tuple[str, str] | None:
    if stored.key is None:
        return "", ""
    try:
        return parse_account_key(stored.key)
    except UndecodableError:
        return None


def _differs(envelope: Envelope, row: dict[str, Any]) -> bool:
    """Whether the envelope is not the one the row was made from, as far as the row keeps it."""
    said = (
        envelope.type,
        envelope.id,
        envelope.source,
        # An echo is the agent's, whoever brought it.
        *(envelope.actor if row["disposition"] != "echo" else (row["actor_kind"], row["actor_id"])),
        envelope.occurred_at,
        envelope.observed_at,
        envelope.causation,
        envelope.correlation,
        envelope.sync,
    )
    kept = ("type", "event_id", "source", "actor_kind", "actor_id", "occurred_at", "observed_at")
    if said != tuple(row[name] for name in (*kept, "causation", "correlation", "sync")):
        return True
    if row["effect"] is not None and row["type"].startswith(_OF_OTHERS):
        return False
    return (envelope.kind, envelope.entity, ",".join(envelope.concerns)) != (
        row["kind"],
        row["entity"],
        row["concerns"],
    )
