"""The fault proxy does what it is told, no more and no less."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.proxy import FaultProxy, Way, kafka_answers, kafka_messages, kafka_request

SECONDS = 20.0


class _Echo(socketserver.StreamRequestHandler):
    """Answers every line with itself."""

    def handle(self) -> None:
        server: Any = self.server
        for line in self.rfile:
            server.heard.append(line)
            self.wfile.write(b"re: " + line)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.heard: list[bytes] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was reset is what these tests are about."""


class Client:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), SECONDS)
        self.reading = self.socket.makefile("rb")

    def say(self, line: bytes) -> None:
        self.socket.sendall(line)

    def ask(self, line: bytes) -> bytes:
        self.say(line)
        return self.hear()

    def hear(self) -> bytes:
        return self.reading.readline()

    def hears_nothing(self) -> bool:
        """Whether nothing has arrived; tells nothing of what is on its way."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(SECONDS)
        return False

    def is_reset(self) -> bool:
        """Wait for the connection's end; whether it was no proper one."""
        try:
            return bool(self.reading.read())
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.reading.close()
        self.socket.close()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: _Server) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.server_address[1]) as found:
        yield found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture
def client(proxy: FaultProxy, stack: ExitStack) -> Client:
    return connected(proxy, stack)


def connected(proxy: FaultProxy, stack: ExitStack) -> Client:
    found = Client(proxy)
    stack.callback(found.close)
    return found


def refused(proxy: FaultProxy, stack: ExitStack) -> bool:
    """Whether a new connection is reset, while it is made or after."""
    try:
        return connected(proxy, stack).is_reset()
    except ConnectionResetError:
        return True


def test_without_a_fault_everything_passes(proxy: FaultProxy, client: Client) -> None:
    assert client.ask(b"hello\n") == b"re: hello\n"
    large = b"x" * 3_000_000 + b"\n"
    with_reply = threading.Thread(target=client.say, args=(large,))
    with_reply.start()
    assert client.hear() == b"re: " + large
    with_reply.join()
    client.socket.shutdown(socket.SHUT_WR)
    assert client.hear() == b"", "an end is passed on"
    seen = proxy.wait(lambda seen: seen.ended == 1)
    assert (seen.links, seen.lost) == (1, 0)


def test_broken_links_are_reset_and_new_ones_are_welcome(proxy: FaultProxy, client: Client, stack: ExitStack) -> None:
    assert client.ask(b"a\n") == b"re: a\n"
    proxy.break_links()
    assert client.is_reset()
    assert connected(proxy, stack).ask(b"b\n") == b"re: b\n"


def test_cut_off_until_healed(proxy: FaultProxy, client: Client, stack: ExitStack) -> None:
    proxy.cut()
    assert client.is_reset()
    assert refused(proxy, stack)
    proxy.heal()
    assert connected(proxy, stack).ask(b"b\n") == b"re: b\n"


def test_one_way_cut_is_an_end_on_that_way_only(proxy: FaultProxy, client: Client) -> None:
    assert client.ask(b"a\n") == b"re: a\n"
    proxy.cut(Way.ANSWERING)
    assert client.hear() == b"", "a proper end"
    client.say(b"b\n")
    proxy.wait(lambda seen: seen.lost == 1)


@pytest.mark.parametrize("way", Way)
def test_a_black_hole_swallows_one_way(proxy: FaultProxy, client: Client, server: _Server, way: Way) -> None:
    assert client.ask(b"a\n") == b"re: a\n"
    proxy.blackhole(way)
    client.say(b"b\n")
    proxy.wait(lambda seen: seen.lost == 1)
    assert client.hears_nothing()
    assert server.heard == ([b"a\n"] if way is Way.ASKING else [b"a\n", b"b\n"])
    proxy.heal()
    assert client.is_reset(), "it has missed something and cannot go on"


def test_what_is_held_arrives_when_healed(proxy: FaultProxy, client: Client, server: _Server) -> None:
    proxy.hold(Way.ANSWERING)
    client.say(b"a\n")
    proxy.wait(lambda seen: seen.asked == 1)
    assert client.hears_nothing()
    proxy.heal()
    assert client.hear() == b"re: a\n"
    assert client.ask(b"b\n") == b"re: b\n"
    assert proxy.seen.lost == 0


def test_what_is_delayed_arrives_later_in_order(proxy: FaultProxy, client: Client) -> None:
    proxy.delay(0.1)
    began = time.monotonic()
    assert client.ask(b"a\n") == b"re: a\n"
    assert time.monotonic() - began >= 0.2
    proxy.delay(3_600)
    for line in (b"b\n", b"c\n"):
        client.say(line)
    proxy.heal()
    assert [client.hear(), client.hear()] == [b"re: b\n", b"re: c\n"]


def test_replies_are_dropped_after_so_many(proxy: FaultProxy, client: Client, server: _Server) -> None:
    proxy.drop_replies_after(2)
    assert [client.ask(b"a\n"), client.ask(b"b\n")] == [b"re: a\n", b"re: b\n"]
    client.say(b"c\n")
    proxy.wait(lambda seen: seen.lost == 1)
    assert client.hears_nothing()
    assert server.heard == [b"a\n", b"b\n", b"c\n"]


def test_one_reply_is_lost_after_the_server_has_done_it(
    proxy: FaultProxy, client: Client, server: _Server, stack: ExitStack
) -> None:
    proxy.lose_reply(lambda request: b"commit" in request)
    assert client.ask(b"a\n") == b"re: a\n"
    client.say(b"commit\n")
    assert client.is_reset()
    assert server.heard == [b"a\n", b"commit\n"]
    assert proxy.seen.lost == 1
    assert connected(proxy, stack).ask(b"commit\n") == b"re: commit\n", "it happens once"


def test_one_answer_is_lost_whatever_was_asked(proxy: FaultProxy, client: Client, server: _Server) -> None:
    proxy.lose_reply_saying(lambda reply: b"done" in reply, keep=True)
    assert client.ask(b"a\n") == b"re: a\n"
    client.say(b"done\n")
    proxy.wait(lambda seen: seen.lost == 1)
    assert client.ask(b"done\n") == b"re: done\n", "it happens once"
    assert server.heard == [b"a\n", b"done\n", b"done\n"]


def test_one_request_is_lost_before_the_server_hears_of_it(proxy: FaultProxy, client: Client, server: _Server) -> None:
    proxy.lose_request(keep=True)
    client.say(b"a\n")
    proxy.wait(lambda seen: seen.lost == 1)
    assert client.ask(b"b\n") == b"re: b\n"
    assert server.heard == [b"b\n"]
    proxy.lose_request()
    client.say(b"c\n")
    assert client.is_reset()


def test_a_server_that_is_not_there(stack: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    proxy = stack.enter_context(FaultProxy("127.0.0.1", port))
    assert refused(proxy, stack)


def test_a_unix_socket(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        client = connected(stack.enter_context(FaultProxy(str(path), 0)), stack)
        client.say(b"a\n")
        there, _ = listening.accept()
        with there:
            assert there.recv(9) == b"a\n"
            there.sendall(b"b\n")
            assert client.hear() == b"b\n"
    assert Path(path).exists()


def test_closing_resets_and_refuses(server: _Server, stack: ExitStack) -> None:
    proxy = FaultProxy("127.0.0.1", server.server_address[1])
    client = connected(proxy, stack)
    assert client.ask(b"a\n") == b"re: a\n"
    proxy.close()
    proxy.close()
    assert client.is_reset()
    with pytest.raises(ConnectionRefusedError):
        Client(proxy)


def test_kafkas_messages_are_told_apart() -> None:
    produce = (12).to_bytes(4) + b"\0\0" + b"\0\x09" + b"\0\0\0\x07" + b"more"
    fetch = (8).to_bytes(4) + b"\0\x01" + b"\0\x0d" + b"\0\0\0\x08"
    buffer = bytearray(produce + fetch[:5])
    assert kafka_messages(buffer) == [produce]
    buffer += fetch[5:]
    assert kafka_messages(buffer) == [fetch]
    assert not buffer
    assert [kafka_request(0)(one) for one in (produce, fetch)] == [True, False]
    assert kafka_answers(produce, (4).to_bytes(4) + b"\0\0\0\x07")
    assert not kafka_answers(produce, (4).to_bytes(4) + b"\0\0\0\x08")
