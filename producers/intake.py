"""What every producer shares: turning what happened into a record that may stand on the log.

Here addresses and provider ids become pseudonyms, personal content goes into its own field, and the body is checked
against its schema. What cannot stand on the log is refused before anything is written.

An address that turns up where the schema expects none (a label named after somebody) does not get through either: in an
event the whole value becomes a pseudonym, which is still equal to itself; in a proposal, which somebody is to carry out
as it is, it is refused.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from headrace.errors import BadInputError
from headrace.keys import Keys
from headrace.log.partitioner import partition_of
from headrace.log.port import Record
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import Event, State
from headrace.processors.core.verdicts import canonical
from headrace.producers.event import NewEvent
from headrace.schemas.definition import CONTENT, PSEUDONYM
from headrace.schemas.envelope import Envelope, normal_time, to_headers
from headrace.schemas.refs import LONGEST_CONTAINER, ActorRef, EntityRef, Token, account_key, parse_id
from headrace.schemas.registry import Registry

_ADDRESS: Final = re.compile(r"[^\s@]@[^\s@]")
_READ: Final = {"start": None, "end": None, "account": None}


class TooLongError(BadInputError):
    """A text is longer than may be handed in; the message names its field and nothing else of what was sent."""


class Intake:
    """Makes records for one log of ``partitions`` partitions.

    ``in_force`` are the entity kinds that the log takes events of, ``None``: whatever is on them. What it does not
    take would end in quarantine or change nothing, so it is refused here, where somebody is told.
    """

    def __init__(
        self, registry: Registry, keys: Keys, partitions: int, in_force: Mapping[str, Kind] | None = None
    ) -> None:
        self._in_force: Final = in_force
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
        self._check_kind(new.kind)
        if self._in_force is not None and new.type not in self._in_force[new.kind].events:
            known = ", ".join(self._in_force[new.kind].events)
            raise BadInputError(f"{new.type} says nothing about a {new.kind}; what does: {known}")
        pseudonym = self.pseudonyms(tenant, account)
        body = pseudonymised(schema.shape, new.body, pseudonym, lambda _, text: _hidden(text, pseudonym))
        self._put_content(schema.shape, body, new)
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
            causation=new.mark,
            correlation=correlation,
            sync=sync,
            traceparent=traceparent,
        )
        record = self.record(tenant, account, envelope, body)
        kind = self._in_force[new.kind] if self._in_force is not None and sync is None else None
        if kind is not None:  # what a sync finds is the provider's, and stands there however long it is
            fact = Event(new.type, self._registry.decode(record.value).body, actor)
            _check_containers(kind, lambda: kind.evolve(None, fact), fact.body)
        return record

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
        self._check_kind(ref.kind)
        pseudonym = self.pseudonyms(ref.tenant, ref.account)
        packed: list[dict[str, Any]] = []
        for read in reads:
            basis: Token = read["basis"]
            packed.append({**_READ, **read, "basis": basis.pack()})
        encoded = self._registry.encode(proposal_type, pseudonymised(schema.shape, data, pseudonym, _without_address))
        kind = self._in_force[ref.kind] if self._in_force is not None else None
        if kind is not None:
            said = self._registry.decode_nested(encoded).body
            _check_containers(kind, lambda: kind.foresee(None, proposal_type, said), said)
        concern_keys = concerns(said_concerns, pseudonym)
        hashed = _json(
            {
                "subject": ref.subject,
                "type": proposal_type,
                "data": encoded.hex(),
                "reads": [{**read, "basis": read["basis"].hex()} for read in packed],
                "expires_at": expires_at,
                "content": content,
                "concerns": concern_keys,
            }
        )
        body = {
            "proposal": proposal_type,
            "reads": packed,
            "expires_at": expires_at,
            "data": encoded,
            "payload_hash": self._keys.payload_hash(ref.tenant, ref.account, hashed),
            "content": _json(content) if content is not None else None,
        }
        envelope = Envelope(
            parse_id(proposal_id, "proposal id"),
            source,
            "proposal.submitted",
            actor,
            ref.kind,
            parse_id(ref.id, "entity id"),
            concern_keys,
            observed_at=observed_at,
            correlation=correlation,
            traceparent=traceparent,
        )
        return self.record(ref.tenant, ref.account, envelope, body)

    def _put_content(self, shape: Mapping[str, Any], body: dict[str, Any], new: NewEvent) -> None:
        name = next((field[CONTENT] for field in shape["fields"] if CONTENT in field), None)
        if name is None and new.content is not None:
            raise BadInputError(f"{new.type} carries no content; leave it out")
        if name is None:
            return
        if "content" in body or "content_key" in body:
            raise BadInputError(
                f"{new.type}: content and content_key are no fields of the body; give content beside it"
            )
        if new.content is not None:
            body["content"] = self._registry.encode(self._registry.by_name[name].type, new.content)

    def _check_kind(self, kind: str) -> None:
        if self._in_force is not None and kind not in self._in_force:
            known = ", ".join(sorted(self._in_force))
            raise BadInputError(
                f"the entity kind {kind[:100]!r} is not in force on this log, which takes {known}; if its package is"
                " installed, `headrace policy activate` puts it in force"
            )

    def _event_types(self) -> list[str]:
        return [version.type for version in self._registry.newest.values() if version.role == "event"]

    def _proposal_types(self) -> list[str]:
        return [version.type for version in self._registry.newest.values() if version.role == "proposal"]


def _check_containers(kind: Kind, state: Callable[[], State], body: Mapping[str, Any]) -> None:
    """Pass if reads can name every container that this puts an entity into.

    :raises TooLongError: one has a longer id than reads may ask for.
    """
    try:
        touched = kind.footprint(state())
    except Exception:  # noqa: BLE001 - a kind's bug is the fold's to tell, with the record that it comes of
        return
    for touch in touched:
        if len(touch.id) > LONGEST_CONTAINER:
            field = next((name for name, said in body.items() if _holds(said, touch.id)), "the body")
            raise TooLongError(
                f"{field} holds a text of {len(touch.id)} characters; a {touch.container} may have"
                f" {LONGEST_CONTAINER} at the most: shorten it"
            )


def _holds(said: Any, text: str) -> bool:
    if isinstance(said, Mapping | list):
        return any(_holds(one, text) for one in (said.values() if isinstance(said, Mapping) else said))
    return bool(said == text)


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
    shape: Mapping[str, Any],
    body: Mapping[str, Any],
    pseudonym: Callable[[str], str],
    unmarked: Callable[[str, str], str],
    path: str = "",
) -> dict[str, Any]:
    """``body`` with every text that the schema marks as identifying replaced by its pseudonym, and every other text by
    ``unmarked(path, text)``. ``shape`` is as :func:`headrace.schemas.definition.spelt_out` gives it."""

    def replaced(type_: Any, value: Any, path: str, *, marked: bool) -> Any:
        if isinstance(value, str):
            return pseudonym(value) if marked else unmarked(path, value)
        if isinstance(value, (list, tuple)):
            items = (_inner(type_, "array") or {}).get("items")
            return [replaced(items, item, f"{path}[{at}]", marked=marked) for at, item in enumerate(value)]
        if isinstance(value, Mapping):
            record = _inner(type_, "record")
            if record is not None:
                return pseudonymised(record, value, pseudonym, unmarked, f"{path}.")
            values = (_inner(type_, "map") or {}).get("values")
            return {
                unmarked(path, str(key)): replaced(values, one, f"{path}[{key!r:.60}]", marked=marked)
                for key, one in value.items()
            }
        return value

    fields = {field["name"]: field for field in shape["fields"]}
    found: dict[str, Any] = {}
    for name, value in body.items():
        field = fields.get(name, {})
        found[name] = replaced(field.get("type"), value, f"{path}{name}", marked=PSEUDONYM in field)
    return found


def _inner(type_: Any, wanted: str) -> Mapping[str, Any] | None:
    for option in type_ if isinstance(type_, list) else [type_]:
        if isinstance(option, Mapping) and option.get("type") == wanted:
            return option
    return None


def _hidden(text: str, pseudonym: Callable[[str], str]) -> str:
    return pseudonym(text) if _ADDRESS.search(text) else text


def _without_address(path: str, text: str) -> str:
    if _ADDRESS.search(text):
        raise BadInputError(f"{path} holds an address, which may not stand on the log; say it in content")
    return text


def _json(value: object) -> bytes:
    try:
        json.dumps(value, allow_nan=False)
        return canonical(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInputError(f"the proposal is no JSON ({error!s:.100}); send plain JSON values") from error
