"""The Gmail API v1, as far as a mailbox is followed with it: requests, and answers read strictly.

Methods and fields as in Gmail's discovery document (gmail.v1, revision 20261005). What an answer lacks is an
UnavailableError that names the field: nothing is guessed, and the cursor stays.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.answers import Answers, google_reasons, retry_seconds
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
GMAIL: Final = Answers("Gmail", ids=re.compile(r"[A-Za-z0-9_-]{1,64}"), numbers_below=2**64, null_lists=False)
"""Gmail leaves empty lists out."""
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
        return GMAIL.text(said, "emailAddress"), GMAIL.number(said, "historyId")

    def history(self, start: int, page: str | None) -> HistoryPage | None:
        """What changed after ``start``, or ``None``: Gmail does not know that far back any more (404)."""
        params: dict[str, Any] = {"startHistoryId": str(start), "maxResults": PAGE}
        try:
            said = self._get("history", params | _paged(page))
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        changes = tuple(change for record in GMAIL.some(said, "history") for change in _changes(record))
        return HistoryPage(changes, GMAIL.number(said, "historyId"), _next(said))

    def threads(self, page: str | None) -> tuple[list[tuple[str, int]], str | None]:
        """A page of all threads, spam and trash among them: each one's id and newest history record."""
        said = self._get("threads", {"maxResults": PAGE, "includeSpamTrash": "true"} | _paged(page))
        found = [(GMAIL.identifier(one, "id"), GMAIL.number(one, "historyId")) for one in GMAIL.some(said, "threads")]
        return found, _next(said)

    def thread(self, thread: str) -> Thread | None:
        """A thread with the labels and headers of all its messages, ``None`` when it is gone."""
        said = self._found(f"threads/{thread}", {"format": "metadata", "metadataHeaders": list(HEADERS)})
        if said is None:
            return None
        messages = tuple(_message(one) for one in GMAIL.some(said, "messages"))
        return Thread(GMAIL.identifier(said, "id"), GMAIL.number(said, "historyId"), messages)

    def whole_message(self, message: str) -> Message | None:
        """A message with what it says, ``None`` when it is gone."""
        said = self._found(f"messages/{message}", {"format": "full"})
        return _message(said) if said is not None else None

    def watch(self, topic: str) -> int:
        """Have Gmail publish to ``topic``; until when, in epoch milliseconds. All labels: a reply by hand is never in
        the inbox."""
        return GMAIL.number(self._asked("POST", "watch", body={"topicName": topic}), "expiration")

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
    reasons = google_reasons(error.body)
    for reason in reasons:
        if reason in _THROTTLED:
            seconds = retry_seconds(error.headers.get("retry-after"), _THROTTLED[reason])
            return ThrottledError(f"Gmail wants to be left alone for {seconds:g} s ({reason})", seconds)
    if "domainPolicy" in reasons:
        return BadInputError("the domain's administrators have switched Gmail off for this app; ask them to allow it")
    if "accessNotConfigured" in reasons:
        return BadInputError("the Gmail API is not enabled in the app's Google Cloud project; enable it there")
    return GrantError(
        "Gmail says that the grant does not cover this; connect the source again with the scopes it needs"
    )


def _paged(page: str | None) -> dict[str, Any]:
    return {"pageToken": page} if page is not None else {}


def _next(said: Mapping[str, Any]) -> str | None:
    return GMAIL.text(said, "nextPageToken") if "nextPageToken" in said else None


def _changes(record: Any) -> Iterator[Change]:
    """A record may say several things, the same as another record, or (``messages`` alone) nothing."""
    record_id, silent = GMAIL.number(record, "id"), True
    for field, what in _CHANGES:
        for one in GMAIL.some(record, field):
            message = GMAIL.mapping(one, "message")
            labels = frozenset(GMAIL.texts(one if what.startswith("labels") else message, "labelIds"))
            yield Change(
                record_id, what, GMAIL.identifier(message, "threadId"), GMAIL.identifier(message, "id"), labels
            )
            silent = False
    if silent:
        for message in GMAIL.some(record, "messages"):
            thread, message_id = GMAIL.identifier(message, "threadId"), GMAIL.identifier(message, "id")
            yield Change(record_id, "unsaid", thread, message_id, frozenset[str]())


def _message(said: Any) -> Message:
    date = GMAIL.number(said, "internalDate") if GMAIL.mapping(said).get("internalDate") is not None else None
    payload = GMAIL.optional(said, "payload")
    headers: dict[str, str] = {}
    for one in GMAIL.some(payload, "headers"):
        headers.setdefault(GMAIL.text(one, "name", empty=True).lower(), GMAIL.text(one, "value", empty=True))
    return Message(GMAIL.identifier(said, "id"), frozenset(GMAIL.texts(said, "labelIds")), date, headers, payload)
