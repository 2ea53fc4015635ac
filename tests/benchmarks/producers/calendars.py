"""A calendar of many events at the double, served by a process of its own: ``EVENTS``. It says where it listens, and
answers every line on stdin with what it has done so far; after the line ``lose`` the sync tokens are forgotten, and one
event of a hundred is another."""

import json
import sys
import time
from typing import Any, Final

from tests.doubles.google_calendar import READ, GoogleCalendarDouble
from tests.doubles.google_calendar_desk import ADDRESS
from tests.doubles.http import Grant, Reply, Request, served

CHANGED: Final = 100
"""Of so many events one is edited while nobody looks."""
LOSE: Final = "lose"


class _Timed:
    """A double, and how long it takes itself."""

    def __init__(self, double: GoogleCalendarDouble) -> None:
        self._double: Final = double
        self.seconds, self.asked = 0.0, 0

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`."""
        begun = time.perf_counter()
        try:
            return self._double.answer(request)
        finally:
            self.seconds += time.perf_counter() - begun
            self.asked += 1


def calendar(events: int) -> GoogleCalendarDouble:
    """Half-hour meetings with one guest each."""
    double = GoogleCalendarDouble(Grant([READ]))
    for number in range(events):
        hour, day = 8 + number % 10, 1 + number % 28
        double.insert(
            start={"dateTime": f"2026-11-{day:02d}T{hour:02d}:00:00Z"},
            end={"dateTime": f"2026-11-{day:02d}T{hour:02d}:30:00Z"},
            attendees=[{"email": "bob@example.com", "responseStatus": "accepted"}],
        )
    return double


def lose(double: GoogleCalendarDouble) -> None:
    """Nobody can say what changed, and some did."""
    for number, stored in enumerate(list(double.events[ADDRESS].values())):
        if number % CHANGED == 0:
            double.edit(stored, summary="Moved to another room")
    double.forget(ADDRESS)


def main(events: int) -> None:
    """Serve until stdin ends."""
    double = calendar(events)
    timed = _Timed(double)

    def say(**more: Any) -> None:
        print(json.dumps({"seconds": timed.seconds, "asked": timed.asked, **more}), flush=True)

    with served(timed) as url:
        say(url=url, token=double.grant.token)
        for line in sys.stdin:
            if line.strip() == LOSE:
                lose(double)
            say()


if __name__ == "__main__":
    main(int(sys.argv[1]))
