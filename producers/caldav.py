"""Calendar events from any CalDAV server (RFC 4791), incrementally where it supports RFC 6578.

The server says which resources changed; what that means for an event is found by comparing it with the state that
the log holds. So fetching anything twice, or everything, never invents an event.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, tzinfo
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from caldav.davclient import DAVClient

from headrace.errors import BadInputError
from headrace.producers.calendar_difference import KIND, Place, removed, shown
from headrace.producers.event import Changes, Known, KnownEntity, NewEvent
from headrace.producers.ical import CalendarObject, parse_calendar_object
from headrace.producers.marks import CalendarMark, read_calendar_mark
from headrace.producers.webdav import CalendarCollection, Listing, Member, Resource, answering, canonical_url

_log: Final = logging.getLogger(__name__)


class CaldavSource:
    """One calendar of one user.

    ``calendar`` is its URL, its path on the server of ``url``, or its display name. ``pseudonym`` is the account's
    (the same text always gives the same opaque id, and a pseudonym gives itself). ``zone`` is where the account's
    dates and floating times happen.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        calendar: str,
        *,
        pseudonym: Callable[[str], str],
        zone: tzinfo = UTC,
        timeout_s: int = 30,
    ) -> None:
        self._url = url
        self._username = username
        self._password = password
        self._wanted = calendar
        self._pseudonym = pseudonym
        self._zone = zone
        self._timeout_s = timeout_s
        self._calendar_url: str | None = None
        self._left_out = 0

    @property
    def feeds(self) -> tuple[str, ...]:
        """Calendar events, and nothing else."""
        return (KIND,)

    @property
    def left_out(self) -> int:
        """How many times a resource could not be read so far, and was left as the log knows it."""
        return self._left_out

    def pages(self, cursor: str | None, known: Known) -> Iterator[Changes]:
        """See :class:`headrace.producers.event.Source`: all of it in one page."""
        yield self.changes(cursor, known)

    def changes(self, cursor: str | None, known: Known) -> Changes:
        """Ask the server what changed since ``cursor``, a sync token of RFC 6578.

        Where there is no cursor, the server refuses it or knows no such thing, all members are listed and those
        fetched whose version is new. A server that knows no such thing leaves the cursor ``None``, so that every
        sync is a full comparison.

        :raises UnavailableError: the server does not answer.
        :raises BadInputError: it refuses us; the message says what to mend.
        """
        with DAVClient(
            url=self._url,
            username=self._username,
            password=self._password,
            timeout=self._timeout_s,
            enable_rfc6764=False,
        ) as client:
            calendar = self._located(client)
            collection = CalendarCollection(client, calendar)
            listing = collection.since(cursor) if cursor else None
            full = listing is None
            if listing is None:
                listing = collection.everything()
            comparison = _Comparison(calendar, listing, known, self._pseudonym, full=full)
            fetched = collection.fetch(comparison.outdated())
        events = comparison.events(self._read(listing, fetched))
        return Changes(events, listing.token, full)

    def _located(self, client: DAVClient) -> str:
        if self._calendar_url is None:
            wanted = self._wanted
            if "/" not in wanted:
                wanted = _by_name(client, wanted)
            self._calendar_url = canonical_url(urljoin(self._url, wanted))
        return self._calendar_url

    def _read(self, listing: Listing, fetched: Mapping[str, Resource | None]) -> Iterator["_Seen"]:
        for path, resource in fetched.items():
            if resource is None:
                yield _Seen(path, None, None)
                continue
            try:
                found = parse_calendar_object(resource.text, self._zone)
            except BadInputError as error:
                self._left_out += 1
                _log.warning(
                    "calendar object %s is left as it is known (%d left out so far): %s",
                    self._pseudonym(path),
                    self._left_out,
                    error,
                )
                yield _Seen(path, None, None, readable=False)
            else:
                yield _Seen(path, found, resource.etag or listing.members[path].etag)


class _Seen(NamedTuple):
    """What is at a path now: ``found`` is ``None`` when that is no event, or nothing."""

    path: str
    found: CalendarObject | None
    etag: str | None
    readable: bool = True


class _Comparison:
    """What one listing means, given what the log knows of the calendar."""

    def __init__(
        self, calendar: str, listing: Listing, known: Known, pseudonym: Callable[[str], str], *, full: bool
    ) -> None:
        self._calendar = calendar
        self._listing = listing
        self._known = known
        self._pseudonym = pseudonym
        self._full = full
        self._all_known = False
        self._by_id: dict[str, KnownEntity] = {}
        self._by_uid: dict[str, str] = {}
        self._at: dict[str, list[KnownEntity]] = {}
        paths = {pseudonym(path) for path in (*listing.members, *listing.gone)}
        mine = pseudonym(calendar)
        here = known.where(KIND, calendar=mine) if full else known.where(KIND, calendar=mine, resource=paths)
        for entity in here:
            if not entity.state["removed"]:
                self._by_id[entity.id] = entity
                self._at.setdefault(entity.state["resource"], []).append(entity)

    def outdated(self) -> dict[str, Member]:
        """The members of which the log does not hold this very version."""
        return {
            path: member
            for path, member in self._listing.members.items()
            if member.etag is None or all(one.state["etag"] != member.etag for one in self._here(path))
        }

    def events(self, seen: Iterable[_Seen]) -> tuple[NewEvent, ...]:
        """The events, in the order of their resources' pseudonyms."""
        by_path = {one.path: one for one in seen}
        vacated = {
            self._pseudonym(path)
            for path in (*self._listing.gone, *(path for path, one in by_path.items() if one.readable))
        }
        if self._full:
            vacated |= self._at.keys() - {self._pseudonym(path) for path in self._listing.members}
        events: list[tuple[str, NewEvent]] = []
        placed: set[str] = set()
        for entity, candidates in self._candidates(by_path.values()).items():
            before = self._entity(entity)
            one = self._holder(candidates, before, vacated)
            placed.add(entity)
            if one is not None and one.found is not None:
                event = shown(self._place(one.path), one.found, one.etag, before)
                mark = self._mark(one.found)
                if event is not None:
                    told = event._replace(entity=entity, mark=mark.mark if mark is not None else None)
                    events.append((self._pseudonym(one.path), told))
        for resource in vacated:
            left = [one for one in self._at.get(resource, []) if one.id not in placed]
            events += ((resource, removed(self._place(resource), one)) for one in left)
        return tuple(event for _, event in sorted(events, key=lambda item: (item[0], item[1].type, item[1].entity)))

    def _candidates(self, seen: Iterable[_Seen]) -> dict[str, list[_Seen]]:
        candidates: dict[str, list[_Seen]] = {}
        for one in sorted(seen, key=lambda one: one.path):
            if one.found is not None:
                candidates.setdefault(self._name(one.path, one.found), []).append(one)
        return candidates

    def _name(self, path: str, found: CalendarObject) -> str:
        """An object's entity: what its UID has been so far, else what it was made for where it is headrace's own."""
        uid = self._pseudonym(found.uid)
        known = next((one.id for one in self._here(path) if uid in {one.id, one.state["uid"]}), None)
        if known is not None or self._entity(uid) is not None:
            return known or uid
        mark = self._mark(found)
        made_for = self._entity(mark.entity) if mark is not None else None
        if mark is None or (made_for is not None and not made_for.state["removed"] and made_for.state["uid"] != uid):
            return self._by_uid.get(uid, uid)
        return self._by_uid.get(uid, mark.entity)

    def _mark(self, found: CalendarObject) -> CalendarMark | None:
        return read_calendar_mark(self._pseudonym, found.mark, (found.uid,), found.content)

    def _entity(self, entity: str) -> KnownEntity | None:
        """An entity by its id and not by its place: it may come from another resource or calendar of the account,
        or come back. Only something new at its place is looked for like that, so all the others are seldom read."""
        if entity not in self._by_id and not self._all_known:
            self._by_id |= {one.id: one for one in self._known.where(KIND) if one.state}
            self._by_uid = {one.state["uid"]: one.id for one in self._by_id.values()}
            self._all_known = True
        return self._by_id.get(entity)

    def _holder(self, candidates: list[_Seen], before: KnownEntity | None, vacated: set[str]) -> _Seen | None:
        """Which of the resources with one UID is the event: RFC 4791 §4.1 allows one, but servers differ. It stays
        where it is known to be as long as it is there."""
        chosen: _Seen | None = candidates[0]
        if before is not None and self._is_here(before):
            resource = before.state["resource"]
            same = [one for one in candidates if self._pseudonym(one.path) == resource]
            if same:
                chosen = same[0]
            elif resource not in vacated:
                chosen = None
        for one in candidates:
            if one is not chosen:
                _log.warning("calendar object %s repeats the UID of another and is left out", self._pseudonym(one.path))
        return chosen

    def _is_here(self, entity: KnownEntity) -> bool:
        return not entity.state["removed"] and entity.state["calendar"] == self._pseudonym(self._calendar)

    def _here(self, path: str) -> list[KnownEntity]:
        return self._at.get(self._pseudonym(path), [])

    def _place(self, resource: str) -> Place:
        return Place(self._calendar, resource, self._pseudonym)


def _by_name(client: DAVClient, name: str) -> str:
    """The URL of the user's calendar of this display name (RFC 4791 §6.2.1, RFC 5397)."""
    host = urlsplit(str(client.url)).hostname or "the server"
    with answering(host):
        urls = [str(one.url) for one in client.get_calendars() if one.get_display_name() == name]
    if len(urls) != 1:
        raise BadInputError(
            f"{host} has {len(urls) or 'no'} calendars of this name for this user: give its URL instead"
        )
    return urls[0]
