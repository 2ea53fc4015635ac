"""One Google calendar, followed: what changed since the sync token or, where Google takes that no more, all of it
compared with what the log holds.

Google tells of single events, masters and exceptions one by one. A single event is told as it comes; of a series, any
part that changed has the whole fetched, because the log speaks of series. An event is told only for what leads from
what the log holds to what is there, so whatever comes twice or late tells nothing new.
"""

import logging
from collections.abc import Generator, Iterable, Iterator, Set
from contextlib import contextmanager
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from headrace.errors import BadInputError
from headrace.producers.aside import Aside
from headrace.producers.batches import batches
from headrace.producers.calendar_difference import KIND, Place, removed, shown
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.google_calendar_api import EventsPage, GoogleCalendarApi, Item, LostTokenError, read_item
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
        with Aside() as aside:
            found = _Found(self._names, known, aside)
            token, zone = None, _calendar_zone(last.zone)
            for page in self._api.events(last.token):
                if page.zone != last.zone:
                    raise _UntoldError
                yield from self._singles(found, page, full=False)
                token = page.token
            for batch in batches(found.rest(), _AT_ONCE):
                events: list[NewEvent] = []
                for series, parts in batch:
                    events += self._series(found, series, parts, zone)
                if events:
                    yield Changes(tuple(events), None, full=False, more=True)
        yield Changes((), _Cursor(last.zone, str(token)).text, full=False)

    def _everything(self, known: Known, last: _Cursor | None) -> Iterator[Changes]:
        """Compare all events. Where but the token was lost, those of the version that the log holds are as it holds
        them: working out an endless series takes some 25 ms."""
        with Aside() as aside:
            found = _Found(self._names, known, aside)
            token, zone = None, _calendar_zone("UTC")
            for page in self._api.events(None):
                zone = _calendar_zone(page.zone)
                found.trusts = last is not None and last.zone == page.zone
                yield from self._singles(found, page, full=True)
                token = page.token
            for batch in batches(found.rest(), _AT_ONCE):
                with found.at_hand(series for series, _ in batch):
                    events = [event for series, parts in batch for event in self._told(found, series, parts, zone)]
                found.see(series for series, _ in batch)
                if events:
                    yield Changes(tuple(events), None, full=True, more=True)
            for missing in batches(found.missing(), _AT_ONCE):
                events = [event for entity in missing for event in self._missed(found, entity, zone)]
                if events:
                    yield Changes(tuple(events), None, full=True, more=True)
        yield Changes((), _Cursor(zone.key, str(token)).text, full=True)

    def _singles(self, found: "_Found", page: EventsPage, *, full: bool) -> Iterator[Changes]:
        """Tell the single events of a page, and keep the parts of series, and what is cancelled, for later."""
        zone = _calendar_zone(page.zone)
        newest = {item.id: item for item in page.items}
        singles = [item for item in newest.values() if item.is_single]
        found.see_single(item.id for item in singles)
        for item in newest.values():
            if not item.is_single:
                found.see_part(item)
        with found.at_hand(item.id for item in singles):
            events = [event for item in singles for event in self._told(found, item.id, [item], zone)]
        if events:
            yield Changes(tuple(events), None, full, more=True)

    def _series(self, found: "_Found", series: str, said: Iterable[Item], zone: ZoneInfo) -> list[NewEvent]:
        """What became of an event of which the parts ``said`` changed.

        :raises _UntoldError: fetching it does not tell.
        """
        parts = {one.id: one for one in said}
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
            return self._series(found, event, [now], zone)
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
        return [event]

    def _place(self, resource: str) -> Place:
        return Place(self._names.calendar, resource, self._names.pseudonym)


class _Found:
    """What a sync has come across. Set aside are the parts of series and what is cancelled, by the series' id, and all
    that is there: single events (what is left of exceptions from when one repeated says nothing), and series once they
    are told. ``trusts``: what the log holds of a version is what it comes to."""

    def __init__(self, names: CalendarNames, known: Known, aside: Aside) -> None:
        self.trusts = False
        self._names: Final = names
        self._known: Final = known
        self._aside: Final = aside
        self._at_hand: dict[str, KnownEntity | None] = {}

    # What the calendar shows

    def see_single(self, events: Iterable[str]) -> None:
        """These do not repeat."""
        for some in batches(events, _AT_ONCE):
            self._aside.drop_all(some)
            self.see(some)

    def see_part(self, item: Item) -> None:
        """This is of a series, or is cancelled."""
        series = item.master or item.id
        is_single = item.master is not None and self._has_seen(series) and not self._aside.owns(series)
        if not is_single:
            self._aside.put(series, item.id, item.body)

    def rest(self) -> Iterator[tuple[str, list[Item]]]:
        """The series by their ids, each with what was shown of it."""
        for parts in self._aside.owners():
            items = [read_item(one) for one in parts]
            yield items[0].master or items[0].id, items

    def see(self, series: Iterable[str]) -> None:
        """These are there."""
        self._aside.see(map(self._names.pseudonym, series))

    def missing(self) -> Iterator[KnownEntity]:
        """What the log holds and the calendar does not show."""
        for entity in self._known.where(KIND, calendar=self._names.pseudonym(self._names.calendar)):
            if not entity.state["removed"] and not self._aside.has_seen(entity.state["resource"]):
                yield entity

    def _has_seen(self, series: str) -> bool:
        return self._aside.has_seen(self._names.pseudonym(series))

    # What the log holds

    @contextmanager
    def at_hand(self, series: Iterable[str]) -> Generator[None]:
        """Meanwhile :meth:`known` knows of these, which are asked for together."""
        self._at_hand = dict.fromkeys(map(self._names.pseudonym, series))
        for entity in self._held(self._at_hand.keys()):
            if self._at_hand[entity.state["resource"]] is None:
                self._at_hand[entity.state["resource"]] = entity
        try:
            yield
        finally:
            self._at_hand = {}

    def known(self, series: str) -> KnownEntity | None:
        """What the log holds of an event, by the place that it has in the calendar."""
        resource = self._names.pseudonym(series)
        return self._at_hand[resource] if resource in self._at_hand else next(self._held({resource}), None)

    def _held(self, resources: Set[str]) -> Iterator[KnownEntity]:
        calendar = self._names.pseudonym(self._names.calendar)
        return self._known.where(KIND, calendar=calendar, resource=resources)

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
