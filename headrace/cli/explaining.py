"""``audit explain`` as a screen: what the agent knew, what overtook it, when, and which rule decided."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.cli import output
from headrace.cli.proposals import event_words, why
from headrace.processors.explain import Explanation, explain
from headrace.store import Store

_CONSEQUENCES: Final[Mapping[str, str]] = {
    "invalidate": "makes the proposal stale",
    "review": "a person must look",
    "ignore": "does not matter to it",
}


def explanation(store: Store, proposal: str, tenant: str, account: str) -> Explanation:
    """Everything that is known about one proposal.

    :raises NotFoundError: the account has no such proposal.
    """
    with store.tables.snapshot() as reader:
        return explain(store.log, reader, store.registry, tenant=tenant, account=account, proposal=proposal)


def print_explanation(told: Explanation, tenant: str, account: str) -> None:
    """The explanation as a screen."""
    proposal, partition = told.proposal, told.partition
    reason = why(told.verdict, told.rule)
    output.fields(
        {
            "proposal": f"{proposal['id']}: {proposal['type'] or 'unreadable'} by {proposal['actor']}",
            "on": f"{proposal['entity'] or '-'} of {tenant}/{account}",
            "submitted": f"{partition}:{proposal['offset']} at {proposal['time']}",
            "verdict": told.verdict,
            "why": reason or None,
            "rule": f"{told.verdict}: {told.meaning}",
            "judged": f"{partition}:{told.judged_at['offset']} at {told.judged_at['time']}"
            + (f", by the policy {told.policy}" if told.policy is not None else ""),
        }
    )
    output.text("\nwhat the agent knew")
    for read in told.reads:
        output.text(f"  {_knew(read)}")
    if not told.reads:
        output.text("  nothing that could be read")
    _print_between(told)
    if len(told.history) > 1:
        output.text("\nevery verdict on this id")
        for one in told.history:
            brought = f"brought about by {one['by']['type']} of {one['by']['actor']}"
            output.text(f"  {partition}:{one['offset']}  {one['time']}  {one['verdict']}  {brought}")
    if told.intent is not None:
        output.text(f"\non its way into the world: {told.intent['outcome']}")
        for step in told.intent["steps"]:
            note = f" ({step['note']})" if step["note"] else ""
            output.text(output.plain(f"  {partition}:{step['offset']}  {step['time']}  {step['type']}{note}"))


def _knew(read: Mapping[str, Any]) -> str:
    what = f"{read['kind']}/{read['id']}"
    if read["what"] == "scope":
        start, end = output.time(read["start"]) or "always", output.time(read["end"]) or "for ever"
        what = f"{what} from {start} to {end}"
    elif read["what"] == "absent":
        what = f"{what}: that it did not exist"
    basis = read["basis"]
    if basis is None:
        return output.plain(f"{what}, but its basis is no token")
    at = f"{basis['partition']}:{basis['offset']}"
    if not basis["known"]:
        return output.plain(f"{what} as of {at}, which is not of this log's history")
    event = basis["event"]
    last = (
        f", when its last change was {event['type']} of {event['actor']}" if event and read["what"] == "entity" else ""
    )
    return output.plain(f"{what} as of {at}, {basis['time']}{last}")


def _print_between(told: Explanation) -> None:
    between = {effect["offset"]: effect for read in told.reads for effect in read["between"]}
    output.text("\nwhat happened to that before it was judged")
    if not between:
        output.text("  nothing")
        return
    overtook = told.overtaken_by["offset"] if told.overtaken_by is not None else None
    output.table(
        ("POSITION", "TIME", "WHAT", "BY", "CONSEQUENCE"),
        (
            (
                f"{told.partition}:{offset}",
                effect["time"],
                event_words(effect),
                effect["actor"],
                _CONSEQUENCES.get(effect["consequence"] or "", "-")
                + ("  <- this overtook it" if offset == overtook else ""),
            )
            for offset, effect in sorted(between.items())
        ),
        indent=2,
    )
