"""One Google calendar, followed: what changed since the sync token or, where Google takes that no more, all of it
compared with what the log holds.

Google tells of single events, masters and exceptions one by one. A single event is told as it comes; of a series, any
part that changed has the whole fetched, because the log speaks of series. An event is told only for what leads from
what the log holds to what is there, so whatever comes twice or late tells nothing new.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from headrace.errors import BadInputError
from headrace.producers.calendar_difference import KIND, Place, removed, shown
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.google_calendar_api import EventsPage, GoogleCalendarApi, Item, LostTokenError
from headrace.producers.google_calendar_names import CalendarNames, mark_said
from headrace.producers.google_calendar_series import Series, assembled, updated, zone_of
from headrace.producers.marks import CalendarMark, read_calendar_mark

_log: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 50
"""Series told together: each may take a request of its own."""


class _Cursor(NamedTuple):
    """Where a sync left off: the calendar's time zone, in which whole days happen, and Google's sync token."""

    zone: str
    token: str

    @property
    def text(self) -> str:
        return f"{self.zone} {self.token}"

    @classmethod
    def read(cls, text: str) -> "_Cursor | None":
        zone, _, token = text.partition(" ")
        return cls(zone, token) if zone and token else None


class _UntoldError(Exception):
    """What became of a series cannot be learnt from what is fetched for it: only comparing everything tells."""


class GoogleCalendarSource:
    """The calendar of ``names``, whose events and series are entities."""

    def __init__(self, api: GoogleCalendarApi, names: CalendarNames) -> None:
        self._api: Final = api
        self._names: Final = names
        self._left_out = 0

    @property
    def feeds(self) -> tuple[str, ...]:
        """Calendar events, and nothing else."""
        return (KIND,)

    @property
    def left_out(self) -> int:
        """How many times an event could not be read so far, and was left as the log knows it."""
        return self._left_out

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        """See :class:`headrace.producers.event.Source`. The cursor is a sync token and the calendar's time zone: when
        somebody changes that, Google names no event, though every whole day has moved."""
        last = _Cursor.read(cursor) if cursor is not None else None
        if last is not None:
            try:
                yield from self._since(last, known)
            except (LostTokenError, _UntoldError):
                _log.info("a calendar is compared as a whole: its sync token does not tell what changed")
            else:
                return
        yield from self._everything(known, last)

    def _since(self, last: _Cursor, known: Known) -> Iterator[Changes]:
        found = _Found(self._names, known, None)
        token, zone = None, _calendar_zone(last.zone)
        for page in self._api.events(last.token):
            if page.zone != last.zone:
                raise _UntoldError
            yield from self._singles(found, page, full=False)
            token = page.token
        rest = list(found.rest.items())
        for first in range(0, len(rest), _AT_ONCE):
            events: list[NewEvent] = []
            for series, parts in rest[first : first + _AT_ONCE]:
                events += self._series(found, series, parts, zone)
            if events:
                yield Changes(tuple(events), None, full=False, more=True)
        yield Changes((), _Cursor(last.zone, str(token)).text, full=False)

    def _everything(self, known: Known, last: _Cursor | None) -> Iterator[Changes]:
        """Compare all events. Where but the token was lost, those of the version that the log holds are as it holds
        them: working out an endless series takes some 25 ms."""
        found = _Found(self._names, known, self._held(known))
        token, zone = None, _calendar_zone("UTC")
        for page in self._api.events(None):
            zone = _calendar_zone(page.zone)
            found.trusts = last is not None and last.zone == page.zone
            yield from self._singles(found, page, full=True)
            token = page.token
        rest = list(found.rest.items())
        found.seen.update(series for series, _ in rest)
        for first in range(0, len(rest), _AT_ONCE):
            events: list[NewEvent] = []
            for series, parts in rest[first : first + _AT_ONCE]:
                events += self._told(found, series, parts.values(), zone)
            if events:
                yield Changes(tuple(events), None, full=True, more=True)
        for first in range(0, len(missing := found.missing()), _AT_ONCE):
            events = []
            for entity in missing[first : first + _AT_ONCE]:
                events += self._missed(found, entity, zone)
            if events:
                yield Changes(tuple(events), None, full=True, more=True)
        yield Changes((), _Cursor(zone.key, str(token)).text, full=True)

    def _held(self, known: Known) -> dict[str, KnownEntity]:
        """What the log holds of this calendar, by resource."""
        calendar = self._names.pseudonym(self._names.calendar)
        return {entity.state["resource"]: entity for entity in known.where(KIND, calendar=calendar)}

    def _singles(self, found: "_Found", page: EventsPage, *, full: bool) -> Iterator[Changes]:
        """Tell the single events of a page, and keep the parts of series, and what is cancelled, for later."""
        zone = _calendar_zone(page.zone)
        events: list[NewEvent] = []
        newest = {item.id: item for item in page.items}
        for item in newest.values():
            series = item.master or item.id
            if item.is_single:
                found.rest.pop(series, None)
                found.seen.add(series)
                found.singles.add(series)
                events += self._told(found, series, [item], zone)
            elif item.master is None or series not in found.singles:
                found.singles.discard(series)
                found.rest.setdefault(series, {})[item.id] = item
        if events:
            yield Changes(tuple(events), None, full, more=True)

    def _series(self, found: "_Found", series: str, parts: dict[str, Item], zone: ZoneInfo) -> list[NewEvent]:
        """What became of an event of which ``parts`` changed.

        :raises _UntoldError: fetching it does not tell.
        """
        uid = next((one.uid for one in parts.values() if not one.cancelled), None)
        if uid is None and series not in parts:
            master = self._api.event(series)
            uid = master.uid if master is not None else None
            if master is None and found.known(series) is not None:
                raise _UntoldError  # somebody is asked to some instances only, and now to one less
        if uid is None:
            return self._told(found, series, parts.values(), zone)
        whole = {one.id: one for one in self._api.series(uid) if series in {one.id, one.master}}
        if not parts.keys() <= whole.keys():
            raise _UntoldError  # an exception that is not found by its iCalUID: there may be more of them
        return self._told(found, series, whole.values(), zone)

    def _missed(self, found: "_Found", entity: KnownEntity, zone: ZoneInfo) -> list[NewEvent]:
        """What became of an event that a list of everything lacks: it may have come back since, or have been left out
        for a moment, so it is asked for by name before it counts as gone."""
        resource = entity.state["resource"]
        event = self._names.event(entity.id, resource)
        now = self._api.event(event) if event is not None else None
        if event is None or now is None:
            return [removed(self._place(resource), entity)]
        if now.is_single:
            return self._told(found, event, [now], zone)
        try:
            return self._series(found, event, {event: now}, zone)
        except _UntoldError:
            return []  # it changed this moment, after the sync token that was given: the next sync tells

    def _told(self, found: "_Found", series: str, parts: Iterable[Item], zone: ZoneInfo) -> list[NewEvent]:
        """The event that leads from what the log holds to what ``parts`` are, if one does."""
        parts = tuple(parts)
        place, whole = self._place(series), Series(parts)
        if found.trusts and whole.version is not None and found.holds(series, whole.version):
            return []
        try:
            now = assembled(whole, zone)
        except BadInputError as error:
            self._left_out += 1
            _log.warning(
                "calendar event %s is left as it is known (%d left out so far): %s",
                self._names.pseudonym(series),
                self._left_out,
                error,
            )
            return []
        if now is None:
            known = found.known(series)
            if known is None or known.state["removed"]:
                return []
            when = next((updated(one) for one in parts if one.id == series), None)
            event = removed(place, known)._replace(occurred_at=when)
        else:
            said = next((mark_said(one) for one in parts if one.id == series), None)
            mark = read_calendar_mark(self._names.pseudonym, said, (series,), now.content)
            known, entity = found.entity(series, mark)
            changed = shown(place, now, whole.version, known)
            if changed is None:
                return []
            event = changed._replace(entity=entity, mark=mark.mark if mark is not None else None)
        found.told.add(series)
        return [event]

    def _place(self, resource: str) -> Place:
        return Place(self._names.calendar, resource, self._names.pseudonym)


class _Found:
    """What a sync has come across. ``rest`` are the parts of series, and what is cancelled, by the series' id; ``seen``
    the ids of all that is there; ``singles`` of those that do not repeat (what is left of exceptions from when they did
    says nothing); ``told`` of those of which the log holds more than it held at the start. ``held`` is what that was,
    by resource, where all of it was read at once. ``trusts``: what the log holds of a version is what it comes to."""

    def __init__(self, names: CalendarNames, known: Known, held: Mapping[str, KnownEntity] | None) -> None:
        self.rest: Final[dict[str, dict[str, Item]]] = {}
        self.seen: Final[set[str]] = set()
        self.told: Final[set[str]] = set()
        self.singles: Final[set[str]] = set()
        self.trusts = False
        self._names: Final = names
        self._known: Final = known
        self._held: Final = held

    def known(self, series: str) -> KnownEntity | None:
        """What the log holds of an event, by the place that it has in the calendar."""
        resource = self._names.pseudonym(series)
        if self._held is not None and series not in self.told:
            return self._held.get(resource)
        calendar = self._names.pseudonym(self._names.calendar)
        return _fact(self._known.where(KIND, calendar=calendar, resource=resource))

    def holds(self, series: str, version: str) -> bool:
        """Whether the log holds this version of an event."""
        known = self.known(series)
        return known is not None and not known.state["removed"] and known.state["etag"] == version

    def entity(self, series: str, mark: CalendarMark | None) -> tuple[KnownEntity | None, str]:
        """What the log holds of an event, and its entity id: what it has been so far, the one that it was made for
        where it is headrace's own, or Google's id."""
        known = self.known(series)
        if known is not None:
            return known, known.id
        if mark is not None:
            known = _fact(self._known.where(KIND, id=mark.entity))
            if known is None or known.state["removed"] or known.state["resource"] == self._names.pseudonym(series):
                return known, mark.entity
        return None, self._names.entity(series)

    def missing(self) -> list[KnownEntity]:
        """What the log holds and the calendar does not show."""
        seen = {self._names.pseudonym(one) for one in self.seen}
        held = self._held or {}
        return [one for resource, one in held.items() if resource not in seen and not one.state["removed"]]


def _fact(entities: Iterator[KnownEntity]) -> KnownEntity | None:
    """The one that there is; ``None`` also where it has only been proposed so far."""
    return next((one for one in entities if one.state), None)


def _calendar_zone(name: str) -> ZoneInfo:
    try:
        return zone_of(name)
    except BadInputError:
        raise BadInputError(
            "the time zone of the calendar is not in the time-zone data of this machine; update the tzdata package"
        ) from None
