"""What crosses the doors, as pydantic models: envelopes, proposals, verdicts, states. The fold never sees these.

Unless said otherwise, times are epoch milliseconds UTC and tokens are opaque text that is passed back as it was given.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from headrace.errors import BadInputError
from headrace.schemas.envelope import normal_time
from headrace.schemas.refs import LONGEST_CONTAINER

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INT64: Final = 2**63 - 1

OpaqueId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~:+=-]{1,200}$")]
KindName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length=100)]
TokenText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{50}$")]
ContainerId = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_CONTAINER)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Concern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+:[^\x00]", max_length=500)]
VerdictName = Literal[
    "malformed",
    "duplicate",
    "conflicting_id",
    "unknown_basis",
    "expired",
    "superseded",
    "claimed",
    "rejected",
    "needs_review",
    "held",
    "accepted",
]


def milliseconds(value: Any) -> Any:
    """A time given as RFC 3339 text, as epoch milliseconds; a whole number as an integer; anything else as it is.

    :raises ValueError: text that is no such time.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)  # to JSON 1.0 is the integer 1
    if not isinstance(value, str):
        return value
    try:
        return (datetime.fromisoformat(normal_time(value)) - _EPOCH) // timedelta(milliseconds=1)
    except BadInputError as error:
        raise ValueError(str(error)) from error


Bounded = Annotated[int, Field(ge=-_INT64, le=_INT64)]
DateTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Milliseconds = Annotated[
    int,
    Field(ge=-_INT64, le=_INT64, strict=True),
    BeforeValidator(milliseconds, json_schema_input_type=Bounded | DateTime),
]
"""Epoch milliseconds UTC; RFC 3339 text is taken too."""


def _from_query(value: Any) -> Any:
    digits = isinstance(value, str) and value.removeprefix("-").isdecimal() and value.isascii() and len(value) < 20
    return int(value) if digits else milliseconds(value)


QueryMilliseconds = Annotated[
    int,
    Field(ge=-_INT64, le=_INT64),
    BeforeValidator(_from_query, json_schema_input_type=Bounded | DateTime),
]
""":data:`Milliseconds` in a query, where everything is text."""


class Door(BaseModel):
    """Nothing passes that is not named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EntityName(Door):
    """An entity inside an account."""

    kind: KindName
    id: OpaqueId


class EnvelopeModel(Door):
    """Who did what to which entity; see :class:`headrace.schemas.envelope.Envelope`."""

    id: str
    source: str
    type: str
    actor: str = Field(description="kind/id; kind is user, agent or system")
    entity: EntityName | None = None
    concerns: list[str] = Field(default_factory=list)
    occurred_at: str | None = Field(default=None, description="RFC 3339, as the provider says")
    observed_at: str | None = Field(default=None, description="RFC 3339, as the producer says")
    causation: str | None = None
    correlation: str | None = None
    sync: str | None = Field(default=None, description="the sync start it belongs to")


class EventRecord(EnvelopeModel):
    """One record of the log and what became of it."""

    offset: int
    token: str = Field(description="of this position")
    disposition: str = Field(description="applied, echo, noted, ignored, duplicate, …, or of a proposal the verdict")
    effect: str | None = Field(description="what policies call it, where it became its entity's head")
    proposal: str | None = Field(description="the proposal it is about")
    note: str | None = Field(description="why it was ignored or set aside")
    appended_at: int
    log_time: int


class EventWithBody(EventRecord):
    """One record with what it says. ``content`` is personal data, ``None`` where there is none or it is sealed."""

    body: dict[str, JsonValue] | None
    content: JsonValue = None


class NewRead(Door):
    """One more thing the agent had read. Of a scope ``kind`` and ``id`` are the container's."""

    what: Literal["entity", "absent", "scope"]
    kind: KindName
    id: ContainerId
    basis: TokenText = Field(description="of the entity's head; of a scope or what was absent, of the position read at")
    start: Milliseconds | None = Field(default=None, description="of a scope; null: unbounded")
    end: Milliseconds | None = Field(default=None, description="of a scope, exclusive; null: unbounded")
    account: OpaqueId | None = Field(default=None, description="null: the proposal's own; another one is never judged")


class NewProposal(Door):
    """An agent's output that wants to become a fact. Its id is the request's Idempotency-Key."""

    entity: EntityName
    basis: TokenText = Field(description="of the entity's head; where it was absent, of the position read at")
    absent: bool = Field(default=False, description="the agent found that the entity does not exist")
    type: KindName = Field(description="what is proposed, such as mail.reply")
    data: dict[str, JsonValue] = Field(default_factory=dict, description="shaped by the type's schema")
    content: dict[str, JsonValue] | None = Field(default=None, description="the output itself, never decided on")
    reads: list[NewRead] = Field(default_factory=list[NewRead], max_length=256, description="what else was read")
    expires_at: Milliseconds | None = Field(default=None, description="log time from which it is worth nothing")
    concerns: list[Concern] = Field(
        default_factory=list[str], max_length=64, description="what:value keys, such as person:ann@example.com"
    )


class Verdict(BaseModel):
    """What the log says of a proposal."""

    proposal: str
    account: str
    entity: EntityName | None = Field(description="null where the proposal could not be read")
    proposed: str = Field(description="what is proposed, such as mail.reply")
    verdict: VerdictName
    finding: dict[str, JsonValue] = Field(description="why: the event that overtook it, the rule, the holder, …")
    offset: int = Field(description="of the record that brought this verdict about")
    time: int = Field(description="log time there")
    token: str = Field(description="of that position; once accepted, the entity's head")
    submitted_at: int = Field(description="offset of the proposal itself")
    waits: bool = Field(description="whether it waits for an answer")
    outcome: str | None = Field(description="open while an accepted proposal is an intent, then how that ended")
    duplicate: bool = Field(description="this id had been submitted before; the verdict is the first one's")


class JudgedBefore(BaseModel):
    """One verdict in a proposal's history."""

    verdict: VerdictName
    finding: dict[str, JsonValue]
    offset: int
    time: int = Field(description="log time")
    token: str


class ProposalModel(Verdict):
    """A proposal, its current verdict, and every verdict before."""

    actor: str
    data: dict[str, JsonValue]
    concerns: list[str]
    expires_at: int | None
    reads: list[dict[str, JsonValue]]
    history: list[JudgedBefore]


class IntentModel(BaseModel):
    """An accepted proposal whose outcome is not known yet."""

    proposal: str
    type: str
    data: dict[str, JsonValue]
    accepted_at: int = Field(description="offset of the record that decided it")
    attempt: str | None = Field(description="the attempt under way")
    unknown: bool = Field(description="an attempt was made, and nobody knows whether it took place")


class ThreadState(Door):
    """The deciding state of a ``mail.thread``. Messages, senders and recipients are pseudonyms."""

    messages: int
    last_message: str | None
    last_sender: str | None
    last_by_owner: bool
    answered: list[str]
    drafted: list[str]
    labels: list[str]
    unread: bool
    archived: bool
    trashed: bool
    deleted: bool


class Occurrence(Door):
    """One time that a calendar event takes place, half-open."""

    start: int
    end: int


class Attendee(Door):
    """Who is asked (a pseudonym), and what they answered."""

    who: str
    response: str


class CalendarEventState(Door):
    """The deciding state of a ``calendar.event``. Calendars, resources and people are pseudonyms."""

    calendar: str | None
    uid: str | None
    resource: str | None
    etag: str | None
    sequence: int
    status: str
    busy: bool
    all_day: bool
    occurrences: list[Occurrence]
    unbounded_from: int | None
    organizer: str | None
    attendees: list[Attendee]
    removed: bool
    starts_at: int | None
    ends_at: int | None


StateModel = Annotated[ThreadState | CalendarEventState | dict[str, JsonValue], Field(union_mode="left_to_right")]
"""Typed for the built-in kinds; any other kind's state is an object of its own."""
