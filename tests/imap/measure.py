"""What following a mailbox costs, on a real Dovecot: ``python -m tests.imap.measure [MESSAGES]``."""

import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from headrace.producers.imap_idle import ImapWatcher
from headrace.producers.imap_login import ImapSettings
from infra.stack.dovecot import DovecotServer
from tests.imap.conftest import server
from tests.imap.parts import Box, Secret, box, connected

_ROUNDS = 20


def main() -> None:
    """Print the figures."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with server() as made, tempfile.TemporaryDirectory() as folder, box(made, Path(folder)) as mine:
        for folder_name in ("Sent", "INBOX"):
            mine.person.client.select_folder(folder_name)  # makes its directories
        fill(made, mine.person.user, messages)
        mine.person.client.select_folder("INBOX", readonly=True)  # Dovecot makes its own index now
        mine.person.client.select_folder("Sent", readonly=True)
        timed(f"first sync of {messages} messages", lambda: len(mine.sync()))
        timed("nothing changed", lambda: len(mine.sync()))
        change(mine, messages // 100)
        timed("1 % changed", lambda: len(mine.sync()))
        mine.person.renumber("INBOX")
        timed("UIDVALIDITY of the INBOX changed", lambda: len(mine.sync()))
        timed("all compared", lambda: len(mine.sync(full=True)))
        for file in Path(folder).iterdir():
            print(f"  index: {file.stat().st_size / 1e6:.1f} MB")
            file.unlink()
        timed("index lost", lambda: len(mine.desk.found(mine.source)))
        latency(mine)
    print(f"  peak of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def fill(made: DovecotServer, user: str, messages: int) -> None:
    """Conversations of one to five messages, every fifth message sent, straight into the server's files."""
    chance = random.Random(5)
    root = made.directory / "mail" / user
    folders = {name: root / name for name in ("cur", ".Sent/cur")}
    owner = root.stat()
    thread: list[str] = []
    for number in range(messages):
        if not thread or len(thread) >= chance.randint(1, 5):
            thread = []
        name = f"<n{number}@example.com>"
        lines = [f"Message-ID: {name}", "From: Bob <bob@example.com>", "To: ann@example.com", f"Subject: {number}"]
        if thread:
            lines += [f"In-Reply-To: {thread[-1]}", f"References: {' '.join(thread)}"]
        thread.append(name)
        sent = number % 5 == 4
        file = (
            folders[".Sent/cur" if sent else "cur"]
            / f"{1_700_000_000 + number}.M{number}.x:2,{'S' if number % 3 else ''}"
        )
        file.write_text("\n".join([*lines, "Received: by somebody\n" * 20 + "X: y", "", "words " * 300, ""]))
        os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))
        os.chown(file, owner.st_uid, owner.st_gid)


def change(mine: Box, count: int) -> None:
    """A quarter each: read, archived, gone, new."""
    client = mine.person.client
    client.select_folder("INBOX")
    uids = random.Random(6).sample(client.search(), count)
    quarter = count // 4
    client.add_flags(uids[:quarter], ["\\Flagged"])
    client.move(uids[quarter : 2 * quarter], "Archive")
    client.delete_messages(uids[2 * quarter : 3 * quarter])
    client.uid_expunge(uids[2 * quarter : 3 * quarter])
    for _ in range(quarter):
        mine.person.receive()


def timed(what: str, act: Callable[[], int]) -> None:
    """How long it takes, and then, in the same state as near as can be, nothing else."""
    tracemalloc.start() if os.environ.get("MEASURE_MEMORY") else None
    began, cpu = time.perf_counter(), time.process_time()
    events = act()
    took, busy = time.perf_counter() - began, time.process_time() - cpu
    memory = ""
    if tracemalloc.is_tracing():
        memory = f", peak {tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB of Python's memory"
        tracemalloc.stop()
    print(f"  {what}: {took:.2f} s ({busy:.2f} s of CPU here), {events} events{memory}", flush=True)


def latency(mine: Box) -> None:
    """From the act at the server to the hint."""
    settings = ImapSettings.of(connected(mine.server, mine.person.user).settings)
    watcher = ImapWatcher(settings, Secret(mine.server.password), "w")
    heard = threading.Semaphore(0)

    def listen() -> None:
        for _ in watcher.hints():
            heard.release()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    heard.acquire()
    took: list[float] = []
    for _ in range(_ROUNDS):
        while heard.acquire(timeout=1.5):
            continue  # what the last one still brings
        began = time.perf_counter()
        mine.person.receive()
        heard.acquire()
        took.append(time.perf_counter() - began)
    watcher.stop()
    thread.join()
    print(f"  hint after delivery: median {statistics.median(took) * 1000:.0f} ms, worst {max(took) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
