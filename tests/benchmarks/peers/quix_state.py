"""Quix Streams: the state in RocksDB with its changelog topic, committed every so many seconds.

Arguments: brokers, topic, directory for the state, events to fold, events to warm up with, seconds between commits.
"""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# mypy: disable-error-code="import-not-found"

import secrets
import sys
from typing import Any

from quixstreams import Application

from tests.benchmarks.peers.facts import Clock, Facts, folded


def main() -> None:
    """Fold so many events, say how long that took (the last commit included), and end."""
    brokers, topic_name, directory, count, warm = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    app = Application(
        broker_address=brokers,
        consumer_group=f"bench-{secrets.token_hex(4)}",
        auto_offset_reset="earliest",
        commit_interval=float(sys.argv[6]),
        state_dir=directory,
        loglevel="ERROR",
    )
    topic = app.topic(topic_name, key_deserializer="bytes", value_deserializer="bytes")
    clock, facts = Clock(warm), Facts()

    def fold(value: bytes, key: Any, timestamp: int, headers: Any, state: Any) -> None:
        fact = facts.read(key, headers, value)
        if fact is None:
            return
        state.set(fact.subject, folded(state.get(fact.subject), fact))
        clock.tick()

    def is_fact(value: bytes, key: Any, timestamp: int, headers: Any) -> bool:
        return key is not None

    app.dataframe(topic).filter(is_fact, metadata=True).update(fold, stateful=True, metadata=True)
    app.run(count=count, collect=False)
    clock.tell()


main()
