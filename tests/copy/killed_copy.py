"""What is killed: ``headrace log copy``, which dies by itself the n-th time that it comes to a named point.

Arguments: the point (a key of :data:`POINTS`), ``before`` or ``after``, n, then those of the command line.
"""

import sys
from typing import Final

from headrace.log.copy_to_kafka import KafkaDestination
from headrace.log.copy_to_sqlite import SqliteDestination
from headrace.log.copying import Copy
from headrace.log.kafka_topic import Topic
from headrace.log.sqlite import SqliteLog
from tests.killed import Points, run_until

POINTS: Final[Points] = {
    "writing to Kafka": (KafkaDestination, "write"),
    "sending": (KafkaDestination, "_produce"),
    "comparing": (KafkaDestination, "read"),
    "settings": (Topic, "set"),
    "log.moved": (KafkaDestination, "_send_moved"),
    "finishing": (KafkaDestination, "finish"),
    "closing": (SqliteLog, "append"),
    "shutting the origin": (Topic, "limit"),
    "catching up": (Copy, "catch_up"),
    "writing to a file": (SqliteDestination, "write"),
    "finishing a file": (SqliteDestination, "finish"),
}


if __name__ == "__main__":
    sys.exit(run_until(POINTS, *sys.argv[1:]))
