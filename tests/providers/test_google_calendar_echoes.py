"""Google Calendar: agents' own events come back."""

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.producers.google_calendar_names import marked, own_event_id
from headrace.producers.marks import calendar_mark
from headrace.producers.provider_http import StatusError
from tests.contract.echo_conformance import HOUR, TITLE, CalendarAtProvider, CalendarEchoes, Written
from tests.doubles.google_calendar import WRITE
from tests.doubles.google_calendar_desk import ADDRESS, Stored, at, interval
from tests.providers.google_calendar_parts import Office, office

EVENTS = f"calendars/{ADDRESS}/events"


class GoogleCalendarAtProvider:
    """Ann's calendar."""

    def __init__(self, mine: Office) -> None:
        self.mine, self.desk, self.source, self.calendar = mine, mine.desk, mine.source, ADDRESS

    def hour(self, hour: int) -> int:
        start, end = interval(at(hour), "Europe/Berlin")
        assert end == start + HOUR
        return start

    def entity(self, name: str) -> str:
        return self.mine.names.entity(name)

    def shown(self) -> dict[str, Any]:
        return {"organizer": self.desk.pseudonym(ADDRESS)}

    def stored(self, name: str) -> Stored:
        return self.mine.double.events[ADDRESS][name]

    def written(self, name: str) -> Written:
        return Written(name, self.stored(name).etag)

    def write(self, hour: int) -> Written:
        return self.written(self.mine.double.insert(**at(hour), summary=TITLE).id)

    def retitle(self, name: str, title: str) -> Written:
        self.mine.double.edit(self.stored(name), summary=title)
        return self.written(name)

    def move(self, name: str, hour: int) -> Written:
        self.mine.double.edit(self.stored(name), **at(hour))
        return self.written(name)

    def copy(self, name: str) -> Written:
        return self.written(self.mine.double.insert(**self.stored(name).fields).id)

    def mark(self, name: str, entity: str, proposal: str) -> dict[str, Any]:
        content = {"title": TITLE}
        return marked(
            calendar_mark(self.desk.pseudonym, proposal=proposal, entity=entity, anchor=name, content=content)
        )

    def agent_books(self, entity: str, proposal: str, hour: int) -> Written:
        name = own_event_id(entity)
        body = {"id": name, "summary": TITLE, **at(hour), **self.mark(name, entity, proposal)}
        if name not in self.mine.double.events[ADDRESS]:
            self.mine.http.ask("POST", EVENTS, body=body)
            return self.written(name)
        with pytest.raises(StatusError, match="409"):
            self.mine.http.ask("POST", EVENTS, body=body)
        return self.written(name)

    def agent_moves(self, name: str, entity: str, proposal: str | None, hour: int) -> Written:
        mark = self.mark(name, entity, proposal) if proposal is not None else {}
        said = self.mine.http.ask("PATCH", f"{EVENTS}/{name}", body={**at(hour), **mark})
        return Written(name, said["etag"])

    def agent_deletes(self, name: str) -> None:
        self.mine.http.ask("DELETE", f"{EVENTS}/{name}")


class TestGoogleCalendarEchoes(CalendarEchoes):
    @pytest.fixture
    def calendar(self) -> Iterator[CalendarAtProvider]:
        with office(scope=WRITE) as mine:
            yield GoogleCalendarAtProvider(mine)
