"""What an operator puts on every partition of a log: its opening, and later policies.

Making a log is one resumable command. Record 0 of every partition is ``log.opened``; partition 0's decides.
"""

import secrets
from collections.abc import Iterable
from typing import Final

from headrace.errors import BadInputError, LogMismatchError
from headrace.log.admission import KEY_ID_HEADER, LOG_ID_HEADER
from headrace.log.port import Log, Record
from headrace.processors.core.model import FOLD_VERSION
from headrace.processors.core.policy import DEFAULT_POLICY, Policy
from headrace.schemas.envelope import Envelope, to_headers
from headrace.schemas.refs import ActorRef, Position
from headrace.schemas.registry import Registry

DEFAULT_PARTITIONS: Final = 64
OPERATOR: Final = ActorRef("system", "operator")
SOURCE: Final = "headrace/operator"
OPENED: Final = "log.opened"


def open_log(
    log: Log,
    registry: Registry,
    kinds: Iterable[str],
    policy: Policy = DEFAULT_POLICY,
    *,
    key_id: str | None = None,
) -> bytes:
    """Give every partition that lacks one its opening record; returns the log's id (16 bytes).

    ``key_id`` names the master key that everything on this log is to be made with (:func:`check_key`).

    Safe to repeat after a crash, and from two processes: partition 0's opening decides the log's id.

    :raises LogMismatchError: somebody else's openings are mixed in.
    """
    in_force = {"policy": policy.to_body(), "kinds": sorted(kinds), "fold_version": FOLD_VERSION}

    def opening(partition: int, named: bytes, partitions: int) -> Record:
        body = {"log_id": named.hex(), "partitions": partitions, **in_force}
        envelope = Envelope(f"open-{named.hex()}-{partition}", SOURCE, OPENED, OPERATOR)
        headers = (*to_headers(envelope), (LOG_ID_HEADER, named.hex().encode()))
        if key_id is not None:
            headers = (*headers, (KEY_ID_HEADER, key_id.encode()))
        return Record(partition, None, headers, registry.encode(OPENED, body))

    while True:
        described = log.describe()
        log_id = described.log_id
        missing = [partition for partition, end in enumerate(described.ends) if end == 0]
        if log_id is None and 0 not in missing:
            raise LogMismatchError("partition 0 begins with something else than log.opened: this is no log of headrace")
        if log_id is None:
            log_id, missing = secrets.token_bytes(16), [0]
        elif not missing:
            return log_id
        try:
            log.append([opening(one, log_id, described.partitions) for one in missing])
        except BadInputError:
            if log.describe() == described:
                raise
            # Another process opened something meanwhile. What it wrote counts: go on from there.


def check_key(log: Log, key_id: str) -> None:
    """Pass when the log's opening names this key, or none, or is not there yet.

    :raises LogMismatchError: it names another.
    """
    for first in log.read(0, 0, 1):
        named = dict(first.headers).get(KEY_ID_HEADER, key_id.encode())
        if named != key_id.encode():
            raise LogMismatchError(
                f"this log was made with another master key ({named.decode(errors='replace')[:16]}; the key file here"
                f" holds {key_id}): what came in with this one would match nothing on it; put the log's key file in"
                " place (HEADRACE_KEY_FILE)"
            )


def activate(log: Log, registry: Registry, kinds: Iterable[str], policy: Policy) -> list[Position]:
    """Put a policy, and the entity kinds that are named, in force on every partition; where, by partition.

    Each partition changes at its own record: what is judged before it is judged by what was in force before.

    :raises AppendUnknownError: some partitions may have it; activating it again is harmless.
    """
    body = {"policy": policy.to_body(), "kinds": sorted(kinds), "fold_version": FOLD_VERSION}
    value, once = registry.encode("policy.activated", body), secrets.token_hex(12)

    def record(partition: int) -> Record:
        envelope = Envelope(f"policy-{once}-{partition}", SOURCE, "policy.activated", OPERATOR)
        return Record(partition, None, to_headers(envelope), value)

    return log.append([record(partition) for partition in range(log.describe().partitions)])
