"""Outlook's calendar: agents' own events come back."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from headrace.producers.marks import GRAPH_PROPERTY, calendar_mark, own_transaction
from tests.contract.echo_conformance import HOUR, TITLE, CalendarAtProvider, CalendarEchoes, Written
from tests.doubles.graph_calendar import CALENDAR, DAY
from tests.doubles.graph_people import ADDRESS, START
from tests.providers.graph_parts import Diary, diary

WHERE = "Café"


class OutlookAtProvider:
    """Ann's calendar."""

    def __init__(self, mine: Diary) -> None:
        self.mine, self.desk, self.source, self.calendar = mine, mine.desk, mine.source, CALENDAR

    def hour(self, hour: int) -> int:
        return START // DAY * DAY + DAY + hour * HOUR

    def entity(self, name: str) -> str:
        return self.desk.pseudonym(self.mine.double.events[name].uid)

    def shown(self) -> dict[str, Any]:
        return {"organizer": self.desk.pseudonym(ADDRESS)}

    def written(self, name: str) -> Written:
        return Written(name, f'W/"CK{self.mine.double.events[name].version}"')

    def write(self, hour: int) -> Written:
        return self.written(self.mine.double.book(self.hour(hour), title=TITLE).id)

    def retitle(self, name: str, title: str) -> Written:
        event = self.mine.double.events[name]
        event.title = title
        self.mine.double.touch(event)
        return self.written(name)

    def move(self, name: str, hour: int) -> Written:
        self.mine.double.move(self.mine.double.events[name], self.hour(hour))
        return self.written(name)

    def copy(self, name: str) -> Written:
        """Transaction and all, which is more than Outlook is known to copy."""
        original = self.mine.double.events[name]
        copy = self.mine.double.book(original.start)
        made = replace(original, id=copy.id, uid=copy.uid, moved={}, attendees={}, extended=dict(original.extended))
        self.mine.double.events[copy.id] = made
        return self.written(copy.id)

    def body(self, hour: int, entity: str, proposal: str | None, anchor: str) -> dict[str, Any]:
        content = {"title": TITLE, "location": WHERE}
        body: dict[str, Any] = {"subject": TITLE, **self.times(hour)}
        if proposal is not None:
            mark = calendar_mark(self.desk.pseudonym, proposal=proposal, entity=entity, anchor=anchor, content=content)
            body["singleValueExtendedProperties"] = [{"id": GRAPH_PROPERTY, "value": mark}]
        return body

    def times(self, hour: int) -> dict[str, Any]:
        return {
            name: {
                "dateTime": datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
                "timeZone": "UTC",
            }
            for name, ms in (("start", self.hour(hour)), ("end", self.hour(hour + 1)))
        }

    def agent_books(self, entity: str, proposal: str, hour: int) -> Written:
        transaction = own_transaction(self.desk.pseudonym, entity)
        body = self.body(hour, entity, proposal, transaction) | {"transactionId": transaction}
        said = self.mine.http.ask("POST", "me/events", body=body)
        return Written(said["id"], said["@odata.etag"])

    def agent_moves(self, name: str, entity: str, proposal: str | None, hour: int) -> Written:
        body = self.body(hour, entity, proposal, self.mine.double.events[name].uid)
        del body["subject"]
        said = self.mine.http.ask("PATCH", f"me/events/{name}", body=body)
        return Written(name, said["@odata.etag"])

    def agent_deletes(self, name: str) -> None:
        self.mine.http.ask("DELETE", f"me/events/{name}")


class TestOutlookEchoes(CalendarEchoes):
    @pytest.fixture
    def calendar(self) -> Iterator[CalendarAtProvider]:
        with diary("Calendars.ReadWrite") as mine:
            yield OutlookAtProvider(mine)
