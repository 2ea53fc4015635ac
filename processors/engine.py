"""The engine: a batch of records in, rows out, exactly once.

``apply`` is the whole processor. It loads what the batch needs (a fixed number of queries), folds in memory, and writes
everything with the next offset in one fenced transaction. Stopped anywhere, the tables equal the fold of the log up to
``next_offset``; a paused zombie writes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from headrace.errors import FencedError, HaltError, KindError, LogMismatchError
from headrace.log.framing import GENESIS, chain
from headrace.log.port import Log, LogDescription, Stored
from headrace.processors.core.fold import step
from headrace.processors.core.kind import Kind
from headrace.processors.core.memory import Memory, PartitionRow, ProposalKey
from headrace.processors.core.model import Entry, Poison, Proposal
from headrace.processors.decode import Decoder
from headrace.projections import queries
from headrace.projections.port import Publish, Tables, Wants
from headrace.schemas.refs import Token
from headrace.schemas.registry import Registry

_ANSWERS: Final = ("proposal.withdrawn", "review.", "source.confirmed", "delivery.")


class Decoded(NamedTuple):
    """A batch as the fold takes it. ``previous`` and ``chain`` are the chain's values before its first record and at
    its last; ``partitions`` is how many the log has, as far as its records tell."""

    records: Sequence[Stored]
    items: Sequence[Entry | Poison]
    previous: bytes
    chain: bytes
    partitions: int


class Folded(NamedTuple):
    """A batch and what it did, not committed yet."""

    batch: Decoded
    memory: Memory


class Engine:
    """Folds partitions of one log into tables. Not thread-safe per partition: one owner at a time, fenced anyway."""

    def __init__(
        self,
        registry: Registry,
        kinds: Mapping[str, Kind],
        tables: Tables,
        *,
        schemas: Callable[[], Registry] | None = None,
        publish: Publish | None = None,
    ) -> None:
        """``schemas`` is asked by :meth:`look_for_schemas`; without it the registry stays as it is. ``publish`` makes
        known what a batch did before that is committed, and the same again if the batch is folded again (at least
        once)."""
        self._registry = registry
        self._kinds = dict(kinds)
        self._tables = tables
        self._schemas = schemas
        self._publish = publish
        self._partitions: dict[int, PartitionRow] = {}
        self._log_id: bytes | None = None

    def look_for_schemas(self) -> None:
        """A schema was missing: see whether it is here by now."""
        if self._schemas is not None:
            self._registry = self._schemas()

    def resume(self, log: Log, partition: int) -> int:
        """The offset to go on from, after checking that the log still is the one the tables were folded from.

        :raises LogMismatchError: it was replaced or truncated, or its last folded record is not what it was.
        """
        row = self._tables.resume(partition)
        described = log.describe()
        if row is None:
            row = PartitionRow(partition, partitions=described.partitions)
        else:
            self._check(log, described, row)
        self._log_id = described.log_id
        self._partitions[partition] = row
        return row.next_offset

    def _check(self, log: Log, described: LogDescription, row: PartitionRow) -> None:
        where = f"partition {row.partition}"
        if described.log_id != row.log_id or described.partitions != row.partitions:
            raise LogMismatchError(
                f"{where}: the tables were folded from another log; point headrace at that log, or rebuild the tables"
            )
        if described.ends[row.partition] < row.next_offset and not _goes_to(log, row):
            raise LogMismatchError(
                f"{where} of the log ends at {described.ends[row.partition]}, the tables were folded up to"
                f" {row.next_offset}: the log was cut off; restore it, or rebuild the tables from the log as it is now"
            )
        known = self._chain_at(row.partition, row.next_offset - 2) if row.next_offset > 1 else GENESIS
        last = log.read(row.partition, row.next_offset - 1, 1)
        if chain(known, last[0]) != row.chain:
            raise LogMismatchError(
                f"{where}: the record at offset {row.next_offset - 1} is not the one that was folded: the log was"
                " truncated or changed; restore it, or rebuild the tables from the log as it is now"
            )

    def _chain_at(self, partition: int, offset: int) -> bytes:
        sql = "SELECT chain FROM events WHERE partition = :partition AND offset = :offset"
        with self._tables.snapshot() as reader:
            found = reader.rows(sql, {"partition": partition, "offset": offset})
        if not found:
            raise LogMismatchError(f"partition {partition}: the tables lack offset {offset}; rebuild them")
        value: bytes = found[0]["chain"]
        return value

    def decode(self, partition: int, records: Sequence[Stored], after: Decoded | None = None) -> Decoded:
        """A batch made ready for :meth:`fold`, if you like while the one before it, ``after``, is committed and the
        server is waited for. Without ``after`` it follows what was committed last.

        :raises SchemaMissingError: one of the records names a schema version that is not here.
        """
        row = self._partitions[partition]
        chain, partitions = (row.chain, row.partitions) if after is None else (after.chain, after.partitions)
        decoder = Decoder(self._registry, partition, partitions, chain)
        items = [decoder.decode(stored) for stored in records]
        return Decoded(records, items, chain, decoder.chain, decoder.partitions)

    def apply(self, partition: int, batch: Sequence[Stored] | Decoded) -> Memory:
        """:meth:`fold` a batch and :meth:`commit` it; returns what it did."""
        return self.commit(self.fold(partition, batch))

    def fold(self, partition: int, batch: Sequence[Stored] | Decoded) -> Folded:
        """Fold a batch that begins at the partition's next offset; nothing is written yet.

        The batch holds at least one record. One that :meth:`decode` made ready and that does not follow what was
        committed last (a batch before it failed, say) is decoded anew. Until what this returns is committed or dropped
        no other batch of the partition may be folded; batches of other partitions may, by another thread.

        :raises HaltError: this processor must stop.
        :raises FencedError: another owner moved the partition on.
        :raises UnavailableError: the tables do not answer; try again from where they are then.
        """
        before = self._partitions[partition]
        row = replace(before)  # what was folded so far stays as it was until this batch is committed
        records = batch.records if isinstance(batch, Decoded) else batch
        if not isinstance(batch, Decoded) or batch.previous != before.chain:
            batch = self.decode(partition, records)
        items = batch.items
        self._check_opening(before, items[0])
        memory = Memory(row, self._kinds)
        try:
            self._load(memory, items)
            for item in items:
                step(memory, item)
        except KindError:
            self._check_fence(before)
            raise
        return Folded(batch, memory)

    def commit(self, folded: Folded) -> Memory:
        """Write what a batch did, with the next offset, in one transaction; returns it.

        After an :class:`UnavailableError` call :meth:`resume` again: only the answer may have got lost.

        :raises HaltError: nothing was written, and this processor must stop.
        :raises FencedError: another owner moved the partition on; nothing was written.
        :raises UnavailableError: the tables do not answer; try again from where they are then.
        """
        memory = folded.memory
        self._tables.commit(memory, folded.batch.records, self._publish)
        self._partitions[memory.partition.partition] = memory.partition
        return memory

    def _check_opening(self, row: PartitionRow, item: Entry | Poison) -> None:
        """The opening that every partition has for itself must be this log's."""
        if item.offset != 0 or isinstance(item, Poison) or item.envelope.type != "log.opened":
            return
        log_id = bytes.fromhex(item.body["log_id"])
        if (log_id, item.body["partitions"]) != (self._log_id or log_id, row.partitions):
            raise LogMismatchError(
                f"partition {row.partition} begins with another log's opening: records were mixed up; restore the log"
            )

    def _check_fence(self, before: PartitionRow) -> None:
        """Folding over rows that another owner has moved on can fail in any way: that is no bug in a kind."""
        now = self._tables.resume(before.partition)
        if (now.next_offset if now is not None else 0) != before.next_offset:
            raise FencedError(
                f"partition {before.partition} is no longer at offset {before.next_offset}: another processor owns it;"
                " this one wrote nothing"
            )

    def places(self) -> dict[int, int]:
        """The first offset of every partition that is not in the tables, as they are now.

        :raises UnavailableError: the tables cannot be read now.
        """
        with self._tables.snapshot() as reader:
            return {one.partition: one.next_offset for one in queries.horizons(reader)}

    def forget(self, partition: int) -> None:
        """The partition is somebody else's now."""
        self._partitions.pop(partition, None)

    def _load(self, memory: Memory, items: Iterable[Entry | Poison]) -> None:
        judged: list[Proposal] = []
        wants = Wants()
        for item in items:
            if isinstance(item, Poison):
                if item.proposal is not None:
                    wants.proposals.add((item.tenant, item.account, item.proposal))
                continue
            _want(wants, item)
            if item.proposal is not None:
                if item.proposal.fault is None:
                    judged.append(item.proposal)
                wants.proposals.add((item.tenant, item.account, item.envelope.id))
            elif item.account and item.role == "record" and item.envelope.type.startswith(_ANSWERS):
                wants.proposals.add((item.tenant, item.account, item.body["proposal"]))
        for proposal in judged:
            _want_reads(wants, memory.partition, proposal)
        self._tables.load(memory, wants)
        earlier = [row.proposal for row in memory.proposals.values() if row.verdict != "malformed"]
        if earlier:  # answered, or submitted again
            more = Wants()
            for proposal in earlier:
                _want_reads(more, memory.partition, proposal)
            self._tables.load(memory, _besides(more, wants))
            judged += earlier
        wants = _between(memory, judged)
        wants.proposals = _under_way(memory)
        self._tables.load(memory, wants)
        if any(isinstance(item, Entry) and item.envelope.type == "delivery.attempted" for item in items):
            self._tables.load(memory, Wants(proposals=_accepted_since(memory)))


def _goes_to(log: Log, row: PartitionRow) -> bool:
    """Whether the log goes as far as it was folded after all: a broker that stood still while another took over may
    have answered with how far it went then. Reading from beyond the end is refused when that is certain."""
    try:
        log.read(row.partition, row.next_offset, 1)
    except LogMismatchError:
        return False
    return True


def _want(wants: Wants, entry: Entry) -> None:
    envelope = entry.envelope
    if entry.proposal is None:
        wants.identities.add(entry.identity)
    if envelope.kind:
        wants.entities.add(entry.ref)
    if envelope.sync is not None:
        wants.accounts.add((entry.tenant, entry.account))
    if entry.role == "event":
        return
    if envelope.type.startswith("source."):
        wants.accounts.add((entry.tenant, entry.account))
    if envelope.type.startswith("claim."):
        wants.claims.add(entry.ref)
    if envelope.type == "review.approved":
        read = Token.unpack(entry.body["read"])
        if read is not None and read.offset < entry.offset:
            wants.known.add(read.offset)


def _want_reads(wants: Wants, partition: PartitionRow, proposal: Proposal) -> None:
    wants.entities.add(proposal.ref)
    wants.claims.add(proposal.ref)
    wants.accounts.add((proposal.ref.tenant, proposal.ref.account))
    for read in proposal.reads:
        if read.what != "scope":
            wants.entities.add(proposal.ref._replace(kind=read.kind, id=read.id))
        basis = read.basis
        if basis is not None and basis.partition == partition.partition and basis.offset < partition.next_offset:
            wants.known.add(basis.offset)


def _besides(more: Wants, loaded: Wants) -> Wants:
    """What is wanted of entities, accounts, claims and offsets that is not loaded yet."""
    return Wants(
        entities=more.entities - loaded.entities,
        accounts=more.accounts - loaded.accounts,
        claims=more.claims - loaded.claims,
        known=more.known - loaded.known,
    )


def _under_way(memory: Memory) -> set[ProposalKey]:
    """Proposals whose attempt a fact in this batch may turn out to be the echo of."""
    wanted = {
        (ref.tenant, ref.account, intent.proposal)
        for ref, row in memory.entities.items()
        for intent in row.intents
        if intent.attempt is not None
    }
    return wanted - memory.proposals.keys()


def _accepted_since(memory: Memory) -> set[ProposalKey]:
    """Proposals accepted between basis and now: whether they knew of the one that is attempted counts."""
    effects = [effect for since in memory.since.values() for effect in since]
    effects += [effect for touching in memory.touching.values() for _, effect in touching]
    wanted = {(one.ref.tenant, one.ref.account, one.proposal) for one in effects if one.proposal is not None}
    return wanted - memory.proposals.keys()


def _between(memory: Memory, judged: Iterable[Proposal]) -> Wants:
    """Which effective events lie between basis and now: none to load where the basis is the head."""
    wants = Wants()
    next_offset = memory.partition.next_offset
    for proposal in judged:
        for read in proposal.reads:
            if read.basis is None:
                continue
            after = read.basis.offset
            if read.what == "scope":
                key = (proposal.ref.tenant, proposal.ref.account, read.kind, read.id)
                memory.touching.setdefault(key, [])
                if after < next_offset - 1:
                    wants.touching[key] = min(after, wants.touching.get(key, after))
                continue
            ref = proposal.ref._replace(kind=read.kind, id=read.id)
            memory.since.setdefault(ref, [])
            row = memory.entities.get(ref)
            if row is not None and row.exists and row.head_offset > after:
                wants.since[ref] = min(after, wants.since.get(ref, after))
    return wants


def fold_all(engine: Engine, log: Log, partition: int, *, batch: int = 1000, until: int | None = None) -> int:
    """Fold a partition to its end, or up to offset ``until`` (exclusive); returns the next offset."""
    offset = engine.resume(log, partition)
    while until is None or offset < until:
        limit = batch if until is None else min(batch, until - offset)
        records = log.read(partition, offset, limit)
        if not records:
            break
        engine.apply(partition, records)
        offset += len(records)
    return offset


def require_kinds(kinds: Iterable[Kind]) -> dict[str, Kind]:
    """Kinds by name.

    :raises HaltError: two claim one name or one table.
    """
    found: dict[str, Kind] = {}
    tables: dict[str, str] = {}
    for kind in kinds:
        if kind.name in found or kind.table in tables:
            raise HaltError(f"two entity kinds claim {kind.name!r} or the table {kind.table!r}; uninstall one")
        found[kind.name], tables[kind.table] = kind, kind.name
    return found
