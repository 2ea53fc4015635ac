"""A mailbox at the double, the source that follows it, and the desk where its events land."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from headrace.producers.gmail import Gmail
from headrace.producers.gmail_source import GmailSource
from headrace.producers.gmail_thread import Mailbox
from headrace.producers.mail_story import is_mail, picture
from headrace.producers.oidc import GoogleKeys
from headrace.producers.provider import Connected
from headrace.producers.provider_http import ProviderHttp
from tests.doubles.desk import ACCOUNT, SOURCE, TENANT, Desk, desk
from tests.doubles.gmail import ADDRESS, METADATA, READONLY, GmailDouble
from tests.doubles.http import Faulty, Grant, Reply, transport

TOPIC: Final = "projects/p-1/topics/gmail"
AUDIENCE: Final = "https://headrace.example/v1/notifications/gmail"
PUSHER: Final = "push@p-1.iam.gserviceaccount.com"
BASE: Final = "https://gmail.test/gmail/v1/"


def connected(content: str = "headers", address: str = ADDRESS) -> Connected:
    return Connected(TENANT, ACCOUNT, SOURCE, "gmail", {"address": address, "content": content})


def provider(keys: GoogleKeys | None = None) -> Gmail:
    unused = httpx.MockTransport(lambda _: httpx.Response(500))
    return Gmail(topic=TOPIC, audience=AUDIENCE, service_account=PUSHER, keys=keys or GoogleKeys(transport=unused))


class Box:
    """All of it together."""

    def __init__(self, at: Desk, http: ProviderHttp, double: GmailDouble, faulty: Faulty, content: str) -> None:
        self.desk, self.http, self.double, self.faulty = at, http, double, faulty
        self.source: GmailSource = provider().source(connected(content), http, at.pseudonym)
        self.names: Final = Mailbox(ADDRESS, at.pseudonym)

    def sync(self, *, full: bool = False) -> list[str]:
        """The types of what a sync put on the log, all of it effective."""
        found = self.desk.found(self.source, full=full)
        assert {fact.disposition for fact in found} <= {"applied"}
        return [fact.type for fact in found]

    def state(self, thread: str) -> dict[str, Any]:
        return self.desk.states("mail.thread")[self.names.entity(thread)]

    def asked(self, end: str) -> int:
        """How many requests so far went to a path with this in it."""
        return sum(end in request.path for request in self.faulty.asked)

    def agree(self) -> None:
        """The tables hold what the mailbox shows."""
        states = self.desk.states("mail.thread")
        shown: set[str] = set()
        for thread in self.double.threads:
            labels = [frozenset(mail.labels) for mail in self.double.of(thread)]
            wanted = picture(labels)
            if wanted.deleted:
                continue
            entity = self.names.entity(thread)
            shown.add(entity)
            state = states[entity]
            held = (sorted(state["labels"]), state["unread"], state["trashed"], state["deleted"])
            assert held == (sorted(wanted.labels), wanted.unread, wanted.trashed, False), thread
            assert wanted.archived is None or state["archived"] == wanted.archived
        assert {entity for entity, state in states.items() if not state["deleted"]} == shown
        told = [fact.body["message"] for fact in self.desk.applied() if fact.type in {"mail.received", "mail.sent"}]
        assert len(told) == len(set(told)), "a message was told twice"
        there = [mail for mail in self.double.mails.values() if is_mail(frozenset(mail.labels))]
        assert {self.desk.pseudonym(mail.headers["Message-Id"]) for mail in there} <= set(told)
        assert self.desk.idle("mail.thread") == []


@contextmanager
def box(content: str = "headers", *, page: int = 500) -> Generator[Box]:
    """With the least scope that the content needs."""
    double = GmailDouble(Grant([METADATA if content == "headers" else READONLY]), page=page)
    faulty = Faulty(double)
    with (
        desk("mail.thread") as at,
        ProviderHttp(BASE, double.grant.tokens(), transport=transport(faulty)) as http,
    ):
        yield Box(at, http, double, faulty, content)


def google_error(status: int, reason: str) -> Reply:
    errors = [{"domain": "usageLimits", "reason": reason}]
    return Reply.json(status, {"error": {"code": status, "errors": errors}})
