"""Google Calendar's notification channels; the sources are those of :mod:`tests.doubles.google_calendar`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final

from tests.doubles.google_calendar_desk import Calendars
from tests.doubles.http import Reply

WEEK_MS: Final = 7 * 24 * 3_600_000
_ID: Final = re.compile(r"[A-Za-z0-9\-_+/=]{1,64}\Z")
_RETRIED: Final = frozenset({500, 502, 503, 504})
_TAKEN: Final = frozenset({102, 200, 201, 202, 204})


@dataclass
class Channel:
    """A channel, and the messages that wait to be taken."""

    id: str
    calendar: str
    token: str | None
    expires_at: int
    number: int = 0
    waiting: list[dict[str, str]] = field(default_factory=list)


class Push:
    """All channels of one project."""

    def __init__(self, calendars: Calendars) -> None:
        self.channels: Final[dict[str, Channel]] = {}
        self.lost: Final[list[dict[str, str]]] = []
        self._ever: Final[set[str]] = set()
        self._calendars: Final = calendars
        calendars.listeners.append(self.announce)

    def watch(self, calendar: str, body: dict[str, Any]) -> Reply:
        """[watch] The first message, ``sync``, may arrive before this is answered."""
        channel, token, address = body.get("id", ""), body.get("token"), body.get("address", "")
        if not _ID.match(channel) or body.get("type") not in {"web_hook", "webhook"}:
            return _refused(400, "required" if not channel else "invalid")
        if token is not None and len(token) > 256:
            return _refused(400, "invalid")
        if not address.startswith("https://"):
            return _refused(400, "push.webhookUrlNotHttps")
        if channel in self._ever:
            return _refused(400, "channelIdNotUnique")  # [seen]
        self._ever.add(channel)
        ends = min(int(body.get("expiration", 2**62)), self._calendars.now + WEEK_MS)
        made = self.channels[channel] = Channel(channel, calendar, token, ends)
        self._say(made, "sync")
        said = {"kind": "api#channel", "id": channel, "resourceId": resource(calendar), "expiration": str(ends)}
        said["resourceUri"] = f"https://www.googleapis.com/calendar/v3/calendars/{calendar}/events?alt=json"
        return Reply.json(200, said | ({"token": token} if token is not None else {}))

    def stop(self, body: dict[str, Any]) -> Reply:
        """[push] By the channel's id and the resource's."""
        channel = self.channels.get(body.get("id", ""))
        if channel is None or body.get("resourceId") != resource(channel.calendar):
            return _refused(404, "notFound")
        del self.channels[channel.id]
        return Reply(204)

    def deliver(self, endpoint: Callable[[dict[str, str]], int]) -> int:
        """Messages go out, each until it is taken: [push] after 500, 502, 503 and 504 it comes again, after any other
        code it is lost. How many were taken."""
        taken = 0
        for channel in list(self.channels.values()):
            for message in list(channel.waiting):
                status = endpoint(message)
                taken += status in _TAKEN
                if status not in _RETRIED:
                    channel.waiting.remove(message)
                    if status not in _TAKEN:
                        self.lost.append(message)
        return taken

    def announce(self, calendar: str) -> None:
        """Something changed there, or, as it happens, nothing did."""
        for channel in self.channels.values():
            if channel.calendar == calendar and self._calendars.now < channel.expires_at:
                self._say(channel, "exists")

    def _say(self, channel: Channel, state: str) -> None:
        """[push] 1 for the first; later ones are larger, and not sequential."""
        channel.number += 1 if state == "sync" else 1 + channel.number * 7 % 5
        message = {
            "X-Goog-Channel-ID": channel.id,
            "X-Goog-Channel-Expiration": formatdate(channel.expires_at / 1_000, usegmt=True),
            "X-Goog-Resource-ID": resource(channel.calendar),
            "X-Goog-Resource-URI": f"https://www.googleapis.com/calendar/v3/calendars/{channel.calendar}/events?alt=json",
            "X-Goog-Resource-State": state,
            "X-Goog-Message-Number": str(channel.number),
        }
        if channel.token is not None:
            message["X-Goog-Channel-Token"] = channel.token
        channel.waiting.append(message)


def resource(calendar: str) -> str:
    """[push] Opaque, and the same on all channels of a calendar."""
    return f"res{sum(calendar.encode()):x}"


def _refused(status: int, reason: str) -> Reply:
    errors = [{"domain": "global", "reason": reason, "message": reason}]
    return Reply.json(status, {"error": {"code": status, "message": reason, "errors": errors}})
