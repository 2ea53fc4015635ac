"""The kind: pure functions and plain data. Money is whole cents.

Two changes of one balance commute, so neither needs to have seen the other. What must hold is that the balance never
goes below zero; the guard sees to that, at each proposal's own place in the log.
"""

from collections.abc import Mapping
from typing import Any, Final

from headrace.processors.core.kind import Column
from headrace.processors.core.model import Event, State
from headrace.processors.core.policy import PolicyRule
from headrace.schemas.refs import Touch

ADJUST: Final = "account.adjust"

RULES: Final = tuple(
    PolicyRule(ADJUST, event, "*", "ignore")
    for event in (
        "account.adjusted",
        "accepted:account.adjust",
        "delivery.succeeded",
        "delivery.failed",
        "proposal.withdrawn",
        "intent.ended",
    )
)
"""For a log's policy, before its other rules: adjustments ignore one another, however each of them ends."""

_NEW: Final[dict[str, Any]] = {"open": False, "balance": 0, "adjustments": 0}


class BankAccount:
    """The kind; see :class:`headrace.processors.core.kind.Kind` for what its functions promise."""

    name = "bank.account"
    table = "bank_accounts"
    comment = "A bank account: one row each, as the facts on the log leave it."
    containers = ()
    events = ("account.opened", "account.adjusted")
    proposals = (ADJUST,)
    stamps = ()
    version = None
    columns = (
        Column("balance", "integer", "What it holds, in cents."),
        Column("adjustments", "integer", "How often it was adjusted."),
    )

    def evolve(self, state: State | None, event: Event) -> dict[str, Any]:
        """The account after a fact."""
        new = dict(state if state is not None else _NEW)
        match event.type:
            case "account.opened":
                new["open"], new["balance"] = True, event.body["balance"]
            case "account.adjusted":
                new["balance"] += event.body["amount"]
                new["adjustments"] += 1
            case _:
                pass
        return new

    def foresee(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The account once the proposal is carried out."""
        new = dict(state if state is not None else _NEW)
        if proposal == ADJUST:
            new["balance"] += data["amount"]
            new["adjustments"] += 1
        return new

    def guard(self, state: State | None, proposal: str, data: Mapping[str, Any]) -> str | None:
        """The rule that forbids the proposal, if one does."""
        if state is None or not state["open"]:
            return "no_such_account"
        return "below_zero" if proposal == ADJUST and state["balance"] + data["amount"] < 0 else None

    def footprint(self, state: State | None) -> tuple[Touch, ...]:  # noqa: ARG002 - other kinds look at it
        """An account is in no container."""
        return ()


KIND: Final = BankAccount()
