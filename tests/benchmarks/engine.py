"""Events a second through the engine into SQLite, and through ``audit verify``, against bare decode.

And how the cost of one event grows with the number of entities.
"""

import itertools
from pathlib import Path

from headrace.kinds import installed_kinds, installed_schemas
from headrace.log.port import Log, Stored
from headrace.processors.audit import verify
from headrace.processors.decode import Decoder
from headrace.processors.engine import Engine, fold_all
from headrace.projections.sqlite import SqliteTables
from tests.benchmarks.figures import Figure, rate, seconds, show
from tests.benchmarks.history import filled_log

EVENTS, ENTITIES = 40_000, 5_000
SIZES = (1_000, 10_000, 100_000)


def _decode(log: Log) -> None:
    decoder = Decoder(installed_schemas(), 0, 1, bytes(32))
    offset = 0
    while records := log.read(0, offset, 1_000):
        for stored in records:
            decoder.decode(stored)
        offset += len(records)


def _fold(log: Log, path: Path) -> None:
    registry, kinds = installed_schemas(), installed_kinds()
    with SqliteTables(path, registry, kinds) as tables:
        fold_all(Engine(registry, kinds, tables), log, 0)


def _throughput(directory: Path) -> None:
    paths = (directory / f"tables-{number}.db" for number in itertools.count())
    with filled_log(directory / "throughput", EVENTS, ENTITIES) as log:
        decoded = rate(EVENTS, lambda: _decode(log), runs=3)
        folded = rate(EVENTS, lambda: _fold(log, next(paths)), runs=3)
        registry, kinds = installed_schemas(), installed_kinds()
        live = directory / "live.db"
        _fold(log, live)
        with SqliteTables(live, registry, kinds) as tables:
            verified = rate(EVENTS, lambda: verify(log, tables, registry, kinds), runs=3)
    show(
        f"Engine ({EVENTS:,} facts, {ENTITIES:,} threads, batches of 1,000)",
        (
            Figure("read + decode only (the peer)", decoded, "events/s"),
            Figure("engine into SQLite", folded, "events/s", folded / decoded, "decode"),
            Figure("audit verify", verified, "events/s", verified / decoded, "decode"),
        ),
    )


def _cost(directory: Path) -> None:
    """Microseconds an event, for the last 10,000 events of a store that already holds so many entities."""
    costs: list[tuple[int, float]] = []
    for entities in SIZES:
        registry, kinds = installed_schemas(), installed_kinds()
        more = 10_000
        with (
            filled_log(directory / f"cost-{entities}", entities + more, entities) as log,
            SqliteTables(directory / f"cost-{entities}.db", registry, kinds) as tables,
        ):
            engine = Engine(registry, kinds, tables)
            offset = fold_all(engine, log, 0, until=entities + 1)
            batches: list[list[Stored]] = []
            while records := log.read(0, offset, 1_000):
                batches.append(records)
                offset += len(records)
            spent = seconds(lambda engine=engine, batches=batches: [engine.apply(0, batch) for batch in batches])  # type: ignore[misc]
            costs.append((entities, spent / more * 1e6))
    least = costs[0][1]
    show(
        "Cost of one event",
        [
            Figure(f"{entities:,} entities", cost, "us/event", cost / least, "1,000 entities")
            for entities, cost in costs
        ],
    )


def run(directory: Path) -> None:
    """Measure and print."""
    _throughput(directory)
    _cost(directory)
