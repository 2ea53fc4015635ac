"""What every route needs: the store, who asks, how long they wait, and a snapshot to read from."""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Final, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Header, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from headrace import providers
from headrace.api.metrics import Metrics
from headrace.api.principals import Principal, authenticate, require
from headrace.api.problems import ProblemError
from headrace.errors import UnavailableError
from headrace.log.port import Log, LogDescription
from headrace.processors.core.kind import Kind
from headrace.producers.deliveries import Deliveries
from headrace.producers.hints import Hints
from headrace.projections import queries
from headrace.projections.port import Reader
from headrace.projections.queries import Horizon
from headrace.schemas.models import KindName, OpaqueId, TokenText
from headrace.schemas.refs import Token
from headrace.settings import Settings, Verb
from headrace.store import Store

DEFAULT_WAIT: Final = 2.0
MAX_WAIT: Final = 30.0
POSITION_HEADER: Final = "Headrace-Position"
LOG_TIME_HEADER: Final = "Headrace-Log-Time"
_LOST_SECONDS: Final = 0.1
"""How often tables that were found behind what they had reached are looked at again."""
_APPENDS: Final = 200
"""Appends under way at once. They have threads of their own: brokers that do not answer keep nobody from reading the
tables."""
_ASKS: Final = 40
"""Questions to the log under way at once, for the same reason in threads of their own too."""
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?\s*(?=$|[,;])")
Found = TypeVar("Found")


class Closing:
    """Tells open streams that the server stops. Safe from any thread."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._wakes: Final[set[Callable[[], None]]] = set()
        self.closed = False

    def close(self) -> None:
        """Wake every stream, so that it ends."""
        with self._lock:
            self.closed = True
            wakes = tuple(self._wakes)
        for wake in wakes:
            wake()

    def add(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when the server stops."""
        with self._lock:
            self._wakes.add(wake)

    def remove(self, wake: Callable[[], None]) -> None:
        """Do not call it any more."""
        with self._lock:
            self._wakes.discard(wake)

    def __len__(self) -> int:
        return len(self._wakes)


class Reach(NamedTuple):
    """A position that an answer must not be behind. ``until`` (monotonic seconds) the tables may take to get there."""

    token: Token
    until: float

    @staticmethod
    def late() -> UnavailableError:
        """They took too long."""
        return UnavailableError("the tables did not reach that position in time; try again, or wait longer")


class _Missed(NamedTuple):
    """A snapshot that is behind a position."""

    reach: Reach


def _unknown() -> ProblemError:
    return ProblemError(
        422, "unknown-position", "the token is not of this log's history: pass back what an earlier answer gave you"
    )


class Context:
    """One app's own. Nothing is global: two apps in one process do not know of each other."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store: Final = store
        self.settings: Final = settings
        self.metrics: Final = Metrics()
        self.deliveries: Final = Deliveries()
        self.hints: Final = Hints(store.log, store.tables, store.applied, store.intake)
        self.closing: Final = Closing()
        self.appending: Final = CapacityLimiter(_APPENDS)
        self.asking: Final = CapacityLimiter(_ASKS)
        self.providers: Final = providers.names()
        """Whose sources metrics tell apart; a name that somebody gave a source is nobody's label."""
        self._log: LogDescription | None = None

    def kind(self, name: str) -> Kind:
        """The entity kind of this name.

        :raises ProblemError: 404.
        """
        kind = self.store.kinds.get(name)
        if kind is None:
            known = ", ".join(sorted(self.store.kinds))
            raise ProblemError(404, "no-such-kind", f"there is no entity kind {name!r} here; known: {known}")
        return kind

    async def read(self, query: Callable[[Reader], Found], *behind: Reach | None) -> Found:
        """What ``query`` finds in one snapshot of the tables, in a thread of its own.

        ``behind`` are positions that the snapshot must have folded. That the tables had reached one once is not enough:
        a database that crashed may come back with less, and then they are waited for again.

        :raises ProblemError: 422 one of the positions is not of this log's history.
        :raises UnavailableError: one was not reached in time.
        """
        wanted = [reach for reach in behind if reach is not None]

        def run() -> Found | _Missed:
            with self.store.tables.snapshot() as reader:
                for reach in wanted:
                    known = queries.is_history(reader, reach.token)
                    if known is None:
                        return _Missed(reach)
                    if not known:
                        raise _unknown()
                return query(reader)

        while True:
            found = await to_thread.run_sync(run)
            if not isinstance(found, _Missed):
                return found
            await self._wait_again(found.reach)

    async def ask(self, question: Callable[[Log], Found]) -> Found:
        """What the log answers, in a thread of its own. It may take its time: ask while no snapshot is held."""
        return await to_thread.run_sync(question, self.store.log, limiter=self.asking)

    async def reach(self, text: str, wait: float) -> Reach:
        """A token's position, once it is said that the tables have folded it, or the time is up. What is read with it
        goes through :meth:`read`, which looks whether they have, and whether it is of this log's history.

        :raises ProblemError: 422 it cannot be.
        """
        token, applied = Token.parse(text), self.store.applied
        reach = Reach(token, time.monotonic() + wait)
        described = self._log if self._log is not None else await self.describe()
        if token.log_id != described.log_id or token.partition >= described.partitions:
            raise _unknown()
        if applied.next_offset(token.partition) <= token.offset:
            described = await self.describe()  # brokers are asked, so only where it must be
            if token.offset >= described.ends[token.partition]:
                raise _unknown()
        await applied.wait_async(token.partition, token.offset, wait)
        return reach

    async def describe(self) -> LogDescription:
        """What the log is and where its partitions end now."""
        described = await self.ask(lambda log: log.describe())
        if described.log_id is not None:
            self._log = described
        return described

    async def _wait_again(self, reach: Reach) -> None:
        """Until the tables may hold what they had lost.

        :raises UnavailableError: that takes too long.
        """
        left = reach.until - time.monotonic()
        if left <= 0:
            raise reach.late()
        if await self.store.applied.wait_async(reach.token.partition, reach.token.offset, left):
            await self.moment(left)

    async def moment(self, most: float) -> None:
        """The tables are behind what was said of them, and who listens to them has not heard of it yet: a moment, until
        something else is said or it is worth another look. At most so many seconds."""
        loop, said = asyncio.get_running_loop(), asyncio.Event()

        def say() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(said.set)

        with self.store.applied.listening(say), contextlib.suppress(TimeoutError):
            await asyncio.wait_for(said.wait(), min(most, _LOST_SECONDS))


def context_of(request: Request) -> Context:
    """The app's own context."""
    context: Context = request.app.state.context
    return context


async def _context(request: Request) -> Context:
    return context_of(request)


Here = Annotated[Context, Depends(_context)]


def unopened() -> UnavailableError:
    """The tables know nothing of a partition yet."""
    return UnavailableError("the log's opening is not folded yet; try again")


def account_horizon(here: Context, reader: Reader, tenant: str, account: str) -> Horizon:
    """How far the partition is that an account lives on.

    :raises UnavailableError: its opening is not folded yet.
    """
    found = queries.horizon(reader, here.store.intake.partition(tenant, account))
    if found is None:
        raise unopened()
    return found


async def reach_in(here: Context, tenant: str, account: str, text: str, wait: float) -> Reach:
    """As :meth:`Context.reach`, of a token that must be of the account's partition.

    :raises ProblemError: 422 it is of another.
    """
    reach = await here.reach(text, wait)
    if reach.token.partition != here.store.intake.partition(tenant, account):
        raise ProblemError(422, "unknown-position", "the token is of another partition than this account's")
    return reach


def _allowed(verb: Verb) -> Callable[..., object]:
    async def allowed(request: Request) -> Principal:
        principal = authenticate(context_of(request).settings.api_keys, request.headers.get("authorization"))
        require(principal, verb)
        return principal

    return allowed


Reads = Annotated[Principal, Depends(_allowed("read"))]
Proposes = Annotated[Principal, Depends(_allowed("propose"))]
Reviews = Annotated[Principal, Depends(_allowed("review"))]
Administers = Annotated[Principal, Depends(_allowed("admin"))]

AccountPath = Annotated[OpaqueId, Path(description="a mailbox or calendar owner of your tenant")]
KindPath = Annotated[KindName, Path(description="an entity kind, such as mail.thread")]
IdPath = Annotated[OpaqueId, Path()]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Cursor = Annotated[str | None, Query(max_length=300, description="`next` of the page before")]
AfterQuery = Annotated[
    TokenText | None, Query(description="read your writes: answer once the tables have reached this token's position")
]
PreferHeader = Annotated[
    str | None, Header(max_length=200, description="wait=SECONDS (RFC 7240), 2 by default, 30 at the most")
]


def seconds_to_wait(prefer: str | None) -> float:
    """How long a client prefers to wait (RFC 7240, section 4.3); what cannot be read is ignored, as it says."""
    found = _WAIT.search(prefer or "")
    return min(float(found[1]), MAX_WAIT) if found is not None else DEFAULT_WAIT


async def _seconds(prefer: PreferHeader = None) -> float:
    return seconds_to_wait(prefer)


Seconds = Annotated[float, Depends(_seconds)]


async def _reached(here: Here, seconds: Seconds, after: AfterQuery = None) -> Reach | None:
    return await here.reach(after, seconds) if after is not None else None


Reached = Annotated[Reach | None, Depends(_reached)]
"""The position in ``after=``, reached; give it to :meth:`Context.read`. To be named behind the principal, so that only
who may read waits."""


def place_headers(horizon: Horizon) -> dict[str, str]:
    """The position an answer was read at, and log time there."""
    return {POSITION_HEADER: horizon.token.encode(), LOG_TIME_HEADER: str(horizon.log_time)}


def answer(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer with this model as its JSON body."""
    return Response(model.model_dump_json(), status, headers, "application/json")
