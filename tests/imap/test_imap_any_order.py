"""Whatever she does at her mail program, whatever goes wrong and whenever we look: the events add up to what the real
server shows."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.producers.event import Source
from infra.stack.dovecot import DovecotServer
from tests.doubles.desk import CrashError, Pages
from tests.imap.parts import Box, box

pytestmark = pytest.mark.embedded("opens no store")

FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$Work")
SHORT = ("INBOX", "Archive", "Trash", "Sent", "Junk", "Work")


class Arrive(NamedTuple):
    """A message that answers one of those before, or nobody's: named by References, by In-Reply-To alone, or both, and
    perhaps before what it answers is here."""

    which: int
    how: str
    sent: bool
    late: bool


class Move(NamedTuple):
    which: int
    to: str
    how: str


class Flag(NamedTuple):
    which: int
    flag: str
    on: bool


class Expunge(NamedTuple):
    which: int


class Folder(NamedTuple):
    what: str


class Sync(NamedTuple):
    full: bool
    crash: int | None
    lost: bool
    meanwhile: "Move | Flag | Expunge | Arrive | None"


acts = st.one_of(
    st.builds(
        Arrive, st.integers(0, 9), st.sampled_from(["new", "both", "refs", "direct"]), st.booleans(), st.booleans()
    ),
    st.builds(Move, st.integers(0, 9), st.sampled_from(SHORT), st.sampled_from(["move", "copy first", "append last"])),
    st.builds(Flag, st.integers(0, 9), st.sampled_from(FLAGS), st.booleans()),
    st.builds(Expunge, st.integers(0, 9)),
)
steps = st.lists(
    st.one_of(
        acts,
        acts,
        acts,
        st.builds(Folder, st.sampled_from(["rename", "renumber", "delete"])),
        st.builds(
            Sync,
            st.sampled_from([False, False, False, True]),
            st.one_of(st.none(), st.none(), st.integers(0, 4)),
            st.sampled_from([False, False, False, True]),
            st.one_of(st.none(), st.none(), acts),
        ),
    ),
    min_size=8,
    max_size=40,
)
Act = Arrive | Move | Flag | Expunge
Step = Act | Folder | Sync


class History:
    """What happens to one mailbox."""

    def __init__(self, mine: Box) -> None:
        self.mine = mine
        self.held_back: list[tuple[str, bytes]] = []
        self.lost = False

    def do(self, act: Act) -> None:
        person = self.mine.person
        if isinstance(act, Arrive):
            self.arrive(act)
            return
        here = sorted((name, folder) for name, places in person.shown().items() for folder, _ in places)
        if not here:
            return
        name, folder = here[act.which % len(here)]
        match act:
            case Flag(on=True):
                person.flag(folder, name, act.flag)
            case Flag():
                person.unflag(folder, name, act.flag)
            case Expunge():
                person.expunge(folder, name)
            case Move() if act.to != folder:
                self.move(act, name, folder)
            case _:
                pass

    def arrive(self, act: Arrive) -> None:
        person = self.mine.person
        if act.late and self.held_back:
            name, raw = self.held_back.pop(0)  # what others answered already
            person.put("INBOX", raw)
            return
        known = sorted(person.threads)
        answers = known[act.which % len(known)] if known and act.how != "new" else None
        sender = "ann@example.com" if act.sent else "Bob <bob@example.com>"
        name, raw = person.text(answers=answers, sender=sender)
        if act.how == "direct":
            raw = b"\r\n".join(line for line in raw.split(b"\r\n") if not line.startswith(b"References:"))
        if act.how == "refs":
            raw = b"\r\n".join(line for line in raw.split(b"\r\n") if not line.startswith(b"In-Reply-To:"))
        if act.late and not act.sent:
            self.held_back.append((name, raw))
        else:
            person.put("Sent" if act.sent else "INBOX", raw, *(["\\Seen"] if act.sent else []))

    def move(self, act: Move, name: str, folder: str) -> None:
        person = self.mine.person
        if not person.client.folder_exists(act.to):
            person.client.create_folder(act.to)
        if act.how == "move":
            person.move(folder, name, act.to)
        elif act.how == "copy first":
            person.copy(folder, name, act.to)
            person.expunge(folder, name)
        else:  # a mail program that has it on disk: deletes first
            raw, flags = person.whole(folder, name)
            person.expunge(folder, name)
            person.client.append(act.to, raw, flags)

    def folder(self, act: Folder) -> None:
        client = self.mine.person.client
        client.select_folder("INBOX")
        match act.what:
            case "renumber":
                self.mine.person.renumber("INBOX")
            case "rename" if client.folder_exists("Work") and not client.folder_exists("Projects"):
                client.rename_folder("Work", "Projects")
            case "delete" if client.folder_exists("Projects"):
                client.delete_folder("Projects")
            case _:
                pass

    def sync(self, step: Sync) -> None:
        mine = self.mine
        if step.lost and mine.index is not None:
            self.lost = True
            for file in mine.index.iterdir():
                file.unlink()
        meanwhile = step.meanwhile
        source: Source = mine.source
        if meanwhile is not None:
            source = Pages(source, lambda: self.do(meanwhile))
        try:
            mine.desk.sync(source, full=step.full, crash_after=step.crash)
        except CrashError:
            assert step.crash is not None

    def every_thread(self) -> None:
        """What the test calls a conversation, headrace may have filed under a later message that came first: for ever,
        but where the index was lost together with what tied a message to the others."""
        filed: dict[str, set[str]] = {}
        names = {self.mine.desk.pseudonym(name): name for name in self.mine.person.threads}
        for fact in self.mine.desk.applied():
            if fact.type in {"mail.received", "mail.sent"}:
                filed.setdefault(names[fact.body["message"]], set()).add(fact.entity)
                self.mine.filed[names[fact.body["message"]]] = fact.entity
        if not self.lost:
            assert all(len(entities) == 1 for entities in filed.values()), "a message was told in two threads"


def check(server: DovecotServer, steps: list[Step], folder: Path) -> None:
    with box(server, folder) as mine:
        history = History(mine)
        for step in steps:
            match step:
                case Sync():
                    history.sync(step)
                case Folder():
                    history.folder(step)
                case _:
                    history.do(step)
        mine.desk.sync(mine.source)
        history.every_thread()
        mine.agree()
        assert mine.sync() == []
        found = mine.desk.found(mine.source, full=True)
        assert [fact for fact in found if fact.disposition == "applied"] == []
        mine.agree()


few = settings(
    max_examples=settings().max_examples // 8,  # each has dozens of conversations with a real server
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@given(steps=steps)
@few
def test_the_events_add_up_with_qresync(dovecot: DovecotServer, steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        check(dovecot, steps, Path(folder))


@given(steps=steps)
@few
def test_the_events_add_up_with_condstore_only(condstore_only: DovecotServer, steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        check(condstore_only, steps, Path(folder))


@given(steps=steps)
@few
def test_the_events_add_up_without_either(plain_server: DovecotServer, steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        check(plain_server, steps, Path(folder))
