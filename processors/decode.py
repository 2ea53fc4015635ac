"""Stored records to what the fold works on. Deterministic: the bytes and the log's own settings decide, nothing else.

Only versioned decoding and validation refuse a record, and a refused record becomes a :class:`Poison`. A schema that is
missing here is not the record's fault: that halts.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from headrace.errors import HaltError, UndecodableError
from headrace.log.framing import chained
from headrace.log.partitioner import partition_of
from headrace.log.port import Log, Stored
from headrace.processors.core.fold import HANDLED
from headrace.processors.core.model import Entry, Poison, Proposal, Read
from headrace.schemas.envelope import Envelope, from_named
from headrace.schemas.refs import EntityRef, Token, parse_account_key
from headrace.schemas.registry import Registry, datum

_OPENED: Final = "log.opened"
_OWN: Final = ("log.", "policy.")
_PAYLOAD_HASH_BYTES: Final = 32


def identity(tenant: str, account: str, source: str, event_id: str) -> bytes:
    """The 16-byte digest that stands for an event's identity for ever."""
    text = "\0".join((tenant, account, source, event_id))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def body_hash(envelope: Envelope, value: bytes) -> bytes:
    """Tells whether two records with one id say the same: over type, subject, concerns and body. Not over the body's
    head: a producer that repeats itself through a process with the other encoding has not said anything else."""
    digest = hashlib.blake2b(datum(value), digest_size=8)
    said = "\0".join((envelope.type, envelope.kind, envelope.entity, *envelope.concerns))
    digest.update(said.encode())
    return digest.digest()


def read_opening(log: Log, registry: Registry) -> Mapping[str, Any] | None:
    """What the log's first record says, ``None`` before it is there. With a schema registry that numbers differently
    from the one it was written with, or without one, it does not read as ``log.opened``, and no other record would read
    as what it is: better not to start.

    :raises HaltError: it does not; of which SchemaMissingError: its schema is not known there.
    :raises UnavailableError: the registry does not answer.
    """
    for first in log.read(0, 0, 1):
        try:
            found = registry.decode(first.value)
        except UndecodableError:
            found = None
        if found is None or found.type != _OPENED:
            read = "nothing" if found is None else found.type
            raise HaltError(
                f"the log's first record reads as {read}, not as {_OPENED}: it was written with another"
                " schema registry than the one here; set HEADRACE_SCHEMA_REGISTRY_URL to that one, or to none where it"
                " was written without"
            )
        return found.body
    return None


class Decoder:
    """Decodes one partition's records in order, keeping the chain and the accounts it has met."""

    def __init__(self, registry: Registry, partition: int, partitions: int, previous: bytes) -> None:
        self._registry = registry
        self._partition = partition
        self.partitions = partitions
        self.chain = previous
        self._accounts: dict[bytes, tuple[str, str]] = {}

    def decode(self, stored: Stored) -> Entry | Poison:
        """The record as the fold takes it.

        :raises SchemaMissingError: it names a schema version that is not here.
        """
        names, values = zip(*stored.headers, strict=True) if stored.headers else ((), ())
        self.chain = chained(self.chain, stored, names, values)
        tenant = account = ""
        envelope: Envelope | None = None
        try:
            if stored.key is not None:
                tenant, account = self._account(stored.key)
            envelope = from_named(names, values)
            return self._entry(stored, tenant, account, envelope)
        except UndecodableError as error:
            proposal = envelope.id if envelope is not None and envelope.type == "proposal.submitted" else None
            named = proposal if account else None
            return Poison(
                stored.offset, stored.appended_at, stored.log_append, str(error), self.chain, tenant, account, named
            )

    def _account(self, key: bytes) -> tuple[str, str]:
        found = self._accounts.get(key)
        if found is None:
            found = parse_account_key(key)
            expected = partition_of(key, self.partitions)
            if expected != self._partition:
                raise UndecodableError(f"the record's key belongs on partition {expected}: the producer is misrouting")
            self._accounts[key] = found
        return found

    def _entry(self, stored: Stored, tenant: str, account: str, envelope: Envelope) -> Entry:
        decoded = self._registry.decode(stored.value)
        if decoded.type != envelope.type:
            raise UndecodableError(f"ce_type says {envelope.type}, the body is {decoded.type}")
        if decoded.role not in ("event", "record") or (decoded.role == "record" and envelope.type not in HANDLED):
            raise UndecodableError(f"{envelope.type} is no type of record")
        own = envelope.type.startswith(_OWN)
        if own == bool(account):
            raise UndecodableError(f"{envelope.type} must {'not ' if own else ''}have an account as its key")
        if not envelope.kind and (decoded.role == "event" or envelope.type in ("proposal.submitted", "claim.taken")):
            raise UndecodableError(f"{envelope.type} must name an entity (ce_subject)")
        _validate(envelope.type, decoded.body)
        if envelope.type == "log.opened" and stored.offset == 0:  # a later one opens nothing
            self.partitions = decoded.body["partitions"]
        ref, proposal = EntityRef(tenant, account, envelope.kind, envelope.entity), None
        if envelope.type == "proposal.submitted":
            proposal = self._proposal(ref, envelope, decoded.body, stored.offset)
        return Entry(
            stored.offset,
            stored.appended_at,
            stored.log_append,
            tenant,
            account,
            envelope,
            decoded.role,
            decoded.body,
            identity(tenant, account, envelope.source, envelope.id) if account else self._own_identity(envelope),
            body_hash(envelope, stored.value),
            self.chain,
            ref,
            proposal,
        )

    def _own_identity(self, envelope: Envelope) -> bytes:
        """Of one of the log's own records, which stand on every partition under the same id."""
        return identity("", str(self._partition), envelope.source, envelope.id)

    def _proposal(self, ref: EntityRef, envelope: Envelope, body: Mapping[str, Any], offset: int) -> Proposal:
        reads = tuple(
            Read(
                read["what"],
                read["kind"],
                read["id"],
                read["start"],
                read["end"],
                read["account"],
                Token.unpack(read["basis"]),
            )
            for read in body["reads"]
        )
        data = self._registry.decode_nested(body["data"])
        fault = None
        if data.role != "proposal" or data.type != body["proposal"]:
            fault = f"the proposal says {body['proposal'][:80]}, its data is {data.type}"
        elif envelope.actor.kind != "agent":
            fault = "only an agent proposes"
        elif len(body["payload_hash"]) != _PAYLOAD_HASH_BYTES:
            fault = "payload_hash must be 32 bytes"
        elif any(read.start is not None and read.end is not None and read.end < read.start for read in reads):
            fault = "a read ends before it starts"
        elif not any(read.what != "scope" and (read.kind, read.id) == ref[2:] for read in reads):
            fault = f"the subject {ref.subject} is not among the reads: nothing says what it is based on"
        return Proposal(
            envelope.id,
            body["proposal"],
            ref,
            envelope.actor,
            reads,
            body["expires_at"],
            data.body,
            envelope.concerns,
            body["payload_hash"],
            offset,
            fault,
        )


def _validate(record_type: str, body: Mapping[str, Any]) -> None:
    """What the schema language cannot say of the log's own records."""
    if record_type == "log.opened" and (len(body["log_id"]) != 32 or not _is_hex(body["log_id"])):
        raise UndecodableError("log_id must be 32 hexadecimal digits")
    if record_type == "log.opened" and body["partitions"] < 1:
        raise UndecodableError("a log has at least one partition")
    if record_type in ("log.opened", "policy.activated"):
        for rule in body["policy"]["rules"]:
            if rule["effect"] not in ("invalidate", "review", "ignore"):
                raise UndecodableError(f"no such policy effect: {rule['effect'][:40]!a}")


def _is_hex(text: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in text)
