"""A proxy in front of any server that loses, holds, delays and breaks what it is told to.

It listens on a free port of 127.0.0.1 and passes bytes on. Every fault is in force when the call that asks for it
returns, and what has happened is waited for with :meth:`FaultProxy.wait`, never guessed with a pause.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, NamedTuple, Self

from tests.proxy_link import BOTH, Answers, Faults, Link, Loss, Match, Split, Way, reset

__all__ = ("PRODUCE", "FaultProxy", "Seen", "Way", "kafka_answers", "kafka_messages", "kafka_request")

_START_SECONDS: Final = 20.0


class Seen(NamedTuple):
    """Counts since the proxy began: connections, messages passed on in either direction, messages lost to a fault, and
    connections that have ended, whoever ended them."""

    links: int
    asked: int
    answered: int
    lost: int
    ended: int


class FaultProxy:
    """Passes bytes between clients and ``host``:``port``; ``host`` may be the path of a Unix socket. Safe to use from
    any thread; close it when done.

    ``split`` takes whole messages off a buffer, for those who count or match them (:func:`kafka_messages`); without it
    a message is whatever arrived together. ``answers`` says whether a reply is the answer to a request; without it
    the next one is.
    """

    def __init__(self, host: str, port: int, *, split: Split | None = None, answers: Answers | None = None) -> None:
        self._host: Final = host
        self._port: Final = port
        self._split: Final[Split] = split or _all
        self._answers: Final[Answers] = answers or _any
        self._changed: Final = threading.Condition()
        self._counts: dict[str, int] = dict.fromkeys(Seen._fields, 0)
        self._links: Final[set[Link]] = set()
        self._failures: Final[list[BaseException]] = []
        self._listening: Final = socket.create_server(("127.0.0.1", 0))
        self.port: Final[int] = self._listening.getsockname()[1]
        # What follows belongs to the loop's thread.
        self._faults: Faults
        self._stopping: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._ready: Final = threading.Event()
        self._thread: Final = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(_START_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """``127.0.0.1:port`` to connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def seen(self) -> Seen:
        """What has happened so far."""
        with self._changed:
            return Seen(**self._counts)

    def wait(self, condition: Callable[[Seen], bool], seconds: float = 30.0) -> Seen:
        """Return once the counts satisfy ``condition``.

        :raises TimeoutError: they do not, for so long.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(Seen(**self._counts)), seconds):
                raise TimeoutError(f"the proxy saw only {Seen(**self._counts)} in {seconds:g} s")
            return Seen(**self._counts)

    # Faults. All of them last until :meth:`heal`, but the loss of one message, which happens once.

    def break_links(self) -> None:
        """Reset every connection that is open; new ones are welcome."""
        self._do(lambda: self._break(self._links))

    def cut(self, *ways: Way) -> None:
        """Reset every connection and every new one. With one way only: that half is closed properly, the other lives
        on."""

        def set_in() -> None:
            self._faults.cut_ways = self._faults.cut_ways | frozenset(ways or BOTH)
            for link in list(self._links):
                link.obey_cut()

        self._do(set_in)

    def blackhole(self, *ways: Way) -> None:
        """Swallow what comes (both ways, unless named): connections stay open and nobody hears anything."""

        def set_in() -> None:
            self._faults.holes = self._faults.holes | frozenset(ways or BOTH)

        self._do(set_in)

    def hold(self, *ways: Way) -> None:
        """Pass nothing on (both ways, unless named), and lose nothing: all of it arrives when healed, as after a
        partition of the network that TCP outlived."""

        def set_in() -> None:
            for way in ways or BOTH:
                self._faults.flowing[way].clear()

        self._do(set_in)

    def delay(self, seconds: float, *ways: Way) -> None:
        """Every message arrives so much later (both ways, unless named), in order."""
        self._do(lambda: self._faults.delays.update(dict.fromkeys(ways or BOTH, seconds)))

    def drop_replies_after(self, count: int) -> None:
        """Let so many more replies pass, then swallow every one."""

        def set_in() -> None:
            self._faults.spare = count

        self._do(set_in)

    def lose_reply(self, match: Match | None = None, *, keep: bool = False) -> None:
        """The server gets the next request that ``match`` knows (any, without), and its reply is lost: the connection
        is reset when it comes, or with ``keep`` lives on without it."""
        self._arm(Loss(match or _known, reply=True, keep=keep))

    def lose_reply_saying(self, match: Match, *, keep: bool = False) -> None:
        """The next reply that ``match`` knows, whatever was asked, is lost: the connection is reset instead, or with
        ``keep`` lives on without it."""
        self._arm(Loss(match, reply=True, keep=keep, told=True))

    def lose_request(self, match: Match | None = None, *, keep: bool = False) -> None:
        """The next request that ``match`` knows (any, without) never reaches the server: the connection is reset
        instead, or with ``keep`` lives on."""
        self._arm(Loss(match or _known, reply=False, keep=keep))

    def heal(self) -> None:
        """End every fault. What was held or delayed arrives; connections that have missed something are reset."""

        def set_in() -> None:
            self._break(link for link in self._links if link.spoiled)
            self._faults.heal()

        self._do(set_in)

    def close(self) -> None:
        """Reset every connection and take no more. Harmless when repeated.

        :raises BaseException: the proxy itself failed; then no test that used it says anything.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_START_SECONDS)
            assert not self._thread.is_alive()
        if self._failures:
            raise self._failures[0]

    # In the loop's thread

    def _count(self, what: str) -> None:
        """One more of ``what`` has happened."""
        with self._changed:
            self._counts[what] += 1
            self._changed.notify_all()

    def _arm(self, loss: Loss) -> None:
        def set_in() -> None:
            self._faults.loss = loss

        self._do(set_in)

    def _do(self, change: Callable[[], object]) -> None:
        """Make a change in the loop's thread; return when it is made."""
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(_START_SECONDS)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._faults = asyncio.Event(), Faults(self._split, self._answers)
        running: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            running.discard(task)
            failure = None if task.cancelled() else task.exception()
            if failure is not None:
                self._failures.append(failure)

        async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connect(reader, writer))
            running.add(task)
            task.add_done_callback(ended)

        server = await asyncio.start_server(arrived, sock=self._listening)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        self._break(self._links)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count("links")
        try:
            if self._faults.cut_ways.issuperset(BOTH):
                return
            try:
                if self._host.startswith("/"):
                    there = await asyncio.open_unix_connection(self._host)
                else:
                    there = await asyncio.open_connection(self._host, self._port)
            except OSError:  # nobody listens: the client finds out as if there were no proxy
                return
            link = Link(self._faults, self._count, (reader, writer), there)
            self._links.add(link)
            try:
                link.obey_cut()
                await link.run()
            finally:
                self._links.discard(link)
                await link.end()
        finally:
            await reset(writer)
            self._count("ended")

    @staticmethod
    def _break(links: "Iterable[Link]") -> None:
        for link in list(links):
            link.broken.set()


def _all(buffer: bytearray) -> list[bytes]:
    found = bytes(buffer)
    buffer.clear()
    return [found]


def _any(_request: bytes, _reply: bytes) -> bool:
    return True


def _known(_request: bytes) -> bool:
    return True


# Kafka's protocol (Apache Kafka documentation, "Protocol"): a size in four bytes, then a request's api key and version
# in two each and its correlation id in four; a response begins with the correlation id.


def kafka_messages(buffer: bytearray) -> list[bytes]:
    """For ``split``: Kafka's requests and responses, each with its size in front."""
    found: list[bytes] = []
    while len(buffer) >= 4 and len(buffer) >= (size := 4 + int.from_bytes(buffer[:4])):
        found.append(bytes(buffer[:size]))
        del buffer[:size]
    return found


def kafka_answers(request: bytes, reply: bytes) -> bool:
    """For ``answers``: whether a response is to this request."""
    return request[8:12] == reply[4:8]


def kafka_request(api: int) -> Match:
    """For ``match``: requests of one kind, by the number of its api (0 is Produce, 1 Fetch, 22 InitProducerId)."""
    return lambda request: int.from_bytes(request[4:6]) == api


PRODUCE: Final = kafka_request(0)
