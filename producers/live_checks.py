"""Live checks: what a ``held`` proposal waits for. Its sources are synced, and then it is judged again.

A proposal is held because a source that bears on it is staler than the policy allows. Each such source gets a hint, so
that somebody syncs it; once every one has completed a sync that *started* after the record that held the proposal,
``source.confirmed`` has it judged again, with whatever the syncs put on the log. A proposal whose own time has run out
is judged again without waiting: it ends as ``expired``.

What is to be done is read from the tables, so it survives any crash, and another process takes it up. A confirmation's
id is derived from what it answers: that two processes append it, or one does twice, has one effect.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from headrace.errors import HeadraceError, UnavailableError
from headrace.log.port import Record
from headrace.processors.core.freshness import bearing
from headrace.processors.core.kind import Kind
from headrace.processors.core.model import AccountKey, ProposalRow, SourceRow
from headrace.producers.hints import Hints
from headrace.producers.schedule import SourceKey
from headrace.producers.source_syncs import Parts
from headrace.projections import freshness
from headrace.projections.freshness import HeldAccount
from headrace.projections.port import Reader
from headrace.schemas.envelope import Envelope, rfc3339
from headrace.schemas.refs import ActorRef

SOURCE: Final = "headrace/live"
"""Whose records confirmations are."""
_ACTOR: Final = ActorRef("system", "live-check")
_GRACE_MS: Final = 1_000
"""How long after ``expires_at`` a proposal is judged again: the log's clock decides then, not ours."""
_AGAIN_SECONDS: Final = 60.0
"""How long to wait for the effect of a confirmation before it is appended once more."""
_RETRY_SECONDS: Final = 1.0
"""How long to wait after a failure, at first; twice as long each time, up to :data:`_AGAIN_SECONDS`."""
_LEAST_SECONDS: Final = 0.02
_MOST_SECONDS: Final = 5.0
_REST: Final = 9
"""A look at the tables is followed by this many times as long without one, however many proposals wait in vain: at
least :data:`_LEAST_SECONDS`, at most :data:`_MOST_SECONDS`."""
_AT_ONCE: Final = 500
"""Confirmations in one append, so that others on the partition get their turn."""
_STOP_SECONDS: Final = 5.0
_log: Final = logging.getLogger("headrace.sync")


class Wanted(NamedTuple):
    """What held proposals of one account want now: the sources to hint, and those proposals to be judged again."""

    hints: frozenset[str]
    again: tuple[ProposalRow, ...]


def wanted(held: Iterable[ProposalRow], sources: Sequence[SourceRow], in_force: Mapping[str, Kind], now: int) -> Wanted:
    """What to do for an account's ``held`` proposals, given its ``sources`` as of the same position of the log. ``now``
    is epoch milliseconds by the clock of this machine. Pure."""
    hints: set[str] = set()
    again: list[ProposalRow] = []
    for row in held:
        proposal = row.proposal
        waits_for = bearing(proposal.ref.kind, proposal.reads, lambda: in_force, sources)
        if _run_out(proposal.expires_at, now) or all(one.fresh_offset > row.judged_at for one in waits_for):
            again.append(row)
            continue
        hints.update(one.source for one in waits_for if one.hint_offset <= one.sync_offset < row.judged_at)
    return Wanted(frozenset(hints), tuple(again))


def _run_out(expires_at: int | None, now: int) -> bool:
    return expires_at is not None and expires_at + _GRACE_MS <= now


def confirmation_id(proposal: str, judged_at: int) -> str:
    """The id of the confirmation that answers the record at offset ``judged_at``, which held the proposal."""
    return "live-" + hashlib.sha256(f"{proposal}\0{judged_at}".encode()).hexdigest()[:32]


class _Seen(NamedTuple):
    """What an account was like when nothing was left to do for it."""

    held: HeldAccount
    sources: tuple[tuple[str, tuple[str, ...], int, int, int], ...]
    kinds: tuple[str, ...]
    at: float


class _Failed(NamedTuple):
    """An account for which something could not be appended: how often in a row, and (monotonic) when to try again."""

    times: int
    until: float


class LiveChecks:
    """Checks the held proposals of the accounts that are this process's, from :meth:`start` to :meth:`stop`.

    ``share``: whether an account (tenant, account) is this process's. ``clock`` gives epoch seconds.
    """

    def __init__(
        self,
        parts: Parts,
        hints: Hints,
        share: Callable[[str, str], bool],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parts, self._hints, self._share, self._clock = parts, hints, share, clock
        self._seen: Final[dict[AccountKey, _Seen]] = {}
        self._asked: Final[dict[tuple[str, str, str], tuple[int, float]]] = {}
        self._failed: Final[dict[AccountKey, _Failed]] = {}
        self._looked_seconds = 0.0
        self._woken: Final = threading.Event()
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="headrace-live-checks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = _STOP_SECONDS) -> None:
        """End; what is left is taken up by whoever is next."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout)

    def look(self) -> None:
        """Something was applied, or the share has changed. Cheap, from any thread."""
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            due = self._turn()
            self._stopping.wait(min(_MOST_SECONDS, max(_LEAST_SECONDS, _REST * self._looked_seconds)))
            self._woken.wait(due)

    def _turn(self) -> float | None:
        """One look; in how many seconds the next is due if nothing wakes it, ``None``: never."""
        try:
            return self.turn()
        except UnavailableError as error:
            _log.warning("held proposals cannot be checked now: %s", error)
        except HeadraceError as error:
            _log.error("held proposals cannot be checked: %s", error)
            return _AGAIN_SECONDS
        except Exception:  # noqa: BLE001 - a bug met at one proposal must not end the others' checks
            _log.critical("checking held proposals has failed on a bug", exc_info=True)
            return _AGAIN_SECONDS
        return _RETRY_SECONDS

    def turn(self) -> float | None:
        """Do what is to be done now; in how many seconds something is due even if nothing happens.

        :raises HeadraceError: the tables cannot be asked.
        """
        now, began = self._clock(), time.monotonic()
        with self._parts.tables.snapshot() as reader:
            found = [one for one in freshness.held_accounts(reader) if self._share(*one[:2])]
            sources = freshness.sources_of_held(reader) if found else {}
            wants = {
                one[:2]: self._wanted(reader, one, sources.get(one[:2], []), now) for one in found if self._may(one[:2])
            }
        self._looked_seconds = time.monotonic() - began
        self._forget({one[:2] for one in found})
        failed = self._judge_again([row for want in wants.values() if want is not None for row in want.again], now)
        for account, want in wants.items():
            for source in sorted(want.hints) if want is not None else ():
                if not self._hint(SourceKey(*account, source)):
                    failed.add(account)
        self._note(wants.keys(), failed)
        due = [self._due(one, now) for one in found if one.expires_at is not None]
        retries = [one.until - time.monotonic() for one in self._failed.values()]
        return max(0.0, min([*due, *retries])) if due or retries else None

    def _note(self, looked_at: Iterable[AccountKey], failed: set[AccountKey]) -> None:
        for account in failed:
            self._seen.pop(account, None)
            times = self._failed[account].times + 1 if account in self._failed else 0
            wait = min(_AGAIN_SECONDS, _RETRY_SECONDS * 2**times)
            self._failed[account] = _Failed(times, time.monotonic() + wait)
        for well in set(looked_at) - failed:
            self._failed.pop(well, None)

    def _may(self, account: AccountKey) -> bool:
        failed = self._failed.get(account)
        return failed is None or failed.until <= time.monotonic()

    def _wanted(self, reader: Reader, one: HeldAccount, sources: list[SourceRow], now: float) -> Wanted | None:
        """``None``: as it was when it was last looked at, when nothing was left to do."""
        key = one[:2]
        kinds = freshness.kinds_in_force(reader, self._parts.intake.partition(*key))
        state = tuple((row.source, row.feeds, row.hint_offset, row.sync_offset, row.fresh_offset) for row in sources)
        seen, self._seen[key] = self._seen.get(key), _Seen(one, state, kinds, now)
        if seen is not None and seen[:3] == (one, state, kinds) and not self._expires(one, seen.at, now):
            self._seen[key] = seen
            return None
        in_force = {name: self._parts.kinds[name] for name in kinds if name in self._parts.kinds}
        return wanted(freshness.held(reader, key), sources, in_force, int(now * 1_000))

    def _expires(self, one: HeldAccount, before: float, now: float) -> bool:
        """Whether a proposal has run out of time since ``before``, or did so long ago and still is not judged again."""
        if not _run_out(one.expires_at, int(now * 1_000)):
            return False
        return not _run_out(one.expires_at, int(before * 1_000)) or now - before >= _AGAIN_SECONDS

    def _due(self, one: HeldAccount, now: float) -> float:
        assert one.expires_at is not None
        left = (one.expires_at + _GRACE_MS) / 1_000 - now
        return left if left > 0 else _AGAIN_SECONDS

    def _judge_again(self, rows: Sequence[ProposalRow], now: float) -> set[AccountKey]:
        """Append confirmations, a partition at a time; the accounts whose may not be on the log."""
        by_partition: dict[int, list[tuple[ProposalRow, Record]]] = {}
        at = rfc3339(int(now * 1_000))
        for row in rows:
            if not self._just_asked(row, now):
                record = self._confirmation(row, at)
                by_partition.setdefault(record.partition, []).append((row, record))
        failed: set[AccountKey] = set()
        runs = by_partition.values()
        for pairs in (run[first : first + _AT_ONCE] for run in runs for first in range(0, len(run), _AT_ONCE)):
            try:
                self._parts.log.append([record for _, record in pairs])
            except HeadraceError as error:
                _log.warning("%d live checks are made, but that cannot be said now: %s", len(pairs), error)
                failed.update(row.proposal.ref[:2] for row, _ in pairs)
                continue
            for row, _ in pairs:
                self._asked[_key(row)] = row.judged_at, time.monotonic()
        return failed

    def _just_asked(self, row: ProposalRow, now: float) -> bool:
        """Whether its confirmation is on the log and perhaps not folded yet. One whose time has run out by our clock,
        and was held again because it has not by the log's, is left alone for a while as well."""
        judged_at, when = self._asked.get(_key(row), (-1, 0.0))
        recent = judged_at >= 0 and time.monotonic() - when < _AGAIN_SECONDS
        return recent and (judged_at == row.judged_at or _run_out(row.proposal.expires_at, int(now * 1_000)))

    def _confirmation(self, row: ProposalRow, at: str) -> Record:
        ref, id_ = row.proposal.ref, confirmation_id(row.proposal.id, row.judged_at)
        envelope = Envelope(id_, SOURCE, "source.confirmed", _ACTOR, ref.kind, ref.id, observed_at=at)
        return self._parts.intake.record(ref.tenant, ref.account, envelope, {"proposal": row.proposal.id})

    def _hint(self, key: SourceKey) -> bool:
        """Have a source synced; whether that is on the log."""
        try:
            self._hints.append(key)
        except HeadraceError as error:
            _log.warning("%s of %s is to be synced, but that cannot be said now: %s", key.source, key.account, error)
            return False
        return True

    def _forget(self, kept: set[AccountKey]) -> None:
        """What is held no more, or not ours."""
        for gone in self._seen.keys() - kept:
            del self._seen[gone]
        for gone in self._failed.keys() - kept:
            del self._failed[gone]
        for asked in [key for key in self._asked if key[:2] not in kept]:
            del self._asked[asked]


def _key(row: ProposalRow) -> tuple[str, str, str]:
    ref = row.proposal.ref
    return ref.tenant, ref.account, row.proposal.id
