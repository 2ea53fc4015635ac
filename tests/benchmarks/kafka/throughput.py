"""Events a second: headrace beside its peers and the bare limits, on the same events; then with proposals among."""

import secrets
import statistics
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.benchmarks.kafka import events
from tests.benchmarks.kafka.place import Place, Ran, peers_python, show
from tests.benchmarks.kafka.product import worker

PARTITIONS: Final = 4
_FOLD: Final = "tests.benchmarks.kafka.fold"
_WARM_SHARE: Final = 10


class Size(NamedTuple):
    """How much of everything. ``slow``: events for those that take a millisecond each."""

    total: int
    entities: int
    slow: int
    runs: int
    batch: int = 1_000


def median(runs: int, measure: Callable[[], Ran]) -> Ran:
    """The run with the median rate."""
    found = sorted((measure() for _ in range(runs)), key=lambda ran: ran.rate)
    return found[statistics.median_low(range(len(found)))]


@contextmanager
def filled(place: Place, size: Size, *, mixed: bool = False) -> Generator[str, None, None]:
    """A topic with so many records, by its name."""
    topic = f"bench-{secrets.token_hex(4)}"
    log = events.create(place.log_url(topic), PARTITIONS)
    (events.fill_mixed if mixed else events.fill)(log, size.total, size.entities)
    log.close()
    yield topic


def headrace(place: Place, mode: str, topic: str, size: Size) -> Ran:
    """One run of :mod:`tests.benchmarks.kafka.fold`."""
    first = size.total // _WARM_SHARE
    with place.schema() as schema:
        url = place.log_url(topic)
        return place.run(_FOLD, mode, url, place.dsn, schema, size.total, first, size.batch)[0]


def _faust(place: Place, topic: str, size: Size) -> Ran:
    module = "tests.benchmarks.peers.faust_upserts"
    return place.run(module, place.brokers, topic, place.dsn, size.slow, size.slow // _WARM_SHARE)[0]


def _quix(place: Place, topic: str, size: Size, commit: float) -> Ran:
    state = place.scratch / f"quix-{secrets.token_hex(4)}"
    arguments = (place.brokers, topic, state, size.total, size.total // _WARM_SHARE, commit)
    return place.run("tests.benchmarks.peers.quix_state", *arguments, python=peers_python())[0]


def _eventsourcing(place: Place, topic: str, size: Size) -> tuple[Ran, Ran]:
    with place.schema() as schema:
        arguments = (place.eventsourcing(schema), place.brokers, topic, size.slow)
        module = "tests.benchmarks.peers.event_sourcing"
        appended, projected = place.run(module, *arguments, python=peers_python())
    return appended, projected


def _own(place: Place, topic: str, size: Size) -> dict[str, Ran]:
    modes = ("group", "write", "fold", "decode", "consume")
    found = {"worker": median(size.runs, lambda: worker(place, topic, size.total, size.total // _WARM_SHARE))}
    for mode in modes:
        found[mode] = median(size.runs, lambda mode=mode: headrace(place, mode, topic, size))  # type: ignore[misc]
    return found


_NAMES: Final = {
    "worker": "headrace worker: typed tables, events index, exactly-once effect",
    "group": "… its fold alone: no verdicts' topic, no journal, no Faust",
    "write": "… a batch after the other, nothing overlaps",
    "fold": "limit: consume + decode + fold, no database",
    "decode": "limit: consume + decode",
    "consume": "limit: consume",
}


def facts(place: Place, size: Size) -> None:
    """Facts only, beside everybody."""
    with filled(place, size) as topic:
        own = _own(place, topic, size)
        peers = {
            "Quix Streams, commit every 5 s": median(size.runs, lambda: _quix(place, topic, size, 5.0)),
            "Quix Streams, commit every 100 ms": median(size.runs, lambda: _quix(place, topic, size, 0.1)),
            "plain Faust, one upsert an event": median(size.runs, lambda: _faust(place, topic, size)),
        }
        pairs = [_eventsourcing(place, topic, size) for _ in range(size.runs)]
        for at, name in enumerate(("eventsourcing on PostgreSQL, append", "eventsourcing on PostgreSQL, projection")):
            rates = sorted((pair[at] for pair in pairs), key=lambda ran: ran.rate)
            peers[name] = rates[(len(rates) - 1) // 2]
    whole = own["worker"].rate
    lines = [(_NAMES[mode], ran.rate, "events/s", ran.rate / whole) for mode, ran in own.items()]
    lines += [(name, ran.rate, "events/s", ran.rate / whole) for name, ran in peers.items()]
    show(
        f"Facts only: {size.total:,} events, {size.entities:,} entities, {PARTITIONS} partitions, 1 process each", lines
    )
    for goal, peer in ((10, "plain Faust, one upsert an event"), (40, "eventsourcing on PostgreSQL, append")):
        print(f"  goal: {goal} x {peer.split(',')[0]}; here {whole / peers[peer].rate:.1f} x")
    print(f"  goal: 1 x Quix Streams at 5 s; here {whole / peers['Quix Streams, commit every 5 s'].rate:.2f} x")


def mixed(place: Place, size: Size) -> None:
    """One record in ten a proposal: peers have no such thing."""
    with filled(place, size, mixed=True) as topic:
        own = _own(place, topic, size)
    whole = own["worker"].rate
    lines = [(_NAMES[mode], ran.rate, "events/s", ran.rate / whole) for mode, ran in own.items()]
    show(f"Mixed: {size.total:,} records, one in ten a proposal", lines)


def growth(place: Place, sizes: tuple[int, ...], more: int, batch: int) -> None:
    """Cost of an event and memory of the worker once so many entities are there."""
    lines: list[tuple[str, float, str, float | None]] = []
    for entities in sizes:
        size = Size(entities + more, entities, 0, 1, batch)
        with filled(place, size) as topic:
            ran = worker(place, topic, size.total, entities)
        lines.append((f"{entities:,} entities: one event", 1e6 / ran.rate, "us", None))
        lines.append((f"{entities:,} entities: the worker's memory", ran.megabytes, "MB", None))
    show("Growth: the cost of the last events over so many entities (goal: flat, at most 500 MB)", lines)
