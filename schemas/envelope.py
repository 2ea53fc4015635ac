"""The envelope: who did what to which entity, as CloudEvents 1.0 attributes in Kafka binary mode (``ce_…`` headers).

Source: CloudEvents specification 1.0.2 and its Kafka protocol binding, §3.2. Extensions of our own: ``actor`` (``kind/id``),
``concerns`` (comma-separated keys), ``causation``, ``correlation``, ``sync`` (the sync start that a source's record
belongs to), ``observedat``; and ``traceparent`` of the distributed tracing extension.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from headrace.errors import BadInputError, UndecodableError
from headrace.schemas.refs import ACTOR_KINDS, KIND_NAME, OPAQUE_ID, ActorRef

SPEC_VERSION: Final = b"1.0"
CONTENT_TYPE: Final = b"application/avro"
SOURCE_NAME: Final = re.compile(r"[A-Za-z0-9._~:/+=-]{1,200}\Z")
"""A source is a name without spaces and never an address."""
_TRACE_PARENT: Final = re.compile(r"[0-9a-f-]{1,64}\Z")
_MAX_CONCERNS: Final = 64


class Envelope(NamedTuple):
    """``kind`` and ``entity`` are empty on records about no entity. ``occurred_at`` and ``observed_at`` are RFC 3339 in
    UTC with milliseconds and ``Z``, so that their text sorts as they do; ``occurred_at`` is ``None`` where the
    provider does not say."""

    id: str
    source: str
    type: str
    actor: ActorRef
    kind: str = ""
    entity: str = ""
    concerns: tuple[str, ...] = ()
    occurred_at: str | None = None
    observed_at: str | None = None
    causation: str | None = None
    correlation: str | None = None
    sync: str | None = None
    traceparent: str | None = None


_OPTIONAL: Final = (
    ("ce_time", "occurred_at"),
    ("ce_observedat", "observed_at"),
    ("ce_causation", "causation"),
    ("ce_correlation", "correlation"),
    ("ce_sync", "sync"),
    ("ce_traceparent", "traceparent"),
)


def to_headers(envelope: Envelope) -> tuple[tuple[str, bytes], ...]:
    """The envelope as record headers, in one fixed order.

    :raises BadInputError: an attribute may not stand on the log; the message names it.
    """
    try:
        _check(envelope)
    except UndecodableError as error:
        raise BadInputError(str(error)) from error
    headers = [
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", envelope.id.encode()),
        ("ce_source", envelope.source.encode()),
        ("ce_type", envelope.type.encode()),
        ("ce_actor", f"{envelope.actor.kind}/{envelope.actor.id}".encode()),
        ("content-type", CONTENT_TYPE),
    ]
    if envelope.kind:
        headers.append(("ce_subject", f"{envelope.kind}/{envelope.entity}".encode()))
    if envelope.concerns:
        headers.append(("ce_concerns", ",".join(envelope.concerns).encode()))
    for header, attribute in _OPTIONAL:
        value = getattr(envelope, attribute)
        if value is not None:
            headers.append((header, value.encode()))
    return tuple(headers)


def from_headers(headers: Mapping[str, bytes]) -> Envelope:
    """The envelope in a record's headers.

    :raises UndecodableError: an attribute is missing or not of its form.
    """
    try:
        text = {name: value.decode() for name, value in headers.items()}
        actor_kind, _, actor_id = text["ce_actor"].partition("/")
        kind, _, entity = text.get("ce_subject", "").partition("/")
        concerns = text.get("ce_concerns")
        if text["ce_specversion"] != "1.0":
            raise UndecodableError(f"CloudEvents {text['ce_specversion'][:20]!r} is not spoken here, only 1.0")
        envelope = Envelope(
            text["ce_id"],
            text["ce_source"],
            text["ce_type"],
            ActorRef(actor_kind, actor_id),
            kind,
            entity,
            tuple(concerns.split(",")) if concerns else (),
            text.get("ce_time"),
            text.get("ce_observedat"),
            text.get("ce_causation"),
            text.get("ce_correlation"),
            text.get("ce_sync"),
            text.get("ce_traceparent"),
        )
    except KeyError as error:
        raise UndecodableError(f"the header {error.args[0]} is missing") from error
    except UnicodeDecodeError as error:
        raise UndecodableError("a header is not UTF-8") from error
    _check(envelope)
    return envelope


def rfc3339(epoch_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC, for example ``2026-11-21T17:15:00.000Z``."""
    seconds, milliseconds = divmod(epoch_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def normal_time(text: str) -> str:
    """Any RFC 3339 time in the one form that records carry.

    :raises BadInputError: it is none, or has no offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no offset from UTC")  # noqa: TRY301
        return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    except (ValueError, OverflowError) as error:
        raise BadInputError(f"{text[:60]!r} is no time ({error}); write it as 2026-11-21T17:15:00.000Z") from error


def _check(envelope: Envelope) -> None:
    for wrong in _faults(envelope):
        raise UndecodableError(wrong)


def _faults(envelope: Envelope) -> Iterator[str]:
    if not OPAQUE_ID.match(envelope.id):
        yield f"ce_id {envelope.id[:60]!r} is not an opaque id"
    if not SOURCE_NAME.match(envelope.source):
        yield f"ce_source {envelope.source[:60]!r} is no name of a source: 1 to 200 of A-Z a-z 0-9 . _ ~ : / + = -"
    if not KIND_NAME.match(envelope.type):
        yield f"ce_type {envelope.type[:60]!r} is no type name"
    if envelope.actor.kind not in ACTOR_KINDS or not OPAQUE_ID.match(envelope.actor.id):
        yield "ce_actor must be user/…, agent/… or system/… with an opaque id"
    if envelope.kind and not (KIND_NAME.match(envelope.kind) and OPAQUE_ID.match(envelope.entity)):
        yield "ce_subject must be kind/id with an opaque id"
    if envelope.entity and not envelope.kind:
        yield "ce_subject must be kind/id"
    if len(envelope.concerns) > _MAX_CONCERNS or not all(map(OPAQUE_ID.match, envelope.concerns)):
        yield "ce_concerns must be at most 64 opaque keys"
    for time in (envelope.occurred_at, envelope.observed_at):
        if time is not None and not _is_normal(time):
            yield f"{time[:60]!r} is no UTC time of the form 2026-11-21T17:15:00.000Z"
    for text in (envelope.causation, envelope.correlation, envelope.sync):
        if text is not None and not OPAQUE_ID.match(text):
            yield "ce_causation, ce_correlation and ce_sync must be opaque ids"
    if envelope.traceparent is not None and not _TRACE_PARENT.match(envelope.traceparent):
        yield "ce_traceparent is no W3C traceparent"


def _is_normal(text: str) -> bool:
    if len(text) != len("2026-11-21T17:15:00.000Z") or text[-1] != "Z":
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return text[10] == "T" and text[19] == "."
