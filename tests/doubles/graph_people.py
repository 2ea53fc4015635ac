"""What a person does in Outlook, whatever API shows it: :mod:`tests.doubles.graph` does.

[immut] https://learn.microsoft.com/graph/outlook-immutable-id: a message keeps its id when it moves, a draft when it
        is sent
[delta] https://learn.microsoft.com/graph/delta-query-overview: a change is noted for the folder that it was in
"""

from dataclasses import dataclass, field
from typing import Final

ADDRESS: Final = "ann@example.com"
START: Final = 1_795_000_000_000
KNOWN: Final = ("inbox", "sentitems", "deleteditems", "junkemail", "drafts", "outbox", "archive")


@dataclass
class Mail:
    """A message. ``changed`` are the properties of its last change."""

    id: str
    thread: str
    folder: str
    key: str
    created: int
    date: int
    sender: str
    to: str
    index: bytes
    read: bool = False
    draft: bool = False
    flagged: bool = False
    categories: list[str] = field(default_factory=list)
    delivered: bool = True
    answers: str | None = None
    changed: set[str] = field(default_factory=set)


@dataclass
class Bin:
    """A folder."""

    id: str
    parent: str
    hidden: bool = False


class Mailbox:
    """One person's messages and folders. ``changes`` are (folder, message), or ("folders", folder), in their order."""

    def __init__(self, address: str) -> None:
        self.address: Final = address
        self.mails: Final[dict[str, Mail]] = {}
        self.folders: Final[dict[str, Bin]] = {}
        self.changes: Final[list[tuple[str, str]]] = []
        self.recoverable = False
        self.now = START
        self._number = 0
        for name in KNOWN:
            self.folders[f"F-{name}"] = Bin(f"F-{name}", "root")
        self.folders["F-recoverableitemsdeletions"] = Bin("F-recoverableitemsdeletions", "out of sight", hidden=True)

    def receive(
        self,
        thread: str | None = None,
        *,
        folder: str = "F-inbox",
        read: bool = False,
        sender: str = "bob@example.com",
        answers: Mail | None = None,
    ) -> Mail:
        """Somebody's message arrives, in a conversation or in a new one."""
        return self._add(thread, folder, sender, self.address, answers, read=read)

    def send(self, thread: str | None = None, *, folder: str = "F-sentitems", answers: Mail | None = None) -> Mail:
        """She sends a message."""
        return self._add(thread, folder, self.address, "bob@example.com", answers, read=True, delivered=False)

    def to_herself(self) -> tuple[Mail, Mail]:
        """One message, twice in the mailbox."""
        sent = self.send()
        sent.to = self.address
        came = self._add(sent.thread, "F-inbox", self.address, self.address, None)
        came.key = sent.key
        return sent, came

    def copy(self, mail: Mail, folder: str) -> Mail:
        """The same message once more."""
        made = self._add(mail.thread, folder, mail.sender, mail.to, None, read=mail.read)
        made.key, made.delivered, made.index = mail.key, mail.delivered, mail.index
        return made

    def bring_in(self, thread: str, *, created: int, date: int) -> Mail:
        """An old message comes into the mailbox: from an archive, another mailbox, a file."""
        made = self._add(thread, "F-archive", "bob@example.com", self.address, None, read=True)
        made.created, made.date = created, date
        return made

    def draft(self, thread: str | None = None) -> Mail:
        """She begins a message."""
        made = self._add(thread, "F-drafts", self.address, "bob@example.com", None, read=True, delivered=False)
        made.draft = True
        return made

    def edit(self, draft: Mail) -> None:
        """She goes on writing."""
        self._touch(draft, "lastModifiedDateTime")

    def send_draft(self, draft: Mail) -> None:
        """[immut] The same message, in Sent Items."""
        self.now += 1_000
        draft.draft, draft.date = False, self.now
        self.move(draft, "F-sentitems")

    def move(self, mail: Mail, folder: str) -> None:
        """Into another folder: [delta] gone from the one, there in the other."""
        before, mail.folder = mail.folder, folder
        if before != folder:
            self.changes.append((before, mail.id))
            self._touch(mail, "parentFolderId")

    def archive(self, thread: str) -> None:
        """As her client does it: what is in the inbox moves to the archive."""
        for mail in self.of(thread):
            if mail.folder == "F-inbox":
                self.move(mail, "F-archive")

    def mark(self, mail: Mail, *, read: bool) -> None:
        if mail.read != read:
            mail.read = read
            self._touch(mail, "isRead")

    def flag(self, mail: Mail, *, on: bool) -> None:
        if mail.flagged != on:
            mail.flagged = on
            self._touch(mail, "flag")

    def categorise(self, mail: Mail, *names: str) -> None:
        if mail.categories != list(names):
            mail.categories = list(names)
            self._touch(mail, "categories")

    def delete(self, mail: Mail) -> None:
        """For good; for some days it may be got back."""
        if self.recoverable:
            self.move(mail, "F-recoverableitemsdeletions")
        else:
            del self.mails[mail.id]
            self.changes.append((mail.folder, mail.id))

    def add_folder(self, name: str, parent: str = "root") -> str:
        folder = f"F-{name}"
        self.folders[folder] = Bin(folder, parent)
        self.changes.append(("folders", folder))
        return folder

    def move_folder(self, folder: str, parent: str) -> None:
        """With all that is in it; no message changes."""
        self.folders[folder].parent = parent
        self.changes.append(("folders", folder))

    def delete_folder(self, folder: str) -> None:
        """For good, with all that is in it and below it."""
        for one in [one.id for one in self.folders.values() if one.parent == folder]:
            self.delete_folder(one)
        for mail in self.within(folder):
            del self.mails[mail.id]
        del self.folders[folder]
        self.changes.append(("folders", folder))

    def of(self, thread: str) -> list[Mail]:
        return [mail for mail in self.mails.values() if mail.thread == thread]

    def within(self, folder: str) -> list[Mail]:
        return [mail for mail in self.mails.values() if mail.folder == folder]

    @property
    def threads(self) -> list[str]:
        return sorted({mail.thread for mail in self.mails.values()})

    def _add(
        self,
        thread: str | None,
        folder: str,
        sender: str,
        to: str,
        answers: Mail | None,
        *,
        read: bool = False,
        delivered: bool = True,
    ) -> Mail:
        self._number += 1
        self.now += 1_000
        n = self._number
        index = answers.index + n.to_bytes(5) if answers is not None else b"\1" + n.to_bytes(21)
        mail = Mail(
            f"AAkALg{n}_-=",
            thread or (answers.thread if answers is not None else f"AAQk{n}-_="),
            folder,
            f"<m{n}@example.com>",
            self.now,
            self.now,
            sender,
            to,
            index,
            read,
            delivered=delivered,
            answers=answers.key if answers is not None else None,
        )
        self.mails[mail.id] = mail
        self._touch(mail)
        return mail

    def _touch(self, mail: Mail, *names: str) -> None:
        mail.changed = set(names)
        self.changes.append((mail.folder, mail.id))
