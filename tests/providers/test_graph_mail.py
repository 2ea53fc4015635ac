"""What people do in Outlook, and what stands on the log for it."""

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.producers.graph_api import GraphApi
from headrace.producers.graph_mail import GraphMailSource
from headrace.producers.graph_thread import Mailbox
from headrace.producers.provider_http import GrantError, ProviderHttp, ThrottledError
from tests.doubles.desk import CrashError
from tests.doubles.graph import BASE, READ, GraphDouble, error
from tests.doubles.graph_people import ADDRESS
from tests.doubles.http import Grant, drops, replies, served, transport
from tests.providers.graph_parts import Box, box


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
    mine.double.send(answers=first)
    [sent] = mine.desk.found(mine.source)
    assert (sent.type, sent.entity) == ("mail.sent", received.entity)
    assert sent.body["in_reply_to"] == received.body["message"]
    state = mine.state(first.thread)
    assert state["answered"] == [received.body["message"]]
    assert (state["messages"], state["last_by_owner"]) == (2, True)
    assert mine.sync() == []
    mine.agree()


def test_what_is_done_to_a_thread(mine: Box) -> None:
    mail = mine.double.receive()
    double, thread = mine.double, mail.thread
    projects = double.add_folder("projects")
    mine.sync()
    acts: list[tuple[Any, list[str]]] = [
        (lambda: double.mark(mail, read=True), ["mail.read"]),
        (lambda: double.mark(mail, read=False), ["mail.unread"]),
        (lambda: double.flag(mail, on=True), ["mail.labelled"]),
        (lambda: double.categorise(mail, "Red", "ann@example.com"), ["mail.labelled"]),
        (lambda: double.archive(thread), ["mail.archived"]),
        (lambda: double.move(mail, "F-inbox"), ["mail.labelled"]),
        (lambda: double.move(mail, projects), ["mail.labelled", "mail.archived"]),
        (lambda: double.move(mail, "F-deleteditems"), ["mail.trashed", "mail.labelled"]),
        (lambda: double.move(mail, projects), ["mail.labelled"]),
        (lambda: double.move_folder(projects, "F-deleteditems"), ["mail.trashed", "mail.labelled"]),
        (lambda: double.move_folder(projects, "root"), ["mail.labelled"]),
        (lambda: double.move(mail, "F-junkemail"), ["mail.labelled"]),
        (lambda: double.delete(mail), ["mail.deleted"]),
    ]
    for number, (act, told) in enumerate(acts):
        act()
        assert mine.sync() == told, number
        mine.agree()


def test_names_on_the_log_are_opaque(mine: Box) -> None:
    mail = mine.double.receive()
    mine.double.categorise(mail, "Divorce", "bob@example.com")
    mine.sync()
    for stored in mine.desk.log.records[0]:
        envelope = b"".join(value for _, value in stored.headers)
        assert b"@" not in envelope
        assert b"Divorce" not in envelope + stored.value
    assert mine.names.thread(mine.names.entity(mail.thread)) == mail.thread
    assert mine.names.thread(mine.names.entity("a/b=")) == "a/b="


def test_drafts_are_no_facts_and_a_sent_one_is(mine: Box) -> None:
    mail = mine.double.receive()
    mine.sync()
    draft = mine.double.draft(mail.thread)
    lonely = mine.double.draft()
    assert mine.sync() == []
    assert mine.sync(full=True) == []
    mine.double.edit(draft)
    mine.double.receive(mail.thread)
    mine.sync()
    mine.double.send_draft(draft)
    mine.double.delete(lonely)
    assert mine.sync() == ["mail.sent"]
    mine.agree()


def test_a_message_to_herself_is_one_message(mine: Box) -> None:
    _, came = mine.double.to_herself()
    assert mine.sync() == ["mail.sent", "mail.unread"]
    mine.double.copy(came, "F-archive")
    assert mine.sync() == []
    mine.agree()


def test_an_answer_saved_next_to_what_it_answers_is_hers_and_a_forged_one_is_not(mine: Box) -> None:
    mail = mine.double.receive()
    mine.sync()
    mine.double.send(answers=mail, folder="F-inbox")
    assert mine.sync() == ["mail.sent"]
    mine.double.receive(mail.thread, sender=ADDRESS)
    assert "mail.received" in mine.sync()
    mine.agree()


def test_an_update_that_brings_only_what_changed(mine: Box) -> None:
    mail = mine.double.receive()
    mine.sync()
    mine.double.partial = True
    mine.double.mark(mail, read=True)
    assert mine.sync() == ["mail.read"]
    mine.double.flag(mail, on=True)
    mine.double.delete(mail)
    assert mine.sync() == ["mail.deleted"]


def test_old_messages_that_come_into_a_thread_are_told(mine: Box) -> None:
    first = mine.double.receive(read=True)
    mine.double.receive(first.thread, read=True)
    mine.sync()
    mine.double.bring_in(first.thread, created=first.created - 5_000, date=first.date - 5_000)
    assert mine.sync() == ["mail.received", "mail.read"], "whatever the time it says it came"
    mine.agree()
    other = mine.double.receive(read=True)
    mine.double.receive(other.thread, read=True)
    mine.sync()
    mine.double.delete(other)
    mine.sync()
    mine.double.bring_in(other.thread, created=mine.double.now, date=other.date - 5_000)
    assert mine.sync() == ["mail.received", "mail.read"], "even where the count fits, because another is gone"
    mine.agree()


@pytest.mark.parametrize("recoverable", [True, False])
def test_deleted_for_good_and_got_back(mine: Box, recoverable: bool) -> None:
    mine.double.recoverable = recoverable
    mail = mine.double.receive()
    other = mine.double.receive(mail.thread, read=True)
    kept = mine.double.receive()
    mine.sync()
    mine.double.delete(mail)
    assert mine.sync() == ["mail.read"]
    mine.double.delete(other)
    assert mine.sync() == ["mail.deleted"]
    mine.agree()
    assert mine.state(kept.thread)["unread"]
    if recoverable:
        mine.double.move(other, "F-inbox")
        found = [fact.type for fact in mine.desk.found(mine.source) if fact.disposition == "applied"]
        assert found == ["mail.received", "mail.read"]
        mine.agree()


@pytest.mark.parametrize("status", [410, 400, 404])
def test_the_forgotten_links_are_made_good_by_comparing(mine: Box, status: int) -> None:
    mails = [mine.double.receive() for _ in range(6)]
    mine.sync()
    mine.double.archive(mails[0].thread)
    mine.double.delete(mails[1])
    mine.double.send(answers=mails[2])
    mine.double.receive()
    mine.double.forget()
    mine.double.lost_as = status
    assert sorted(mine.sync()) == ["mail.archived", "mail.deleted", "mail.received", "mail.sent"]
    mine.agree()
    assert mine.sync() == []
    assert mine.sync(full=True) == []


def test_a_folder_that_goes_takes_its_messages_with_it(mine: Box) -> None:
    projects = mine.double.add_folder("projects")
    below = mine.double.add_folder("below", projects)
    mine.double.receive(folder=projects)
    mine.double.receive(folder=below)
    mine.double.receive()
    mine.sync()
    mine.double.delete_folder(projects)
    assert mine.sync() == ["mail.deleted", "mail.deleted"]
    mine.agree()


def test_an_archive_that_comes_later(mine: Box) -> None:
    del mine.double.folders["F-archive"]
    mail = mine.double.receive()
    mine.sync()
    mine.double.add_folder("archive")
    mine.double.archive(mail.thread)
    assert mine.sync() == ["mail.archived"]
    assert mine.state(mail.thread)["labels"] == []


def test_the_wrong_mailbox(mine: Box) -> None:
    mine.double.receive()
    mine.sync()
    other = GraphMailSource(GraphApi(mine.http), Mailbox("carol@example.com", mine.desk.pseudonym))
    with pytest.raises(BadInputError, match="another mailbox"):
        mine.desk.sync(other, full=True)
    double = GraphDouble(address="carol@example.com")
    with ProviderHttp(BASE, double.grant.tokens(), transport=transport(double)) as http:
        other = GraphMailSource(GraphApi(http), Mailbox("carol@example.com", mine.desk.pseudonym))
        assert mine.desk.told(other, full=True) == []


def test_a_sync_that_breaks_off_is_repeated_under_the_same_ids(mine: Box) -> None:
    for _ in range(3):
        mine.double.receive()
    mine.sync()
    for mail in list(mine.double.mails.values()):
        mine.double.archive(mail.thread)
        mine.double.mark(mail, read=True)
        mine.double.send(answers=mail)
    for left in range(9):
        with pytest.raises(CrashError):
            mine.desk.sync(mine.source, crash_after=left)
    mine.desk.sync(mine.source)
    mine.agree()
    assert len([fact for fact in mine.desk.applied() if fact.type == "mail.archived"]) == 3
    assert mine.sync() == []


@pytest.mark.parametrize("cursor", ["", "x", "m1:", "m1:!!", "m1:eJyrrgUAAXUA-Q==", "17", "m1:é"])
def test_a_cursor_that_is_none_compares_everything(mine: Box, cursor: str) -> None:
    *_, last = mine.source.pages(cursor, mine.desk.feed)
    assert last.full


def test_many_pages() -> None:
    with box(page=3) as mine:
        for _ in range(10):
            mine.double.receive()
        assert mine.sync() == ["mail.received"] * 10
        for mail in list(mine.double.mails.values()):
            mine.double.archive(mail.thread)
        assert mine.sync() == ["mail.archived"] * 10
        mine.double.delete(next(iter(mine.double.mails.values())))
        assert mine.sync() == ["mail.deleted"]
        assert mine.sync(full=True) == []
        mine.agree()


def test_what_messages_say_is_fetched_only_where_it_is_wanted() -> None:
    with box() as mine:
        mine.double.receive()
        mine.sync()
        assert mine.asked("messages/AA") == 0
    with box(texts=True) as mine:
        first = mine.double.receive()
        mine.sync()
        assert any(b"Hello" in stored.value for stored in mine.desk.log.records[0])
        answer = mine.double.send(answers=first)
        answer.index = b""
        [sent] = mine.desk.found(mine.source)
        assert sent.body["in_reply_to"] == mine.desk.pseudonym(first.key), "from the header"


def test_too_small_a_grant_is_for_a_person(mine: Box) -> None:
    mine.double.receive()
    source = GraphMailSource(GraphApi(mine.http), mine.names, texts=True)
    with pytest.raises(GrantError, match="permissions"):
        mine.desk.sync(source)


def test_limits_are_waited_for(mine: Box) -> None:
    mine.faulty.plan(replies(429, {}, {"retry-after": "17"}))
    with pytest.raises(ThrottledError) as caught:
        mine.sync()
    assert caught.value.retry_after == 17
    mine.faulty.plan(replies(503, {}, {"retry-after": "3"}))
    with pytest.raises(ThrottledError):
        mine.sync()
    mine.double.receive()
    assert mine.sync() == ["mail.received"]


def test_other_refusals_are_for_a_person(mine: Box) -> None:
    mine.faulty.plan(lambda _: error(403, "ErrorAccessDenied"))
    with pytest.raises(GrantError):
        mine.sync()
    mine.faulty.plan(lambda _: error(404, "MailboxNotEnabledForRESTAPI"))
    with pytest.raises(BadInputError, match="mailbox"):
        mine.sync()


def test_tokens_age_and_grants_end(mine: Box) -> None:
    mine.double.receive()
    mine.double.grant.expire()
    assert mine.sync() == ["mail.received"]
    mine.double.grant.revoke()
    with pytest.raises(GrantError):
        mine.sync()


def test_a_page_that_leads_to_itself_ends(mine: Box) -> None:
    link = f"{BASE}me/mailFolders/delta?$skiptoken=x"
    mine.faulty.plan(*[replies(200, {"value": [], "@odata.nextLink": link})] * 3, path="/delta")
    with pytest.raises(UnavailableError, match="same page"):
        mine.sync()


def test_a_page_on_another_host_gets_no_token(mine: Box) -> None:
    link = "https://graph.evil.example/v1.0/me"
    mine.faulty.plan(replies(200, {"value": [], "@odata.nextLink": link}), path="/delta")
    with pytest.raises(BadInputError, match="another host"):
        mine.sync()
    assert all(request.headers["host"] == "graph.test" for request in mine.faulty.asked)


def test_a_page_that_graph_forgets_is_asked_for_again_later(mine: Box) -> None:
    mine.double.page = 1
    mine.double.receive()
    mine.double.receive()
    mine.faulty.plan(None, lambda _: error(410, "resyncRequired"), path="F-inbox/messages/delta")
    with pytest.raises(UnavailableError, match="anew"):
        mine.sync()
    assert mine.sync() == ["mail.received"] * 2


def test_the_same_over_a_socket() -> None:
    double = GraphDouble(Grant([READ, "User.Read"]), page=1)
    with box() as mine, served(double) as url, ProviderHttp(f"{url}/v1.0/", double.grant.tokens()) as http:
        source = GraphMailSource(GraphApi(http), mine.names, texts=True)
        mail = double.receive()
        double.receive()
        assert mine.desk.told(source) == ["mail.received"] * 2
        double.archive(mail.thread)
        double.grant.expire()
        assert mine.desk.told(source) == ["mail.archived"]


def test_a_connection_that_breaks_is_asked_again_later(mine: Box) -> None:
    mine.double.receive()
    mine.faulty.plan(None, drops)
    with pytest.raises(UnavailableError):
        mine.sync()
    assert mine.sync() == ["mail.received"]
