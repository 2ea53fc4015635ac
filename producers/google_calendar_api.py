"""The Google Calendar API v3, as far as a calendar is followed with it: requests, and answers read strictly.

Methods and fields as in its discovery document (calendar.v3, revision 20261030). What an answer lacks is an
UnavailableError that names the field: nothing is guessed, and the cursor stays.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.answers import Answers, google_reasons, retry_seconds
from headrace.producers.provider_http import GrantError, ProviderHttp, StatusError, ThrottledError

BASE_URL: Final = "https://www.googleapis.com/calendar/v3/"
PAGE: Final = 1_000
"""Events asked for at once; Google gives 2,500 at the most, and an event may have 200 guests and 8 KB of text."""
_THROTTLED: Final = {
    "rateLimitExceeded": 1.0,
    "userRateLimitExceeded": 1.0,
    "dailyLimitExceeded": 3_600.0,
    "quotaExceeded": 3_600.0,
}
"""Reasons of a 403 that mean 429 (https://developers.google.com/workspace/calendar/api/guides/errors), and how many
seconds to wait where the answer does not say."""
_PERSON: Final = {
    "domainPolicy": "the domain's administrators have switched Calendar off for this app; ask them to allow it",
    "accessNotConfigured": "the Calendar API is not enabled in the app's Google Cloud project; enable it there",
    "notACalendarUser": "this Google account has no Calendar; sign up for it, or connect another account",
}
CALENDAR: Final = Answers("Google Calendar", ids=re.compile(r"[!-~]{1,1024}"), numbers_below=2**63, null_lists=True)
"""Google's own ids are letters, digits and ``_``; who imports may have brought others."""


class When(NamedTuple):
    """A date (``2026-11-21``), or a moment (RFC 3339) and the name of the zone that it was written in."""

    date: str | None
    moment: str | None
    zone: str | None


class Item(NamedTuple):
    """An event resource: a single event, the master of a series (``recurrence``), or an exception of one (``master``,
    ``original``). A cancelled one says its id, and for sure nothing else (exceptions also say of what)."""

    id: str
    etag: str | None
    cancelled: bool
    master: str | None
    original: When | None
    start: When | None
    end: When | None
    recurrence: tuple[str, ...]
    uid: str | None
    body: Mapping[str, Any]

    @property
    def is_single(self) -> bool:
        """Whether it is all there is to know of an event."""
        return not self.cancelled and self.master is None and not self.recurrence


class EventsPage(NamedTuple):
    """A page of events.list. ``zone`` is the calendar's; ``token`` is on the last page only."""

    items: tuple[Item, ...]
    zone: str
    next: str | None
    token: str | None


class Channel(NamedTuple):
    """What events.watch made; ``expires_at`` in epoch milliseconds, ``None`` where it has no end."""

    resource: str
    expires_at: int | None


class LostTokenError(BadInputError):
    """The sync token is of no use any more (410 ``fullSyncRequired``): compare everything."""


class GoogleCalendarApi:
    """One calendar, by its id, as whoever granted ``http``'s tokens sees it.

    Every method raises UnavailableError (ThrottledError among them) where asking again later may work, and
    BadInputError (GrantError among them) where a person must act.
    """

    def __init__(self, http: ProviderHttp, calendar: str) -> None:
        self._http: Final = http
        self._events: Final = f"calendars/{quote(calendar, safe='')}/events"

    def events(self, token: str | None) -> Iterator[EventsPage]:
        """All events that are there, page by page, or those that changed since ``token``, the deleted among them.
        Masters and exceptions, no instances: ``singleEvents`` would spell endless series out.

        :raises LostTokenError: Google takes the token no more.
        """
        query = {"maxResults": PAGE} | ({"syncToken": token} if token is not None else {})
        for page in self._pages(query):
            if page.next is None and page.token is None:
                raise CALENDAR.unusable("nextSyncToken")
            yield page

    def series(self, uid: str) -> list[Item]:
        """Everything of this iCalUID, cancelled exceptions included."""
        return [
            item
            for page in self._pages({"maxResults": PAGE, "iCalUID": uid, "showDeleted": "true"})
            for item in page.items
        ]

    def event(self, event: str) -> Item | None:
        """An event as it is now; ``None`` when it is gone (404, 410 ``deleted``, or cancelled)."""
        try:
            item = read_item(self._asked("GET", f"{self._events}/{quote(event, safe='')}"))
        except StatusError as error:
            if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                return None
            raise
        return None if item.cancelled else item

    def watch(self, channel: str, token: str, address: str) -> Channel | None:
        """Have Google notify ``address`` on a new channel, each time with ``token``; ``None`` for a calendar that it
        never notifies of (holidays, birthdays)."""
        body = {"id": channel, "type": "web_hook", "address": address, "token": token}
        try:
            said = self._asked("POST", f"{self._events}/watch", body=body)
        except StatusError as error:
            if "pushNotSupportedForRequestedResource" in google_reasons(error.body):
                return None
            raise
        ends = said.get("expiration")
        return Channel(
            CALENDAR.text(said, "resourceId"), CALENDAR.number(said, "expiration") if ends is not None else None
        )

    def stop(self, channel: str, resource: str) -> None:
        """Have Google notify no more on a channel. Harmless when there is none."""
        try:
            self._asked("POST", "channels/stop", body={"id": channel, "resourceId": resource})
        except StatusError as error:
            if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                raise

    def _pages(self, query: Mapping[str, Any]) -> Iterator[EventsPage]:
        """The same query for every page (https://developers.google.com/workspace/calendar/api/guides/sync)."""
        page: str | None = None
        while True:
            asked = {**query, "pageToken": page} if page is not None else query
            said = self._listed(asked)
            found = EventsPage(
                tuple(read_item(one) for one in CALENDAR.some(said, "items")),
                CALENDAR.text(said, "timeZone"),
                CALENDAR.optional_text(said, "nextPageToken"),
                CALENDAR.optional_text(said, "nextSyncToken"),
            )
            yield found
            if found.next is None:
                return
            if found.next == page:
                raise UnavailableError("Google Calendar names the same page of events again; the sync begins anew")
            page = found.next

    def _listed(self, query: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._asked("GET", self._events, params=query)
        except StatusError as error:
            why = google_reasons(error.body)
            if error.status == HTTPStatus.GONE and "syncToken" in query and "deleted" not in why:
                raise LostTokenError("Google Calendar asks for a full sync; run it") from None
            if error.status == HTTPStatus.BAD_REQUEST and "pageToken" in query:
                raise UnavailableError(
                    "Google Calendar no longer takes the page that it named; the sync begins again"
                ) from None
            if error.status == HTTPStatus.BAD_REQUEST and "syncToken" in query:
                raise LostTokenError("Google Calendar does not take the sync token; a full sync is run") from None
            if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                raise BadInputError(
                    "Google Calendar finds no such calendar for this grant: share the calendar with the account, or"
                    " correct its id in the source's settings"
                ) from None
            raise

    def _asked(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            return self._http.ask(method, path, params=params, body=body)
        except StatusError as error:
            raise _meaning(error) from None


def _meaning(error: StatusError) -> BadInputError | UnavailableError:
    """What a 403 is about stands in its body: a limit of Google's, a right that the grant lacks, an administrator."""
    if error.status != HTTPStatus.FORBIDDEN:
        return error
    why = google_reasons(error.body)
    for reason in sorted(why & _THROTTLED.keys()):
        seconds = retry_seconds(error.headers.get("retry-after"), _THROTTLED[reason])
        return ThrottledError(f"Google Calendar wants to be left alone for {seconds:g} s ({reason})", seconds)
    for reason in sorted(why & _PERSON.keys()):
        return BadInputError(_PERSON[reason])
    return GrantError(
        "Google says that the grant does not cover this; connect the source again with the scopes it needs, as somebody"
        " who may read the calendar's events"
    )


def read_item(said: Any) -> Item:
    """An event as Google shows it.

    :raises UnavailableError: it cannot be read; the field is named.
    """
    cancelled = CALENDAR.mapping(said).get("status") == "cancelled"
    master = (
        CALENDAR.identifier(said, "recurringEventId")
        if CALENDAR.mapping(said).get("recurringEventId") is not None
        else None
    )
    recurrence = tuple(CALENDAR.texts(said, "recurrence", empty=True))
    return Item(
        id=CALENDAR.identifier(said, "id"),
        etag=CALENDAR.optional_text(said, "etag"),
        cancelled=cancelled,
        master=master,
        original=_when(said, "originalStartTime") if master is not None else None,
        start=_when(said, "start") if not cancelled else None,
        end=_when(said, "end") if not cancelled else None,
        recurrence=recurrence,
        uid=CALENDAR.text(said, "iCalUID") if not cancelled else CALENDAR.optional_text(said, "iCalUID"),
        body=CALENDAR.mapping(said),
    )


def _when(said: Any, field: str) -> When:
    found = CALENDAR.mapping(said, field)
    when = When(
        CALENDAR.optional_text(found, "date"),
        CALENDAR.optional_text(found, "dateTime"),
        CALENDAR.optional_text(found, "timeZone"),
    )
    if (when.date is None) == (when.moment is None):
        raise CALENDAR.unusable(field)
    return when
