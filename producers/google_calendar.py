"""Google Calendar: a calendar watched through a notification channel, and read through the Calendar API.

A notification says that a calendar changed, in headers alone, and who sends it is shown by a token that the channel was
made with (https://developers.google.com/workspace/calendar/api/guides/push).
"""

import hmac
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from headrace.errors import BadInputError
from headrace.producers.answers import google_reasons
from headrace.producers.google_calendar_api import GoogleCalendarApi
from headrace.producers.google_calendar_names import CalendarNames
from headrace.producers.google_calendar_source import GoogleCalendarSource
from headrace.producers.provider import Answer, Connected, Delivery, Hint, Received, Watch
from headrace.producers.provider_http import ProviderHttp, StatusError
from headrace.producers.refusal import RefusedError

NAME: Final = "google_calendar"
SCOPES: Final[Mapping[str, str]] = {
    "own": "https://www.googleapis.com/auth/calendar.events.owned.readonly",
    "any": "https://www.googleapis.com/auth/calendar.events.readonly",
}
"""The one scope that following a calendar takes: of the person's own calendars, or also of those shared with them."""
_RENEW_MS: Final = 24 * 3_600_000
"""How long before its end a channel is replaced, at the most; of a short-lived one, half its life."""
_ENDLESS_MS: Final = 30 * _RENEW_MS
"""When a channel that Google gives no end is looked after all the same."""
_VISIBLE: Final = re.compile(rb"[!-~]{1,256}\Z")
_NUMBER: Final = re.compile(rb"[1-9][0-9]{0,19}\Z")
_CHANNEL: Final = b"x-goog-channel-id"
_TOKEN: Final = b"x-goog-channel-token"
_STATE: Final = b"x-goog-resource-state"
_MESSAGE: Final = b"x-goog-message-number"
_RESOURCE: Final = b"x-goog-resource-id"


class GoogleCalendar:
    """The :class:`headrace.producers.provider.Provider`. A connected source's setting: ``calendar``, the id of the
    calendar (that of a person's first one is their address)."""

    @property
    def name(self) -> str:
        """See :class:`headrace.producers.provider.Provider`."""
        return NAME

    def source(self, connected: Connected, http: ProviderHttp, pseudonym: Callable[[str], str]) -> GoogleCalendarSource:
        """See :class:`headrace.producers.provider.Provider`.

        :raises BadInputError: its settings cannot be used.
        """
        calendar = _calendar(connected)
        return GoogleCalendarSource(GoogleCalendarApi(http, calendar), CalendarNames(calendar, pseudonym))

    def watch(
        self, connected: Connected, http: ProviderHttp, address: str, last: Watch | None, now: int
    ) -> Watch | None:
        """See :class:`headrace.producers.provider.Provider`. A channel cannot be prolonged: once ``last`` is within a
        day of its end (or ``address`` is another), a new one is made, with an id and a token of its own. Both notify
        until ``last`` ends, or is ended by :meth:`stop`, so keep both where ``receive`` looks. ``None`` where Google
        notifies nobody of the calendar.

        ``details["renew_at"]`` is when to call this again, in epoch milliseconds.
        """
        calendar = _calendar(connected)
        if not address.startswith("https://"):
            raise BadInputError("Google notifies https:// addresses only; give the endpoint's public one")
        if last is not None and last.details.get("address") == address and now < int(last.details["renew_at"]):
            return last
        channel, token = str(uuid.uuid4()), secrets.token_urlsafe(32)
        try:
            made = GoogleCalendarApi(http, calendar).watch(channel, token, address)
        except StatusError as error:
            raise _unwatchable(error) from None
        if made is None:
            return None
        expires_at = made.expires_at if made.expires_at is not None else now + _ENDLESS_MS
        renew_at = max(expires_at - _RENEW_MS, now + (expires_at - now) // 2)
        details = {"resource": made.resource, "address": address, "renew_at": str(renew_at)}
        return Watch(channel, token, expires_at, details)

    def stop(self, connected: Connected, http: ProviderHttp, watch: Watch) -> None:
        """See :class:`headrace.producers.provider.Provider`. Only whoever made the channel, with the same OAuth client,
        may."""
        GoogleCalendarApi(http, _calendar(connected)).stop(watch.id, watch.details["resource"])

    def receive(self, delivery: Delivery, watch: Callable[[str], Watch | None]) -> Received:
        """See :class:`headrace.producers.provider.Provider`. Answered 204. Google sends a message again only after a
        500, 502, 503 or 504; whatever else is refused is lost, and it would be found by the next sync.

        The first message of a channel (``sync``) may come before events.watch is answered, so that nobody knows the
        channel yet: as it says nothing, it is taken from anybody and leads to nothing.
        """
        said = _headers(delivery)
        channel, resource, state = said[_CHANNEL], said[_RESOURCE], said[_STATE]
        if not _NUMBER.match(said[_MESSAGE]):
            raise RefusedError("malformed_headers", "X-Goog-Message-Number is no number: send it as Google does")
        found = watch(channel.decode())
        if found is None:
            if state == b"sync":
                return Received((), Answer(HTTPStatus.NO_CONTENT))
            raise RefusedError("unknown_watch", "no calendar is watched on this channel: stop it, or connect it again")
        token = said.get(_TOKEN)
        if token is None:
            raise RefusedError("missing_headers", "X-Goog-Channel-Token is missing: make the channel with its token")
        if not hmac.compare_digest(token, found.secret.encode()) or not found.secret:
            raise RefusedError("forged", "X-Goog-Channel-Token is not the one that the channel was made with")
        if not hmac.compare_digest(resource, found.details["resource"].encode()):
            raise RefusedError("forged", "X-Goog-Resource-ID is not what the channel was made to watch")
        if state == b"sync":
            return Received((), Answer(HTTPStatus.NO_CONTENT))
        # Of states, ``exists`` and ``not_exists`` are documented; whatever it is, looking is never wrong.
        return Received((_hint(said),), Answer(HTTPStatus.NO_CONTENT))

    def read(self, delivery: Delivery) -> tuple[Hint, ...]:
        """See :class:`headrace.producers.provider.Rereads`."""
        said = _headers(delivery)
        return (_hint(said),) if said[_STATE] != b"sync" else ()


def _hint(said: Mapping[bytes, bytes]) -> Hint:
    channel = said[_CHANNEL].decode()
    return Hint(channel, f"{channel}:{said[_MESSAGE].decode()}")


def _headers(delivery: Delivery) -> dict[bytes, bytes]:
    """The headers that a notification is told by. X-Goog-Resource-URI and X-Goog-Channel-Expiration only repeat what
    the channel was made with, and there is no body."""
    if delivery.method != "POST":
        raise RefusedError("not_notification", "Google Calendar notifies by POST: give this address to it alone")
    said: dict[bytes, bytes] = {}
    for name, value in delivery.headers:
        if name in {_CHANNEL, _TOKEN, _STATE, _MESSAGE, _RESOURCE}:
            if name in said or not _VISIBLE.match(value):
                raise RefusedError("malformed_headers", "each X-Goog- header comes once, in visible ASCII")
            said[name] = value
    missing = [name for name in (_CHANNEL, _STATE, _MESSAGE, _RESOURCE) if name not in said]
    if missing:
        raise RefusedError("missing_headers", f"{missing[0].decode()} is missing: send what Google Calendar sends")
    return said


def _calendar(connected: Connected) -> str:
    calendar = connected.settings.get("calendar", "")
    if "@" not in calendar or calendar != calendar.strip():
        raise BadInputError(
            "a Google Calendar source needs the id of its calendar, such as ann@example.com or"
            " …@group.calendar.google.com (the calendar's settings show it; not `primary`); connect it again with it"
        )
    return calendar


def _unwatchable(error: StatusError) -> BadInputError:
    why = google_reasons(error.body)
    if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return BadInputError(
            "Google Calendar finds no such calendar for this grant: share the calendar with the account, or correct its"
            " id in the source's settings"
        )
    if any(reason.startswith("push.webhookUrl") for reason in why):
        return BadInputError(
            "Google Calendar refuses the endpoint's address: it must be https with a certificate of a public authority"
        )
    return BadInputError(f"Google Calendar refuses to watch ({error.status}): look at the endpoint's public address")
