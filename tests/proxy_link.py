"""One connection through the fault proxy, and the faults in force."""

import asyncio
import enum
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

_BYTES: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing resets the connection, as a host that has died and come back would."""

Split = Callable[[bytearray], list[bytes]]
Match = Callable[[bytes], bool]
Answers = Callable[[bytes, bytes], bool]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way(enum.Enum):
    """A direction: what clients say, and what the server says."""

    ASKING = "client to server"
    ANSWERING = "server to client"


BOTH: Final = (Way.ASKING, Way.ANSWERING)


class Loss(NamedTuple):
    """The one message to lose: a request that ``match`` knows, or the reply to it; with ``told`` a reply that it knows.
    With ``keep`` the connection lives on."""

    match: Match
    reply: bool
    keep: bool
    told: bool = False


class _Waiting(NamedTuple):
    """A message, when it is due, and what ends its delay: the faults may have been healed before it is looked at."""

    due: float
    hurried: asyncio.Event
    message: bytes


class Faults:
    """What goes wrong, and how messages are told apart. Made and changed in the loop's thread."""

    def __init__(self, split: Split, answers: Answers) -> None:
        self.split: Final = split
        self.answers: Final = answers
        self.cut_ways: frozenset[Way] = frozenset()
        self.holes: frozenset[Way] = frozenset()
        self.delays: Final[dict[Way, float]] = {}
        self.spare: int | None = None
        self.loss: Loss | None = None
        self.flowing: Final = {way: asyncio.Event() for way in Way}
        self.hurried = asyncio.Event()
        self.heal()

    def heal(self) -> None:
        """None of them any more."""
        self.cut_ways = self.holes = frozenset()
        self.spare = self.loss = None
        self.delays.clear()
        for event in self.flowing.values():
            event.set()
        self.hurried.set()
        self.hurried = asyncio.Event()


class Link:
    """One connection through the faults. ``spoiled``: bytes were lost, so that it cannot go on after a fault."""

    def __init__(
        self,
        faults: Faults,
        count: Callable[[str], None],
        client: Stream,
        server: Stream,
    ) -> None:
        self.spoiled = False
        self.broken: Final = asyncio.Event()
        self._faults: Final = faults
        self._count: Final = count
        self._from: Final = {Way.ASKING: client[0], Way.ANSWERING: server[0]}
        self._to: Final = {Way.ASKING: server[1], Way.ANSWERING: client[1]}
        self._awaited: tuple[Loss, bytes] | None = None

    async def run(self) -> None:
        """Until both sides have said all, or it is broken."""
        pumps = asyncio.gather(*[self._pump(way) for way in Way])
        broken = asyncio.ensure_future(self.broken.wait())
        either: list[asyncio.Future[Any]] = [pumps, broken]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if pumps.done():
                pumps.result()
        finally:
            for one in either:
                one.cancel()
            await asyncio.gather(*either, return_exceptions=True)

    async def end(self) -> None:
        """Reset the server's side."""
        await reset(self._to[Way.ASKING])

    def obey_cut(self) -> None:
        """Break, or close the half that is cut."""
        if self._faults.cut_ways.issuperset(BOTH):
            self.broken.set()
            return
        for way in self._faults.cut_ways:
            self.spoiled = True
            self._finish(way)

    async def _pump(self, way: Way) -> None:
        """Bytes come in here, and go out in :meth:`_forward`, perhaps later."""
        waiting: asyncio.Queue[_Waiting] = asyncio.Queue(256)
        forwarding = asyncio.create_task(self._forward(way, waiting))
        loop, buffer = asyncio.get_running_loop(), bytearray()
        try:
            while data := await self._from[way].read(_BYTES):
                buffer += data
                for message in self._faults.split(buffer):
                    due = loop.time() + self._faults.delays.get(way, 0.0)
                    await waiting.put(_Waiting(due, self._faults.hurried, message))
            for rest in (bytes(buffer), b"") if buffer else (b"",):
                await waiting.put(_Waiting(0.0, self._faults.hurried, rest))
            await forwarding
        except OSError:  # who speaks was reset
            self._resets(way)
        finally:
            forwarding.cancel()

    async def _forward(self, way: Way, waiting: asyncio.Queue[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, hurried, message = await waiting.get()
            if due > loop.time():
                with suppress(TimeoutError):
                    await asyncio.wait_for(hurried.wait(), due - loop.time())
            await self._faults.flowing[way].wait()
            if not message:
                self._finish(way)
                return
            if self._passes(way, message) and not self.broken.is_set():
                try:
                    self._to[way].write(message)
                    await self._to[way].drain()
                except OSError:  # who should hear it is gone
                    self._resets(way)
                    return
                self._count("asked" if way is Way.ASKING else "answered")

    def _passes(self, way: Way, message: bytes) -> bool:
        """Whether a message goes on; if not, what follows of that."""
        faults = self._faults
        if way in faults.holes or way in faults.cut_ways:
            return self._lost(keep=True)
        if way is Way.ANSWERING and faults.spare is not None:
            if faults.spare <= 0:
                return self._lost(keep=True)
            faults.spare -= 1
        if faults.loss is not None and faults.loss.told:
            if way is Way.ANSWERING and faults.loss.match(message):
                loss, faults.loss = faults.loss, None
                return self._lost(keep=loss.keep)
        elif way is Way.ASKING and faults.loss is not None and faults.loss.match(message):
            loss, faults.loss = faults.loss, None
            if not loss.reply:
                return self._lost(keep=loss.keep)
            self._awaited = (loss, message)
        elif way is Way.ANSWERING and self._awaited is not None:
            loss, request = self._awaited
            if faults.answers(request, message):
                self._awaited = None
                return self._lost(keep=loss.keep)
        return True

    def _lost(self, *, keep: bool) -> bool:
        self.spoiled = True
        if not keep:
            self.broken.set()
        self._count("lost")
        return False

    def _resets(self, way: Way) -> None:
        """The connection is broken on one side, and so on the other."""
        if way in self._faults.holes:
            self.spoiled = True
        else:
            self.broken.set()

    def _finish(self, way: Way) -> None:
        """Nothing more comes this way. In a hole nobody hears of that, before it is healed."""
        if way in self._faults.holes:
            self.spoiled = True
            return
        if self.broken.is_set():  # a proper end must not overtake the reset
            return
        with suppress(OSError, RuntimeError):
            if self._to[way].can_write_eof():
                self._to[way].write_eof()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Close at once; the other side is told that it was no proper end."""
    one: socket.socket | None = writer.get_extra_info("socket")
    if one is not None and one.fileno() >= 0 and one.family != socket.AF_UNIX:
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
