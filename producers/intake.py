"""What every producer shares: turning what happened into a record that may stand on the log.

Here addresses and provider ids become pseudonyms, personal content goes into its own field, and the body is checked
against its schema. What cannot stand on the log is refused before anything is written.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from headrace.errors import BadInputError
from headrace.keys import Keys
from headrace.log.partitioner import partition_of
from headrace.log.port import Record
from headrace.processors.core.verdicts import canonical
from headrace.producers.event import NewEvent
from headrace.schemas.envelope import Envelope, normal_time, to_headers
from headrace.schemas.refs import ActorRef, EntityRef, Token, account_key, parse_id
from headrace.schemas.registry import Registry

PSEUDONYM: Final = "headrace.pseudonym"
CONTENT: Final = "headrace.content"


class Intake:
    """Makes records for one log of ``partitions`` partitions."""

    def __init__(self, registry: Registry, keys: Keys, partitions: int) -> None:
        self._registry: Final = registry
        self._keys: Final = keys
        self._partitions: Final = partitions

    def partition(self, tenant: str, account: str) -> int:
        """Where an account lives."""
        return partition_of(account_key(tenant, account), self._partitions)

    def pseudonyms(self, tenant: str, account: str) -> Callable[[str], str]:
        """The account's pseudonym function."""
        return lambda text: self._keys.pseudonym(tenant, account, text)

    def record(self, tenant: str, account: str, envelope: Envelope, body: Mapping[str, Any]) -> Record:
        """A record as it is: envelope and body already in the log's terms.

        :raises BadInputError: it may not stand on the log; the message names what is wrong.
        """
        parse_id(tenant, "tenant")
        parse_id(account, "account")
        key = account_key(tenant, account)
        value = self._registry.encode(envelope.type, body)
        return Record(partition_of(key, self._partitions), key, to_headers(envelope), value)

    def event(
        self,
        tenant: str,
        account: str,
        new: NewEvent,
        *,
        source: str,
        actor: ActorRef,
        observed_at: str,
        sync: str | None = None,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> Record:
        """An event that a source or a webhook hands over, in the log's terms.

        :raises BadInputError: it may not stand on the log; the message names what is wrong.
        """
        schema = self._registry.schema(new.type)
        if schema.role != "event":
            raise BadInputError(f"{new.type} is no event type; events: {', '.join(self._event_types())}")
        pseudonym = self.pseudonyms(tenant, account)
        body = pseudonymised(schema.source, new.body, pseudonym)
        if new.content is not None:
            body["content"] = self._content(schema.source, new.content)
        envelope = Envelope(
            parse_id(new.id, "event id"),
            source,
            new.type,
            actor,
            new.kind,
            parse_id(new.entity, "entity id"),
            concerns(new.concerns, pseudonym),
            normal_time(new.occurred_at) if new.occurred_at is not None else None,
            observed_at,
            correlation=correlation,
            sync=sync,
            traceparent=traceparent,
        )
        return self.record(tenant, account, envelope, body)

    def proposal(
        self,
        ref: EntityRef,
        proposal_id: str,
        proposal_type: str,
        *,
        actor: ActorRef,
        source: str,
        reads: Sequence[Mapping[str, Any]],
        data: Mapping[str, Any],
        content: Mapping[str, Any] | None,
        expires_at: int | None,
        said_concerns: Sequence[str],
        observed_at: str,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> Record:
        """A proposal as its record. ``reads`` are shaped as ``headrace.agent.Read`` with ``basis`` a :class:`Token`.

        :raises BadInputError: it may not stand on the log; the message names what is wrong.
        """
        schema = self._registry.schema(proposal_type)
        if schema.role != "proposal":
            raise BadInputError(f"{proposal_type} cannot be proposed; proposals: {', '.join(self._proposal_types())}")
        pseudonym = self.pseudonyms(ref.tenant, ref.account)
        packed: list[dict[str, Any]] = []
        for read in reads:
            basis: Token = read["basis"]
            packed.append({**read, "basis": basis.pack()})
        encoded = self._registry.encode(proposal_type, pseudonymised(schema.source, data, pseudonym))
        hashed = canonical(
            {
                "subject": ref.subject,
                "type": proposal_type,
                "data": encoded.hex(),
                "reads": [{**read, "basis": read["basis"].hex()} for read in packed],
                "expires_at": expires_at,
                "content": content,
                "concerns": sorted(said_concerns),
            }
        )
        body = {
            "proposal": proposal_type,
            "reads": packed,
            "expires_at": expires_at,
            "data": encoded,
            "payload_hash": self._keys.payload_hash(ref.tenant, ref.account, hashed),
            "content": canonical(content) if content is not None else None,
        }
        envelope = Envelope(
            parse_id(proposal_id, "proposal id"),
            source,
            "proposal.submitted",
            actor,
            ref.kind,
            parse_id(ref.id, "entity id"),
            concerns(said_concerns, pseudonym),
            observed_at=observed_at,
            correlation=correlation,
            traceparent=traceparent,
        )
        return self.record(ref.tenant, ref.account, envelope, body)

    def _content(self, schema: Mapping[str, Any], content: Mapping[str, Any]) -> bytes:
        for field in schema["fields"]:
            if CONTENT in field:
                return self._registry.encode(self._registry.by_name[field[CONTENT]].type, content)
        raise BadInputError(f"{schema['headrace.type']} carries no content")

    def _event_types(self) -> list[str]:
        return [version.type for version in self._registry.newest.values() if version.role == "event"]

    def _proposal_types(self) -> list[str]:
        return [version.type for version in self._registry.newest.values() if version.role == "proposal"]


def concerns(said: Sequence[str], pseudonym: Callable[[str], str]) -> tuple[str, ...]:
    """Concern keys as they stand on the log: ``what:value`` with the value as a pseudonym, sorted, each once.

    :raises BadInputError: one is not of the form ``what:value``.
    """
    found: set[str] = set()
    for key in said:
        what, colon, value = key.partition(":")
        if not colon or not value or not what.isascii() or not what.isalnum():
            raise BadInputError(f"concern {key[:60]!r} must be what:value, for example person:ann@example.com")
        found.add(f"{what}:{pseudonym(value)}")
    return tuple(sorted(found))


def pseudonymised(
    schema: Mapping[str, Any], body: Mapping[str, Any], pseudonym: Callable[[str], str]
) -> dict[str, Any]:
    """``body`` with every value that the schema marks as identifying replaced by its pseudonym."""
    replaced = dict(body)
    for field in schema["fields"]:
        name = field["name"]
        if name in replaced:
            replaced[name] = _replaced(field["type"], replaced[name], pseudonym, marked=bool(field.get(PSEUDONYM)))
    return replaced


def _replaced(type_: Any, value: Any, pseudonym: Callable[[str], str], *, marked: bool) -> Any:
    if isinstance(value, str):
        return pseudonym(value) if marked else value
    if isinstance(value, (list, tuple)):
        items = _inner(type_, "array")
        item_type = items["items"] if items is not None else None
        return [_replaced(item_type, item, pseudonym, marked=marked) for item in value]
    record = _inner(type_, "record")
    return pseudonymised(record, value, pseudonym) if record is not None and isinstance(value, Mapping) else value


def _inner(type_: Any, wanted: str) -> Mapping[str, Any] | None:
    for option in type_ if isinstance(type_, list) else [type_]:
        if isinstance(option, Mapping) and option.get("type") == wanted:
            return option
    return None
