"""What an audit found, and its report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple


class Finding(NamedTuple):
    """One thing that is not as it should be.

    ``what`` is ``log`` (a record is not the one that was folded, or cannot be read), ``halt`` (the log cannot be folded
    again here), ``row`` (a value of a row differs), ``missing`` or ``unexpected`` (a row). ``column`` names the column,
    or of a log record the field (``key``, ``headers``, ``value``, ``appended_at``) where that can be told. ``live`` and
    ``refolded`` are the two values.
    """

    what: str
    message: str
    partition: int | None = None
    offset: int | None = None
    table: str | None = None
    key: Mapping[str, Any] | None = None
    column: str | None = None
    live: Any = None
    refolded: Any = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values: bytes in hexadecimal, what is not there left out."""
        return {name: plain(value) for name, value in self._asdict().items() if value is not None}


class Findings:
    """Keeps the first ``limit`` findings and counts them all."""

    def __init__(self, limit: int) -> None:
        self.kept: Final[list[Finding]] = []
        self.count = 0
        self._limit: Final = limit

    def add(self, finding: Finding) -> None:
        """One more."""
        self.count += 1
        if len(self.kept) < self._limit:
            self.kept.append(finding)


@dataclass(frozen=True, slots=True)
class Report:
    """``records`` were folded again and ``rows`` compared. ``chains`` has each verified partition's chain value in
    hexadecimal: kept elsewhere, they show later that nothing before them was rewritten. ``skipped`` are the partitions
    whose rows could not be compared, for a reason among the findings. ``found`` counts all findings, also those
    beyond the ones described."""

    log_id: str | None
    partitions: int
    records: int
    rows: int
    chains: Mapping[int, str] = field(default_factory=dict)
    skipped: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()
    found: int = 0

    @property
    def verified(self) -> bool:
        """Whether everything is as the log leads to."""
        return self.found == 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "verified": self.verified,
            "log_id": self.log_id,
            "partitions": self.partitions,
            "records": self.records,
            "rows": self.rows,
            "chains": {str(partition): value for partition, value in sorted(self.chains.items())},
            "skipped": list(self.skipped),
            "found": self.found,
            "findings": [finding.to_json() for finding in self.findings],
        }


def plain(value: Any) -> Any:
    """A value as JSON has it: bytes in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def named(key: Mapping[str, Any]) -> str:
    """A row's key in words."""
    return "(" + ", ".join(f"{name}={plain(value)}" for name, value in key.items()) + ")"
