"""Cloud Pub/Sub as it pushes what Gmail publishes.

[push]  https://cloud.google.com/pubsub/docs/push: 102, 200, 201, 202 and 204 acknowledge; after anything else, and
        after no answer, the message comes again; in any order
[once]  https://cloud.google.com/pubsub/docs/exactly-once-delivery: a push may come again though it was acknowledged
[gmail] https://developers.google.com/gmail/api/guides/push: a watch says once where the mailbox is, then every change,
        one notification a second and user at the most: others are dropped; a week later it has ended
[seen]  a recorded push has the history id as a number, the documentation as a string
"""

import base64
import json
from collections.abc import Callable
from typing import Any, Final

from tests.doubles.gmail import WEEK_MS, GmailDouble

_TAKEN: Final = frozenset({102, 200, 201, 202, 204})


class PubSub:
    """The subscription to one mailbox's topic."""

    def __init__(self, gmail: GmailDouble) -> None:
        self.waiting: Final[list[dict[str, Any]]] = []
        self.delivered: Final[list[dict[str, Any]]] = []
        self._gmail: Final = gmail
        self._told = self._last = -1
        self._until = 0
        self._number = 7_514_282_652_270_000

    def watched(self) -> None:
        """Somebody has just asked Gmail to publish."""
        self._until = self._gmail.now + WEEK_MS
        self._publish()

    def changed(self) -> None:
        """Something may have happened in the mailbox."""
        gmail = self._gmail
        newest = max((record.id for record in gmail.records), default=-1)
        told, self._told = self._told, newest
        if newest <= told or gmail.now >= self._until:
            return
        if self._last <= gmail.now - 1_000:  # [gmail]
            self._last = gmail.now
            self._publish()

    def deliver(self, endpoint: Callable[[dict[str, Any]], int], which: int = 0) -> None:
        """One message goes out: of those that wait, or where none does one that was taken already."""
        messages = self.waiting or self.delivered
        if not messages:
            return
        message = messages[which % len(messages)]
        if endpoint(message) in _TAKEN and message in self.waiting:
            self.waiting.remove(message)
            self.delivered.append(message)

    def _publish(self) -> None:
        self._number += 1
        history = max((record.id for record in self._gmail.records), default=1_000)
        said = {
            "emailAddress": self._gmail.address,
            "historyId": history if self._number % 2 else str(history),
        }  # [seen]
        data = base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
        message = {"data": data, "messageId": str(self._number)}
        self.waiting.append({"message": message, "subscription": "projects/p-1/subscriptions/s"})
