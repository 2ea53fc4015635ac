"""What is killed: a process that opens a store and writes to it from several threads, telling what it was told.

Lines on standard output: ``ready``; ``I id`` before something is appended; ``A id partition offset`` once the log has
acknowledged it; ``V id verdict offset`` once a verdict was read. Input, one line of JSON: the ids that earlier runs
never saw acknowledged, which are sent again first.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, Final

from headrace.log.port import Record
from headrace.producers.event import NewEvent
from headrace.schemas.refs import ActorRef, EntityRef, Token
from headrace.store import Store

TENANT: Final = "acme"
THREADS: Final = 4
PARTITIONS: Final = 4
_OBSERVED: Final = "2026-11-21T17:15:00.000Z"
_PATIENCE_SECONDS: Final = 30.0


def say(*words: object) -> None:
    """One line, whole or not at all."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Client:
    """One thread's client: facts and proposals about one mail thread of one account."""

    def __init__(self, store: Store, number: int) -> None:
        self._store = store
        self._ref = EntityRef(TENANT, f"account-{number}", "mail.thread", f"thread-{number}")

    def fact(self, id_: str) -> None:
        """Append a fact and wait until it is acknowledged."""
        body = {"message": f"<{id_}@example.com>", "sender": "bob@example.com", "recipients": [], "labels": ["INBOX"]}
        event = NewEvent("mail.received", self._ref.kind, self._ref.id, id_, body)
        actor = ActorRef("user", "ann")
        self._append(
            id_,
            self._store.intake.event(
                TENANT, self._ref.account, event, source="mailbox", actor=actor, observed_at=_OBSERVED
            ),
        )

    def propose(self, id_: str) -> None:
        """Propose on what the tables say now, and wait for the verdict. Two agents propose on the same basis."""
        basis = self._basis()
        if basis is None:
            return
        for agent in ("one", "two"):
            self._propose(f"{id_}-{agent}", agent, basis)

    def _propose(self, id_: str, agent: str, basis: Token) -> None:
        record = self._store.intake.proposal(
            self._ref,
            id_,
            "mail.reply",
            actor=ActorRef("agent", agent),
            source="agents",
            reads=[{"what": "entity", "kind": self._ref.kind, "id": self._ref.id, "basis": basis}],
            data={"in_reply_to": None},
            content={"text": "a draft"},
            expires_at=None,
            said_concerns=[],
            observed_at=_OBSERVED,
        )
        position = self._append(id_, record)
        if self._store.applied.wait(*position, _PATIENCE_SECONDS):
            row = self._row("SELECT * FROM proposals WHERE tenant = :t AND account = :a AND id = :id", id=id_)
            if row is not None:
                say("V", id_, row["verdict"], row["judged_at"])

    def _append(self, id_: str, record: Record) -> tuple[int, int]:
        say("I", id_)
        position = self._store.log.append([record])[0]
        say("A", id_, *position)
        return position

    def _basis(self) -> Token | None:
        row = self._row("SELECT * FROM threads WHERE tenant = :t AND account = :a AND id = :id", id=self._ref.id)
        if row is None:
            return None
        log_id = self._store.log.describe().log_id
        assert log_id is not None
        return Token(log_id, row["partition"], row["head_offset"], row["head_check"])

    def _row(self, sql: str, **bound: Any) -> dict[str, Any] | None:
        with self._store.tables.snapshot() as reader:
            found = reader.rows(sql, {"t": TENANT, "a": self._ref.account, **bound})
        return found[0] if found else None


def run(client: Client, thread: int, cycle: int, again: list[str]) -> None:
    """Write until killed."""
    for id_ in again:
        client.fact(id_)
    number = 0
    while True:
        number += 1
        client.fact(f"f-{cycle}-{thread}-{number}")
        if number % 2 == 0:
            client.propose(f"p-{cycle}-{thread}-{number}")


def main(directory: str, cycle: str) -> None:
    """Open the store, say so, and write until killed."""
    again: list[str] = json.loads(sys.stdin.readline())
    store = Store(Path(directory), writer=True, partitions=PARTITIONS)
    say("ready")
    for thread in range(THREADS):
        mine = [id_ for id_ in again if id_.split("-")[2] == str(thread)]
        threading.Thread(target=run, args=(Client(store, thread), thread, int(cycle), mine)).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
