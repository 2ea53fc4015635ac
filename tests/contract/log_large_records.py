"""Part of the suite that every log passes: what is read at once has a bound."""

from headrace.log.port import READ_BYTES, Log, Record


class LargeRecords:
    """``log`` is one with every partition opened."""

    def test_large_records_come_a_few_at_a_time(self, log: Log) -> None:
        large = [Record(1, b"tenant/account", (), bytes([number]) * (1 << 20)) for number in range(64)]
        for start in range(0, len(large), 8):
            log.append(large[start : start + 8])
        found = log.read(1, 1, 1_000)
        assert READ_BYTES >> 20 <= len(found) < len(large)
        while more := log.read(1, 1 + len(found), 1_000):
            found += more
        assert [one.value for one in found] == [one.value for one in large]
