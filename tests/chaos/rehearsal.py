"""A small good run in this process, for tests of the checker: the same clients, taking turns, and nothing breaks."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from headrace.api.server import BackgroundServer
from headrace.settings import load_settings
from headrace.store import Store
from tests.chaos.evidence import Evidence, gathered
from tests.chaos.history import Recorder
from tests.chaos.tenants import logins, write_settings
from tests.chaos.workload import Client

PARTITIONS: Final = 3
CLIENTS: Final = 4


MOST: Final = 20


def rehearsed(directory: Path, seed: int, acts: int, enough: Callable[[Evidence], bool] = lambda _: True) -> Evidence:
    """What a few clients leave behind who act by turns, in the order that the seed gives: ``acts`` times, and again
    until it is ``enough`` (how much time passes decides a few verdicts, so no seed promises all of them)."""
    who, recorder, chance = logins(CLIENTS), Recorder(), random.Random(seed)
    write_settings(directory, who)
    with (
        Store(directory, writer=True, partitions=PARTITIONS) as store,
        BackgroundServer(store, load_settings(directory, port=0)) as server,
    ):
        clients = [Client(one, recorder, lambda: server.url, seed, threading.Event()) for one in who]
        for left in reversed(range(MOST)):
            for _ in range(acts):
                chance.choice(clients).act()
            for client in clients:
                client.settle()
            evidence = gathered(recorder.history(), store.log, store.tables, store.registry, store.kinds)
            if not left or enough(evidence):
                for client in clients:
                    client.door.close()
                return evidence
    raise AssertionError("the last turn returns")
