"""Tells a history again with something changed, so that what must not matter can be seen not to matter.

Whatever is changed shifts offsets and chain values, and so every token. Tokens that were right are made right again,
those that were wrong stay wrong, and findings are compared by the offsets of the history as it was told first.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from headrace.errors import HeadraceError
from headrace.log.framing import GENESIS, chain
from headrace.log.port import Stored
from headrace.schemas.refs import Token
from tests.core.folding import Folded
from tests.core.scribe import KINDS, LOG_ID, PARTITION, REGISTRY

Change = Callable[[Stored], Stored]


class Retold(NamedTuple):
    """``place[old]`` is where the record at offset ``old`` stands now."""

    records: list[Stored]
    place: list[int]

    @property
    def was(self) -> dict[int, int]:
        """The old offset of each record that is not new."""
        return {new: old for old, new in enumerate(self.place)}


def silent(record: Stored) -> Stored:
    """Nothing that means anything, appended at the same time."""
    return record._replace(key=None, headers=(), value=b"")


class Retelling:
    """``change`` is made to the records at ``where``; behind the record at ``new`` a copy of each record at the offsets
    ``again[new]`` is put in."""

    def __init__(
        self,
        records: Sequence[Stored],
        *,
        change: Change = silent,
        where: Collection[int] = (),
        again: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self._old, self._change, self._where, self._again = records, change, frozenset(where), again or {}
        self._old_checks: list[bytes] = []
        last = GENESIS
        for record in records:
            last = chain(last, record)
            self._old_checks.append(last[:8])
        self._new: list[Stored] = []
        self._checks: list[bytes] = []
        self._last = GENESIS
        self._place: list[int] = []
        added = 0
        for record in records:
            self._place.append(record.offset + added)
            added += len(self._again.get(record.offset, ()))

    def told(self) -> Retold:
        for record in self._old:
            changed = self._change(record) if record.offset in self._where else self._with_tokens(record)
            self._append(changed)
            for offset in self._again.get(record.offset, ()):
                copy = self._new[self._place[offset]]
                self._append(copy._replace(log_append=False))  # what the log's clock says of it is no matter here
        return Retold(self._new, self._place)

    def _append(self, record: Stored) -> None:
        placed = record._replace(offset=len(self._new))
        self._last = chain(self._last, placed)
        self._checks.append(self._last[:8])
        self._new.append(placed)

    def _with_tokens(self, record: Stored) -> Stored:
        try:
            decoded = REGISTRY.decode(record.value)
        except HeadraceError:
            return record
        body = decoded.body
        if decoded.type == "proposal.submitted":
            body = {**body, "reads": [{**read, "basis": self._token(read["basis"])} for read in body["reads"]]}
        elif decoded.type == "review.approved":
            body = {**body, "read": self._token(body["read"])}
        else:
            return record
        return record._replace(value=REGISTRY.encode(decoded.type, body))

    def _token(self, raw: bytes) -> bytes:
        token = Token.unpack(raw)
        if token is None or (token.log_id, token.partition) != (LOG_ID, PARTITION):
            return raw
        if token.offset >= len(self._old):
            return token._replace(offset=token.offset + self._place[-1] - len(self._old) + 1).pack()
        place = self._place[token.offset]
        right = token.check == self._old_checks[token.offset] and place < len(self._checks)
        return token._replace(offset=place, check=self._checks[place] if right else bytes(8)).pack()


OFFSETS: Final = ("offset", "first")


def told_by(folded: Folded, was: Mapping[int, int], leaving_out: Collection[int] = ()) -> dict[str, Any]:
    """What the tables say of the records and entities, by the offsets that they had at first."""
    said: dict[str, Any] = {}
    kept = {new: old for new, old in was.items() if old not in leaving_out}
    for row in folded.events:
        if row["offset"] in kept:
            said[f"{kept[row['offset']]} record"] = (row["disposition"], row["effect"], row["log_time"])
    for offset, text in folded.verdicts.items():
        if offset in kept:
            verdict = json.loads(text)
            said[f"{kept[offset]} verdict"] = (verdict["verdict"], _by(verdict["finding"], was))
    for row in folded.tables["proposals"]:
        if row["verdict"] != "malformed":
            name = f"proposal {(row['tenant'], row['account'], row['id'])}"
            said[name] = (row["verdict"], row["outcome"], was.get(row["accepted_at"], -1))
    for kind in KINDS.values():
        for row in folded.tables[kind.table]:
            intents = [{**one, "accepted_at": was[one["accepted_at"]]} for one in json.loads(row["intents"])]
            ref = (row["tenant"], row["account"], kind.name, row["id"])
            said[f"entity {ref}"] = (row["state"], intents, was[row["first_offset"]], was[row["head_offset"]])
    for row in folded.tables["sources"]:
        offsets = [was.get(row[name], -1) for name in ("sync_offset", "hint_offset", "fresh_offset")]
        name = f"source {(row['tenant'], row['account'], row['source'])}"
        said[name] = (row["cursor"], row["sync"], row["fresh_time"], offsets)
    for row in folded.tables["claims"]:
        said[f"claim {(row['tenant'], row['account'], row['kind'], row['entity'])}"] = (row["holder"], row["until"])
    return said


def _by(finding: Mapping[str, Any], was: Mapping[int, int]) -> dict[str, Any]:
    """A finding by the old offsets, without the words that may name a token's fault."""
    said: dict[str, Any] = {}
    for name, value in finding.items():
        if isinstance(value, dict):
            said[name] = _by(value, was)
        elif name in OFFSETS:
            said[name] = was[value]
        elif name != "reason":
            said[name] = value
    return said
