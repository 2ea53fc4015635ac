"""What people do in Gmail, and what stands on the log for it."""

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.event import Known
from headrace.producers.gmail import watch_id
from headrace.producers.provider_http import GrantError, ProviderHttp, ThrottledError
from tests.doubles.desk import CrashError, Pages
from tests.doubles.gmail import ADDRESS, READONLY, WEEK_MS, GmailDouble
from tests.doubles.http import Grant, drops, replies, served, transport
from tests.providers.gmail_parts import BASE, TOPIC, Box, box, connected, google_error, provider


@pytest.fixture
def mine() -> Iterator[Box]:
    with box() as made:
        yield made


def test_a_message_and_the_reply_to_it(mine: Box) -> None:
    first = mine.double.receive()
    [received] = mine.desk.found(mine.source)
    pseudonym = mine.desk.pseudonym
    assert received.type == "mail.received"
    assert received.occurred_at == "2026-11-18T11:06:41.000Z"
    assert received.body["message"] == pseudonym("<m1@example.com>")
    assert received.body["sender"] == pseudonym("bob@example.com")
    assert received.body["recipients"] == [pseudonym(ADDRESS)]
    assert received.body["labels"] == ["INBOX"]
    assert f"person:{pseudonym('bob@example.com')}" in received.concerns
    mine.double.send(first.thread)
    [sent] = mine.desk.found(mine.source)
    assert (sent.type, sent.entity) == ("mail.sent", received.entity)
    assert sent.body["in_reply_to"] == received.body["message"]
    assert set(sent.concerns) >= {
        f"message:{received.body['message']}",
        f"person:{pseudonym('bob@example.com')}",
    }
    state = mine.state(first.thread)
    assert state["answered"] == [received.body["message"]]
    assert (state["messages"], state["last_by_owner"]) == (2, True)
    assert mine.sync() == []


def test_names_on_the_log_are_opaque(mine: Box) -> None:
    thread = mine.double.receive(labels=["INBOX", "bob@example.com"]).thread
    mine.sync()
    mine.double.label(mine.double.mails[thread], "carol@example.com")
    mine.sync()
    for stored in mine.desk.log.records[0]:
        envelope = b"".join(value for _, value in stored.headers)
        assert b"@" not in envelope
    assert mine.names.thread(mine.names.entity(thread)) == thread
    assert mine.state(thread)["labels"] == sorted(
        ["INBOX", mine.desk.pseudonym("bob@example.com"), mine.desk.pseudonym("carol@example.com")]
    )


def test_what_is_done_to_a_thread(mine: Box) -> None:
    mail = mine.double.receive()
    thread = mail.thread
    mine.sync()
    acts: list[tuple[Any, list[str]]] = [
        (lambda: mine.double.unlabel(mail, "UNREAD"), ["mail.read"]),
        (lambda: mine.double.label(mail, "UNREAD"), ["mail.unread"]),
        (lambda: mine.double.label(mail, "STARRED", "Label_7"), ["mail.labelled"]),
        (lambda: mine.double.archive(thread), ["mail.archived"]),
        (lambda: mine.double.label(mail, "INBOX"), ["mail.labelled"]),
        (lambda: mine.double.trash(mail), ["mail.trashed"]),
        (lambda: mine.double.unlabel(mail, "TRASH"), ["mail.labelled", "mail.archived"]),
        (lambda: mine.double.label(mail, "INBOX"), ["mail.labelled"]),
        (lambda: mine.double.label(mail, "TRASH", "INBOX"), ["mail.trashed"]),
        (lambda: mine.double.unlabel(mail, "TRASH"), ["mail.labelled"]),
        (lambda: mine.double.delete(mail), ["mail.deleted"]),
    ]
    for number, (act, told) in enumerate(acts):
        act()
        assert mine.sync() == told, number
        mine.agree()


def test_a_thread_is_archived_when_no_message_of_it_is_in_the_inbox(mine: Box) -> None:
    first = mine.double.receive()
    second = mine.double.receive(first.thread)
    mine.sync()
    mine.double.unlabel(first, "INBOX", "UNREAD")
    assert mine.sync() == []
    mine.double.unlabel(second, "INBOX")
    assert mine.sync() == ["mail.archived"]
    mine.double.delete(second)
    assert mine.sync() == ["mail.read"]
    mine.agree()


def test_what_was_done_and_undone_meanwhile_is_told_in_its_order(mine: Box) -> None:
    mail = mine.double.receive()
    mine.sync()
    mine.double.archive(mail.thread)
    mine.double.label(mail, "INBOX")
    mine.double.unlabel(mail, "UNREAD")
    mine.double.send(mail.thread)
    mine.double.trash(mail)
    mine.double.repeating = mine.double.shuffled = True
    mine.double.nothing(mail)
    assert mine.sync() == ["mail.archived", "mail.labelled", "mail.read", "mail.sent", "mail.archived"]
    assert mine.state(mail.thread)["labels"] == []
    mine.agree()


def test_drafts_are_no_facts_and_a_sent_one_is(mine: Box) -> None:
    mail = mine.double.receive()
    mine.sync()
    draft = mine.double.draft(mail.thread)
    lonely = mine.double.draft()
    assert mine.sync() == []
    assert mine.sync(full=True) == []
    draft = mine.double.edit(mine.double.edit(draft))
    assert mine.sync() == []
    mine.double.send_draft(draft)
    mine.double.delete(lonely)
    assert mine.sync() == ["mail.sent"]
    mine.agree()


def test_somebody_who_only_sent_has_not_archived(mine: Box) -> None:
    mail = mine.double.send()
    assert mine.sync() == ["mail.sent"]
    assert mine.state(mail.thread)["archived"] is False


def test_a_message_that_came_and_went_between_two_syncs_leaves_no_trace(mine: Box) -> None:
    mine.sync()
    mine.double.delete(mine.double.receive())
    assert mine.sync() == []


def test_a_thread_that_goes_while_it_is_fetched_is_deleted(mine: Box) -> None:
    mail = mine.double.receive()
    mine.sync()
    mine.double.label(mail, "STARRED")
    mine.faulty.plan(replies(404), path=f"threads/{mail.thread}")
    assert mine.sync() == ["mail.deleted"]


def test_the_forgotten_history_is_made_good_by_comparing(mine: Box) -> None:
    threads = [mine.double.receive() for _ in range(6)]
    mine.sync()
    mine.double.archive(threads[0].thread)
    mine.double.delete(threads[1])
    mine.double.send(threads[2].thread)
    new = mine.double.receive()
    mine.double.forget_history()
    before = mine.asked("threads/")
    assert sorted(mine.sync()) == ["mail.archived", "mail.deleted", "mail.received", "mail.sent"]
    assert mine.asked("threads/") - before == 4, "only what changed since the cursor is fetched"
    mine.agree()
    assert mine.state(new.thread)["unread"]
    assert mine.sync() == []
    assert mine.sync(full=True) == []


def test_a_full_sync_knows_what_is_in_another_mailbox_from_what_is_gone(mine: Box) -> None:
    mine.double.receive()
    mine.sync()
    with box() as other:
        source = provider().source(connected(address="carol@example.com"), other.http, mine.desk.pseudonym)
        with pytest.raises(BadInputError, match="another mailbox"):
            mine.desk.sync(source, full=True)
    double = GmailDouble(address="carol@example.com")
    with ProviderHttp(BASE, double.grant.tokens(), transport=transport(double)) as http:
        source = provider().source(connected(address="carol@example.com"), http, mine.desk.pseudonym)
        assert mine.desk.told(source, full=True) == []


def test_a_thread_that_moves_while_pages_are_turned_is_not_gone() -> None:
    with box(page=2) as mine:
        first = mine.double.receive()
        for _ in range(150):
            mine.double.receive()
        mine.sync()
        mine.double.forget_history()
        moved = iter([first.thread])

        def turn(request: Any) -> None:
            if request.one("pageToken") == "p4":
                for thread in moved:
                    mine.double.send(thread)

        mine.faulty.plan(*[turn] * 40, path="/threads")
        assert mine.sync(full=True) == ["mail.sent"]
        mine.agree()
        assert mine.sync() == []


def test_a_sync_that_breaks_off_is_repeated_under_the_same_ids(mine: Box) -> None:
    for _ in range(3):
        mine.double.receive()
    mine.sync()
    for mail in list(mine.double.mails.values()):
        mine.double.unlabel(mail, "INBOX", "UNREAD")
        mine.double.send(mail.thread)
    for left in range(9):
        with pytest.raises(CrashError):
            mine.desk.sync(mine.source, crash_after=left)
    mine.desk.sync(mine.source)
    mine.agree()
    assert len([fact for fact in mine.desk.applied() if fact.type == "mail.archived"]) == 3
    assert mine.sync() == []


def test_the_cursor_only_grows(mine: Box) -> None:
    mine.double.receive()
    first = mine.desk.sync(mine.source).cursor
    mine.faulty.plan(replies(200, {"historyId": "3"}), path="/history")
    assert mine.desk.sync(mine.source).cursor == first


def test_cursors_compare_as_numbers() -> None:
    with box() as mine:
        mine.faulty.plan(replies(200, {"historyId": 10}), path="/history")
        [page] = mine.source.pages("9", mine.desk.feed)
        assert page.cursor == "10"


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1" * 21, "١"])
def test_a_cursor_that_is_none_compares_everything(mine: Box, cursor: str) -> None:
    *_, last = mine.source.pages(cursor, mine.desk.feed)
    assert last.full


def test_many_pages(mine: Box) -> None:
    mine.double.page = 3
    for _ in range(10):
        mine.double.receive()
    assert mine.sync() == ["mail.received"] * 10
    for mail in list(mine.double.mails.values()):
        mine.double.archive(mail.thread)
    assert mine.sync() == ["mail.archived"] * 10
    assert mine.sync(full=True) == []
    mine.agree()


def test_what_messages_say_is_fetched_only_where_it_is_wanted() -> None:
    with box() as mine:
        mine.double.receive()
        mine.sync()
        assert mine.asked("messages/") == 0
        assert all(request.one("format") in {None, "metadata"} for request in mine.faulty.asked)
    with box("text") as mine:
        mine.double.receive()
        mine.double.receive()
        mine.sync()
        assert mine.asked("messages/") == 2
        assert any(b"Hello" in stored.value for stored in mine.desk.log.records[0])


def test_too_small_a_grant_is_for_a_person() -> None:
    with box() as mine:
        mine.double.receive()
        source = provider().source(connected("text"), mine.http, mine.desk.pseudonym)
        with pytest.raises(GrantError, match="scopes"):
            mine.desk.sync(source)


@pytest.mark.parametrize(
    ("status", "reason", "seconds"),
    [(403, "rateLimitExceeded", 1), (403, "userRateLimitExceeded", 1), (403, "dailyLimitExceeded", 3600), (429, "", 1)],
)
def test_limits_are_waited_for(mine: Box, status: int, reason: str, seconds: float) -> None:
    mine.faulty.plan(lambda _: google_error(status, reason))
    with pytest.raises(ThrottledError) as caught:
        mine.sync()
    assert caught.value.retry_after == seconds
    mine.double.receive()
    assert mine.sync() == ["mail.received"]


def test_gmail_may_say_how_long(mine: Box) -> None:
    body = {"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}
    mine.faulty.plan(replies(403, body, {"retry-after": "17"}))
    with pytest.raises(ThrottledError) as caught:
        mine.sync()
    assert caught.value.retry_after == 17


@pytest.mark.parametrize("reason", ["domainPolicy", "accessNotConfigured", "insufficientPermissions"])
def test_other_refusals_are_for_a_person(mine: Box, reason: str) -> None:
    mine.faulty.plan(lambda _: google_error(403, reason))
    with pytest.raises(BadInputError):
        mine.sync()


def test_tokens_age_and_grants_end(mine: Box) -> None:
    mine.double.receive()
    mine.double.grant.expire()
    assert mine.sync() == ["mail.received"]
    mine.double.grant.revoke()
    with pytest.raises(GrantError):
        mine.sync()


def test_a_page_that_gmail_no_longer_takes_is_asked_for_again_later(mine: Box) -> None:
    mine.double.page = 1
    mine.double.receive()
    mine.double.receive()
    mine.faulty.plan(None, replies(400), path="/threads")
    with pytest.raises(UnavailableError, match="page"):
        mine.sync()
    assert mine.sync() == ["mail.received"] * 2


@pytest.mark.parametrize("path", ["/threads", "/history"])
def test_a_page_that_leads_to_itself_ends(mine: Box, path: str) -> None:
    mine.sync()
    answer = {"nextPageToken": "p1", "historyId": "2000"}
    mine.faulty.plan(*[replies(200, answer)] * 3, path=path)
    with pytest.raises(UnavailableError, match="same page"):
        mine.sync(full=path == "/threads")


def test_the_watch() -> None:
    with box() as mine:
        gmail = provider()
        made = gmail.watch(connected(), mine.http, "https://headrace.example/", None, mine.double.now)
        assert made.id == watch_id(ADDRESS.upper())
        assert ADDRESS not in repr(made) + made.id
        assert made.expires_at == mine.double.now + WEEK_MS
        assert made.details == {"renew_at": str(mine.double.now + WEEK_MS // 7)}
        assert mine.double.watched == TOPIC
        again = gmail.watch(connected(), mine.http, "", made, mine.double.now)
        assert again == made
        gmail.stop(connected(), mine.http, again)
        gmail.stop(connected(), mine.http, again)
        assert mine.double.watched is None


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_watch_that_gmail_refuses_says_what_to_mend(mine: Box, status: int) -> None:
    mine.faulty.plan(replies(status), path="/watch")
    with pytest.raises(BadInputError, match=r"topic|scopes"):
        provider().watch(connected(), mine.http, "", None, 0)


def test_the_same_over_a_socket() -> None:
    double = GmailDouble(Grant([READONLY]))
    with box() as mine, served(double) as url, ProviderHttp(f"{url}/gmail/v1/", double.grant.tokens()) as http:
        source = provider().source(connected("text"), http, mine.desk.pseudonym)
        mail = double.receive()
        assert mine.desk.told(source) == ["mail.received"]
        double.archive(mail.thread)
        double.grant.expire()
        assert mine.desk.told(source) == ["mail.archived"]
        watch = provider().watch(connected(), http, "", None, 0)
        provider().stop(connected(), http, watch)


def test_a_connection_that_breaks_is_asked_again_later(mine: Box) -> None:
    mine.double.receive()
    mine.faulty.plan(None, drops)
    with pytest.raises(UnavailableError):
        mine.sync()
    assert mine.sync() == ["mail.received"]


def test_what_is_found_while_pages_are_told_is_told_by_the_next_sync(mine: Box) -> None:
    mail = mine.double.receive()
    mine.sync()
    mine.double.send(mail.thread)
    threads = iter([mail.thread])

    def act() -> None:
        for thread in threads:
            mine.double.receive(thread)
            mine.double.archive(thread)

    mine.desk.sync(Pages(mine.source, act))
    mine.desk.sync(mine.source)
    mine.agree()
    assert mine.sync() == []


def test_the_source_feeds_threads(mine: Box) -> None:
    known: Known = mine.desk.feed
    assert mine.source.feeds == ("mail.thread",)
    assert list(known.where("mail.thread")) == []
    assert provider().name == "gmail"


def test_settings_that_cannot_be_used() -> None:
    with box() as mine:
        for wrong in (connected(address="ann"), connected("all")):
            with pytest.raises(BadInputError):
                provider().source(wrong, mine.http, mine.desk.pseudonym)
