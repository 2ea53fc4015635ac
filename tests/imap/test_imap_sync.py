"""What people do in a mailbox on a real server, and what stands on the log for it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.producers.imap import Imap
from headrace.producers.imap_connection import ImapConnection, ListedFolder, Standing
from headrace.producers.imap_index import ImapIndex
from infra.stack.dovecot import DovecotServer
from tests.doubles.desk import CrashError
from tests.imap.parts import ADDRESS, Box, Person, Secret, box, connected


def test_a_message_and_the_reply_by_hand(mine: Box) -> None:
    first = mine.person.receive()
    [received] = mine.desk.found(mine.source)
    pseudonym = mine.desk.pseudonym
    assert received.type == "mail.received"
    assert received.entity == mine.entity(first)
    assert received.occurred_at == "2026-11-18T11:07:41.000Z"
    assert received.body["message"] == pseudonym(first)
    assert received.body["sender"] == pseudonym("bob@example.com")
    assert received.body["recipients"] == [pseudonym(ADDRESS)]
    assert received.body["labels"] == ["INBOX"]
    assert f"person:{pseudonym('bob@example.com')}" in received.concerns
    mine.person.send(first)
    [sent] = mine.desk.found(mine.source)
    assert (sent.type, sent.entity) == ("mail.sent", received.entity)
    assert sent.body["in_reply_to"] == received.body["message"]
    state = mine.state(first)
    assert state["answered"] == [received.body["message"]]
    assert (state["messages"], state["last_by_owner"]) == (2, True)
    assert mine.sync() == []
    mine.agree()


def test_what_is_done_to_a_thread_on_any_server(any_server: DovecotServer) -> None:
    with box(any_server) as mine:
        person = mine.person
        name = person.receive()
        assert mine.sync() == ["mail.received"]
        acts: list[tuple[Callable[[], Any], list[str]]] = [
            (lambda: person.flag("INBOX", name, "\\Seen"), ["mail.read"]),
            (lambda: person.unflag("INBOX", name, "\\Seen"), ["mail.unread"]),
            (lambda: person.flag("INBOX", name, "\\Flagged", "$Work"), ["mail.labelled"]),
            (lambda: person.flag("INBOX", name, "\\Answered"), ["mail.labelled"]),
            (lambda: person.move("INBOX", name, "Archive"), ["mail.archived"]),
            (lambda: person.move("Archive", name, "INBOX"), ["mail.labelled"]),
            (lambda: person.flag("INBOX", name, "\\Deleted"), ["mail.trashed"]),
            (lambda: person.unflag("INBOX", name, "\\Deleted"), ["mail.labelled"]),
            (lambda: person.move("INBOX", name, "Trash"), ["mail.trashed"]),
            (lambda: person.move("Trash", name, "Archive"), ["mail.labelled", "mail.archived"]),
            (lambda: person.move("Archive", name, "Junk"), ["mail.labelled"]),
            (lambda: person.move("Junk", name, "INBOX"), ["mail.labelled"]),
            (lambda: person.expunge("INBOX", name), ["mail.deleted"]),
        ]
        for number, (act, told) in enumerate(acts):
            act()
            assert mine.sync() == told, number
            mine.agree()
            assert mine.sync() == []


def test_renumbered_folders_tell_nothing_but_what_changed(any_server: DovecotServer) -> None:
    with box(any_server) as mine:
        names = [mine.person.receive() for _ in range(5)]
        mine.sync()
        mine.person.renumber("INBOX")
        assert mine.sync() == []
        mine.person.renumber("INBOX")
        mine.person.flag("INBOX", names[0], "\\Seen")
        mine.person.expunge("INBOX", names[1])
        mine.person.move("INBOX", names[2], "Archive")
        mine.person.send(names[3])
        new = mine.person.receive()
        assert sorted(mine.sync()) == ["mail.archived", "mail.deleted", "mail.read", "mail.received", "mail.sent"]
        assert mine.state(new)["unread"]
        mine.agree()
        assert mine.sync() == []


def test_what_was_done_between_two_syncs_is_told_as_what_it_comes_to(mine: Box) -> None:
    name = mine.person.receive()
    mine.sync()
    mine.person.move("INBOX", name, "Archive")
    mine.person.move("Archive", name, "INBOX")
    mine.person.flag("INBOX", name, "\\Flagged")
    mine.person.unflag("INBOX", name, "\\Flagged")
    assert mine.sync() == []
    mine.person.expunge("INBOX", mine.person.receive())
    assert mine.sync() == []


def test_a_message_deleted_here_and_put_back_there_was_moved(mine: Box) -> None:
    name = mine.person.receive()
    mine.sync()
    raw, flags = mine.person.whole("INBOX", name)
    mine.person.expunge("INBOX", name)
    mine.person.client.append("Archive", raw, flags)
    assert mine.sync() == ["mail.archived"]
    mine.agree()


def test_a_thread_that_was_gone_and_comes_back(mine: Box) -> None:
    name = mine.person.receive()
    mine.sync()
    raw, _ = mine.person.whole("INBOX", name)
    for _ in range(2):
        mine.person.expunge("INBOX", name)
        assert mine.sync() == ["mail.deleted"]
        mine.person.client.append("INBOX", raw, ["\\Seen"])
        assert mine.sync() == ["mail.received", "mail.read"]
        mine.agree()


def test_a_message_that_moves_while_folders_are_looked_at_is_not_gone(condstore_only: DovecotServer) -> None:
    """From a folder that is still to be looked at to one that was looked at already."""
    with box(condstore_only) as mine:
        name = mine.person.receive()
        mine.sync()
        asked, moves, order = ImapConnection.standing, iter(["Trash"]), list[str]()

        def standing(connection: ImapConnection, folder: ListedFolder) -> Standing | None:
            order.append(folder.name)
            for to in moves if folder.name == "INBOX" else ():
                mine.person.move("INBOX", name, to)
            return asked(connection, folder)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImapConnection, "standing", standing)
            assert mine.sync() == ["mail.trashed"]
        assert order.index("Trash") < order.index("INBOX")
        mine.agree()


def test_drafts_are_no_facts_and_a_sent_one_is(mine: Box) -> None:
    name = mine.person.receive()
    mine.sync()
    draft, raw = mine.person.text(answers=name, sender=ADDRESS)
    mine.person.put("Drafts", raw, "\\Draft", "\\Seen")
    mine.person.put("INBOX", raw.replace(b"m2@", b"m2x@"), "\\Draft", "\\Seen")
    assert mine.sync() == []
    mine.person.expunge("Drafts", draft)
    mine.person.put("Sent", raw, "\\Seen")
    assert mine.sync() == ["mail.sent"]
    mine.agree()


def test_the_copy_to_oneself_is_no_second_message(mine: Box) -> None:
    name, raw = mine.person.text(sender=ADDRESS)
    mine.person.put("Sent", raw, "\\Seen")
    mine.person.put("INBOX", raw)
    assert mine.sync() == ["mail.sent", "mail.unread"]
    mine.agree()
    later, raw = mine.person.text(answers=name, sender=ADDRESS)
    mine.person.put("INBOX", raw)
    assert mine.sync() == ["mail.received"]
    mine.person.put("Sent", raw, "\\Seen")
    assert mine.sync() == ["mail.sent"], "only now is it known that she wrote it"
    assert mine.state(later)["last_by_owner"]
    mine.agree()


def test_the_folder_of_sent_mail_may_have_any_name(plain_server: DovecotServer) -> None:
    with box(plain_server, sent="Отправленные & mehr") as mine:
        mine.person.client.create_folder("Отправленные & mehr")
        name = mine.person.receive()
        mine.sync()
        _, raw = mine.person.text(answers=name, sender=ADDRESS)
        mine.person.put("Отправленные & mehr", raw, "\\Seen")
        assert mine.sync() == ["mail.sent"]


def test_folders_are_labels(mine: Box) -> None:
    for folder in ("Work", "Work/2026", "CHAT", "Trash/Old", 'quo"te\\d', "42", "bob@example"):
        mine.person.client.create_folder(folder)
        mine.person.receive(folder=folder, flags=("\\Seen",))
    mine.sync()
    held = {label for state in mine.desk.states("mail.thread").values() for label in state["labels"]}
    assert held == {"Work", "Work/2026", "imap:CHAT", 'quo"te\\d', "42", mine.desk.pseudonym("bob@example")}
    mine.person.client.rename_folder("Work", "Play")
    assert sorted(mine.sync()) == ["mail.labelled", "mail.labelled"]
    mine.person.client.delete_folder("CHAT")
    assert mine.sync() == ["mail.deleted"]
    assert mine.sync(full=True) == []


def test_names_on_the_log_are_opaque(mine: Box) -> None:
    name = mine.person.receive(None, "Reply-To: carol@example.com")
    mine.person.flag("INBOX", name, "dave@example.com")
    mine.person.send(name)
    mine.sync()
    for stored in mine.desk.log.records[0]:
        assert b"@" not in b"".join(value for _, value in stored.headers)
    assert mine.names.thread(mine.names.entity("x")) == "x"
    assert mine.names.thread("gmail:0:x") is None
    assert mine.state(name)["labels"] == sorted(["INBOX", mine.desk.pseudonym("dave@example.com")])


def test_what_messages_say_is_kept_only_where_it_is_wanted(dovecot: DovecotServer) -> None:
    for content, there in (("headers", False), ("text", True)):
        with box(dovecot, content=content) as mine:
            mine.person.receive()
            mine.sync()
            values = b"".join(stored.value for stored in mine.desk.log.records[0])
            assert (b"Does 15:00 suit you?" in values) is there
            assert b"Friday?" in values


def test_a_sync_that_breaks_off_is_repeated_under_the_same_ids(mine: Box) -> None:
    names = [mine.person.receive() for _ in range(3)]
    mine.sync()
    for name in names:
        mine.person.move("INBOX", name, "Archive")
        mine.person.send(name)
    for left in range(6):
        with pytest.raises(CrashError):
            mine.desk.sync(mine.source, crash_after=left)
        if left % 2:
            mine.source = mine.another()  # without an index
    mine.desk.sync(mine.source)
    mine.agree()
    assert [fact.type for fact in mine.desk.applied()].count("mail.sent") == 3
    assert mine.sync() == []


def test_an_index_that_is_lost_changes_nothing(dovecot: DovecotServer, tmp_path: Path) -> None:
    with box(dovecot, tmp_path) as mine:
        first, second, third = (mine.person.receive() for _ in range(3))
        mine.person.receive(first)
        mine.person.send(first)
        mine.sync()
        mine.person.expunge("Sent", mine.person.send(second))
        mine.sync()
        [file] = tmp_path.iterdir()
        mine.person.flag("INBOX", first, "\\Seen")
        mine.person.expunge("INBOX", third)
        file.unlink()
        assert mine.sync() == ["mail.deleted"], "the answer to the first is unread still"
        for harm in (b"", b"no database", file.read_bytes()[:5000] + b"\xff" * 5000):
            file.write_bytes(harm)
            assert mine.sync() == []
        with closing(ImapIndex.at(file)):  # another worker is at it
            mine.person.move("INBOX", second, "Archive")
            assert mine.sync() == ["mail.archived"]
        assert mine.sync() == []
        mine.agree()


def test_many_pages(mine: Box) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.producers.imap_source._AT_ONCE", 2)
        patch.setattr("headrace.producers.imap_connection.LISTED_AT_ONCE", 2)
        patch.setattr("headrace.producers.imap_mirror.HEADERS_AT_ONCE", 2)
        patch.setattr("headrace.producers.imap_mirror._WINDOW", 2)
        names = [mine.person.receive() for _ in range(7)]
        assert mine.sync() == ["mail.received"] * 7
        for name in names[::2]:
            mine.person.expunge("INBOX", name)
        for name in names[1::2]:
            mine.person.flag("INBOX", name, "\\Seen")
        assert sorted(mine.sync()) == ["mail.deleted"] * 4 + ["mail.read"] * 3
        mine.person.renumber("INBOX")
        assert mine.sync() == []
        mine.agree()


def test_another_mailbox_of_the_account_is_left_alone(dovecot: DovecotServer) -> None:
    with box(dovecot) as mine:
        mine.person.receive()
        mine.sync()
        other = Person(dovecot, "carol")
        settings = connected(dovecot, "carol", address="carol@example.com")
        source = Imap().mailbox(settings, Secret(dovecot.password), mine.desk.pseudonym)
        assert mine.desk.told(source, full=True) == []
        other.close()


def test_a_reply_that_nothing_ties_to_its_thread_any_more_is_told_anew(mine: Box) -> None:
    """The index is lost, and so is what the reply answers."""
    first = mine.person.receive()
    second = mine.person.receive(first)
    third, raw = mine.person.text(f"In-Reply-To: {second}")
    mine.person.put("INBOX", raw)
    mine.person.receive(first)
    mine.sync()
    assert mine.state(first)["messages"] == 4
    mine.person.expunge("INBOX", second)
    mine.source = mine.another()
    mine.desk.sync(mine.source)
    mine.person.threads[third] = second
    assert mine.state(third)["messages"] == 1
    mine.agree()
    assert mine.sync() == []
