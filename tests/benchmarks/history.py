"""Made-up histories to measure with: plain facts about many threads of one partition."""

from collections.abc import Iterator
from pathlib import Path

from headrace.keys import Keys
from headrace.kinds import installed_schemas
from headrace.log.port import Log, Record
from headrace.log.sqlite import SqliteLog
from headrace.producers.event import NewEvent
from headrace.producers.intake import Intake
from headrace.producers.opening import open_log
from headrace.schemas.refs import ActorRef

TENANT, ACCOUNT = "bench", "account-0"
_TIME = "2026-11-21T17:15:00.000Z"


def intake(partitions: int) -> Intake:
    """An intake with a key of its own."""
    return Intake(installed_schemas(), Keys(bytes(32)), partitions)


def facts(maker: Intake, count: int, entities: int, *, begin: int = 0) -> Iterator[Record]:
    """Mail events round-robin over ``entities`` threads: a message, then read flags, labels and replies."""
    actor = ActorRef("user", "person")
    for number in range(begin, begin + count):
        message = f"<{number}@example.com>"
        thread = f"t-{number % entities}"
        turn = (number // entities) % 4
        if turn == 0:
            body = {
                "message": message,
                "sender": "bob@example.com",
                "recipients": ["ann@example.com"],
                "labels": ["INBOX"],
            }
            event = NewEvent("mail.received", "mail.thread", thread, f"e-{number}", body)
        elif turn == 1:
            event = NewEvent("mail.read", "mail.thread", thread, f"e-{number}", {})
        elif turn == 2:
            event = NewEvent("mail.labelled", "mail.thread", thread, f"e-{number}", {"added": ["work"]})
        else:
            body = {"message": message, "sender": "ann@example.com", "recipients": ["bob@example.com"]}
            event = NewEvent("mail.sent", "mail.thread", thread, f"e-{number}", body)
        yield maker.event(TENANT, ACCOUNT, event, source="bench", actor=actor, observed_at=_TIME)


def new_log(directory: Path, partitions: int = 1) -> SqliteLog:
    """An opened log in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    log = SqliteLog.create(directory, partitions)
    open_log(log, installed_schemas(), ("calendar.event", "mail.thread"))
    return log


def filled_log(directory: Path, count: int, entities: int) -> SqliteLog:
    """A log of one partition with ``count`` facts."""
    log = new_log(directory)
    fill(log, count, entities)
    return log


def fill(log: Log, count: int, entities: int) -> None:
    """Append ``count`` facts, 5,000 at a time."""
    records = list(facts(intake(log.describe().partitions), count, entities))
    for start in range(0, len(records), 5_000):
        log.append(records[start : start + 5_000])
