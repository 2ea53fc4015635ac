"""Rules about the tables at the end: caught up, every record accounted for, and equal to the log folded once more."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headrace.processors.replay import replay
from headrace.projections.sqlite import SqliteTables
from headrace.schemas.refs import Token
from tests.chaos.evidence import Evidence, Recorded, Row, Violation, contents

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "partitions": ("partition",),
    "events": ("partition", "offset"),
    "touches": ("tenant", "account", "container", "container_id", "offset", "ordinal"),
    "proposals": ("tenant", "account", "id"),
    "verdicts": ("partition", "offset"),
    "sources": ("tenant", "account", "source"),
    "claims": ("tenant", "account", "kind", "entity"),
    "quarantine": ("partition", "offset"),
}
_OF_KINDS: Final = ("tenant", "account", "id")


def check_caught_up(evidence: Evidence) -> Iterator[Violation]:
    """Lag is zero, and every offset has exactly one row that says what became of it."""
    at = {row["partition"]: row for row in evidence.tables["partitions"]}
    rows = Counter((row["partition"], row["offset"]) for row in evidence.tables["events"])
    for partition, run in enumerate(evidence.log):
        folded = at[partition]["next_offset"] if partition in at else 0
        if folded != len(run):
            yield Violation("lag", f"partition {partition} ends at {len(run)}, the tables are at {folded}")
        for offset in range(len(run)):
            if rows[partition, offset] != 1:
                message = f"offset {offset} of partition {partition} has {rows[partition, offset]} rows of events"
                yield Violation("disposition", message)
    for partition, offset in rows:
        if partition >= len(evidence.log) or offset >= len(evidence.log[partition]):
            yield Violation("disposition", f"there is a row for {partition}/{offset}, and no such record")


def check_chain(evidence: Evidence) -> Iterator[Violation]:
    """The chain over the records is the one in the tables and in every token that anybody was given."""
    for position, row in evidence.events.items():
        run = evidence.chains[position.partition] if position.partition < len(evidence.chains) else ()
        if position.offset < len(run) and row["chain"] != run[position.offset]:
            yield Violation("chain", f"the chain at {position} is not the one in the tables")
    for row in evidence.tables["partitions"]:
        run = evidence.chains[row["partition"]]
        if 0 < row["next_offset"] <= len(run) and row["chain"] != run[row["next_offset"] - 1]:
            yield Violation("chain", f"partition {row['partition']} says another chain than its records")
    seen: set[str] = set()
    for one in evidence.history:
        for text in tokens_told(one.told):
            if text not in seen:
                seen.add(text)
                if not is_true(evidence, Token.parse(text)):
                    yield Violation("token", f"{one.client} was given {Token.parse(text)}, which is not of this log")


def tokens_told(told: Mapping[str, Any]) -> Iterator[str]:
    """The tokens in an answer."""
    for name in ("position", "basis", "token"):
        if told.get(name) is not None:
            yield told[name]


def is_true(evidence: Evidence, token: Token) -> bool:
    """Whether a token is of this log's history."""
    if token.log_id != evidence.log_id or token.partition >= len(evidence.chains):
        return False
    run = evidence.chains[token.partition]
    return token.offset < len(run) and run[token.offset][:8] == token.check


def check_fold(evidence: Evidence) -> Iterator[Violation]:
    """Every row of every table is what the engine makes of the log once more, in tables of its own; verdicts to the
    byte."""
    with SqliteTables.in_memory(evidence.registry, evidence.kinds) as tables:
        replay(Recorded(evidence), evidence.registry, evidence.kinds, tables)
        again = contents(tables, evidence.kinds)
    for table, rows in again.items():
        key = _KEYS.get(table, _OF_KINDS)
        yield from _compared(table, key, evidence.tables[table], rows)


def _compared(table: str, key: Sequence[str], live: Sequence[Row], again: Sequence[Row]) -> Iterator[Violation]:
    rule = "replay" if table == "verdicts" else "fold"
    found = {tuple(row[name] for name in key): row for row in live}
    wanted = {tuple(row[name] for name in key): row for row in again}
    if len(found) != len(live):
        yield Violation(rule, f"{table} has {len(live)} rows for {len(found)} keys")
    for name in found.keys() - wanted.keys():
        yield Violation(rule, f"{table} has {name}, which the log does not lead to")
    for name in wanted.keys() - found.keys():
        yield Violation(rule, f"{table} lacks {name}, which follows from the log")
    for name in found.keys() & wanted.keys():
        differing = [column for column in wanted[name] if found[name][column] != wanted[name][column]]
        if differing:
            yield Violation(rule, f"{table} {name}: {', '.join(differing)} differ from what the log leads to")
