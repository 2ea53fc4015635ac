"""The three races, each beside a proposal that is rightly accepted."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from headrace.demo.people import Agent, CalendarApp, Mailbox, Seen, milliseconds
from headrace.demo.timeline import Step, Timeline

_KINDS: Final = {
    "mail.sent": "Ann's own reply",
    "calendar.updated": "Ann's edit",
    "calendar.created": "Ann's new event",
}


class Stage:
    """Everybody in it, and the day it plays on."""

    def __init__(self, mailbox: Mailbox, calendar: CalendarApp, agent: Agent, timeline: Timeline) -> None:
        self.mailbox, self.calendar, self.agent, self.timeline = mailbox, calendar, agent, timeline
        self.day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.verdicts: list[str] = []

    def at(self, clock: str) -> datetime:
        """A time of the day it plays on."""
        hours, minutes, *seconds = map(int, clock.split(":"))
        return self.day.replace(hour=hours, minute=minutes, second=seconds[0] if seconds else 0)

    def tell(self, act: str, at: str, who: str, did: str, position: str | None = None) -> None:
        """Something happened."""
        self.timeline.step(Step(act, at, who, did, position))

    def judged(self, act: str, at: str, did: str, verdict: dict[str, Any], averted: str | None = None) -> None:
        """An agent proposed, and this is what the log said."""
        self.verdicts.append(verdict["verdict"])
        event = verdict["finding"].get("event")
        partition = self.calendar.partition
        why = None
        if event is not None:
            what = _KINDS.get(event["type"], event["type"])
            why = f"{what} at {partition}:{event['offset']} came first"
        position = f"{partition}:{verdict['submitted_at']}"
        self.timeline.step(Step(act, at, "agent", did, position, verdict["verdict"], why, averted if event else None))


def mail_race(stage: Stage) -> None:
    """5:15 PM: the agent thinks for two minutes, the user answers by hand, the draft is ready."""
    act, bob, ann, dora = "mail", "bob@example.com", "ann@example.com", "dora@example.com"
    stage.timeline.act(
        "1  The draft that came too late",
        "An agent reads a mail thread and thinks for two minutes. Ann answers by hand meanwhile.",
    )

    def received(at: str, thread: str, sender: str, message: str, *, subject: str, text: str) -> None:
        data = {
            "message": message,
            "sender": sender,
            "recipients": [ann],
            "labels": ["INBOX"],
            "content": {"subject": subject, "text": text, "sender": sender, "recipients": [ann]},
        }
        position = stage.mailbox.tells("mail.received", thread, stage.at(at), data)
        stage.tell(act, at, sender.split("@", maxsplit=1)[0].title(), f"writes: “{text}”", position)

    received(
        "17:15:00",
        "t-offer",
        bob,
        "<offer-1@example.com>",
        subject="Your offer",
        text="Does the price of 4,200 still stand?",
    )
    received("17:15:02", "t-lunch", dora, "<lunch-1@example.com>", subject="Lunch", text="Lunch on Friday at noon?")
    offer = stage.agent.reads("mail.thread", "t-offer")
    lunch = stage.agent.reads("mail.thread", "t-lunch")
    stage.tell(act, "17:15:05", "agent", "reads both threads and starts to write")
    reply = {
        "message": "<offer-2@example.com>",
        "in_reply_to": "<offer-1@example.com>",
        "sender": ann,
        "recipients": [bob],
        "content": {"subject": "Re: Your offer", "text": "No, it is 4,900 now.", "sender": ann, "recipients": [bob]},
    }
    position = stage.mailbox.tells("mail.sent", "t-offer", stage.at("17:16:00"), reply)
    stage.tell(act, "17:16:00", "Ann", "answers by hand: “No, it is 4,900 now.”", position)
    drafts = (
        (
            "t-offer",
            offer,
            "<offer-1@example.com>",
            bob,
            "Yes, 4,200 stands!",
            "a second answer to Bob that says the opposite",
        ),
        ("t-lunch", lunch, "<lunch-1@example.com>", dora, "Gladly, see you at noon.", None),
    )
    for thread, seen, message, to, text, averted in drafts:
        verdict = stage.agent.proposes(
            {
                "entity": {"kind": "mail.thread", "id": thread},
                "basis": seen.basis,
                "type": "mail.reply",
                "data": {"in_reply_to": message, "recipients": [to]},
                "content": {"text": text},
            }
        )
        name = to.split("@", maxsplit=1)[0].title()
        stage.judged(act, "17:17:00", f"proposes a draft to {name}: “{text}”", verdict, averted)


def calendar_race(stage: Stage) -> None:
    """Two writers, one event: the user edits it while the agent thinks about moving it."""
    act, calendar = "calendar", stage.calendar
    stage.timeline.act(
        "2  The meeting that two wanted to move",
        "An agent works out a better time for a meeting. Ann moves it herself in her calendar app (CalDAV).",
    )
    position = calendar.saves("review@demo", "Design review", stage.at("14:00"), stage.at("15:00"))
    stage.tell(act, "09:00:00", "Ann", "saves “Design review”, 14:00 to 15:00, in her calendar app", position)
    position = calendar.saves("retro@demo", "Retro", stage.at("16:00"), stage.at("17:00"))
    stage.tell(act, "09:00:10", "Ann", "saves “Retro”, 16:00 to 17:00", position)
    review = stage.agent.reads("calendar.event", calendar.entity("review@demo"))
    retro = stage.agent.reads("calendar.event", calendar.entity("retro@demo"))
    stage.tell(act, "09:01:00", "agent", "reads both and looks for better times")
    position = calendar.saves("review@demo", "Design review", stage.at("15:00"), stage.at("16:00"), sequence=1)
    stage.tell(act, "09:02:00", "Ann", "drags “Design review” to 15:00", position)

    def move(uid: str, seen: Seen, start: str, end: str) -> dict[str, Any]:
        return stage.agent.proposes(
            {
                "entity": {"kind": "calendar.event", "id": calendar.entity(uid)},
                "basis": seen.basis,
                "type": "calendar.move",
                "data": {"start": milliseconds(stage.at(start)), "end": milliseconds(stage.at(end))},
            }
        )

    verdict = move("review@demo", review, "11:00", "12:00")
    averted = "Ann's 15:00 by 11:00, a time nobody agreed to any more"
    stage.judged(act, "09:03:00", "proposes to move “Design review” to 11:00", verdict, averted)
    stage.judged(act, "09:03:01", "proposes to move “Retro” to 17:00", move("retro@demo", retro, "17:00", "18:00"))


def phantom(stage: Stage) -> None:
    """The agent books an hour because it was free; nobody touched anything it could have read but the hour itself."""
    act, calendar = "phantom", stage.calendar
    stage.timeline.act(
        "3  The hour that was free",
        "An agent books hours because they are free. Nothing that it read has changed: something new is there.",
    )
    known = stage.agent.reads("calendar.event", calendar.entity("review@demo"))
    scope = known.body["state"]["calendar"]
    hours = {clock: stage.agent.reads_hours(scope, stage.at(clock), stage.at(end)) for clock, end in _HOURS}
    entities = {clock: f"book-{clock.replace(':', '')}" for clock, _ in _HOURS}
    absent = {clock: stage.agent.finds_absent("calendar.event", entities[clock]) for clock, _ in _HOURS}
    stage.tell(act, "10:00:00", "agent", "reads 12:00 to 13:00 and 18:00 to 19:00: both free")
    position = calendar.saves("dentist@demo", "Dentist", stage.at("12:30"), stage.at("13:30"))
    stage.tell(act, "10:00:20", "Ann", "puts “Dentist” at 12:30 into her calendar", position)
    for clock, end in _HOURS:
        verdict = stage.agent.proposes(
            {
                "entity": {"kind": "calendar.event", "id": entities[clock]},
                "basis": absent[clock].basis,
                "absent": True,
                "type": "calendar.book",
                "data": {
                    "calendar": scope,
                    "start": milliseconds(stage.at(clock)),
                    "end": milliseconds(stage.at(end)),
                },
                "content": {"title": "Interview"},
                "reads": [
                    {
                        "what": "scope",
                        "kind": "calendar",
                        "id": scope,
                        "start": milliseconds(stage.at(clock)),
                        "end": milliseconds(stage.at(end)),
                        "basis": hours[clock].basis,
                    }
                ],
            }
        )
        averted = "an interview on top of Ann's dentist" if clock == "12:00" else None
        stage.judged(act, "10:01:00", f"proposes “Interview”, {clock} to {end}", verdict, averted)


_HOURS: Final = (("12:00", "13:00"), ("18:00", "19:00"))
