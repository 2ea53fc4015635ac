"""Microsoft Graph's mail, as its documents say: messages, mailFolders, delta. ``graph_calendar`` and ``graph_push``
have the rest.

[delta]   https://learn.microsoft.com/graph/delta-query-overview: links are opaque; an item may come repeatedly, in any
          order, and be replayed; an update brings at least what changed; 410 or a 40X means begin anew
[message] https://learn.microsoft.com/graph/api/message-delta: per folder; $select, $top, $expand; no $search; $filter
          and $orderby by receivedDateTime only
[folder]  https://learn.microsoft.com/graph/api/mailfolder-delta: $select
[list]    https://learn.microsoft.com/graph/api/user-list-messages: Deleted Items, too; $top up to 1000
[order]   https://learn.microsoft.com/graph/api/user-list-messages, filter and orderby: what is sorted by must be
          filtered by first, else InefficientFilter
[immut]   https://learn.microsoft.com/graph/outlook-immutable-id: asked for with each request; without, a moved message
          has another id; a sent draft keeps its id; folders' ids are constant
[basic]   https://learn.microsoft.com/graph/permissions-reference: Mail.ReadBasic is all but body, bodyPreview,
          uniqueBody, attachments, extensions and extended properties
[errors]  https://learn.microsoft.com/graph/errors
[known]   https://learn.microsoft.com/graph/api/resources/mailfolder: well-known folder names
[string]  the sample of delta-query-messages has isRead as a text
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

from tests.doubles.graph_people import ADDRESS, KNOWN, Bin, Mail, Mailbox
from tests.doubles.http import Grant, Reply, Request

BASE: Final = "https://graph.test/v1.0/"
BASIC: Final = "Mail.ReadBasic"
READ: Final = "Mail.Read"
IMMUTABLE: Final = 'IdType="ImmutableId"'
_NOT_BASIC: Final = frozenset({"body", "bodyPreview", "uniqueBody", "attachments", "extensions"})
_MESSAGE_DELTA: Final = re.compile(r"me/mailFolders/([^/]+)/messages/delta\Z")
_ONE_MESSAGE: Final = re.compile(r"me/messages/([^/]+)\Z")
_ONE_FOLDER: Final = re.compile(r"me/mailFolders/([^/]+)\Z")
_FILTER: Final = re.compile(r"conversationId eq '((?:[^']|'')*)'\Z")
_PAGED: Final = re.compile(r"odata\.maxpagesize=(\d+)")


@dataclass
class Round:
    """What a token stands for: which collection, what is selected, up to which change everything was told; and, of a
    round that goes on, what is still to tell."""

    what: str
    select: frozenset[str]
    since: int
    left: list[dict[str, Any]] | None = None


def moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Reply:
    """[errors]"""
    return Reply.json(status, {"error": {"code": code, "message": code}}, headers)


class GraphDouble(Mailbox):
    """One person's mailbox, and what she does in it. ``page`` is how much a page has at the most."""

    def __init__(self, grant: Grant | None = None, *, address: str = ADDRESS, page: int = 1000) -> None:
        super().__init__(address)
        self.grant: Final = grant or Grant([BASIC, "User.Read"])
        self.page = page
        self.repeating = self.shuffled = self.partial = self.replaying = self.stringly = False
        self.lost_as = 410
        self.lagging: str | None = None
        self.parts: list[Callable[[str, Request], Reply | None]] = []
        self._tokens: Final[dict[str, Round]] = {}

    def forget(self) -> None:
        """[delta] No token is known any more."""
        self._tokens.clear()

    # What its API answers.

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        if not self.grant.takes(request):
            return error(401, "InvalidAuthenticationToken")
        path = unquote(request.path).removeprefix("/v1.0/")
        if (found := _MESSAGE_DELTA.match(path)) is not None:
            return self._message_delta(request, found.group(1))
        if path == "me/mailFolders/delta":
            return self._round(request, "folders", {"$select"})
        if path == "me/messages":
            return self._listed(request)
        if (found := _ONE_MESSAGE.match(path)) is not None:
            return self._one(request, found.group(1))
        if (found := _ONE_FOLDER.match(path)) is not None:
            name = found.group(1)
            folder = self.folders.get(f"F-{name}" if name in KNOWN else name)  # [known]
            return Reply.json(200, {"id": folder.id}) if folder is not None else error(404, "ErrorItemNotFound")
        if path == "me":
            said = {"id": "u-1", "mail": self.address.title(), "userPrincipalName": self.address}
            return Reply.json(200, said) if "User.Read" in self.grant.scopes else error(403, "Forbidden")
        for part in self.parts:
            reply = part(path, request)
            if reply is not None:
                return reply
        return error(404, "ResourceNotFound")

    def _message_delta(self, request: Request, folder: str) -> Reply:
        if folder not in self.folders:
            return error(404, "ErrorItemNotFound")
        if request.one("$filter") is not None or request.one("$orderby") is not None:
            return error(400, "ErrorInvalidUrlQuery")  # [message] only by receivedDateTime, and nobody asks for that
        return self._round(request, folder, {"$select", "$top", "$expand", "changeType"})

    def _round(self, request: Request, what: str, allowed: Iterable[str]) -> Reply:
        names = {name for name, _ in request.query}
        token = request.one("$deltatoken") or request.one("$skiptoken")
        if token is not None:
            found = self._tokens.get(token)
            if found is None or found.what != what or len(names) > 1:
                return self.lost(request)
        elif names - set(allowed):
            return error(400, "BadRequest")
        else:
            refused = self._refused(request)
            if refused is not None:
                return refused
            found = Round(what, selected(request), -1)
        return self._paged(request, found)

    def lost(self, request: Request) -> Reply:
        """[delta] 410 with where to begin, or a 40X with a code."""
        if self.lost_as == 410:
            return error(410, "Gone", {"location": f"{BASE}{request.path}?$deltatoken="})
        return error(self.lost_as, "SyncStateNotFound")

    def _paged(self, request: Request, this: Round) -> Reply:
        left, end = this.left, this.since
        if left is None:
            end = len(self.changes) if self.lagging != this.what else max(this.since, len(self.changes) - 2)
            left = self._told(request, this, end)
        size = min(page_size(request), self.page)
        path = "me/mailFolders/delta" if this.what == "folders" else f"me/mailFolders/{this.what}/messages/delta"
        more = len(left) > size
        following = Round(this.what, this.select, end, left[size:] if more else None)
        token = f"t{len(self._tokens)}.{len(self.changes)}"
        self._tokens[token] = following
        origin = f"https://{request.headers['host']}" if request.headers["host"] == "graph.test" else ""
        origin = origin or f"http://{request.headers['host']}"
        link = f"{origin}/v1.0/{path}?${'skip' if more else 'delta'}token={token}"
        name = "@odata.nextLink" if more else "@odata.deltaLink"
        return Reply.json(200, {"@odata.context": "…", "value": left[:size], name: link})

    def _told(self, request: Request, this: Round, end: int) -> list[dict[str, Any]]:
        if this.since < 0:
            if this.what == "folders":
                return [self._folder(one) for one in self.folders.values() if one.parent != "out of sight"]
            return [self.shown(mail, this.select, request) for mail in self.within(this.what)]
        since = max(0, this.since - 3) if self.replaying else this.since  # [delta] replays
        ids = [named for where, named in self.changes[since:end] if where == this.what]
        ids = ids if self.repeating else list(dict.fromkeys(ids))  # [delta] the same item again
        told = [self._change(this, one, request) for one in ids]
        return told[1::2] + told[::2] if self.shuffled else told

    def _change(self, this: Round, named: str, request: Request) -> dict[str, Any]:
        if this.what == "folders":
            folder = self.folders.get(named)
            return self._folder(folder) if folder is not None else {"id": named, "@removed": {"reason": "deleted"}}
        mail = self.mails.get(named)
        if mail is None or mail.folder != this.what:
            return {"@odata.type": "#microsoft.graph.message", "id": named, "@removed": {"reason": "deleted"}}
        said = self.shown(mail, this.select, request)
        if self.partial and mail.changed and "parentFolderId" not in mail.changed:
            return {name: said[name] for name in said if name == "id" or name in mail.changed}  # [delta] at least
        return said

    def _folder(self, folder: Bin) -> dict[str, Any]:
        return {"id": folder.id, "parentFolderId": folder.parent, "isHidden": folder.hidden}

    def _listed(self, request: Request) -> Reply:
        """[list]"""
        names = {name for name, _ in request.query}
        top = request.one("$top", "10") or ""
        if names - {"$filter", "$select", "$top", "$skip", "$expand"} or not top.isdigit() or not 0 < int(top) <= 1000:
            return error(400, "InefficientFilter" if "$orderby" in names else "BadRequest")  # [order]
        refused = self._refused(request)
        if refused is not None:
            return refused
        wanted = request.one("$filter")
        by = _FILTER.match(wanted) if wanted is not None else None
        if wanted is not None and by is None:
            return error(400, "ErrorInvalidUrlQueryFilter")
        thread = by.group(1).replace("''", "'") if by is not None else None
        shown = [one for one in self.mails.values() if not self.folders[one.folder].hidden]
        mails = [one for one in shown if thread is None or one.thread == thread]
        skip, size = int(request.one("$skip") or 0), min(int(top), self.page)
        mails = sorted(mails, key=lambda one: -one.date)[skip:]
        said: dict[str, Any] = {"value": [self.shown(one, selected(request), request) for one in mails[:size]]}
        if len(mails) > size:
            origin = "https" if request.headers["host"] == "graph.test" else "http"
            query = "&".join(f"{name}={value}" for name, value in request.query if name != "$skip")
            link = f"{origin}://{request.headers['host']}/v1.0/me/messages?{query}&$skip={skip + size}"
            said["@odata.nextLink"] = link.replace(" ", "%20")
        return Reply.json(200, said)

    def _one(self, request: Request, named: str) -> Reply:
        refused = self._refused(request)
        if refused is not None:
            return refused
        mail = self.mails.get(named)
        if mail is None or IMMUTABLE not in request.headers.get("prefer", ""):
            return error(404, "ErrorItemNotFound")
        said = self.shown(mail, selected(request), request)
        if request.one("$expand") is not None and mail.answers is not None:
            said["singleValueExtendedProperties"] = [{"id": "String 0x1042", "value": mail.answers}]
        return Reply.json(200, said)

    def _refused(self, request: Request) -> Reply | None:
        """[basic]"""
        select, expand = selected(request), request.one("$expand")
        if not select:
            return error(400, "Select")  # not Graph's: everything would come, and the sources never ask for that
        if READ not in self.grant.scopes and (select & _NOT_BASIC or expand is not None):
            return error(403, "ErrorAccessDenied")
        return None

    def shown(self, mail: Mail, select: frozenset[str], request: Request) -> dict[str, Any]:
        """[message] ``id`` always; properties that are null are null."""
        immutable = IMMUTABLE in request.headers.get("prefer", "")
        headers = [{"name": "Received", "value": "from mx"}] if mail.delivered else None
        text = 'body-content-type="text"' in request.headers.get("prefer", "")
        said: dict[str, Any] = {
            "conversationId": mail.thread,
            "conversationIndex": base64.b64encode(mail.index).decode(),
            "parentFolderId": mail.folder,
            "internetMessageId": mail.key,
            "isRead": str(mail.read).lower() if self.stringly else mail.read,  # [string]
            "isDraft": mail.draft,
            "categories": mail.categories,
            "flag": {"flagStatus": "flagged" if mail.flagged else "notFlagged"},
            "createdDateTime": moment(mail.created),
            "receivedDateTime": moment(mail.date),
            "sentDateTime": moment(mail.date),
            "subject": "Friday?",
            "from": {"emailAddress": {"name": mail.sender.split("@")[0].title(), "address": mail.sender}},
            "toRecipients": [{"emailAddress": {"name": mail.to, "address": mail.to}}],
            "ccRecipients": [],
            "bccRecipients": [],
            "internetMessageHeaders": headers,
            "body": {"contentType": "text" if text else "html", "content": "Hello" if text else "<p>Hello</p>"},
        }
        shown = {name: value for name, value in said.items() if name in select}
        # [immut] a move gives a message another id
        return {"id": mail.id if immutable else f"AAMk{mail.folder}{mail.id}", "@odata.etag": 'W/"CQ"', **shown}


def selected(request: Request) -> frozenset[str]:
    """What ``$select`` names."""
    return frozenset(filter(None, (request.one("$select") or "").split(",")))


def page_size(request: Request) -> int:
    """What ``Prefer: odata.maxpagesize`` asks for."""
    found = _PAGED.search(request.headers.get("prefer", ""))
    return int(found.group(1)) if found is not None else 10
