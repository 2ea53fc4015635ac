"""Policy: what an event that came between does to a proposal. Data from the log, looked up purely."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, cast

Consequence = Literal["invalidate", "review", "ignore"]
CONSEQUENCES: Final = frozenset({"invalidate", "review", "ignore"})


class PolicyRule(NamedTuple):
    """Patterns are exact names, a prefix ending in ``*``, or ``*``. With ``concerns`` the rule speaks of events whose
    concerns meet the proposal's; the others are ignored. Where either side carries none, they count as meeting."""

    proposal: str
    event: str
    actor: str
    effect: Consequence
    concerns: bool = False


class Policy:
    """Rules in order of precedence; the first that fits counts, and where none fits the event invalidates."""

    def __init__(
        self,
        name: str,
        rules: Iterable[PolicyRule],
        basis_max_age_ms: int | None = None,
        source_max_staleness_ms: int | None = None,
    ) -> None:
        self.name: Final = name
        self.rules: Final = tuple(rules)
        self.basis_max_age_ms: Final = basis_max_age_ms
        self.source_max_staleness_ms: Final = source_max_staleness_ms
        self._found: Final[dict[tuple[str, str, str], PolicyRule]] = {}

    def consequence(
        self, proposal: str, concerns: Iterable[str], event: str, actor: str, event_concerns: Iterable[str]
    ) -> Consequence:
        """What ``event`` by an actor of kind ``actor`` does to a ``proposal`` that had not seen it."""
        key = (proposal, event, actor)
        rule = self._found.get(key)
        if rule is None:
            rule = self._found[key] = self._first(key)
        if rule.concerns:
            mine, theirs = set(concerns), set(event_concerns)
            if mine and theirs and mine.isdisjoint(theirs):
                return "ignore"
        return rule.effect

    def _first(self, key: tuple[str, str, str]) -> PolicyRule:
        proposal, event, actor = key
        for rule in self.rules:
            if _fits(rule.proposal, proposal) and _fits(rule.event, event) and _fits(rule.actor, actor):
                return rule
        return PolicyRule(proposal, event, actor, "invalidate")

    def to_body(self) -> dict[str, Any]:
        """As the Avro record ``headrace.log.Policy``."""
        return {
            "name": self.name,
            "basis_max_age_ms": self.basis_max_age_ms,
            "source_max_staleness_ms": self.source_max_staleness_ms,
            "rules": [rule._asdict() for rule in self.rules],
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Policy":
        """From the Avro record; its form is already checked by the schema.

        :raises ValueError: an effect that is none of ``invalidate``, ``review``, ``ignore``.
        """
        rules: list[PolicyRule] = []
        for rule in body["rules"]:
            if rule["effect"] not in CONSEQUENCES:
                raise ValueError(f"policy {body['name']!r}: no such effect: {rule['effect'][:40]!a}")
            effect = cast("Consequence", rule["effect"])
            rules.append(PolicyRule(rule["proposal"], rule["event"], rule["actor"], effect, rule["concerns"]))
        return cls(body["name"], rules, body["basis_max_age_ms"], body["source_max_staleness_ms"])


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == name


def _rule(proposal: str, event: str, effect: Consequence, *, actor: str = "*", concerns: bool = False) -> PolicyRule:
    return PolicyRule(proposal, event, actor, effect, concerns)


DEFAULT_POLICY: Final = Policy(
    "default",
    (
        _rule("*", "echo", "ignore"),
        _rule("*", "delivery.succeeded", "ignore"),
        _rule("*", "mail.read", "ignore"),
        _rule("*", "mail.unread", "ignore"),
        _rule("mail.label", "mail.labelled", "invalidate"),
        _rule("*", "mail.labelled", "ignore"),
        _rule("mail.reply", "mail.received", "invalidate", concerns=True),
        _rule("mail.reply", "mail.sent", "invalidate", concerns=True),
        _rule("calendar.move", "calendar.responded", "review"),
        _rule("calendar.cancel", "calendar.responded", "review"),
        _rule("calendar.*", "calendar.responded", "ignore"),
    ),
    source_max_staleness_ms=15 * 60 * 1000,
)
"""Written into a log's opening record. People change it with ``policy.activated``, never here for an old log."""
