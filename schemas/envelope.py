"""The envelope: who did what to which entity, as CloudEvents 1.0 attributes in Kafka binary mode (``ce_…`` headers).

Source: CloudEvents specification 1.0.2 and its Kafka protocol binding, §3.2. Extensions of our own: ``actor``
(``kind/id``), ``concerns`` (comma-separated keys), ``causation``, ``correlation``, ``sync`` (the sync start that a
source's record belongs to), ``observedat``; and ``traceparent`` of the distributed tracing extension.

Headers of other names are not looked at. Reading runs once for every record of the log: what repeats is remembered.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError, UndecodableError
from headrace.schemas.refs import ACTOR_KINDS, KIND_NAME, OPAQUE_ID, ActorRef

SPEC_VERSION: Final = b"1.0"
CONTENT_TYPE: Final = b"application/avro"
SOURCE_NAME: Final = re.compile(r"[A-Za-z0-9._~:/+=-]{1,200}\Z")
"""A source is a name without spaces and never an address."""
_TRACE_PARENT: Final = re.compile(r"[0-9a-f-]{1,64}\Z")
_MAX_CONCERNS: Final = 64
_REMEMBERED: Final = 4096
_TIME: Final = re.compile(
    r"(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8]|(29|3[01]))"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z\Z"
)
"""Group 1: a day that not every month has. Python's own parser is no measure: week dates and, in newer releases, 24:00
would pass it."""


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


_REQUIRED: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_actor")
_OPTIONAL: Final = (
    ("ce_time", "occurred_at"),
    ("ce_observedat", "observed_at"),
    ("ce_causation", "causation"),
    ("ce_correlation", "correlation"),
    ("ce_sync", "sync"),
    ("ce_traceparent", "traceparent"),
)


_MAY_BE: Final = ("ce_subject", "ce_concerns", *(header for header, _ in _OPTIONAL))
_OPAQUE: Final = bytes(code for code in range(128) if OPAQUE_ID.match(chr(code)))
"""The bytes that opaque ids are made of: looked at as bytes it takes a third of the time, and there are several of them
in every record."""
_LONGEST_ID: Final = 200


def to_headers(envelope: Envelope) -> tuple[tuple[str, bytes], ...]:
    """The envelope as record headers, in one fixed order; :func:`from_headers` gives exactly it back.

    :raises BadInputError: an attribute may not stand on the log; the message names it.
    """
    try:
        headers = tuple(_headers(envelope))
        read_back = from_headers(headers)
    except (UndecodableError, UnicodeEncodeError) as error:
        raise BadInputError(str(error)) from error
    for attribute, said, read in zip(Envelope._fields, envelope, read_back, strict=True):
        if said != read:
            raise BadInputError(f"{attribute} {said!r:.80} may not stand on the log: it would be read as {read!r:.80}")
    return headers


def _headers(envelope: Envelope) -> Iterator[tuple[str, bytes]]:
    yield "ce_specversion", SPEC_VERSION
    yield "ce_id", envelope.id.encode()
    yield "ce_source", envelope.source.encode()
    yield "ce_type", envelope.type.encode()
    yield "ce_actor", f"{envelope.actor.kind}/{envelope.actor.id}".encode()
    yield "content-type", CONTENT_TYPE
    if envelope.kind:
        yield "ce_subject", f"{envelope.kind}/{envelope.entity}".encode()
    if envelope.concerns:
        yield "ce_concerns", ",".join(envelope.concerns).encode()
    for header, attribute in _OPTIONAL:
        value: str | None = getattr(envelope, attribute)
        if value is not None:
            yield header, value.encode()


def from_headers(headers: tuple[tuple[str, bytes], ...] | Mapping[str, bytes]) -> Envelope:
    """The envelope in a record's headers. Given as a mapping, nobody can tell whether one was there twice.

    :raises UndecodableError: an attribute is missing, not of its form, or there twice.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    names, values = zip(*pairs, strict=True) if pairs else ((), ())
    return from_named(names, values)


def from_named(names: tuple[str, ...], values: tuple[bytes, ...]) -> Envelope:
    """:func:`from_headers` of headers that were taken apart: their names and, in the same order, their values."""
    spoken, id_, source, type_, actor, subject, concerns, time, seen, cause, correlation, sync, trace = _picked(names)(
        (*values, None)
    )
    if spoken != SPEC_VERSION:
        raise UndecodableError(f"CloudEvents {spoken[:20]!r} is not spoken here, only 1.0")
    try:
        kind, entity = ("", "") if subject is None else _subject(subject)
        return Envelope(
            _id("ce_id", id_),
            _source(source),
            _type(type_),
            _actor(actor),
            kind,
            entity,
            () if concerns is None else _concerns(concerns),
            None if time is None else _time(time),
            None if seen is None else _time(seen),
            None if cause is None else _id("ce_causation", cause),
            None if correlation is None else _id("ce_correlation", correlation),
            None if sync is None else _id("ce_sync", sync),
            None if trace is None else _trace_parent(trace),
        )
    except UnicodeDecodeError as error:
        raise UndecodableError("a header is not UTF-8") from error


@lru_cache(_REMEMBERED)
def _picked(names: tuple[str, ...]) -> Callable[[tuple[bytes | None, ...]], tuple[Any, ...]]:
    """What picks our headers' values, in the order of :func:`from_named`, out of a record's values and ``None`` behind
    them: that stands for whatever is missing. Most records of a log have one of a few sets of names.

    :raises UndecodableError: a header that must be there is not, or one of ours is there twice: which of two values
        counts would depend on who reads, so neither does. Headers that are not ours may repeat.
    """
    for name in names:
        if name.startswith("ce_") and names.count(name) > 1:
            raise UndecodableError(f"the header {name[:60]} is there twice")
    for name in _REQUIRED:
        if name not in names:
            raise UndecodableError(f"the header {name} is missing")
    places = (names.index(name) if name in names else len(names) for name in (*_REQUIRED, *_MAY_BE))
    return itemgetter(*places)


def _id(header: str, raw: bytes) -> str:
    if not 0 < len(raw) <= _LONGEST_ID or raw.translate(None, _OPAQUE):
        raise UndecodableError(f"{header} {raw.decode()[:60]!r} is not an opaque id")
    return raw.decode()


@lru_cache(_REMEMBERED)
def _source(raw: bytes) -> str:
    text = raw.decode()
    if not SOURCE_NAME.match(text):
        raise UndecodableError(
            f"ce_source {text[:60]!r} is no name of a source: 1 to 200 of A-Z a-z 0-9 . _ ~ : / + = -"
        )
    return text


@lru_cache(_REMEMBERED)
def _type(raw: bytes) -> str:
    text = raw.decode()
    if not KIND_NAME.match(text):
        raise UndecodableError(f"ce_type {text[:60]!r} is no type name")
    return text


@lru_cache(_REMEMBERED)
def _actor(raw: bytes) -> ActorRef:
    kind, _, actor_id = raw.decode().partition("/")
    if kind not in ACTOR_KINDS or not OPAQUE_ID.match(actor_id):
        raise UndecodableError("ce_actor must be user/…, agent/… or system/… with an opaque id")
    return ActorRef(kind, actor_id)


def _subject(raw: bytes) -> tuple[str, str]:
    kind, _, entity = raw.partition(b"/")
    if not 0 < len(entity) <= _LONGEST_ID or entity.translate(None, _OPAQUE):
        raise UndecodableError("ce_subject must be kind/id with an opaque id")
    return _kind(kind), entity.decode()


@lru_cache(_REMEMBERED)
def _kind(raw: bytes) -> str:
    text = raw.decode()
    if not KIND_NAME.match(text):
        raise UndecodableError("ce_subject must be kind/id with an opaque id")
    return text


def _concerns(raw: bytes) -> tuple[str, ...]:
    keys = tuple(raw.decode().split(","))
    if len(keys) > _MAX_CONCERNS or not all(map(OPAQUE_ID.match, keys)):
        raise UndecodableError("ce_concerns must be at most 64 opaque keys")
    return keys


def _time(raw: bytes) -> str:
    text = raw.decode()
    form = _TIME.match(text)
    if form is None or (form[1] and not _is_day(text[:10])):
        raise UndecodableError(f"{text[:60]!r} is no UTC time of the form 2026-11-21T17:15:00.000Z")
    return text


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _trace_parent(raw: bytes) -> str:
    text = raw.decode()
    if not _TRACE_PARENT.match(text):
        raise UndecodableError("ce_traceparent is no W3C traceparent")
    return text


def rfc3339(epoch_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC, for example ``2026-11-21T17:15:00.000Z``."""
    seconds, milliseconds = divmod(epoch_ms, 1000)
    return _text(datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000))


def normal_time(text: str) -> str:
    """Any RFC 3339 time in the one form that records carry.

    :raises BadInputError: it is none, or has no offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no offset from UTC")  # noqa: TRY301
        return _text(moment.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise BadInputError(f"{text[:60]!r} is no time ({error}); write it as 2026-11-21T17:15:00.000Z") from error


def _text(moment: datetime) -> str:
    """Not by ``strftime``, which writes the year 999 with three digits."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
