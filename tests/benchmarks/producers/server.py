"""Notifications taken in and sources synced, as ``headrace dev`` does it, with Gmail at a slow double. A process of its
own: ``DIRECTORY ACCOUNTS SECONDS``. It says where it listens, and answers a line on stdin with what it has done."""

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry

from headrace.producers.connections import Connections
from headrace.producers.hints import Hints
from headrace.producers.notifications import PATH, notification_router
from headrace.producers.provider import Connected
from headrace.producers.source_host import SourceHost
from headrace.producers.source_syncs import ProviderSetup, SourceSyncs
from headrace.producers.vault_sqlite import SqliteVault
from headrace.projections.known import hinted
from headrace.store import Store
from tests.benchmarks.producers.mailboxes import Mailboxes, address
from tests.doubles.http import transport
from tests.providers.gmail_parts import BASE, provider
from tests.providers.test_gmail_push import NOW, ONE, Certificates

_TENANT: Final = "bench"
_LOOK_SECONDS: Final = 0.05


def _clock() -> float:
    return NOW


class Site:
    """A store with so many mailboxes connected."""

    def __init__(self, store: Store, directory: Path, accounts: int, seconds: float) -> None:
        self.store = store
        self.mailboxes = Mailboxes(accounts, seconds)
        self.connections = Connections(SqliteVault(directory), store.keys)
        for account, double in self.mailboxes.doubles.items():
            settings = {"address": address(account), "content": "headers"}
            connected = Connected(_TENANT, account, "gmail", "gmail", settings)
            self.connections.add(connected, {"access_token": double.grant.token, "expires_at": NOW + 3_600})
        gmail = provider(Certificates(ONE).keys)
        setups = {"gmail": ProviderSetup(gmail, BASE)}
        way = transport(self.mailboxes)
        self.syncs = SourceSyncs(
            store, self.connections, setups, "https://headrace.example", transport=way, clock=_clock
        )
        self.host = SourceHost(store, self.connections, self.syncs, lambda _: None)
        hints = Hints(store.log, store.tables, store.applied, store.intake, _clock)
        self.app = FastAPI()
        self.app.include_router(
            notification_router({"gmail": gmail}, lambda: self.connections, hints, CollectorRegistry(), clock=_clock)
        )
        self.app.post("/bare")(bare)

    def done(self) -> dict[str, Any]:
        """How many records of each kind of bookkeeping are on the log, once every mailbox has been synced and nothing
        waits any more."""
        never = threading.Event()
        while True:
            ends = self.store.log.describe().ends
            for partition, end in enumerate(ends):
                self.store.applied.wait(partition, end - 1, 60)
            counted = self._counted()
            with self.store.tables.snapshot() as reader:
                waiting = list(hinted(reader))
            first = counted["source.synced"] >= len(self.mailboxes.doubles)
            if first and not waiting and counted["source.sync_started"] == counted["source.synced"]:
                return {**counted, "asked": self.mailboxes.asked}
            never.wait(_LOOK_SECONDS)

    def _counted(self) -> dict[str, int]:
        sql = "SELECT type, COUNT(*) AS n FROM events WHERE type LIKE 'source.%' GROUP BY type"
        with self.store.tables.snapshot() as reader:
            found = {row["type"]: row["n"] for row in reader.rows(sql, {})}
        names = ("source.notified", "source.sync_started", "source.synced")
        return {name: found.get(name, 0) for name in names}


async def bare(request: Request) -> Response:
    """The same framework, taking the same bodies, doing nothing."""
    await request.body()
    return Response(status_code=204)


def main(directory: Path, accounts: int, seconds: float) -> None:
    """Serve until stdin ends."""
    with Store(directory / "store", writer=True, partitions=8) as store:
        site = Site(store, directory, accounts, seconds)
        # The protocol must be named: asyncio turns Nagle's algorithm off only then.
        with site.host, socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1_000)
            server = uvicorn.Server(uvicorn.Config(site.app, log_level="warning", access_log=False))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            said = {"port": listening.getsockname()[1], "path": f"{PATH}/gmail", "token": ONE.token()}
            print(json.dumps({**said, **site.done()}), flush=True)
            for _ in sys.stdin:
                print(json.dumps(site.done()), flush=True)
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
