"""Clients that do what mail providers, agents and people do, at random from a seed, on few things at once.

Every id is made once and kept through retries. A client brings the furthest token it knows to every read.
"""

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.chaos.door import Door
from tests.chaos.history import Recorder
from tests.chaos.tenants import SHARED, TENANTS, Login

Json = Mapping[str, Any]
HOUR: Final = 3_600_000
CALENDAR: Final = "ann@example.org/work"
_DAY: Final = 1_795_305_600_000
_THREADS: Final = 3
_LIFE: Final = 60
"""How many facts a client tells before it moves on to fresh threads and meetings: nothing grows for ever."""
_RETRIES: Final = 6
_PAUSE_SECONDS: Final = 0.05
_SHUT_SECONDS: Final = 0.2


class Client:
    """One client. ``stop`` ends it between two operations, or a pause before a retry. ``run`` is in all of its ids, so
    that several runs may go over one log."""

    def __init__(
        self,
        login: Login,
        recorder: Recorder,
        where: Callable[[], str],
        seed: int,
        stop: threading.Event,
        *,
        run: str = "r",
    ) -> None:
        self.door: Final = Door(login, recorder, where)
        self._chance: Final = random.Random(f"{seed}/{run}/{login.name}")
        self._stop: Final = stop
        self._name: Final = login.name
        self._run: Final = run
        self._number = 0
        self._told = 0
        self._sent: Final[deque[tuple[str, Json]]] = deque(maxlen=20)
        self._made: Final[deque[tuple[str, str, Json]]] = deque(maxlen=20)
        self._bases: Final[dict[tuple[str, str, str], tuple[str, int, bool]]] = {}
        self._acts: Final = (
            (24, self._fact),
            (8, self._batch),
            (28, self._turn),
            (14, self._read),
            (5, self._scope),
            (8, self._lookup),
            (7, self._answer),
            (2, self._claim),
            (3, self._probe),
            (5, self._again),
        )

    def run(self, turns: int | None = None) -> None:
        """So many operations, or until stopped."""
        while not self._stop.is_set() and turns != 0:
            self.act()
            if self.door.shut:
                self._stop.wait(_SHUT_SECONDS)
            turns = turns - 1 if turns is not None else None

    def act(self) -> None:
        """One thing, perhaps of several requests."""
        weights, acts = zip(*self._acts, strict=True)
        self._chance.choices(acts, weights)[0]()

    def settle(self) -> None:
        """Read everything this client knew about once more, with its tokens."""
        for account in self.door.login.accounts:
            for thread in range(_THREADS):
                self.door.read(account, "mail.thread", self._thread(thread), wait="wait=30")
        for account, proposal, _ in self._made:
            self.door.lookup(account, proposal)

    # -- names ----------------------------------------------------------------------------------------------------

    def _id(self, what: str) -> str:
        self._number += 1
        return f"{what}-{self._run}-{self._name}-{self._number}"

    def _account(self) -> str:
        return SHARED if self._chance.random() < 0.4 else self._chance.choice(self.door.login.accounts)

    def _thread(self, number: int | None = None) -> str:
        which = self._chance.randrange(_THREADS) if number is None else number
        return f"t-{self._run}-{self._told // _LIFE}-{which}"

    def _meeting(self) -> str:
        return f"m-{self._run}-{self._told // _LIFE}-{self._chance.randrange(2)}"

    def _hour(self) -> dict[str, int]:
        start = _DAY + self._chance.randrange(8) * HOUR
        return {"start": start, "end": start + HOUR}

    # -- facts ----------------------------------------------------------------------------------------------------

    def _event(self, about: str = "") -> Json:
        self._told += 1
        if about.startswith("calendar.") or (not about and self._chance.random() < 0.3):
            return self._calendar_event(about or f"calendar.event/{self._meeting()}")
        type_ = self._chance.choices(
            ("mail.received", "mail.sent", "mail.read", "mail.labelled", "mail.archived"), (5, 2, 2, 3, 1)
        )[0]
        id_, data = self._id("e"), dict[str, Any]()
        if type_ in ("mail.received", "mail.sent"):
            data = {"message": f"<{id_}@example.org>", "sender": "bob@example.org", "recipients": ["ann@example.org"]}
            data |= {"labels": ["INBOX"], "content": {"subject": id_, "text": "?"}}
        elif type_ == "mail.labelled":
            data = {"added": [self._chance.choice(("INBOX", "work", "home"))], "removed": []}
        return {"id": id_, "type": type_, "subject": about or f"mail.thread/{self._thread()}", "data": data}

    def _calendar_event(self, subject: str) -> Json:
        id_ = self._id("e")
        if self._chance.random() < 0.6:
            data: Json = {"etag": id_, "responses": [{"who": "bob@example.org", "response": "accepted"}]}
            return {"id": id_, "type": "calendar.responded", "subject": subject, "data": data}
        data = {
            "calendar": CALENDAR,
            "uid": f"{subject}@example.org",
            "resource": f"{subject}.ics",
            "etag": id_,
            "status": "confirmed",
            "busy": True,
            "all_day": False,
            "occurrences": [self._hour()],
        }
        return {"id": id_, "type": "calendar.updated", "subject": subject, "data": data}

    def _fact(self) -> None:
        self._tell([(self._account(), self._event())])

    def _batch(self) -> None:
        self._tell([(self._account(), self._event()) for _ in range(self._chance.randint(2, 6))])

    def _tell(self, events: list[tuple[str, Json]]) -> None:
        self._sent.extend(events)
        self._retried(lambda: self.door.tell(events))

    def _again(self) -> None:
        """A provider sends something old again; now and then with something else under the same id."""
        if not self._sent:
            return
        account, event = self._chance.choice(self._sent)
        if self._chance.random() < 0.4:
            event = {**event, "concerns": "topic:another"}
        self.door.tell([(account, event)])

    # -- agents ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Read, think, propose: on what was just read, or on something older."""
        account = self._account()
        calendar = self._chance.random() < 0.3
        kind, entity = ("calendar.event", self._meeting()) if calendar else ("mail.thread", self._thread())
        key = (account, kind, entity)
        if key not in self._bases or self._chance.random() < 0.5:
            found = self.door.read(account, kind, entity)
            if found is None:
                return
            absent = found["shown"] is None
            if absent and (not calendar or self._chance.random() < 0.5):
                return
            self._bases[key] = (found["basis"] or found["position"], found["log_time"], absent)
        basis, log_time, absent = self._bases[key]
        body = {"entity": {"kind": kind, "id": entity}, "basis": basis, **self._output(kind, account)}
        if absent:
            body |= {"absent": True, "type": "calendar.book", "data": {"calendar": CALENDAR, **self._hour()}}
        if self._chance.random() < 0.1:
            body["expires_at"] = log_time + self._chance.choice((50, 60_000))
        if self._chance.random() < 0.3:
            self._bases.pop(key)
        if self._chance.random() < 0.4:  # the user acts while the agent thinks
            self._tell([(account, self._event(f"{kind}/{entity}"))])
        self._propose(account, self._id("p"), body)

    def _output(self, kind: str, account: str) -> Json:
        if kind == "calendar.event":
            if self._chance.random() < 0.85:
                return {"type": "calendar.move", "data": self._hour()}
            return {"type": "calendar.cancel", "data": {}}
        type_ = self._chance.choices(("mail.reply", "mail.label", "mail.archive"), (4, 3, 1))[0]
        if type_ == "mail.reply":
            return {"type": type_, "data": {"in_reply_to": None}, "content": {"text": "a draft"}}
        if type_ == "mail.archive":
            return {"type": type_, "data": {}}
        scope = {"what": "scope", "kind": "mail.label", "id": "work", "basis": self.door.known[account]}
        more = {"reads": [scope]} if self._chance.random() < 0.3 else {}
        return {"type": type_, "data": {"added": ["seen"], "removed": []}, **more}

    def _propose(self, account: str, proposal: str, body: Json) -> None:
        self._made.append((account, proposal, body))
        told = self._retried(lambda: self.door.propose(account, proposal, body))
        if told and told["verdict"] == "accepted" and self._chance.random() < 0.7:
            self._answered(account, proposal, "withdraw", {})  # or intents would pile up: nobody delivers here

    def _answer(self) -> None:
        """A person looks at something that was proposed."""
        if not self._made:
            return
        account, proposal, body = self._chance.choice(self._made)
        verb = self._chance.choice(("approve", "approve", "dismiss", "withdraw"))
        if verb == "approve":
            entity = body["entity"]
            found = self.door.read(account, entity["kind"], entity["id"])
            if found is not None:
                self._answered(account, proposal, verb, {"read": found["position"]})
        else:
            self._answered(account, proposal, verb, {})

    def _answered(self, account: str, proposal: str, verb: str, body: Json) -> None:
        key = self._id("a")
        self._retried(lambda: self.door.answer(account, proposal, key, verb, body))

    def _claim(self) -> None:
        found = self.door.read(account := self._account(), "mail.thread", thread := self._thread())
        if found is not None:
            until = found["log_time"] + self._chance.choice((200, 2_000))
            self.door.claim(account, self._id("c"), {"kind": "mail.thread", "id": thread}, until)

    # -- looking --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._chance.random() < 0.3:
            self.door.read(self._account(), "calendar.event", self._meeting())
        else:
            self.door.read(self._account(), "mail.thread", self._thread())

    def _scope(self) -> None:
        if self._chance.random() < 0.3:
            self.door.scope(self._account(), "calendar", CALENDAR, clear=True)
        else:
            self.door.scope(self._account(), "mail.label", self._chance.choice(("INBOX", "work", "seen")))

    def _lookup(self) -> None:
        if self._made:
            account, proposal, _ = self._chance.choice(self._made)
            self.door.lookup(account, proposal)
            if self._chance.random() < 0.2:
                body = self._chance.choice(self._made)
                self.door.propose(*body)  # again, long after: the same id, the same body

    def _probe(self) -> None:
        """What surely is another tenant's: other tenants' clients have other names."""
        other = self._chance.choice([tenant for tenant in TENANTS if tenant != self.door.login.tenant])
        account = self._chance.choice((SHARED, f"{other[0]}0"))
        neighbour = f"agent-{(int(self._name.rpartition('-')[2]) + 1)}"
        self.door.probe(account, f"proposals/p-{self._run}-{neighbour}-{self._chance.randint(1, 200)}")

    def _retried(self, attempt: Callable[[], Any]) -> Any:
        """Try until it is known, as a careful client does; now and then one gives up before."""
        for _ in range(_RETRIES):
            found = attempt()
            if found or self._chance.random() < 0.1:
                return found
            if self._stop.wait(_PAUSE_SECONDS):
                return None
        return None
