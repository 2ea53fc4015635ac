"""Whatever Gmail answers: events, or an error that says what to do."""

import base64
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import HeadraceError, UnavailableError
from headrace.producers.gmail_api import Message
from headrace.producers.gmail_text import plain_text
from headrace.producers.gmail_thread import message_event
from headrace.producers.provider_http import ProviderHttp
from tests.doubles.http import Grant, Reply, Request, transport
from tests.providers.gmail_parts import BASE, box, connected, provider

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["7", "1", "DRAFT", "SENT"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "id", "threadId", "historyId", "messages", "message", "labelIds", "internalDate", "payload", "headers",
                "name", "value", "history", "threads", "messagesAdded", "labelsAdded", "nextPageToken", "emailAddress",
            ]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=14,
)  # fmt: skip
ADDRESS: Final = "ann@example.com"
near = {
    "profile": st.fixed_dictionaries({"emailAddress": st.just(ADDRESS), "historyId": values}),
    "history": st.fixed_dictionaries({"historyId": st.just("9"), "history": st.lists(values, max_size=2)}),
    "threads": st.just({"threads": [{"id": "1", "historyId": "7"}]}),
    "1": st.fixed_dictionaries(
        {"id": st.just("1"), "historyId": st.just("7"), "messages": st.lists(values, max_size=2)}
    ),
}


class Whatever:
    def __init__(self, data: st.DataObject) -> None:
        self._data, self._left = data, 6

    def answer(self, request: Request) -> Reply:
        self._left -= 1
        if self._left < 0:
            return Reply(500)
        end = request.path.rsplit("/", 1)[-1]
        return Reply.json(200, self._data.draw(st.one_of(values, near.get(end, values))))


@given(data=st.data(), cursor=st.sampled_from([None, "3"]), content=st.sampled_from(["headers", "text"]))
@settings(max_examples=300, deadline=None)
def test_no_answer_is_a_crash(data: st.DataObject, cursor: str | None, content: str) -> None:
    with (
        box() as mine,
        ProviderHttp(BASE, Grant().tokens(), transport=transport(Whatever(data))) as http,
    ):
        source = provider().source(connected(content), http, mine.desk.pseudonym)
        with suppress(HeadraceError):
            for page in source.pages(cursor, mine.desk.feed):
                if page.events:
                    mine.desk.feed.found("s-1", page.events)


@pytest.mark.parametrize("missing", ["id", "threadId", "historyId"])
def test_the_field_that_is_missing_is_named(missing: str) -> None:
    record: dict[str, Any] = {"id": "5", "messagesAdded": [{"message": {"id": "1", "threadId": "1"}}]}
    said: dict[str, Any] = {"history": [record], "historyId": "6"}
    if missing == "historyId":
        del said["historyId"]
    else:
        del record["messagesAdded"][0]["message"][missing]

    class Lacking:
        def answer(self, request: Request) -> Reply:
            return Reply.json(200, said)

    with box() as mine, ProviderHttp(BASE, Grant().tokens(), transport=transport(Lacking())) as http:
        source = provider().source(connected(), http, mine.desk.pseudonym)
        with pytest.raises(UnavailableError, match=missing):
            list(source.pages("3", mine.desk.feed))


HEADER: Final = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.sampled_from(
        [
            "<a@b>",
            "<a@b> <c@d>",
            "=?utf-8?q?=C3=A9?= <e@f>",
            "=?x?q?a?=",
            "=?utf-8?b?!?=",
            '"',
            "a@b, (c",
            "=?utf-8?q?=00?=",
        ]
    ),
)


@given(
    headers=st.dictionaries(
        st.sampled_from(["message-id", "in-reply-to", "references", "from", "to", "cc", "bcc", "subject"]), HEADER
    ),
    date=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    labels=st.frozensets(st.sampled_from(["SENT", "INBOX", "UNREAD"])),
)
@settings(max_examples=300, deadline=None)
def test_any_headers_make_an_event(headers: dict[str, str], date: int | None, labels: frozenset[str]) -> None:
    with box() as mine:
        message = Message("1", labels, date, headers, {})
        event = message_event(mine.names, "1", message, labels, message)
        begun = mine.desk.feed.begin(full=False)
        mine.desk.feed.found(begun.sync, [event])
        mine.desk.fold()


def part(mime_type: str, text: str, **more: Any) -> dict[str, Any]:
    return {"mimeType": mime_type, "body": {"data": base64.urlsafe_b64encode(text.encode()).decode()}, **more}


def test_the_text_of_a_message() -> None:
    plain, html = part("text/plain", "Hé"), part("text/html", "<style>p{}</style><p>Hi</p>")
    file = part("text/plain", "file", filename="a.txt")
    assert plain_text(plain) == "Hé"
    assert plain_text({"mimeType": "multipart/alternative", "parts": [html, plain]}) == "Hé"
    assert (plain_text({"mimeType": "multipart/mixed", "parts": [file, html]}) or "").strip() == "Hi"
    assert plain_text({"mimeType": "multipart/mixed", "parts": [file]}) is None
    assert len(plain_text(part("text/plain", "x" * 200_000)) or "") == 100_000


@given(payload=st.dictionaries(st.sampled_from(["mimeType", "body", "parts", "filename", "data"]), values))
def test_any_payload(payload: dict[str, Any]) -> None:
    plain_text(payload)
