"""Google Calendar, as its documents say: events.list, get, insert, patch, delete, watch, and channels.stop.

[list]    https://developers.google.com/workspace/calendar/api/v3/reference/events/list
[event]   https://developers.google.com/workspace/calendar/api/v3/reference/events
[sync]    https://developers.google.com/workspace/calendar/api/guides/sync
[errors]  https://developers.google.com/workspace/calendar/api/guides/errors
[push]    https://developers.google.com/workspace/calendar/api/guides/push
[watch]   https://developers.google.com/workspace/calendar/api/v3/reference/events/watch
[version] https://developers.google.com/workspace/calendar/api/guides/version-resources
[scopes]  https://developers.google.com/workspace/calendar/api/auth
[seen]    refusals that people report: channelIdNotUnique, pushNotSupportedForRequestedResource
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from tests.doubles.google_calendar_desk import ADDRESS, HOLIDAYS, Calendars, Stored
from tests.doubles.google_calendar_push import Push
from tests.doubles.http import Grant, Reply, Request

AUTH: Final = "https://www.googleapis.com/auth/"
OWN: Final = f"{AUTH}calendar.events.owned.readonly"
READ: Final = f"{AUTH}calendar.events.readonly"
WRITE: Final = f"{AUTH}calendar.events"
_PATH: Final = re.compile(r"(?:/calendar/v3)?/calendars/([^/]+)/events(?:/([^/]+))?\Z")
_PARAMETERS: Final = frozenset({
    "alwaysIncludeEmail", "eventTypes", "iCalUID", "maxAttendees", "maxResults", "orderBy", "pageToken",
    "privateExtendedProperty", "q", "sharedExtendedProperty", "showDeleted", "showHiddenInvitations", "singleEvents",
    "syncToken", "timeMax", "timeMin", "timeZone", "updatedMin",
})  # fmt: skip
_NOT_WITH_TOKEN: Final = frozenset({
    "iCalUID", "orderBy", "privateExtendedProperty", "q", "sharedExtendedProperty", "timeMin", "timeMax", "updatedMin",
})  # fmt: skip
"""[list] ``syncToken``: parameters that cannot be specified together with it."""
_NOT_MODELLED: Final = frozenset({"singleEvents", "q", "timeMin", "timeMax", "updatedMin", "orderBy", "timeZone"})
_ID: Final = re.compile(r"[a-v0-9]{5,1024}\Z")


class GoogleCalendarDouble(Calendars):
    """One person's calendars and what people do in them. ``page`` is how much Google gives at once at the most."""

    def __init__(self, grant: Grant | None = None, *, page: int = 2_500) -> None:
        super().__init__()
        self.grant: Final = grant or Grant([READ])
        self.page = page
        self.push: Final = Push(self)
        self.bare = True
        self.repeating = False
        self.silent_exceptions = False

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        if not self.grant.takes(request):
            return error(401, "authError")  # [errors]
        path = unquote(request.path)
        if path.removeprefix("/calendar/v3") == "/channels/stop" and request.method == "POST":
            return self.push.stop(request.json())
        found = _PATH.match(path)
        if found is None:
            return error(404, "notFound")
        calendar, event = found.groups()
        may = {OWN: calendar == ADDRESS, READ: True, WRITE: True}
        if not any(may.get(scope, False) for scope in self.grant.scopes):
            return error(403, "insufficientPermissions")  # [scopes]
        if calendar not in self.zones:
            return error(404, "notFound")  # [errors] a calendar that the user cannot access
        if event == "watch" and request.method == "POST":
            if calendar == HOLIDAYS:
                return error(400, "pushNotSupportedForRequestedResource")  # [seen]
            return self.push.watch(calendar, request.json())
        if request.method != "GET" and WRITE not in self.grant.scopes:
            return error(403, "insufficientPermissions")
        match request.method, event:
            case "GET", None:
                return self._list(calendar, request)
            case "POST", None:
                return self._insert(calendar, request.json())
            case _, None:
                return error(404, "notFound")
            case _:
                return self._one(calendar, event, request)

    # One event.

    def _one(self, calendar: str, event: str, request: Request) -> Reply:
        stored = self.events[calendar].get(event)
        if stored is None:
            return error(404, "notFound")
        if request.method == "GET":
            return Reply.json(200, self._shown(stored))  # [event] status: the get method always returns cancelled ones
        if stored.cancelled:
            return error(410, "deleted")  # [errors]
        if request.headers.get("if-match", stored.etag) not in {stored.etag, "*"}:
            return error(412, "conditionNotMet")  # [version]
        match request.method:
            case "PATCH":
                self.edit(stored, **request.json())
                return Reply.json(200, self._shown(stored))
            case "DELETE":
                self.delete(stored)
                return Reply(204)
            case _:
                return error(404, "notFound")

    def _insert(self, calendar: str, body: dict[str, Any]) -> Reply:
        wanted = body.pop("id", None)
        if wanted is not None and not _ID.match(wanted):
            return error(400, "invalid")  # [event] base32hex
        if wanted in self.events[calendar]:
            return error(409, "duplicate")  # [errors]
        if not {"start", "end"} <= body.keys():
            return error(400, "required")
        return Reply.json(200, self._shown(self.insert(calendar=calendar, event=wanted, **body)))

    # Many.

    def _list(self, calendar: str, request: Request) -> Reply:
        query = dict(request.query)
        size = query.get("maxResults", "250")
        if not query.keys() <= _PARAMETERS or not size.isdigit() or not 1 <= int(size) <= 2_500:
            return error(400, "badRequest")
        if query.keys() & _NOT_MODELLED:
            return error(400, "notModelledHere")
        token = query.get("syncToken")
        if token is not None and (query.keys() & _NOT_WITH_TOKEN or query.get("showDeleted") == "false"):
            return error(400, "badRequest")  # [list] and it is not allowed to set showDeleted to False
        asked = {name: value for name, value in query.items() if name != "pageToken"}
        since = None
        if token is not None:
            said = _opened(token, "sync")
            if said is None or said["calendar"] != calendar:
                return error(400, "invalid")
            rest = {name: value for name, value in asked.items() if name not in {"syncToken", "maxResults"}}
            if said["query"] != rest:
                return error(400, "badRequest")  # [list] all others the same: "undefined behavior" else
            since = said["at"]
            if since < self.oldest[calendar]:
                return error(410, "fullSyncRequired")  # [errors]
        after, at = "", self.version
        if "pageToken" in query:
            page = _opened(query["pageToken"], "page")
            if page is None or page["query"] != asked or page["calendar"] != calendar:
                return error(400, "invalid")  # [sync] the exact same query with the pageToken appended
            after, at = page["after"], page["at"]
        found = list(self._matching(calendar, query, since))
        following = [one for one in found if one.id > after]
        answer = self._page(calendar, following, min(int(size), self.page), asked, at)
        if self.repeating:
            answer["items"] += [self._shown(one) for one in found[:2]]  # once more on every page, as they are now
        return Reply.json(200, answer)

    def _page(self, calendar: str, found: list[Stored], size: int, asked: Mapping[str, str], at: int) -> dict[str, Any]:
        """[sync] The sync token on the last page only. It is as of the first page: what happens while pages are turned
        is told by the next sync at the latest."""
        items = [self._shown(one) for one in found[:size]]
        answer = {"kind": "calendar#events", "timeZone": self.zones[calendar], "items": items}
        if len(found) > size:
            page = {"after": found[size - 1].id, "at": at, "query": asked, "calendar": calendar}
            return answer | {"nextPageToken": _sealed("page", page)}
        rest = {name: value for name, value in asked.items() if name not in {"syncToken", "maxResults"}}
        if rest.keys() & _NOT_WITH_TOKEN:
            return answer
        return answer | {"nextSyncToken": _sealed("sync", {"at": at, "query": rest, "calendar": calendar})}

    def _matching(self, calendar: str, query: Mapping[str, str], since: int | None) -> Iterator[Stored]:
        """[list] In an unspecified, stable order."""
        for event in sorted(self.events[calendar]):
            one = self.events[calendar][event]
            if since is not None and one.version <= since:
                continue
            if "iCalUID" in query and (one.uid != query["iCalUID"] or (self.silent_exceptions and one.cancelled)):
                continue
            # [list] showDeleted: cancelled instances are included without it, too, but not the underlying event.
            deleted = one.cancelled and one.master is None
            if not deleted or since is not None or query.get("showDeleted") == "true":
                yield one

    def _shown(self, one: Stored) -> dict[str, Any]:
        """[event] status: of a deleted event only the id is certain, of a cancelled exception also whose it is."""
        said: dict[str, Any] = {"kind": "calendar#event", "id": one.id, "status": "confirmed"}
        if one.master is not None:
            said |= {"recurringEventId": one.master, "originalStartTime": one.original}
        if not one.cancelled or not self.bare:
            said |= {"etag": one.etag, "iCalUID": one.uid, "sequence": one.sequence, "updated": one.updated}
            said |= {"created": one.created, "organizer": {"email": ADDRESS, "self": True}, **one.fields}
        if one.cancelled:
            said["status"] = "cancelled"
        return said


def _sealed(what: str, said: Any) -> str:
    """[sync] Tokens are opaque."""
    return base64.urlsafe_b64encode(json.dumps([what, said], sort_keys=True).encode()).decode()


def _opened(token: str, what: str) -> Any:
    try:
        kind, said = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        return None
    return said if kind == what else None


def error(status: int, reason: str) -> Reply:
    """[errors]"""
    domain = "usageLimits" if "Exceeded" in reason else "calendar"
    errors = [{"domain": domain, "reason": reason, "message": reason}]
    return Reply.json(status, {"error": {"code": status, "message": reason, "errors": errors}})
