"""A folder whose UIDVALIDITY changed, and with it what the numbers of its messages mean (RFC 3501, section 2.3.1.1)."""

from pathlib import Path

from infra.stack.dovecot import DovecotServer
from tests.imap.parts import box


def test_a_folder_in_which_numbers_mean_other_messages_now(dovecot: DovecotServer, tmp_path: Path) -> None:
    """As after a backup was restored: the message that had number 2 has number 1, and another one has its number."""
    with box(dovecot, tmp_path) as mine:
        person = mine.person
        person.client.create_folder("Work")
        names = [person.receive(folder="Work") for _ in range(2)]
        assert mine.sync().count("mail.received") == 2
        numbers = [person.uid("Work", name) for name in names]
        kept, flags = person.whole("Work", names[1])
        person.client.select_folder("INBOX")
        person.client.delete_folder("Work")
        person.client.create_folder("Work")
        person.client.append("Work", kept, flags)
        new = person.receive(folder="Work")
        assert [person.uid("Work", name) for name in (names[1], new)] == numbers, "the same numbers, other messages"
        found = mine.desk.found(mine.another())
        told = {(fact.type, fact.entity) for fact in found if fact.disposition == "applied"}
        assert ("mail.deleted", mine.entity(names[0])) in told
        assert ("mail.received", mine.entity(new)) in told
        assert not any(entity == mine.entity(names[1]) for _, entity in told), "nothing happened to it"
        mine.agree()
        assert mine.sync() == []
