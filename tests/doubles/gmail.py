"""Gmail, as its documents say: users.history, threads, messages, watch, profile.

[history] https://developers.google.com/gmail/api/reference/rest/v1/users.history/list
[sync]    https://developers.google.com/gmail/api/guides/sync
[push]    https://developers.google.com/gmail/api/guides/push
[threads] https://developers.google.com/gmail/api/reference/rest/v1/users.threads
[message] https://developers.google.com/gmail/api/reference/rest/v1/users.messages
[format]  https://developers.google.com/gmail/api/reference/rest/v1/Format
[scopes]  https://developers.google.com/gmail/api/auth/scopes
[drafts]  https://developers.google.com/gmail/api/guides/drafts
[errors]  https://developers.google.com/gmail/api/guides/handle-errors
[types]   https://developers.google.com/discovery/v1/type-format: 64-bit numbers are texts in JSON
[3508]    https://github.com/googleapis/google-api-nodejs-client/issues/3508: records out of order
[seen]    a recorded answer: a record twice with the same content, and a record with nothing but ``messages``
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.doubles.http import Grant, Reply, Request

ADDRESS: Final = "ann@example.com"
METADATA: Final = "https://www.googleapis.com/auth/gmail.metadata"
READONLY: Final = "https://www.googleapis.com/auth/gmail.readonly"
WEEK_MS: Final = 7 * 24 * 3_600_000
START: Final = 1_795_000_000_000
_PATH: Final = re.compile(r"(?:/gmail/v1)?/users/me/(\w+)(?:/([A-Za-z0-9_-]+))?\Z")
_PARAMETERS: Final[Mapping[str, frozenset[str]]] = {
    "profile": frozenset(),
    "history": frozenset({"startHistoryId", "maxResults", "pageToken", "labelId", "historyTypes"}),
    "threads": frozenset({"maxResults", "pageToken", "q", "labelIds", "includeSpamTrash"}),
    "thread": frozenset({"format", "metadataHeaders"}),
    "message": frozenset({"format", "metadataHeaders"}),
}


@dataclass
class Mail:
    """A message. ``headers`` as they were sent."""

    id: str
    thread: str
    labels: set[str]
    date: int
    headers: dict[str, str]
    text: str = "Hello"


@dataclass
class Record:
    """A record of the history: what ``change`` did."""

    id: int
    change: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class GmailDouble:
    """One person's mailbox, and what she does in it. ``page`` is how much Gmail gives at once at the most."""

    def __init__(self, grant: Grant | None = None, *, address: str = ADDRESS, page: int = 500) -> None:
        self.grant: Final = grant or Grant([READONLY])
        self.address: Final = address
        self.page = page
        self.mails: Final[dict[str, Mail]] = {}
        self.records: Final[list[Record]] = []
        self.touched: Final[dict[str, int]] = {}
        self.watched: str | None = None
        self.repeating = False
        self.shuffled = False
        self.now = START
        self._oldest = 0
        self._history = 1_000
        self._number = 0

    # What people do.

    def receive(
        self,
        thread: str | None = None,
        *,
        labels: Iterable[str] = ("INBOX", "UNREAD"),
        sender: str = "Bob <bob@example.com>",
        subject: str = "Friday?",
    ) -> Mail:
        """Somebody's message arrives, in a thread or in a new one."""
        return self._add(thread, set(labels), sender, self.address, subject)

    def send(self, thread: str | None = None, *, to: str = "bob@example.com") -> Mail:
        """She sends a message, in a thread or in a new one."""
        return self._add(thread, {"SENT"}, self.address, to, "Re: Friday?")

    def draft(self, thread: str | None = None) -> Mail:
        """She begins a message."""
        return self._add(thread, {"DRAFT"}, self.address, "bob@example.com", "Re: Friday?")

    def edit(self, draft: Mail) -> Mail:
        """[drafts] The message of a draft is replaced when it is edited."""
        self.delete(draft)
        return self.draft(draft.thread)

    def send_draft(self, draft: Mail) -> Mail:
        """[drafts] The draft is deleted, and a message with a new id has the label SENT."""
        self.delete(draft)
        return self.send(draft.thread)

    def label(self, mail: Mail, *labels: str) -> None:
        """Put labels on a message."""
        self._change(mail, set(labels) - mail.labels, set())

    def unlabel(self, mail: Mail, *labels: str) -> None:
        """Take labels off a message."""
        self._change(mail, set(), set(labels) & mail.labels)

    def archive(self, thread: str) -> None:
        """As her client does it: every message of the thread leaves the inbox."""
        for mail in self.of(thread):
            self.unlabel(mail, "INBOX")

    def trash(self, mail: Mail) -> None:
        """[message] ``trash``."""
        self._change(mail, {"TRASH"} - mail.labels, {"INBOX"} & mail.labels)

    def delete(self, mail: Mail) -> None:
        """[message] ``delete``: at once and for ever."""
        del self.mails[mail.id]
        self._record(mail, "messagesDeleted", {"message": self._short(mail)})

    def nothing(self, mail: Mail) -> None:
        """[seen] A record that says nothing but which message."""
        self._record(mail, None, {})

    def forget_history(self) -> None:
        """[sync] Gmail keeps the history for a week or so, sometimes for hours."""
        self._oldest = self._history
        self.records.clear()

    def of(self, thread: str) -> list[Mail]:
        """A thread's messages."""
        return [mail for mail in self.mails.values() if mail.thread == thread]

    @property
    def threads(self) -> list[str]:
        """All threads that have a message."""
        return sorted({mail.thread for mail in self.mails.values()})

    def _add(self, thread: str | None, labels: set[str], sender: str, to: str, subject: str) -> Mail:
        self._number += 1
        self.now += 1_000
        mail_id = f"{0x18C0_0000_0000_0000 + self._number:x}"
        headers = {"Message-Id": f"<m{self._number}@example.com>", "From": sender, "To": to, "Subject": subject}
        before = [mail for mail in self.of(thread) if "DRAFT" not in mail.labels] if thread is not None else []
        if before:
            headers["In-Reply-To"] = before[-1].headers["Message-Id"]
        mail = Mail(mail_id, thread or mail_id, labels, self.now, headers)
        self.mails[mail_id] = mail
        self._record(mail, "messagesAdded", {"message": self._short(mail)})
        return mail

    def _change(self, mail: Mail, added: set[str], removed: set[str]) -> None:
        mail.labels |= added
        mail.labels -= removed
        changes = {"labelsAdded": added, "labelsRemoved": removed}
        said = {
            name: [{"message": self._short(mail), "labelIds": sorted(labels)}]
            for name, labels in changes.items()
            if labels
        }
        if said:
            self._number_record(mail, said)

    def _record(self, mail: Mail, name: str | None, said: dict[str, Any]) -> None:
        self._number_record(mail, {name: [said]} if name is not None else {})

    def _number_record(self, mail: Mail, said: dict[str, list[dict[str, Any]]]) -> None:
        """[history] Ids increase, with random gaps between them."""
        self._history += 1 + self._history * 7 % 5
        self.touched[mail.thread] = self._history
        self.records.append(Record(self._history, {"messages": [{"id": mail.id, "threadId": mail.thread}], **said}))

    @staticmethod
    def _short(mail: Mail) -> dict[str, Any]:
        return {"id": mail.id, "threadId": mail.thread, "labelIds": sorted(mail.labels)}

    # What its API answers.

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        if not self.grant.takes(request):
            return _error(401, "authError", "Invalid Credentials")  # [errors]
        found = _PATH.match(request.path)
        if found is None:
            return _error(404, "notFound", "Not Found")
        what, named = found.groups()
        if request.method == "POST":
            return self._posted(what, named, request)
        key = what.rstrip("s") if named is not None else what
        if request.method != "GET" or key not in _PARAMETERS:
            return _error(404, "notFound", "Not Found")
        unknown = {name for name, _ in request.query} - _PARAMETERS[key]
        if unknown:
            return _error(400, "badRequest", f"Unknown name {sorted(unknown)}")
        match key:
            case "profile":
                counts = {"messagesTotal": len(self.mails), "threadsTotal": len(self.threads)}
                return Reply.json(200, {"emailAddress": self.address, "historyId": str(self._history), **counts})
            case "history":
                return self._histories(request)
            case "threads":
                return self._listed(request)
            case "thread":
                mails = self.of(named or "")
                return self._shown(request, mails, thread=named)
            case _:
                mail = self.mails.get(named or "")
                return self._shown(request, [mail] if mail is not None else [])

    def _posted(self, what: str, named: str | None, request: Request) -> Reply:
        if named is None and what == "stop":
            self.watched = None
            return Reply(204)
        if named is not None or what != "watch":
            return _error(404, "notFound", "Not Found")
        topic = request.json().get("topicName", "")
        if not re.fullmatch(r"projects/[\w-]+/topics/[\w-]+", topic):
            return _error(400, "invalidArgument", "Invalid topicName")
        if topic.endswith("/forbidden"):  # [push] gmail-api-push@system.gserviceaccount.com must be let publish
            return _error(403, "forbidden", "User not authorized to perform this action.")
        if self.watched not in (None, topic):  # [push] one topic for each mailbox and project
            return _error(400, "failedPrecondition", "Only one user push notification client allowed per developer")
        self.watched = topic
        return Reply.json(200, {"historyId": str(self._history), "expiration": str(self.now + WEEK_MS)})  # [types]

    def _histories(self, request: Request) -> Reply:
        start = request.one("startHistoryId") or ""
        size = _size(request, self.page)
        if not start.isdigit() or size is None:  # [history] required
            return _error(400, "invalidArgument", "startHistoryId")
        if not self._oldest <= int(start) <= self._history:  # [history] too old, or invalid
            return _error(404, "notFound", "Requested entity was not found.")
        wanted = set(request.all("historyTypes"))
        records = [record for record in self.records if record.id > int(start)]
        if self.shuffled:
            records = records[1::2] + records[::2]  # [3508]
        if self.repeating:
            records = [one for record in records for one in (record, record)]  # [seen]
        said = [
            {"id": str(record.id), **{name: ones for name, ones in record.change.items() if _wants(wanted, name)}}
            for record in records
        ]
        answer = _page(request, said, size, "history")
        if answer is None:
            return _error(400, "invalidArgument", "Invalid pageToken")
        return Reply.json(200, answer | {"historyId": str(self._history)})

    def _listed(self, request: Request) -> Reply:
        """[threads] Newest first, as they are now: a thread moves while pages are turned."""
        size = _size(request, self.page)
        if size is None:
            return _error(400, "invalidArgument", "maxResults")
        if request.one("q") is not None and READONLY not in self.grant.scopes:  # [threads] not with gmail.metadata
            return _error(403, "forbidden", "Metadata scope does not support 'q' parameter")
        hidden = {"SPAM", "TRASH"} if request.one("includeSpamTrash", "false") != "true" else set[str]()
        shown = [mail for mail in self.mails.values() if not mail.labels & hidden]
        newest = {mail.thread: mail.date for mail in shown}
        ordered = sorted(newest, key=lambda thread: (-max(m.date for m in shown if m.thread == thread), thread))
        said = [{"id": thread, "historyId": str(self.touched[thread]), "snippet": ""} for thread in ordered]
        answer = _page(request, said, size, "threads")
        if answer is None:
            return _error(400, "invalidArgument", "Invalid pageToken")
        return Reply.json(200, answer | {"resultSizeEstimate": len(said)})

    def _shown(self, request: Request, mails: list[Mail], thread: str | None = None) -> Reply:
        form = request.one("format", "full")
        if form not in {"full", "metadata", "minimal"}:  # [format] raw is not for threads
            return _error(400, "invalidArgument", "Invalid format")
        if form == "full" and READONLY not in self.grant.scopes:  # [scopes] gmail.metadata: no body
            return _error(403, "forbidden", "Metadata scope doesn't allow format FULL")
        if not mails:
            return _error(404, "notFound", "Requested entity was not found.")
        headers = {name.lower() for name in request.all("metadataHeaders")}
        shown = [self._message(mail, str(form), headers) for mail in mails]
        if thread is None:
            return Reply.json(200, shown[0])
        return Reply.json(200, {"id": thread, "historyId": str(self.touched[thread]), "messages": shown})

    def _message(self, mail: Mail, form: str, headers: set[str]) -> dict[str, Any]:
        said: dict[str, Any] = {
            "id": mail.id,
            "threadId": mail.thread,
            "historyId": str(self.touched[mail.thread]),
            "internalDate": str(mail.date),
        }
        if mail.labels:
            said["labelIds"] = sorted(mail.labels)  # empty lists are left out
        if form != "minimal":
            kept = {name: value for name, value in mail.headers.items() if form == "full" or name.lower() in headers}
            said["payload"] = {"headers": [{"name": name, "value": value} for name, value in kept.items()]}
        if form == "full":
            data = base64.urlsafe_b64encode(mail.text.encode()).decode()
            said["payload"] |= {"mimeType": "text/plain", "filename": "", "body": {"size": len(data), "data": data}}
        return said


def _wants(wanted: set[str], name: str) -> bool:
    """[history] ``historyTypes`` has its own names."""
    names = {
        "messagesAdded": "messageAdded",
        "messagesDeleted": "messageDeleted",
        "labelsAdded": "labelAdded",
        "labelsRemoved": "labelRemoved",
    }
    return not wanted or name == "messages" or names[name] in wanted


def _size(request: Request, most: int) -> int | None:
    """[history] [threads] ``maxResults``: 100 unless said, 500 at the most."""
    said = request.one("maxResults", "100") or ""
    return min(int(said), most) if said.isdigit() and 0 < int(said) <= 500 else None


def _page(request: Request, said: list[dict[str, Any]], size: int, name: str) -> dict[str, Any] | None:
    token = request.one("pageToken")
    if token is not None and not re.fullmatch(r"p\d{1,9}", token):
        return None
    first = int(token[1:]) if token is not None else 0
    answer: dict[str, Any] = {}
    if said[first : first + size]:
        answer[name] = said[first : first + size]  # [sync] left out where there is none
    if first + size < len(said):
        answer["nextPageToken"] = f"p{first + size}"
    return answer


def _error(status: int, reason: str, message: str) -> Reply:
    """[errors]"""
    errors = [{"domain": "global", "reason": reason, "message": message}]
    return Reply.json(status, {"error": {"code": status, "message": message, "errors": errors}})
