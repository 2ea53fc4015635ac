"""Reading over HTTP: entities now and then, scopes, events, accounts."""

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.projections.port import Reader, Tables
from headrace.schemas.envelope import Envelope
from headrace.schemas.refs import ActorRef, Token
from tests.integration.api_desk import ANN, HOUR, MESSAGE, Desk, meeting, problem, received, serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


class Fetched:
    """Tables that remember which contents were read."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.contents: list[bytes | None] = []

    @contextmanager
    def snapshot(self) -> Generator[Reader]:
        """See :class:`headrace.projections.port.Tables`."""
        with self._tables.snapshot() as reader:
            self._reader = reader
            yield self

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """See :class:`headrace.projections.port.Reader`."""
        found = self._reader.rows(sql, parameters)
        self.contents += [row["content"] for row in found if "content" in row]
        return found

    def values(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """See :class:`headrace.projections.port.Reader`."""
        return self._reader.values(sql, parameters)


def test_an_entity_is_shown_with_state_basis_and_content(desk: Desk) -> None:
    shown = desk.thread("one")
    pseudonym = desk.store.intake.pseudonyms("local", "one")
    assert shown["exists"] is True
    assert shown["state"]["last_message"] == pseudonym(MESSAGE)
    assert shown["state"]["labels"] == ["INBOX"]
    assert shown["foreseen"] == shown["state"]
    assert shown["intents"] == []
    assert shown["content"]["subject"] == "Hi"
    assert Token.parse(shown["basis"]).offset == shown["head"]["offset"]
    assert "example.org" not in str(shown)


def test_what_is_absent_is_a_404_with_a_position_that_a_proposal_can_be_based_on(desk: Desk) -> None:
    answer = desk.entity("absent", "calendar.event", "new")
    found = problem(answer, 404, "no-such-entity")
    assert answer.headers["headrace-position"] == found["position"]
    data = {"calendar": "work", "start": 0, "end": HOUR}
    entity = {"kind": "calendar.event", "id": "new"}
    booked = desk.propose(
        "absent", "b1", found["position"], absent=True, entity=entity, type="calendar.book", data=data
    )
    assert booked.status_code == 201, booked.text
    shown = desk.entity("absent", "calendar.event", "new").json()
    assert (shown["exists"], shown["state"]) == (False, None)
    assert shown["foreseen"]["starts_at"] == 0
    assert [intent["proposal"] for intent in shown["intents"]] == ["b1"]
    assert shown["basis"] == booked.json()["token"]


def test_an_etag_stays_while_nothing_about_the_entity_changes(desk: Desk) -> None:
    desk.thread("tag")
    path = "/v1/accounts/tag/entities/mail.thread/t1"
    first = desk.http.get(path)
    desk.tell("tag", "mail.received", "another", received("<x@example.org>"))
    tag = first.headers["etag"]
    for match in (tag, f'"nonsense", {tag}', "*", tag.removeprefix("W/")):
        second = desk.http.get(path, headers={"If-None-Match": match})
        assert (second.status_code, second.content, second.headers["etag"]) == (304, b"", tag)
    assert second.headers["headrace-position"] != first.headers["headrace-position"]
    assert desk.http.get(path, headers={"If-None-Match": 'W/"other"'}).status_code == 200
    desk.tell("tag", "mail.read", "t1", {})
    third = desk.http.get(path, headers={"If-None-Match": tag})
    assert third.status_code == 200
    assert third.headers["etag"] != tag
    assert third.json()["state"]["unread"] is False


def test_at_shows_the_entity_as_it_was(desk: Desk) -> None:
    before = desk.entity("past", "mail.thread", "t1")
    shown = [desk.thread("past")]
    for step in range(3):
        desk.tell("past", "mail.labelled", "t1", {"added": [f"l{step}"]})
        desk.tell("past", "mail.received", "other", received(f"<{step}@example.org>"))
        shown.append(desk.entity("past", "mail.thread", "t1").json())
    assert desk.propose("past", "p1", shown[-1]["basis"]).status_code == 201
    shown.append(desk.entity("past", "mail.thread", "t1").json())
    for then in shown:
        answer = desk.entity("past", "mail.thread", "t1", at=then["position"])
        assert answer.json() == then
        assert answer.headers["headrace-position"] == then["position"]
    problem(desk.entity("past", "mail.thread", "t1", at=before.json()["position"]), 404, "no-such-entity")


def test_at_refuses_positions_of_other_histories(desk: Desk) -> None:
    shown = desk.thread("foreign")
    token = Token.parse(shown["position"])
    other_log = token._replace(log_id=bytes(16))
    other_chain = token._replace(check=bytes(8))
    beyond = token._replace(offset=token.offset + 1_000_000)
    no_partition = token._replace(partition=77)
    other_partition = next(
        Token.parse(desk.thread(f"elsewhere-{n}")["position"])
        for n in range(100)
        if desk.store.intake.partition("local", f"elsewhere-{n}") != token.partition
    )
    for wrong in (other_log, other_chain, beyond, no_partition, other_partition):
        problem(desk.entity("foreign", "mail.thread", "t1", at=wrong.encode()), 422, "unknown-position")
    for wrong in (other_log, other_chain, beyond, no_partition):
        problem(desk.entity("foreign", "mail.thread", "t1", after=wrong.encode()), 422, "unknown-position")
    assert desk.entity("foreign", "mail.thread", "t1", after=other_partition.encode()).status_code == 200
    problem(desk.entity("foreign", "mail.thread", "t1", at="A" * 50), 422, "bad-input")
    problem(desk.entity("foreign", "mail.thread", "t1", at="short"), 422, "bad-input")


def test_a_read_after_a_token_waits_for_it(desk: Desk) -> None:
    desk.thread("after")
    envelope = Envelope("r1", "test", "mail.read", ANN, "mail.thread", "t1")
    record = desk.store.intake.record("local", "after", envelope, {})
    with desk.fold_stalled():
        (position,) = desk.store.log.append([record])
        token = desk.token_of(position).encode()
        late = desk.http.get(
            "/v1/accounts/after/entities/mail.thread/t1", params={"after": token}, headers={"Prefer": "wait=0"}
        )
        assert problem(late, 503, "unavailable")["detail"].startswith("the tables did not reach")
        assert late.headers["retry-after"]
        assert desk.entity("after", "mail.thread", "t1").json()["state"]["unread"] is True
        with ThreadPoolExecutor(1) as other:
            asked = other.submit(
                desk.http.get,
                "/v1/accounts/after/entities/mail.thread/t1",
                params={"after": token},
                headers={"Prefer": "respond-async, wait=20"},
            )
            desk.go_on()
            shown = asked.result()
    assert shown.json()["state"]["unread"] is False
    assert Token.parse(shown.json()["position"]).offset >= position.offset


def test_lists_are_paged_across_kinds(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        desk.tell("list", "mail.received", f"t-{name}", received())
        desk.tell("list", "calendar.created", f"c-{name}", meeting("work", 0, HOUR))
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        params = {"limit": 2} | ({"cursor": cursor} if cursor is not None else {})
        page = desk.http.get("/v1/accounts/list/entities", params=params).json()
        found += [(one["kind"], one["id"]) for one in page["entities"]]
        cursor, pages = page["next"], pages + 1
    assert pages == 3
    assert found == [("calendar.event", f"c-{n}") for n in "abc"] + [("mail.thread", f"t-{n}") for n in "abc"]
    only = desk.http.get("/v1/accounts/list/entities", params={"kind": "mail.thread"}).json()
    assert [one["id"] for one in only["entities"]] == ["t-a", "t-b", "t-c"]
    assert only["next"] is None
    problem(desk.http.get("/v1/accounts/list/entities", params={"kind": "no.kind"}), 404, "no-such-kind")
    empty = desk.http.get("/v1/accounts/nobody/entities").json()
    assert empty["entities"] == []
    assert empty["position"]


def _scope(desk: Desk, account: str, path: str, **params: Any) -> list[str]:
    answer = desk.http.get(f"/v1/accounts/{account}/scopes/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["entities"]]


def test_a_scope_shows_what_meets_it_now(desk: Desk) -> None:
    pseudonym = desk.store.intake.pseudonyms("local", "cal")
    day = f"calendar/{pseudonym('work@example.org')}"
    for hour in range(4):
        body = meeting("work@example.org", hour * HOUR, (hour + 1) * HOUR)
        desk.tell("cal", "calendar.created", f"c{hour}", body)
    assert _scope(desk, "cal", day) == ["c0", "c1", "c2", "c3"]
    assert _scope(desk, "cal", day, **{"from": HOUR, "to": 2 * HOUR}) == ["c1"]
    assert _scope(desk, "cal", day, **{"from": HOUR + 1, "to": 2 * HOUR + 1}) == ["c1", "c2"]
    assert _scope(desk, "cal", day, to=HOUR) == ["c0"]
    assert _scope(desk, "cal", day, **{"from": "1970-01-01T03:00:00Z"}) == ["c3"]
    assert _scope(desk, "cal", "calendar/elsewhere") == []
    desk.tell("cal", "calendar.updated", "c1", meeting("work@example.org", 9 * HOUR, 10 * HOUR))
    desk.tell("cal", "calendar.cancelled", "c2", {"removed": True, "etag": None})
    assert _scope(desk, "cal", day, **{"from": HOUR, "to": 3 * HOUR}) == []
    assert _scope(desk, "cal", day, **{"from": 9 * HOUR}) == ["c1"]
    cleared = desk.http.get("/v1/accounts/cal/scopes/calendar/work@example.org", params={"clear": True}).json()
    assert cleared["id"] == pseudonym("work@example.org")
    assert [one["id"] for one in cleared["entities"]] == ["c0", "c1", "c3"]


def test_a_scope_counts_intents_in(desk: Desk) -> None:
    desk.tell("plan", "calendar.created", "c1", meeting("work", 0, HOUR))
    calendar = desk.store.intake.pseudonyms("local", "plan")("work")
    basis = desk.entity("plan", "calendar.event", "c1").json()["basis"]
    entity, data = {"kind": "calendar.event", "id": "c1"}, {"start": 5 * HOUR, "end": 6 * HOUR}
    moved = desk.propose("plan", "mv", basis, entity=entity, type="calendar.move", data=data)
    assert moved.status_code == 201, moved.text
    assert _scope(desk, "plan", f"calendar/{calendar}", to=HOUR) == []
    assert _scope(desk, "plan", f"calendar/{calendar}", **{"from": 5 * HOUR, "to": 6 * HOUR}) == ["c1"]


def test_a_scope_is_paged_and_labels_may_be_any_text(desk: Desk) -> None:
    label = "Follow up/später & more?"
    for n in range(7):
        desk.tell("tags", "mail.received", f"t{n}", received(labels=[label]))
    desk.tell("tags", "mail.labelled", "t3", {"removed": [label]})
    path = "/v1/accounts/tags/scopes/mail.label/Follow%20up%2Fsp%C3%A4ter%20%26%20more%3F"
    first = desk.http.get(path, params={"limit": 4}).json()
    second = desk.http.get(path, params={"limit": 4, "cursor": first["next"]}).json()
    assert first["id"] == label
    ids = [one["id"] for one in (*first["entities"], *second["entities"])]
    assert ids == ["t0", "t1", "t2", "t4", "t5", "t6"]
    assert second["next"] is None


def test_events_are_shown_with_what_they_say(desk: Desk) -> None:
    shown = desk.thread("story")
    desk.tell("story", "mail.sent", "t1", received("<m2@example.org>", in_reply_to=MESSAGE))
    refused = desk.propose("story", "late", shown["basis"])
    assert refused.status_code == 409
    path = "/v1/accounts/story/entities/mail.thread/t1/events"
    page = desk.http.get(path).json()
    types = [(one["type"], one["disposition"], one["actor"]) for one in page["events"]]
    assert types == [
        ("mail.received", "applied", "user/ann"),
        ("mail.sent", "applied", "user/ann"),
        ("proposal.submitted", "superseded", "agent/local"),
    ]
    first, _, last = page["events"]
    assert first["content"]["text"] == "?"
    assert first["body"]["labels"] == ["INBOX"]
    assert first["token"] == shown["basis"]
    assert last["body"]["reads"][0]["basis"] == shown["basis"]
    assert last["body"]["data"]["in_reply_to"] == first["body"]["message"]
    assert last["content"] == {"text": "a draft"}
    assert "example.org" not in str([one["body"] for one in page["events"]])
    offsets = [one["offset"] for one in page["events"]]
    for order, expected in (("oldest", offsets), ("newest", offsets[::-1])):
        found, cursor = [], None
        for _ in expected:
            params: dict[str, Any] = {"limit": 1, "order": order} | ({"cursor": cursor} if cursor is not None else {})
            one = desk.http.get(path, params=params).json()
            found += [event["offset"] for event in one["events"]]
            cursor = one["next"]
        assert (found, cursor) == (expected, None)


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_page_of_large_events_ends_early_and_the_next_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    account, sizes = f"large-{order}", (300, 70, 50_000, 10, 40_000, 30_000, 20, 10, 10_000, 5)
    for number, size in enumerate(sizes):
        content = {"subject": "Hi", "text": "x" * size}
        desk.tell(account, "mail.received", "t1", received(f"<{number}@x>"), content=content)
    monkeypatch.setattr("headrace.api.events.PAGE_BYTES", 45_000)
    path, pages = f"/v1/accounts/{account}/entities/mail.thread/t1/events", list[list[int]]()
    cursor: dict[str, str] = {}
    while not pages or cursor:
        page = desk.http.get(path, params={"order": order, "limit": 1_000, **cursor}).json()
        pages.append([len(one["content"]["text"]) for one in page["events"]])
        cursor = {"cursor": page["next"]} if page["next"] is not None else {}
    expected = [[300, 70], [50_000], [10, 40_000], [30_000, 20, 10, 10_000, 5]]
    assert pages == (
        expected if order == "oldest" else [[5, 10_000, 10, 20, 30_000], [40_000, 10], [50_000], [70, 300]]
    )


def test_lists_do_not_fetch_what_they_do_not_show(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.thread("lean")
    fetched = Fetched(desk.store.tables)
    monkeypatch.setattr(desk.store, "tables", fetched)
    for path in ("entities", "scopes/mail.label/INBOX"):
        assert [one["id"] for one in desk.http.get(f"/v1/accounts/lean/{path}").json()["entities"]] == ["t1"]
    assert fetched.contents == [None, None]
    assert desk.entity("lean", "mail.thread", "t1").json()["content"]["text"] == "?"
    assert fetched.contents[2] is not None


def test_accounts_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path / "own") as own:
        own.thread("zoe")
        shown = own.thread("bob")
        own.propose("bob", "p1", shown["basis"])
        page = own.http.get("/v1/accounts", params={"limit": 1}).json()
        assert page["next"] == "bob"
        assert page["accounts"][0] == {
            "account": "bob",
            "events": 2,
            "entities": {"calendar.event": 0, "mail.thread": 1},
            "waiting": 0,
            "last_log_time": page["accounts"][0]["last_log_time"],
            "complete_up_to": None,
        }
        rest = own.http.get("/v1/accounts", params={"cursor": "bob"}).json()
        assert [one["account"] for one in rest["accounts"]] == ["zoe"]
        assert rest["next"] is None


def test_sources_tell_how_fresh_they_are_and_hide_the_cursor(desk: Desk) -> None:
    def say(event_id: str, record_type: str, body: dict[str, Any]) -> None:
        actor = ActorRef("system", "sync")
        sync = body.get("sync") if record_type != "source.sync_started" else None
        envelope = Envelope(event_id, "caldav/work", record_type, actor, sync=sync)
        desk.put(desk.store.intake.record("local", "fresh", envelope, body))

    def only() -> dict[str, Any]:
        (source,) = desk.http.get("/v1/accounts/fresh/sources").json()["sources"]
        return dict(source)

    say("s1", "source.sync_started", {"sync": "s1", "full": True, "feeds": ["calendar.event"]})
    assert only() == {
        "source": "caldav/work",
        "feeds": ["calendar.event"],
        "fresh_at": None,
        "staleness_ms": None,
        "lag_ms": None,
        "stale": True,
        "syncing": True,
        "hinted": False,
    }
    say("d1", "source.synced", {"sync": "s1", "cursor": "secret-cursor"})
    done = only()
    assert (done["syncing"], done["hinted"]) == (False, False)
    assert done["staleness_ms"] >= 0
    assert (done["lag_ms"] >= 0, done["stale"]) == (True, False)
    assert "secret" not in str(done)
