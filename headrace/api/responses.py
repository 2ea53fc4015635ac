"""The bodies of answers. Times are epoch milliseconds UTC; ``position`` is the token of what was read at."""

from pydantic import BaseModel, Field, JsonValue

from headrace.schemas.models import (
    EventWithBody,
    IntentModel,
    ProposalModel,
    StateModel,
    Verdict,
)


class Placed(BaseModel):
    """Every answer: where in the log it was read."""

    position: str = Field(description="token; the basis of scopes and of what was absent")
    log_time: int = Field(description="there")


class Paged(Placed):
    """One page of an answer."""

    next: str | None = Field(description="pass it as cursor for the next page; null: this was the last")


class HeadModel(BaseModel):
    """An entity's last effective event."""

    offset: int
    time: int = Field(description="log time")


class ClaimModel(BaseModel):
    """Who holds an entity, until which log time."""

    claim: str
    holder: str
    until: int
    offset: int


class EntityItem(BaseModel):
    """An entity: facts in ``state``, and the intents laid over them. ``basis`` is what a proposal on it names."""

    kind: str
    id: str
    exists: bool = Field(description="whether there is any fact; false while only a proposal on it was accepted")
    basis: str = Field(description="token of its head")
    head: HeadModel
    state: StateModel | None
    intents: list[IntentModel]


class EntityDetail(EntityItem):
    """An entity with what is laid over it. ``foreseen`` is the state once every intent is carried out."""

    account: str
    foreseen: StateModel | None
    claim: ClaimModel | None
    content: dict[str, JsonValue] | None = Field(description="personal data of its newest event, where in clear")


class Entity(EntityDetail, Placed):
    """One entity, and where it was read."""


class Entities(Paged):
    """Entities of an account, by kind and id."""

    entities: list[EntityItem]


class Scope(Paged):
    """What meets a scope now, intents included. ``position`` of the first page is the basis of having read it."""

    container: str
    id: str
    start: int | None
    end: int | None
    entities: list[EntityItem]


class Events(Paged):
    """Records about an entity, refused and ignored ones too."""

    events: list[EventWithBody]


class PlacedVerdict(Verdict, Placed):
    """A verdict, and where the tables were when it was read."""


class Pending(Placed):
    """The proposal is on the log; its verdict was not there in time. Ask at Location, with ``Prefer: wait=``."""

    proposal: str
    account: str
    offset: int | None = Field(description="of the record that was appended")


class VerdictProblem(PlacedVerdict):
    """RFC 9457: a refused proposal, with its verdict as extension members."""

    type: str = Field(description="urn:headrace:verdict:…")
    title: str
    status: int
    detail: str
    instance: str


class OneProposal(ProposalModel, Placed):
    """One proposal, and where it was read."""


class Proposals(Paged):
    """Proposals of an account, by id."""

    proposals: list[Verdict]


class OneClaim(Placed):
    """The claim that holds, ``null`` once it is let go."""

    kind: str
    id: str
    claim: ClaimModel | None


class SourceModel(BaseModel):
    """A mailbox or calendar that events come from, and how fresh it is."""

    source: str
    feeds: list[str] = Field(description='entity kinds whose truth it is; empty: all; ["-"]: it was removed')
    fresh_at: int | None = Field(description="log time of the start of its last completed sync; null: never")
    staleness_ms: int | None = Field(description="log time less fresh_at")
    lag_ms: int | None = Field(description="this machine's clock less fresh_at")
    stale: bool = Field(description="beyond the policy's bound: what reads or changes what it feeds is held")
    syncing: bool
    hinted: bool = Field(description="something changed there, and no sync has started since")


class Sources(Placed):
    """An account's sources, by name."""

    complete_up_to: int | None = Field(description="log time up to which all are; null: one never was, or none is here")
    max_staleness_ms: int | None = Field(description="the policy's bound; null: none")
    sources: list[SourceModel]


class AccountModel(BaseModel):
    """An account and how much there is of it."""

    account: str
    events: int
    entities: dict[str, int] = Field(description="by kind")
    waiting: int = Field(description="proposals that wait for an answer")
    last_log_time: int
    complete_up_to: int | None = Field(description="log time up to which all its sources are; null: they are not")


class Accounts(BaseModel):
    """Accounts of a tenant, by name."""

    accounts: list[AccountModel]
    next: str | None


class PartitionModel(BaseModel):
    """A partition: where it ends, how far it is folded."""

    partition: int
    end: int
    folded: int
    log_time: int


class LogModel(BaseModel):
    """The log."""

    log_id: str
    successor: str | None
    partitions: list[PartitionModel]


class QuarantinedModel(BaseModel):
    """A record that was set aside."""

    partition: int
    offset: int
    account: str
    reason: str
    bytes: int
    appended_at: int


class Quarantine(BaseModel):
    """Records that were set aside, by position."""

    records: list[QuarantinedModel]
    next: str | None


class Health(BaseModel):
    """Whether this process does its work."""

    status: str
    lag: int | None = Field(default=None, description="records not folded yet")
