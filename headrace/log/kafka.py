"""The log in Apache Kafka: one topic, many writers, as many readers as there are.

What Kafka has no means to refuse by itself is arranged so that it cannot happen:

- *Openings.* Two creators may race; whose opening is record 0 of a partition has opened it, and the other is told.
  Partition 0's goes first and alone, and the others must name the same log.
- *Closings.* After the last record of every partition is ``log.closed`` the topic is told to take no records at all
  (``max.message.bytes=0``), so a writer who has heard nothing is refused by the broker. Should one have slipped in between,
  the closing is repeated behind its record: a log is closed when ``log.closed`` is the *last* record everywhere.
- *Holes.* Compaction, deleted records and transactions leave holes between offsets; whoever reads over one is told that
  this is no log any more.

A written record is acknowledged once every in-sync replica has it (``acks=all``). Brokers acknowledge before they sync to
disk; what is durable is the copies: three, two of them in sync, unless the address says otherwise.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from headrace.errors import (
    AppendUnknownError,
    BadInputError,
    HeadraceError,
    LogMismatchError,
    NotFoundError,
    UnavailableError,
)
from headrace.log.admission import CLOSED, LOG_ID_HEADER, OPENED, Admission, check_partition, closed, log_id_of, successor_of
from headrace.log.kafka_address import KafkaAddress
from headrace.log.kafka_appender import Appender, Outcome
from headrace.log.kafka_faults import is_too_large, meaning, nothing_landed
from headrace.log.kafka_follower import Follower
from headrace.log.kafka_gate import Gate
from headrace.log.kafka_reader import Reader
from headrace.log.kafka_topic import CLOSED_MESSAGE_BYTES, MAX_MESSAGE_BYTES, Topic, TopicState, check_beginning
from headrace.log.port import LogDescription, Record, Stored
from headrace.schemas.refs import Position
