"""Whatever she does, whatever goes wrong and whenever we look: the events add up to what her mailbox shows."""

from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import UnavailableError
from headrace.producers.event import Source
from tests.doubles.desk import CrashError, Pages
from tests.doubles.http import Fault, drops, replies
from tests.providers.gmail_parts import Box, box

LABELS = ("INBOX", "UNREAD", "STARRED", "Label_1", "SPAM", "TRASH")
ACTS = ("receive", "receive", "send", "draft", "edit", "send_draft", "archive", "trash", "delete", "delete thread")


class Act(NamedTuple):
    what: str
    which: int
    new: bool


class Relabel(NamedTuple):
    label: str
    which: int
    on: bool


class Sync(NamedTuple):
    full: bool
    fault: str | None
    after: int
    crash: int | None
    meanwhile: "Act | Relabel | None"


class Forget(NamedTuple):
    pass


class Disorder(NamedTuple):
    repeating: bool
    shuffled: bool


acts = st.builds(Act, st.sampled_from(ACTS), st.integers(0, 7), st.booleans())
relabels = st.builds(Relabel, st.sampled_from(LABELS), st.integers(0, 7), st.booleans())
syncs = st.builds(
    Sync,
    st.sampled_from([False, False, False, True]),
    st.sampled_from([None, None, None, "drop", "throttle", "fail", "gone page"]),
    st.integers(0, 6),
    st.one_of(st.none(), st.none(), st.integers(0, 5)),
    st.one_of(st.none(), st.none(), acts, relabels),
)
steps = st.lists(
    st.one_of(
        acts, acts, relabels, relabels, syncs, st.just(Forget()), st.builds(Disorder, st.booleans(), st.booleans())
    ),
    max_size=40,
)
Step = Act | Relabel | Sync | Forget | Disorder


def do(mine: Box, step: Act | Relabel) -> None:
    double = mine.double
    mails = [mail for mail in double.mails.values() if "DRAFT" not in mail.labels]
    drafts = [mail for mail in double.mails.values() if "DRAFT" in mail.labels]
    mail = mails[step.which % len(mails)] if mails else None
    draft = drafts[step.which % len(drafts)] if drafts else None
    thread = mail.thread if mail is not None and not (isinstance(step, Act) and step.new) else None
    if isinstance(step, Relabel):
        if mail is not None:
            (double.label if step.on else double.unlabel)(mail, step.label)
        return
    match step.what:
        case "receive":
            double.receive(thread, labels=[LABELS[n] for n in range(3) if step.which >> n & 1])
        case "send":
            double.send(thread)
        case "draft":
            double.draft(thread)
        case "edit" if draft is not None:
            double.edit(draft)
        case "send_draft" if draft is not None:
            double.send_draft(draft)
        case "archive" if mail is not None:
            double.archive(mail.thread)
        case "trash" if mail is not None:
            double.trash(mail)
        case "delete" if mail is not None:
            double.delete(mail)
        case "delete thread" if mail is not None:
            for one in double.of(mail.thread):
                double.delete(one)
        case _:
            pass


FAULTS: dict[str, Fault] = {
    "drop": drops,
    "throttle": replies(403, {"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}),
    "fail": replies(503),
    "gone page": replies(200, ["no", "object"]),
}


def sync(mine: Box, step: Sync) -> None:
    if step.fault is not None:
        mine.faulty.plan(*[None] * step.after, FAULTS[step.fault])
    meanwhile = step.meanwhile
    source: Source = mine.source
    if meanwhile is not None:
        source = Pages(source, lambda: do(mine, meanwhile))
    try:
        mine.desk.sync(source, full=step.full, crash_after=step.crash)
    except (UnavailableError, CrashError):
        assert step.fault is not None or step.crash is not None
    mine.faulty.clear()


@given(steps=steps, page=st.sampled_from([1, 2, 3, 500]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_events_add_up_to_what_the_mailbox_shows(steps: list[Step], page: int) -> None:
    with box(page=page) as mine:
        for step in steps:
            match step:
                case Sync():
                    sync(mine, step)
                case Forget():
                    mine.double.forget_history()
                case Disorder():
                    mine.double.repeating, mine.double.shuffled = step
                case _:
                    do(mine, step)
        mine.desk.sync(mine.source)
        mine.agree()
        assert mine.sync() == []
        found = mine.desk.found(mine.source, full=True)
        assert [fact for fact in found if fact.disposition == "applied"] == []


@given(steps=st.lists(st.one_of(acts, relabels), max_size=30), cuts=st.sets(st.integers(0, 29)))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_how_often_we_look_makes_no_difference(steps: list[Act | Relabel], cuts: set[int]) -> None:
    """Nothing is lost between two syncs: whoever looks after every act sees what one look later sees, in its order;
    but for what is gone for good before anybody looked."""
    kept = [step for step in steps if not (isinstance(step, Act) and "delete" in step.what)]
    told: list[list[tuple[str, str, object]]] = []
    for often in (True, False):
        with box() as mine:
            mine.desk.sync(mine.source)
            for at, step in enumerate(kept):
                do(mine, step)
                if often or at in cuts:
                    mine.desk.sync(mine.source)
            mine.desk.sync(mine.source)
            mine.agree()
            told.append(
                sorted(
                    ((fact.entity, fact.type, str(fact.body)) for fact in mine.desk.applied()), key=lambda one: one[0]
                )
            )
    assert told[0] == told[1]
