"""What is killed: ``headrace log copy``, which dies by itself the n-th time that it comes to a named point.

Arguments: the point (a key of :data:`POINTS`), ``before`` or ``after``, n, then those of the command line.
"""

import os
import signal
import sys
from typing import Any, Final

from headrace.cli.main import run
from headrace.log.copy_to_kafka import KafkaDestination
from headrace.log.copy_to_sqlite import SqliteDestination
from headrace.log.copying import Copy
from headrace.log.kafka_topic import Topic
from headrace.log.sqlite import SqliteLog

POINTS: Final[dict[str, tuple[type, str]]] = {
    "writing to Kafka": (KafkaDestination, "write"),
    "sending": (KafkaDestination, "_produce"),
    "comparing": (KafkaDestination, "read"),
    "settings": (Topic, "set"),
    "log.moved": (KafkaDestination, "_send_moved"),
    "finishing": (KafkaDestination, "finish"),
    "closing": (SqliteLog, "append"),
    "catching up": (Copy, "catch_up"),
    "writing to a file": (SqliteDestination, "write"),
    "finishing a file": (SqliteDestination, "finish"),
}


def main(point: str, when: str, count: str, *arguments: str) -> int:
    """Run the command line until then."""
    owner, name = POINTS[point]
    does = getattr(owner, name)
    left = int(count)

    def dies(*args: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = does(*args, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, dies)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
