"""CloudEvents 1.0 in JSON (specification 1.0.2, JSON event format), one or a batch, into records.

==================  ===========================================================================================
``type``            the event type: one with a schema of role ``event``
``subject``         the entity, ``kind/id``
``account``         extension: the account, an opaque id
``data``            the fields of the type's Avro body, identifying ones in clear; ``content`` is an object of its own
``time``            when it happened
``concerns``        extension: ``what:value`` keys, comma-separated, values in clear
``traceparent``     extension (distributed tracing): carried along when it is one
==================  ===========================================================================================

Tenant, actor and source come from the endpoint; other attributes are passed over.
"""

import re
from collections.abc import Callable, Container, Mapping
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError
from headrace.producers.event import NewEvent
from headrace.producers.intake import Intake, concerns
from headrace.producers.refusal import RefusedError
from headrace.schemas.datum import misfit
from headrace.schemas.definition import CONTENT
from headrace.schemas.envelope import normal_time
from headrace.schemas.refs import OPAQUE_ID, parse_subject
from headrace.schemas.registry import Registry, SchemaVersion

MAX_EVENTS: Final = 1_000
"""In one batch, unless the endpoint says otherwise."""
_REQUIRED: Final = ("id", "source", "type")
_JSON_TYPE: Final = re.compile(r"[^\s;/]+/([^\s;/]+\+)?json\s*(;.*)?\Z", re.IGNORECASE | re.DOTALL)
_SAFE_SOURCE: Final = re.compile(r"[A-Za-z0-9._~:+=-]{1,64}\Z")
"""A CloudEvents source that stays readable in the record's: without a slash, which parts it from the endpoint's."""
_PSEUDONYM: Final = re.compile(r"p-[a-z2-7]{26}\Z")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
_TRACE_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_SEALING_KEY: Final = "content_key"


class CloudEvent(NamedTuple):
    """What a CloudEvent says, as far as it is listened to. ``where`` names it in messages."""

    where: str
    id: str
    source: str
    type: str
    subject: str | None
    account: str | None
    time: str | None
    concerns: tuple[str, ...]
    traceparent: str | None
    data: Mapping[str, Any]


class Incoming(NamedTuple):
    """A CloudEvent in headrace's terms: ``source`` is to stand behind the endpoint's."""

    account: str
    source: str
    event: NewEvent
    traceparent: str | None


def read_events(value: Any, *, batch: bool, max_events: int = MAX_EVENTS) -> list[CloudEvent]:
    """The CloudEvents in a JSON value: one object, or with ``batch`` an array of at most ``max_events``.

    :raises RefusedError: ``too_many_events``; for the first bad event ``not_cloudevent``, or ``schema`` where it is a
        CloudEvent with something else than JSON as its data.
    """
    if not batch:
        if isinstance(value, list):
            raise RefusedError("not_cloudevent", "an array is a batch: send it as application/cloudevents-batch+json")
        return [_event(value, "the event")]
    if not isinstance(value, list):
        raise RefusedError("not_cloudevent", "a batch is an array: send one event as application/cloudevents+json")
    if len(value) > max_events:
        raise RefusedError("too_many_events", f"a batch may hold {max_events} events: send it in parts")
    return [_event(item, f"event {index} of the batch") for index, item in enumerate(value)]


def trace_parent(text: object) -> str | None:
    """``text`` if it is a W3C traceparent; what is none is passed over (Trace Context, §4.3)."""
    return text if isinstance(text, str) and _TRACE_PARENT.match(text) else None


def opaque(text: str, what: str, safe: re.Pattern[str], pseudonym: Callable[[str], str]) -> str:
    """``text`` where it may stand on the log as it is, else its pseudonym: two texts never share a result.

    What looks like a pseudonym is replaced, too, so that nobody can name what another text was turned into.
    """
    if safe.match(text) and not _PSEUDONYM.match(text):
        return text
    return pseudonym(f"cloudevents.{what}\0{text}")


class Translation:
    """From CloudEvents into headrace's terms, by the types of ``registry`` and the ``kinds`` there are."""

    def __init__(self, intake: Intake, registry: Registry, kinds: Container[str]) -> None:
        self._intake: Final = intake
        self._registry: Final = registry
        self._kinds: Final = kinds

    def translate(self, tenant: str, event: CloudEvent) -> Incoming:
        """What the event means for an account of ``tenant``.

        :raises RefusedError: ``unknown_type``, ``unknown_kind``, ``not_opaque``, ``bad_concerns``, ``schema``, or
            ``not_cloudevent`` for a time that is none.
        """
        where = event.where
        schema = self._registry.newest.get(event.type)
        if schema is None or schema.role != "event":
            known = ", ".join(sorted(v.type for v in self._registry.newest.values() if v.role == "event"))
            raise RefusedError("unknown_type", f"{where}: type must be one of {known}")
        if event.account is None or not OPAQUE_ID.match(event.account):
            raise RefusedError(
                "not_opaque",
                f"{where}: the extension attribute account must be an opaque id of the mailbox or calendar owner:"
                " 1 to 200 of A-Z a-z 0-9 . _ ~ : + = -, never an address",
            )
        kind, entity = self._subject(event)
        pseudonym = self._intake.pseudonyms(tenant, event.account)
        body, content = self._body(event, schema)
        try:
            concerns(event.concerns, pseudonym)
        except BadInputError:
            raise RefusedError(
                "bad_concerns",
                f"{where}: concerns must be what:value keys, comma-separated, such as message:1@x.example",
            ) from None
        new = NewEvent(
            event.type,
            kind,
            entity,
            opaque(event.id, "id", OPAQUE_ID, pseudonym),
            body,
            content,
            _occurred_at(event),
            event.concerns,
        )
        source = opaque(event.source, "source", _SAFE_SOURCE, pseudonym)
        return Incoming(event.account, source, new, event.traceparent)

    def _subject(self, event: CloudEvent) -> tuple[str, str]:
        try:
            kind, entity = parse_subject(event.subject or "")
        except BadInputError:
            raise RefusedError(
                "not_opaque",
                f"{event.where}: subject must be kind/id, such as mail.thread/t-17, with an opaque id (no address)",
            ) from None
        if kind not in self._kinds:
            raise RefusedError("unknown_kind", f"{event.where}: no entity kind of that name is installed here")
        return kind, entity

    def _body(self, event: CloudEvent, schema: SchemaVersion) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
        """The deciding fields, and the personal content."""
        body = dict(event.data)
        content: Any = None
        fields = {field["name"] for field in schema.shape["fields"]}
        holder = next((field for field in schema.shape["fields"] if CONTENT in field), None)
        if holder is not None:
            fields.discard(_SEALING_KEY)  # what comes in by webhook is in clear; only headrace seals
            content = body.pop(holder["name"], None)
        if not fields.issuperset(body):
            raise RefusedError(
                "schema",
                f"{event.where}: data has a field that {event.type} has not; it has {', '.join(sorted(fields))}",
            )
        _check(body, schema, f"{event.where}: data")
        if holder is not None and content is not None:
            inner = self._registry.by_name[holder[CONTENT]]
            known = {field["name"] for field in inner.shape["fields"]}
            if not isinstance(content, dict) or not known.issuperset(content):
                raise RefusedError(
                    "schema", f"{event.where}: data.content must be an object of {', '.join(sorted(known))}"
                )
            _check(content, inner, f"{event.where}: data.content")
        return body, content


def _event(value: Any, where: str) -> CloudEvent:
    if not isinstance(value, dict):
        raise RefusedError("not_cloudevent", f"{where} is no JSON object: send CloudEvents 1.0 JSON")
    attributes = {name: given for name, given in value.items() if given is not None and name != "data"}
    if attributes.get("specversion") != "1.0":
        raise RefusedError("not_cloudevent", f'{where} does not say "specversion": "1.0" (in the body: it is signed)')
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise RefusedError("not_cloudevent", f"{where} lacks {name}: a text that is not empty")
    if any(not isinstance(given, str | int) for given in attributes.values()):
        raise RefusedError("not_cloudevent", f"{where}: attributes are texts, integers or booleans, only data is more")
    data = value.get("data", {})
    content_type = attributes.get("datacontenttype", "application/json")
    if "data_base64" in attributes or not isinstance(content_type, str) or not _JSON_TYPE.match(content_type):
        raise RefusedError("schema", f"{where}: send data as a JSON object, with datacontenttype application/json")
    if data is not None and not isinstance(data, dict):
        raise RefusedError("schema", f"{where}: data must be a JSON object with the fields of the event type")
    said = attributes.get("concerns", "")
    if not isinstance(said, str):
        raise RefusedError("bad_concerns", f"{where}: concerns must be a text of what:value keys, comma-separated")
    return CloudEvent(
        where,
        attributes["id"],
        attributes["source"],
        attributes["type"],
        _text(attributes.get("subject")),
        _text(attributes.get("account")),
        _time(attributes.get("time"), where),
        tuple(key.strip() for key in said.split(",")) if said else (),
        trace_parent(attributes.get("traceparent")),
        data or {},
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: object, where: str) -> str | None:
    if value is not None and not (isinstance(value, str) and _TIME.match(value)):
        raise _no_time(where)
    return _text(value)


def _occurred_at(event: CloudEvent) -> str | None:
    try:
        return normal_time(event.time.upper()) if event.time is not None else None
    except BadInputError:
        raise _no_time(event.where) from None


def _no_time(where: str) -> RefusedError:
    return RefusedError("not_cloudevent", f"{where}: time must be RFC 3339, such as 2026-11-21T17:15:00Z")


def _check(datum: Mapping[str, Any], schema: SchemaVersion, where: str) -> None:
    """Names the field and not what stands in it, which may be personal."""
    for field in schema.shape["fields"]:
        name = field["name"]
        if name not in datum:
            if "default" not in field:
                raise RefusedError("schema", f"{where} lacks {name}, which {schema.name} needs")
        elif misfit(field["type"], datum[name]) is not None:
            raise RefusedError("schema", f"{where} does not fit {schema.name} at {name}: send what its schema says")
