"""Which partition a key belongs to, computed as Java Kafka's default partitioner does.

headrace passes the partition explicitly on every append. It never relies on librdkafka's default, which is another
hash (CRC32) and would put the same account elsewhere than Java and Faust do.

Source: ``org.apache.kafka.common.utils.Utils.murmur2`` and ``toPositive``, and
``org.apache.kafka.clients.producer.internals.BuiltInPartitioner.partitionForKey`` of kafka-clients.
"""

import struct
from functools import lru_cache
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_SIGN: Final = 0x80000000
_POSITIVE: Final = 0x7FFFFFFF


def murmur2(data: bytes) -> int:
    """The signed 32-bit hash that Java Kafka calls ``murmur2``.

    Differs from Appleby's original only in its fixed seed; the length is part of the start value.
    """
    length = len(data)
    words = length >> 2
    h = (_SEED ^ length) & _MASK
    for word in struct.unpack_from(f"<{words}I", data):
        k = (word * _MULTIPLIER) & _MASK
        h = ((h * _MULTIPLIER) & _MASK) ^ (((k ^ (k >> 24)) * _MULTIPLIER) & _MASK)
    tail = data[words << 2 :]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * _MULTIPLIER) & _MASK
    h = ((h ^ (h >> 13)) * _MULTIPLIER) & _MASK
    h ^= h >> 15
    return h - (1 << 32) if h & _SIGN else h


@lru_cache(maxsize=1 << 14)  # the same accounts come again and again; 16 Ki entries are about 3 MiB
def partition_of(key: bytes, count: int) -> int:
    """The partition, ``0 <= p < count``, of ``key`` in a log of ``count`` partitions (at least 1)."""
    return (murmur2(key) & _POSITIVE) % count
