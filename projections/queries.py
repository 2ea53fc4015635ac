"""Questions to the tables, over any adapter's :class:`Reader`: portable SQL with ``:name`` parameters.

Every function sees one snapshot. None joins partitions: an account lives on one, and what an answer says of "now" is
said by that partition's :class:`Horizon`.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from headrace.processors.core.kind import Kind
from headrace.processors.core.model import AccountKey, ClaimRow, EntityRow, ProposalRow, SourceRow
from headrace.projections import rows
from headrace.projections.kind_tables import COMMON, entity_row
from headrace.projections.long_text import equal
from headrace.projections.port import Reader
from headrace.schemas.refs import EntityRef, Token, Touch

_CHECK: Final = 8
"""Bytes of a chain value that a token carries."""
_COLUMNS: Final = ", ".join(rows.EVENT_COLUMNS)
_CONTENT: Final = ("content", "content_key")
_LISTED: Final = ", ".join(f"NULL AS {name}" if name in _CONTENT else name for name, _, _ in COMMON)
"""What every kind has, without personal data: it may be large, and lists do not show it."""
_HERE: Final = "tenant = :tenant AND account = :account"
_EVENTS: Final = f"{_COLUMNS} FROM events WHERE {_HERE}"

_SUBMITTED: Final = """
    SELECT q.*, p.log_id AS p_log_id, p.next_offset AS p_next_offset, p.chain AS p_chain, p.log_time AS p_log_time,
        v.offset AS v_offset, v.proposal AS v_proposal, v.verdict AS v_verdict, v.log_time AS v_log_time,
        v.text AS v_text
    FROM partitions p
    LEFT JOIN proposals q ON q.tenant = :tenant AND q.account = :account AND q.id = :id
    LEFT JOIN verdicts v ON v.partition = p.partition AND v.offset = :submission
    WHERE p.partition = :partition
"""


class Horizon(NamedTuple):
    """How far a partition's tables are. ``log_time`` is that of the last record folded."""

    log_id: bytes
    partition: int
    next_offset: int
    chain: bytes
    log_time: int

    @property
    def token(self) -> Token:
        """Of the last record folded: the position that everything in this snapshot was read at."""
        return Token(self.log_id, self.partition, self.next_offset - 1, self.chain[:_CHECK])

    def at(self, offset: int, chain: bytes) -> Token:
        """The token of an earlier position, whose chain value (or its first 8 bytes) is known."""
        return Token(self.log_id, self.partition, offset, chain[:_CHECK])


class Judgement(NamedTuple):
    """One row of ``verdicts``: ``finding`` says why."""

    offset: int
    proposal: str
    verdict: str
    log_time: int
    finding: dict[str, Any]


class AccountCount(NamedTuple):
    """An account and how much there is of it."""

    account: str
    events: int
    entities: dict[str, int]
    waiting: int
    last_log_time: int


# -- partitions and events --------------------------------------------------------------------------------------


def horizon(reader: Reader, partition: int) -> Horizon | None:
    """How far a partition is, ``None`` before its opening record is folded."""
    sql = "SELECT log_id, next_offset, chain, log_time FROM partitions WHERE partition = :partition"
    for row in reader.rows(sql, {"partition": partition}):
        return Horizon(row["log_id"], partition, row["next_offset"], row["chain"], row["log_time"])
    return None


def horizons(reader: Reader) -> list[Horizon]:
    """How far every partition is, in their order."""
    sql = "SELECT partition, log_id, next_offset, chain, log_time FROM partitions ORDER BY partition"
    return [
        Horizon(row["log_id"], row["partition"], row["next_offset"], row["chain"], row["log_time"])
        for row in reader.rows(sql, {})
    ]


def event_at(reader: Reader, partition: int, offset: int) -> dict[str, Any] | None:
    """The row of ``events`` for one record."""
    sql = f"SELECT {_COLUMNS} FROM events WHERE partition = :partition AND offset = :offset"  # noqa: S608 - our names
    found = reader.rows(sql, {"partition": partition, "offset": offset})
    return found[0] if found else None


def is_history(reader: Reader, token: Token) -> bool | None:
    """Whether a token of this log is of a position in the history that these tables have folded; ``None`` while they
    have not come so far."""
    sql = (
        "SELECT p.log_id, p.next_offset, e.chain FROM partitions p"
        " LEFT JOIN events e ON e.partition = p.partition AND e.offset = :offset WHERE p.partition = :partition"
    )
    for row in reader.rows(sql, {"partition": token.partition, "offset": token.offset}):
        if row["next_offset"] > token.offset:
            return bool(row["log_id"] == token.log_id and row["chain"] and row["chain"][:_CHECK] == token.check)
    return None


def account_events(
    reader: Reader, account: AccountKey, *, after: int, limit: int, kind: str = "", entity: str = ""
) -> list[dict[str, Any]]:
    """An account's rows of ``events`` in log order with ``offset > after``, of one kind or entity where named."""
    sql = f"SELECT {_EVENTS} AND offset > :after{_about(kind, entity)} ORDER BY offset LIMIT :limit"
    return reader.rows(sql, {**_of(account), "after": after, "limit": limit, "kind": kind, "entity": entity})


def latest_account_events(
    reader: Reader, account: AccountKey, *, before: int, limit: int, kind: str = "", entity: str = ""
) -> list[dict[str, Any]]:
    """As :func:`account_events`, newest first, with ``offset < before``."""
    sql = f"SELECT {_EVENTS} AND offset < :before{_about(kind, entity)} ORDER BY offset DESC LIMIT :limit"
    return reader.rows(sql, {**_of(account), "before": before, "limit": limit, "kind": kind, "entity": entity})


def _about(kind: str, entity: str) -> str:
    return (" AND kind = :kind" if kind else "") + (" AND entity = :entity" if entity else "")


def _of(account: AccountKey) -> dict[str, Any]:
    return {"tenant": account[0], "account": account[1]}


def effective_events(reader: Reader, ref: EntityRef, until: int) -> list[dict[str, Any]]:
    """An entity's effective events in log order with ``offset <= until``."""
    sql = (
        f"SELECT {_EVENTS} AND kind = :kind AND entity = :id AND offset <= :until"
        " AND effect IS NOT NULL ORDER BY offset"
    )
    return reader.rows(sql, {**ref._asdict(), "until": until})


def attempts(reader: Reader, account: AccountKey, proposal_id: str, *, after: int, until: int) -> list[dict[str, Any]]:
    """What deliveries did to a proposal's intent without being effective (an attempt granted, an outcome unknown), in
    log order with ``after < offset <= until``."""
    sql = (
        f"SELECT {_EVENTS} AND offset > :after"
        f" AND offset <= :until AND {equal('proposal', ':proposal')}"
        " AND effect IS NULL AND disposition IN ('granted', 'unknown') ORDER BY offset"
    )
    here = {**_of(account), "proposal": proposal_id, "after": after, "until": until}
    return reader.rows(sql, here)


def last_claim_record(reader: Reader, ref: EntityRef, until: int) -> dict[str, Any] | None:
    """The last ``claim.taken`` or ``claim.released`` that counted on an entity with ``offset <= until``."""
    sql = (
        f"SELECT {_EVENTS} AND kind = :kind AND entity = :id"
        " AND offset <= :until AND disposition = 'noted'"
        " AND type IN ('claim.taken', 'claim.released') ORDER BY offset DESC LIMIT 1"
    )
    found = reader.rows(sql, {**ref._asdict(), "until": until})
    return found[0] if found else None


def quarantine(reader: Reader, tenant: str | None, after: tuple[int, int], limit: int) -> list[dict[str, Any]]:
    """Records set aside, by partition and offset: a tenant's, or with ``None`` all, also those without a key."""
    sql = (
        "SELECT q.partition, q.offset, q.reason, q.appended_at, LENGTH(q.value) AS bytes, e.tenant, e.account"
        " FROM quarantine q JOIN events e ON e.partition = q.partition AND e.offset = q.offset"
        " WHERE (q.partition > :partition OR (q.partition = :partition AND q.offset > :offset))"
        " AND (:tenant IS NULL OR e.tenant = :tenant) ORDER BY q.partition, q.offset LIMIT :limit"
    )
    return reader.rows(sql, {"tenant": tenant, "partition": after[0], "offset": after[1], "limit": limit})


# -- entities ---------------------------------------------------------------------------------------------------


def entity(reader: Reader, kind: Kind, ref: EntityRef, *, content: bool = True) -> EntityRow | None:
    """An entity as it is now, ``None`` where nothing effective ever happened to it."""
    names = "*" if content else _LISTED
    sql = f"SELECT {names} FROM {kind.table} WHERE {_HERE} AND id = :id"  # noqa: S608 - our names
    found = reader.rows(sql, {**_of(ref[:2]), "id": ref.id})
    return entity_row(ref, found[0]) if found else None


def entities(
    reader: Reader, kind: Kind, account: AccountKey, *, after: str, limit: int, content: bool = True
) -> list[EntityRow]:
    """Entities of a kind with ``id > after``, by id."""
    names = "*" if content else _LISTED
    sql = f"SELECT {names} FROM {kind.table} WHERE {_HERE} AND id > :after ORDER BY id LIMIT :limit"  # noqa: S608
    found = reader.rows(sql, {**_of(account), "after": after, "limit": limit})
    return [entity_row(EntityRef(*account, kind.name, row["id"]), row) for row in found]


def claim(reader: Reader, ref: EntityRef) -> ClaimRow | None:
    """Who holds an entity; the claim may have run out."""
    sql = (
        "SELECT claim, holder, until, offset FROM claims"
        " WHERE tenant = :tenant AND account = :account AND kind = :kind AND entity = :id"
    )
    for row in reader.rows(sql, ref._asdict()):
        return ClaimRow(ref, row["claim"], row["holder"], row["until"], row["offset"])
    return None


def claim_named(reader: Reader, account: AccountKey, name: str) -> ClaimRow | None:
    """The claim with this id in an account, if it is held."""
    sql = "SELECT * FROM claims WHERE tenant = :tenant AND account = :account AND claim = :claim"
    for row in reader.rows(sql, {**_of(account), "claim": name}):
        ref = EntityRef(*account, row["kind"], row["entity"])
        return ClaimRow(ref, row["claim"], row["holder"], row["until"], row["offset"])
    return None


def touching(
    reader: Reader, account: AccountKey, scope: Touch, *, after: tuple[str, str], limit: int
) -> list[tuple[str, str]]:
    """(kind, id) of entities that ever touched a scope, beyond ``after``: a superset of those that meet it now.

    Every part that an entity takes up was put down when it came to be, so what meets the scope now is among them.
    """
    sql = (
        "SELECT DISTINCT kind, entity FROM touches"  # noqa: S608 - our names
        f" WHERE tenant = :tenant AND account = :account AND container = :container AND {equal('container_id', ':id')}"
        " AND (:start IS NULL OR ends_at IS NULL OR ends_at >= :start OR starts_at >= :start)"
        " AND (:end IS NULL OR starts_at IS NULL OR starts_at < :end)"
        " AND (kind > :kind OR (kind = :kind AND entity > :entity)) ORDER BY kind, entity LIMIT :limit"
    )
    end = scope.end
    if scope.start is not None and end is not None and end <= scope.start:
        end = scope.start + 1  # an empty interval counts as the point at its start, as in `Touch.meets`
    bounds = {**scope._asdict(), "end": end}
    parameters = {**bounds, **_of(account), "kind": after[0], "entity": after[1], "limit": limit}
    return [(row["kind"], row["entity"]) for row in reader.rows(sql, parameters)]


# -- proposals --------------------------------------------------------------------------------------------------


def proposal(reader: Reader, account: AccountKey, proposal_id: str) -> ProposalRow | None:
    """A proposal and what the log says of it now."""
    sql = "SELECT * FROM proposals WHERE tenant = :tenant AND account = :account AND id = :id"
    found = reader.rows(sql, {**_of(account), "id": proposal_id})
    return rows.proposal_row(found[0]) if found else None


def submitted(
    reader: Reader, partition: int, account: AccountKey, proposal_id: str, offset: int
) -> tuple[Horizon, ProposalRow | None, Judgement | None] | None:
    """How far a partition is, a proposal of an account on it, and the verdict that the record at ``offset`` brought
    about: in one question, for somebody waits. ``None`` before the partition's opening record is folded."""
    here = {**_of(account), "id": proposal_id, "partition": partition, "submission": offset}
    for row in reader.rows(_SUBMITTED, here):
        folded = {name[2:]: row.pop(name) for name in list(row) if name.startswith("p_")}
        judged = {name[2:]: row.pop(name) for name in list(row) if name.startswith("v_")}
        return (
            Horizon(partition=partition, **folded),
            rows.proposal_row(row) if row["id"] is not None else None,
            _judgement(judged) if judged["text"] is not None else None,
        )
    return None


def proposals(
    reader: Reader, account: AccountKey, *, after: str, limit: int, verdict: str | None = None
) -> list[ProposalRow]:
    """Proposals with ``id > after``, by id; those with one verdict where it is named."""
    chosen = " AND verdict = :verdict" if verdict is not None else ""
    sql = f"SELECT * FROM proposals WHERE {_HERE} AND id > :after{chosen} ORDER BY id LIMIT :limit"  # noqa: S608
    found = reader.rows(sql, {**_of(account), "after": after, "limit": limit, "verdict": verdict})
    return [rows.proposal_row(row) for row in found]


def verdicts(reader: Reader, account: AccountKey, proposal_id: str) -> list[Judgement]:
    """Every verdict ever reached on a proposal, in log order, those of repeated submissions included."""
    sql = (
        "SELECT * FROM verdicts WHERE tenant = :tenant AND account = :account AND proposal = :proposal ORDER BY offset"
    )
    found = reader.rows(sql, {**_of(account), "proposal": proposal_id})
    return [_judgement(row) for row in found]


def _judgement(row: dict[str, Any]) -> Judgement:
    finding = json.loads(row["text"])["finding"]
    return Judgement(row["offset"], row["proposal"], row["verdict"], row["log_time"], finding)


# -- sources and accounts ---------------------------------------------------------------------------------------


def sources(reader: Reader, account: AccountKey) -> list[SourceRow]:
    """An account's sources, by name."""
    sql = "SELECT * FROM sources WHERE tenant = :tenant AND account = :account ORDER BY source"
    return [rows.source_row(row) for row in reader.rows(sql, _of(account))]


def accounts(reader: Reader, tenant: str, after: str, limit: int) -> Iterator[str]:
    """A tenant's accounts beyond ``after``, by name: one look into the index each, however many events they have."""
    sql = "SELECT MIN(account) AS account FROM events WHERE tenant = :tenant AND account > :after"
    for _ in range(limit):
        found = reader.rows(sql, {"tenant": tenant, "after": after})
        if found[0]["account"] is None:
            return
        after = found[0]["account"]
        yield after


def counted(reader: Reader, kinds: Sequence[Kind], account: AccountKey) -> AccountCount:
    """How much there is of an account."""
    here = _of(account)
    (events,) = reader.rows(f"SELECT COUNT(*) AS n, MAX(offset) AS last FROM events WHERE {_HERE}", here)  # noqa: S608
    at_last = f"SELECT log_time FROM events WHERE {_HERE} AND offset = :last"  # noqa: S608 - our names
    last = reader.rows(at_last, {**here, "last": events["last"]})
    waiting = f"SELECT COUNT(*) AS n FROM proposals WHERE {_HERE} AND verdict IN ('needs_review', 'held')"  # noqa: S608
    by_kind = {
        kind.name: reader.rows(f"SELECT COUNT(*) AS n FROM {kind.table} WHERE {_HERE}", here)[0]["n"]  # noqa: S608
        for kind in kinds
    }
    log_time = last[0]["log_time"] if last else 0
    return AccountCount(account[1], events["n"], by_kind, reader.rows(waiting, here)[0]["n"], log_time)
