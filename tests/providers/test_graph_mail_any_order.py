"""Whatever she does, whatever goes wrong and whenever we look: the events add up to what her mailbox shows."""

from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import UnavailableError
from headrace.producers.event import Source
from tests.doubles.desk import CrashError, Pages
from tests.doubles.graph import error
from tests.doubles.http import Fault, drops, replies
from tests.providers.graph_parts import Box, box

FOLDERS = ("F-inbox", "F-archive", "F-deleteditems", "F-junkemail", "F-sentitems", "F-projects", "F-below")
ACTS = (
    "receive", "receive", "answer", "draft", "edit", "send_draft", "archive", "delete", "delete thread", "copy",
    "to herself", "read", "unread", "flag", "unflag", "category", "trash folder", "keep folder", "delete folder",
    "make folder",
)  # fmt: skip


class Act(NamedTuple):
    what: str
    which: int
    new: bool


class Move(NamedTuple):
    folder: str
    which: int


class Sync(NamedTuple):
    full: bool
    fault: str | None
    after: int
    crash: int | None
    meanwhile: "Act | Move | None"
    lagging: str | None


class Forget(NamedTuple):
    status: int


class Disorder(NamedTuple):
    repeating: bool
    shuffled: bool
    partial: bool
    replaying: bool
    stringly: bool


acts = st.builds(Act, st.sampled_from(ACTS), st.integers(0, 7), st.booleans())
moves = st.builds(Move, st.sampled_from(FOLDERS), st.integers(0, 7))
syncs = st.builds(
    Sync,
    st.sampled_from([False, False, False, True]),
    st.sampled_from([None, None, None, "drop", "throttle", "fail", "gone page", "lost"]),
    st.integers(0, 12),
    st.one_of(st.none(), st.none(), st.integers(0, 5)),
    st.one_of(st.none(), st.none(), acts, moves),
    st.one_of(st.none(), st.none(), st.sampled_from(FOLDERS)),
)
disorders = st.builds(Disorder, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
steps = st.lists(
    st.one_of(acts, acts, moves, moves, syncs, st.builds(Forget, st.sampled_from([410, 400])), disorders), max_size=40
)
Step = Act | Move | Sync | Forget | Disorder


def do(mine: Box, step: Act | Move) -> None:
    double = mine.double
    mails = [mail for mail in double.mails.values() if not mail.draft]
    drafts = [mail for mail in double.mails.values() if mail.draft]
    mail = mails[step.which % len(mails)] if mails else None
    draft = drafts[step.which % len(drafts)] if drafts else None
    if isinstance(step, Move):
        if mail is not None and step.folder in double.folders:
            double.move(mail, step.folder)
        return
    thread = mail.thread if mail is not None and not step.new else None
    there = "F-projects" in double.folders
    match step.what:
        case "receive":
            double.receive(thread, read=step.which % 2 == 0)
        case "answer":
            double.send(
                thread, folder="F-inbox" if step.which == 3 else "F-sentitems", answers=mail if thread else None
            )
        case "draft":
            double.draft(thread)
        case "edit" if draft is not None:
            double.edit(draft)
        case "send_draft" if draft is not None:
            double.send_draft(draft)
        case "archive" if mail is not None:
            double.archive(mail.thread)
        case "delete" if mail is not None:
            double.recoverable = step.new
            double.delete(mail)
        case "delete thread" if mail is not None:
            for one in double.of(mail.thread):
                double.delete(one)
        case "copy" if mail is not None:
            double.copy(mail, FOLDERS[step.which % 5])
        case "to herself":
            double.to_herself()
        case "read" | "unread" if mail is not None:
            double.mark(mail, read=step.what == "read")
        case "flag" | "unflag" if mail is not None:
            double.flag(mail, on=step.what == "flag")
        case "category" if mail is not None:
            double.categorise(mail, *(["Red"] if step.new else []))
        case "trash folder" | "keep folder" if there:
            double.move_folder("F-projects", "F-deleteditems" if step.what == "trash folder" else "root")
        case "delete folder" if there:
            double.delete_folder("F-projects")
        case "make folder" if not there:
            double.add_folder("projects")
            double.add_folder("below", "F-projects")
        case _:
            pass


FAULTS: dict[str, Fault] = {
    "drop": drops,
    "throttle": replies(429, {}, {"retry-after": "2"}),
    "fail": replies(503),
    "gone page": replies(200, ["no", "object"]),
    "lost": lambda _: error(410, "resyncRequired"),
}


def sync(mine: Box, step: Sync) -> None:
    if step.fault is not None:
        mine.faulty.plan(*[None] * step.after, FAULTS[step.fault], path="delta" if step.fault == "lost" else "")
    meanwhile = step.meanwhile
    mine.double.lagging = step.lagging
    source: Source = mine.source
    if meanwhile is not None:
        source = Pages(source, lambda: do(mine, meanwhile))
    try:
        mine.desk.sync(source, full=step.full, crash_after=step.crash)
    except (UnavailableError, CrashError):
        assert step.fault is not None or step.crash is not None
    mine.double.lagging = None
    mine.faulty.clear()


@given(steps=steps, page=st.sampled_from([1, 2, 3, 500]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_events_add_up_to_what_the_mailbox_shows(steps: list[Step], page: int) -> None:
    with box(page=page) as mine:
        for step in steps:
            match step:
                case Sync():
                    sync(mine, step)
                case Forget():
                    mine.double.forget()
                    mine.double.lost_as = step.status
                case Disorder():
                    double = mine.double
                    double.repeating, double.shuffled, double.partial, double.replaying, double.stringly = step
                case _:
                    do(mine, step)
        mine.desk.sync(mine.source)
        mine.agree()
        mine.double.replaying = False
        assert [fact for fact in mine.desk.found(mine.source) if fact.disposition == "applied"] == []
        found = mine.desk.found(mine.source, full=True)
        assert [fact for fact in found if fact.disposition == "applied"] == []
        mine.agree()


@given(steps=st.lists(st.one_of(acts, moves), max_size=30), cuts=st.sets(st.integers(0, 29)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_message_is_lost_between_two_looks(steps: list[Act | Move], cuts: set[int]) -> None:
    """Whoever looks after every act, and whoever looks now and then, is told of the same messages."""
    kept = [step for step in steps if not (isinstance(step, Act) and "delete" in step.what)]
    told: list[list[tuple[str, str, str]]] = []
    for often in (True, False):
        with box() as mine:
            mine.desk.sync(mine.source)
            for at, step in enumerate(kept):
                do(mine, step)
                if often or at in cuts:
                    mine.desk.sync(mine.source)
            mine.desk.sync(mine.source)
            mine.agree()
            news = [one for one in mine.desk.applied() if one.type in {"mail.received", "mail.sent"}]
            told.append(sorted((one.entity, one.type, str(one.body["message"])) for one in news))
    assert told[0] == told[1]
