"""Many people's mailboxes at one double of Gmail whose every answer takes a while, and the pushes about them."""

import base64
import json
import threading
from typing import Any, Final

from tests.doubles.gmail import METADATA, GmailDouble
from tests.doubles.http import Grant, Reply, Request


class _Own(Grant):
    """A grant whose token says whose it is."""

    def __init__(self, account: str) -> None:
        super().__init__([METADATA])
        self._account: Final = account

    @property
    def token(self) -> str:
        """The access token."""
        return f"at-{self._account}"


class Mailboxes:
    """``seconds``: how long every answer takes."""

    def __init__(self, count: int, seconds: float) -> None:
        self.doubles: Final = {f"person-{number}": self._mailbox(f"person-{number}") for number in range(count)}
        self.asked = 0
        self._seconds: Final = seconds
        self._never: Final = threading.Event()
        self._locks: Final = {account: threading.Lock() for account in self.doubles}

    def _mailbox(self, account: str) -> GmailDouble:
        double = GmailDouble(_Own(account), address=address(account))
        double.receive()
        return double

    def answer(self, request: Request) -> Reply:
        """See :class:`tests.doubles.http.Service`; any number at once, one of a mailbox."""
        self.asked += 1
        account = request.headers.get("authorization", "").removeprefix("Bearer at-")
        if account not in self.doubles:
            return Reply.json(401, {})
        self._never.wait(self._seconds)  # what is measured is what a slow provider does to everybody else
        with self._locks[account]:
            return self.doubles[account].answer(request)


def address(account: str) -> str:
    """A person's mail address."""
    return f"{account}@example.com"


def push(account: str, number: int) -> bytes:
    """The body that Pub/Sub pushes."""
    said: dict[str, Any] = {"emailAddress": address(account), "historyId": number}
    message = {"data": base64.b64encode(json.dumps(said).encode()).decode(), "messageId": str(number)}
    body = {"message": message, "subscription": "projects/p-1/subscriptions/gmail"}
    return json.dumps(body).encode()
