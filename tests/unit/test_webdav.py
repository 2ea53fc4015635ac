"""What servers other than Radicale answer: in pieces, without RFC 6578, with other escapes, with nonsense."""

from collections.abc import Callable, Mapping
from typing import cast

import pytest
from caldav.davclient import DAVClient
from caldav.lib import error
from caldav.response import DAVResponse

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.provider_http import ThrottledError
from headrace.producers.webdav import CalendarCollection, Member, Resource, answering, canonical_path, canonical_url

HOME = "https://cal.example.com/u/work/"
Answer = DAVResponse | Exception


class Server:
    """Answers what it was told to, one after the other, and notes what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str, Mapping[str, str]]] = []

    def request(self, url: str, method: str, body: str, headers: Mapping[str, str]) -> DAVResponse:
        self.asked.append((method, url, body, headers))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def collection(*answers: Answer) -> tuple[CalendarCollection, Server]:
    server = Server(*answers)
    return CalendarCollection(cast(DAVClient, server), HOME), server


def answer(status: int, text: str = "", **headers: str) -> DAVResponse:
    response = DAVResponse.from_bytes(text.encode(), status)
    response.headers = headers
    return response


def page(*responses: str, token: str | None = None) -> DAVResponse:
    end = "" if token is None else f"<sync-token>{token}</sync-token>"
    return answer(
        207,
        f'<multistatus xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav">{"".join(responses)}{end}</multistatus>',
    )


def member(href: str, etag: str = '"1"', data: str = "") -> str:
    more = f"<C:calendar-data>{data}</C:calendar-data>" if data else ""
    return (
        f"<response><href>{href}</href><propstat><prop><getetag>{etag}</getetag>{more}</prop>"
        "<status>HTTP/1.1 200 OK</status></propstat></response>"
    )


def status(href: str, code: int) -> str:
    return f"<response><href>{href}</href><status>HTTP/1.1 {code} So</status></response>"


def refused(code: int, precondition: str = "") -> Answer:
    if code in {401, 403}:
        return error.AuthorizationError("https://private/path", "no", [f"{{DAV:}}{precondition}"], status=code)
    return answer(code, f'<error xmlns="DAV:"><{precondition}/></error>' if precondition else "")


def test_changes_and_removals() -> None:
    calendar, server = collection(
        page(
            member("/u/work/", '"c"'),
            member("/u/work/a.ics"),
            status("/u/work/b.ics", 404),
            member("/u/work/sub/"),
            status("/u/work/new.ics", 201),
            status("/u/work/gone.ics", 410),
            token="t2",
        )
    )
    listing = calendar.since("t1 & <more>")
    assert listing is not None
    assert listing.members == {
        "/u/work/a.ics": Member("/u/work/a.ics", '"1"'),
        "/u/work/new.ics": Member("/u/work/new.ics", None),
    }
    assert (sorted(listing.gone), listing.token) == (["/u/work/b.ics", "/u/work/gone.ics"], "t2")
    [(method, url, body, headers)] = server.asked
    assert (method, url, headers) == ("REPORT", HOME, {"Depth": "0"})
    assert "t1 &amp; &lt;more&gt;</" in body


def test_an_answer_in_pieces_is_put_together() -> None:
    calendar, server = collection(
        page(member("/u/work/a.ics"), member("/u/work/b.ics"), status("/u/work/", 507), token="t2"),
        page(status("/u/work/a.ics", 404), member("/u/work/b.ics", '"2"'), status("/u/work/", 507), token="t3"),
        page(member("/u/work/a.ics", '"3"'), status("/u/work/b.ics", 404), token="t4"),
    )
    listing = calendar.since("t1")
    assert listing is not None
    assert listing.members == {"/u/work/a.ics": Member("/u/work/a.ics", '"3"')}
    assert (sorted(listing.gone), listing.token) == (["/u/work/b.ics"], "t4")
    assert ["t1</" in server.asked[0][2], "t2</" in server.asked[1][2], "t3</" in server.asked[2][2]] == [True] * 3


def test_a_listing_cut_short_is_never_taken_for_whole() -> None:
    """Else everything left out would be reported as deleted."""
    cut = page(member("/u/work/a.ics"), status("/u/work/", 507), token="t1")
    calendar, _ = collection(cut, page(token="t1"))
    with pytest.raises(BadInputError, match="only a part"):
        calendar.everything()
    calendar, _ = collection(cut, cut)
    with pytest.raises(BadInputError, match="only a part"):
        calendar.everything()
    calendar, _ = collection(page(member("/u/work/a.ics"), status("/u/work/", 507)))
    assert calendar.since("t1") is None


def test_the_later_piece_may_be_empty_for_changes() -> None:
    calendar, _ = collection(page(status("/u/work/", 507), token="t2"), page(token="t3"))
    listing = calendar.since("t1")
    assert listing is not None
    assert listing.token == "t3"


def test_a_server_that_never_comes_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.producers.webdav._MAX_PAGES", 3)
    calendar, _ = collection(*[page(member("/u/work/a.ics"), status("/u/work/", 507), token=f"t{n}") for n in range(4)])
    with pytest.raises(UnavailableError, match="end of its list"):
        calendar.everything()


@pytest.mark.parametrize(
    "refusal",
    [
        refused(403, "valid-sync-token"),
        refused(409, "valid-sync-token"),
        refused(412, "valid-sync-token"),
        refused(410),
        refused(400),
        refused(403, "supported-report"),
        refused(501),
        page(member("/u/work/a.ics")),
    ],
)
def test_a_token_that_is_refused(refusal: Answer) -> None:
    calendar, _ = collection(refusal)
    assert calendar.since("t1") is None


@pytest.mark.parametrize("refusal", [refused(403, "supported-report"), refused(405), refused(400), refused(501)])
def test_a_server_without_sync_collection(refusal: Answer) -> None:
    calendar, server = collection(refusal, page(member("/u/work/"), member("/u/work/a.ics")))
    listing = calendar.everything()
    assert (list(listing.members), listing.token) == (["/u/work/a.ics"], None)
    assert (server.asked[1][0], server.asked[1][3]) == ("PROPFIND", {"Depth": "1"})


def test_nothing_said_is_not_an_empty_calendar() -> None:
    calendar, server = collection(page(), page(member("/u/work/"), member("/u/work/a.ics")))
    assert list(calendar.everything().members) == ["/u/work/a.ics"], "no token, so it was no answer to sync-collection"
    assert server.asked[1][0] == "PROPFIND"
    calendar, _ = collection(page(), page())
    with pytest.raises(BadInputError, match="nothing about the calendar"):
        calendar.everything()
    calendar, _ = collection(page(token="t1"))
    assert calendar.everything().members == {}, "this is"


def test_other_escapes_are_the_same_member() -> None:
    same = ["/u/work/a%20%C3%A9@b.ics", "/u/work/a é%40b.ics", "//u//work/a%20%c3%a9%40b.ics", "a%20é@b.ics"]
    paths = {canonical_path(href, "/u/work/") for href in (*same, "http://inside:8080/u/work/a%20%C3%A9%40b.ics")}
    assert paths == {"/u/work/a%20%C3%A9%40b.ics"}
    different = ["a%2Fb.ics", "a/b.ics", "a%252Fb.ics", "A%2Fb.ics"]
    assert len({canonical_path(href, "/u/work/") for href in different}) == 4
    for path in [*paths, *(canonical_path(href) for href in different), canonical_path("/100%.ics")]:
        assert canonical_path(path) == path


def test_one_way_to_write_a_calendars_url() -> None:
    for url in ("HTTPS://me:secret@Cal.Example.com:443/u/my work", "https://cal.example.com//u/my%20work/?x=1#y"):
        assert canonical_url(url) == "https://cal.example.com/u/my%20work/"
    assert canonical_url("http://[::1]:5232/u") == "http://[::1]:5232/u/"


MEMBERS = {f"/u/work/{name}.ics": Member(f"/u/work/{name}.ics", '"1"') for name in "abc"}


def test_texts_come_with_their_own_version_and_the_missing_are_asked_for_one_by_one() -> None:
    calendar, server = collection(
        page(member("https://cal.example.com/u/work/a.ics", '"2"', "text of a"), status("/u/work/b.ics", 404)),
        answer(200, "text of c", ETag='"3"'),
    )
    assert calendar.fetch(MEMBERS) == {
        "/u/work/a.ics": Resource('"2"', "text of a"),
        "/u/work/b.ics": None,
        "/u/work/c.ics": Resource('"3"', "text of c"),
    }
    assert [asked[:2] for asked in server.asked] == [("REPORT", HOME), ("GET", HOME + "c.ics")]
    assert server.asked[0][3] == {}, "RFC 4791 §7.9 ignores Depth, and servers that do not are led astray"


def test_an_answer_too_large_for_the_parser_is_taken_in_pieces() -> None:
    calendar, _ = collection(SyntaxError("huge"), answer(200, "a"), answer(404), refused(403))
    assert calendar.fetch(MEMBERS) == {
        "/u/work/a.ics": Resource(None, "a"),
        "/u/work/b.ics": None,
        "/u/work/c.ics": Resource(None, ""),
    }, "what may not be read is there all the same"


Ask = Callable[[CalendarCollection], object]
ASKING: dict[str, Ask] = {
    "since": lambda one: one.since("t"),
    "everything": lambda one: one.everything(),
    "fetch": lambda one: one.fetch(MEMBERS),
}


@pytest.mark.parametrize(
    ("trouble", "expected", "words"),
    [
        (OSError("https://me:secret@host"), UnavailableError, "cannot be reached"),
        (error.RateLimitError("https://private"), UnavailableError, "left alone"),
        (error.DAVError("https://private"), UnavailableError, "cannot answer now"),
        (error.DAVError("https://private", status=400), BadInputError, "like a CalDAV server"),
        (error.NotFoundError("https://private"), BadInputError, "no calendar at this address"),
        (refused(401), BadInputError, "refuses the user name or the password"),
        (NotImplementedError("https://private"), BadInputError, "Basic, Digest or Bearer"),
        (answer(500), UnavailableError, "cannot answer now"),
        (answer(503), UnavailableError, "cannot answer now"),
        (answer(429), UnavailableError, "cannot answer now"),
        (answer(507), UnavailableError, "cannot answer now"),
    ],
)
@pytest.mark.parametrize("ask", ASKING)
def test_trouble_is_named_without_saying_more_than_the_host(
    ask: str, trouble: Answer, expected: type[Exception], words: str
) -> None:
    calendar, _ = collection(trouble)
    with pytest.raises(expected, match=words) as caught:
        ASKING[ask](calendar)
    assert "cal.example.com" in str(caught.value)
    assert not any(word in str(caught.value) for word in ("secret", "private", "/u/work"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((answer(404), answer(404)), "no calendar at this address"),
        ((refused(403), refused(403)), "does not let this user"),
        ((answer(200, "<html/>"), answer(200, "<html/>")), "like a CalDAV server"),
        ((SyntaxError("<html>"), SyntaxError("<html>")), "like a CalDAV server"),
    ],
)
def test_what_is_no_calendar(answers: tuple[Answer, ...], words: str) -> None:
    calendar, _ = collection(*answers)
    with pytest.raises(BadInputError, match=words):
        calendar.everything()


@pytest.mark.parametrize(
    ("status_code", "said", "seconds"), [(429, "17", 17), (503, "17", 17), (429, None, 1), (429, "9" * 9, 3_600)]
)
def test_a_server_that_says_how_long_is_left_alone_so_long(status_code: int, said: str | None, seconds: float) -> None:
    with pytest.raises(ThrottledError) as caught, answering("cal.example.com"):
        error.raise_if_rate_limited(status_code, HOME, said)
    assert caught.value.retry_after == seconds
    assert "/u/work" not in str(caught.value)


def test_a_time_to_wait_that_is_no_number_of_this_world_is_the_longest_there_is() -> None:
    with pytest.raises(ThrottledError) as caught, answering("cal.example.com"):
        error.raise_if_rate_limited(429, HOME, "9" * 400)
    assert caught.value.retry_after == 3_600
