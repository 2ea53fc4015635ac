"""The Gmail API v1, as far as a mailbox is followed with it: requests, and answers read strictly.

Methods and fields as in Gmail's discovery document (gmail.v1, revision 20261005). What an answer lacks is an
UnavailableError that names the field: nothing is guessed, and the cursor stays.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.marks import MAIL_HEADER
from headrace.producers.provider_http import GrantError, ProviderHttp, StatusError, ThrottledError

BASE_URL: Final = "https://gmail.googleapis.com/gmail/v1/"
HEADERS: Final = ("Message-ID", "In-Reply-To", "References", "From", "To", "Cc", "Bcc", "Subject", MAIL_HEADER)
"""What is asked of a message besides its labels and its time."""
PAGE: Final = 500
"""The most that history.list, threads.list and messages.list give at once."""
_THROTTLED: Final = {"rateLimitExceeded": 1.0, "userRateLimitExceeded": 1.0, "dailyLimitExceeded": 3_600.0}
"""Reasons of a 403 that mean 429 (https://developers.google.com/gmail/api/guides/handle-errors), and how many seconds
to wait where the answer does not say."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_UINT64_DIGITS: Final = 20
_UNKEPT: Final = re.compile("[\0\ud800-\udfff]")
_CHANGES: Final = (
    ("messagesAdded", "added"),
    ("messagesDeleted", "deleted"),
    ("labelsAdded", "labels+"),
    ("labelsRemoved", "labels-"),
)


class Message(NamedTuple):
    """A message as it is now. ``date`` is in epoch milliseconds UTC: when Google took it in; ``headers`` by name in
    lower case, each the first of its name; ``payload`` its MIME tree, as Gmail shows it."""

    id: str
    labels: frozenset[str]
    date: int | None
    headers: Mapping[str, str]
    payload: Mapping[str, Any]


class Thread(NamedTuple):
    """A thread as it is now; ``history`` is the id of the last record that changed it, comparable as a number."""

    id: str
    history: int
    messages: tuple[Message, ...]


class Change(NamedTuple):
    """One thing that a history record says. ``what`` is ``added``, ``deleted``, ``labels+``, ``labels-``, or
    ``unsaid``: the record names the message and no more."""

    record: int
    what: str
    thread: str
    message: str
    labels: frozenset[str]


class HistoryPage(NamedTuple):
    """A page of history.list; ``history`` is where the mailbox is now."""

    changes: tuple[Change, ...]
    history: int
    next: str | None


class GmailApi:
    """The mailbox of whoever granted ``http``'s tokens.

    Every method raises UnavailableError (ThrottledError among them) where asking again later may work, and
    BadInputError (GrantError among them) where a person must act.
    """

    def __init__(self, http: ProviderHttp) -> None:
        self._http: Final = http

    def profile(self) -> tuple[str, int]:
        """The mailbox's address, and the id of its newest history record."""
        said = self._get("profile")
        return text(said, "emailAddress"), number(said, "historyId")

    def history(self, start: int, page: str | None) -> HistoryPage | None:
        """What changed after ``start``, or ``None``: Gmail does not know that far back any more (404)."""
        params: dict[str, Any] = {"startHistoryId": str(start), "maxResults": PAGE}
        try:
            said = self._get("history", params | _paged(page))
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        changes = tuple(change for record in items(said, "history") for change in _changes(record))
        return HistoryPage(changes, number(said, "historyId"), _next(said))

    def threads(self, page: str | None) -> tuple[list[tuple[str, int]], str | None]:
        """A page of all threads, spam and trash among them: each one's id and newest history record."""
        said = self._get("threads", {"maxResults": PAGE, "includeSpamTrash": "true"} | _paged(page))
        return [(identifier(one, "id"), number(one, "historyId")) for one in items(said, "threads")], _next(said)

    def thread(self, thread: str) -> Thread | None:
        """A thread with the labels and headers of all its messages, ``None`` when it is gone."""
        said = self._found(f"threads/{thread}", {"format": "metadata", "metadataHeaders": list(HEADERS)})
        if said is None:
            return None
        messages = tuple(_message(one) for one in items(said, "messages"))
        return Thread(identifier(said, "id"), number(said, "historyId"), messages)

    def whole_message(self, message: str) -> Message | None:
        """A message with what it says, ``None`` when it is gone."""
        said = self._found(f"messages/{message}", {"format": "full"})
        return _message(said) if said is not None else None

    def watch(self, topic: str) -> int:
        """Have Gmail publish to ``topic``; until when, in epoch milliseconds. All labels: a reply by hand is never in
        the inbox."""
        return number(self._asked("POST", "watch", body={"topicName": topic}), "expiration")

    def stop(self) -> None:
        """Have Gmail publish nothing more."""
        self._asked("POST", "stop")

    def _found(self, path: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            return self._get(path, params)
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._asked("GET", path, params=params)

    def _asked(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            return self._http.ask(method, f"users/me/{path}", params=params, body=body)
        except StatusError as error:
            if error.status == HTTPStatus.BAD_REQUEST and params is not None and "pageToken" in params:
                raise UnavailableError("Gmail no longer takes the page that it named; the sync begins again") from None
            raise _meaning(error) from None


def _meaning(error: StatusError) -> BadInputError | UnavailableError:
    """What a 403 is about stands in its body: a limit of Gmail's, a scope that the grant lacks, or an administrator."""
    if error.status != HTTPStatus.FORBIDDEN:
        return error
    reasons = _reasons(error.body)
    for reason in reasons:
        if reason in _THROTTLED:
            seconds = _seconds(error.headers.get("retry-after"), _THROTTLED[reason])
            return ThrottledError(f"Gmail wants to be left alone for {seconds:g} s ({reason})", seconds)
    if "domainPolicy" in reasons:
        return BadInputError("the domain's administrators have switched Gmail off for this app; ask them to allow it")
    if "accessNotConfigured" in reasons:
        return BadInputError("the Gmail API is not enabled in the app's Google Cloud project; enable it there")
    return GrantError(
        "Gmail says that the grant does not cover this; connect the source again with the scopes it needs"
    )


def _reasons(body: Mapping[str, Any]) -> set[str]:
    """``error.errors[].reason``; a body of any other shape has none."""
    error = body.get("error")
    errors = error.get("errors") if isinstance(error, dict) else None
    found = [one.get("reason") for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return {one for one in found if isinstance(one, str)}


def _seconds(said: str | None, default: float) -> float:
    if said is not None and said.isascii() and said.isdigit():
        return min(float(said[:10]), 3_600.0)
    return default


def _paged(page: str | None) -> dict[str, Any]:
    return {"pageToken": page} if page is not None else {}


def _next(said: Mapping[str, Any]) -> str | None:
    return text(said, "nextPageToken") if "nextPageToken" in said else None


def _changes(record: Any) -> Iterator[Change]:
    """A record may say several things, the same as another record, or (``messages`` alone) nothing."""
    record_id, silent = number(record, "id"), True
    for field, what in _CHANGES:
        for one in items(record, field):
            message = mapping(one, "message")
            labels = frozenset(_texts(one if what.startswith("labels") else message, "labelIds"))
            yield Change(record_id, what, identifier(message, "threadId"), identifier(message, "id"), labels)
            silent = False
    if silent:
        for message in items(record, "messages"):
            yield Change(
                record_id, "unsaid", identifier(message, "threadId"), identifier(message, "id"), frozenset[str]()
            )


def _message(said: Any) -> Message:
    date = number(said, "internalDate") if mapping(said).get("internalDate") is not None else None
    payload = mapping(said, "payload") if mapping(said).get("payload") is not None else {}
    headers: dict[str, str] = {}
    for one in items(payload, "headers"):
        headers.setdefault(text(one, "name", empty=True).lower(), text(one, "value", empty=True))
    return Message(identifier(said, "id"), frozenset(_texts(said, "labelIds")), date, headers, payload)


def _unusable(field: str) -> UnavailableError:
    return UnavailableError(f"Gmail answers without a usable {field}; it is asked again later")


def mapping(said: Any, field: str | None = None) -> Mapping[str, Any]:
    """An object, or the one in ``field`` of it."""
    found = mapping(said).get(field) if field is not None else said
    if not isinstance(found, dict):
        raise _unusable(field or "object")
    return found


def text(said: Any, field: str, *, empty: bool = False) -> str:
    """Text, without what neither Avro nor a database keeps: half surrogate pairs and U+0000."""
    found = mapping(said).get(field)
    if not isinstance(found, str) or not (found or empty):
        raise _unusable(field)
    return _UNKEPT.sub("\ufffd", found)


def number(said: Any, field: str) -> int:
    """A 64-bit number, in JSON a text (https://developers.google.com/discovery/v1/type-format) or, as recorded, a
    number."""
    found = mapping(said).get(field)
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) <= _UINT64_DIGITS:
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**64:
        raise _unusable(field)
    return found


def identifier(said: Any, field: str) -> str:
    """An id of Gmail's: it goes into URLs, and into entity ids."""
    found = mapping(said).get(field)
    if not isinstance(found, str) or not _ID.match(found):
        raise _unusable(field)
    return found


def items(said: Any, field: str) -> list[Any]:
    """The list in ``field``, empty where there is none: Gmail leaves empty lists out."""
    found = mapping(said).get(field, [])
    if not isinstance(found, list):
        raise _unusable(field)
    return found


def _texts(said: Any, field: str) -> Iterator[str]:
    for one in items(said, field):
        if not isinstance(one, str) or not one:
            raise _unusable(field)
        yield _UNKEPT.sub("\ufffd", one)
