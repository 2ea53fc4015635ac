"""A person's calendar on the real server, and the source that reads it."""

from itertools import count
from pathlib import Path
from urllib.parse import unquote

from headrace.demo.caldav_server import CaldavServer
from headrace.producers.caldav import CaldavSource
from headrace.producers.event import Changes
from tests.integration.calendar_model import Model, pseudonym

_numbers = count()


def ics(*lines: str, uid: str = "one@example.com", start: str = "20260105T090000Z", name: str = "VEVENT") -> str:
    head = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//test//", f"BEGIN:{name}", f"UID:{uid}"]
    body = ["DTSTAMP:20260101T000000Z", f"DTSTART:{start}", "DURATION:PT1H", *lines]
    return "\r\n".join([*head, *body, f"END:{name}", "END:VCALENDAR", ""])


class Desk:
    """One calendar, the source that reads it, and the state that its events lead to."""

    def __init__(self, server: CaldavServer, model: Model | None = None) -> None:
        self.server = server
        self.calendar = server.make_calendar(f"desk {next(_numbers)}")
        self.source = CaldavSource(server.url, server.username, server.password, self.calendar, pseudonym=pseudonym)
        self.model = Model() if model is None else model
        self.cursor: str | None = None

    @property
    def path(self) -> str:
        """The calendar's path on the server, escaped."""
        return "/" + self.calendar.removeprefix(self.server.url)

    @property
    def folder(self) -> Path:
        """Where Radicale keeps the calendar's files."""
        return self.server.storage / unquote(self.path.rstrip("/").rsplit("/", 1)[-1])

    def put(self, text: str, name: str = "one.ics") -> str:
        return self.server.put_event(self.calendar, text, name)

    def sync(self) -> Changes:
        changes = self.source.changes(self.cursor, self.model)
        for event in changes.events:
            self.model.apply(event)
        self.cursor = changes.cursor
        return changes

    def told(self) -> list[str]:
        return [event.type for event in self.sync().events]

    def state(self, uid: str = "one@example.com") -> dict[str, object]:
        return self.model.states[pseudonym(uid)]
