"""``headrace log``: the log itself, record by record."""
# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help need not wait for it

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import output
from headrace.cli.options import (
    AccountOption,
    ApiKeyOption,
    ContentOption,
    JsonOption,
    LimitOption,
    Place,
    PlaceArgument,
    StoreOption,
    TenantOption,
    UrlOption,
    parse_place,
)
from headrace.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from headrace.log.port import Log, Stored
    from headrace.store import Store

log = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_BATCH = 200
_FOLLOW_SECONDS = 0.5

PartitionOption = Annotated[
    int | None, typer.Option("--partition", min=0, metavar="N", help="Only this partition.", show_default=False)
]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="Only records of this type; mail.* takes all of a family.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(log, name="log", help="Read the log itself: records as they stand there, in order.")


@log.command("create")
def create(
    *,
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, max=65536, metavar="N", help="How many, for the log's whole life.")
    ] = 64,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the log in Kafka that HEADRACE_LOG_URL names, or finish making it. Safe to repeat, and from several at once.

    With a new log a master key is made, in HEADRACE_KEY_FILE or the store's directory: every process on the log needs
    the same one.
    """
    from headrace.cli.preparing import created

    made = created(store, partitions)
    if as_json:
        output.document(made)
        return
    output.text(f"log {made['log_id']}, {made['partitions']} partitions")
    output.note(f"headrace: every process on it needs the key in {made['key_file']}; back it up")


@log.command("copy")
def copy(
    *,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="LOG", help="sqlite:DIRECTORY or kafka://host:port/topic.", show_default=False),
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="LOG", help="The same forms; a new place.")],
    move: Annotated[
        bool | None,
        typer.Option(
            "--move/--replica",
            help="Whether the log goes on there, or is only read.  [default: it moves to Kafka; a file is a replica]",
            show_default=False,
        ),
    ] = None,
    discard: Annotated[
        bool,
        typer.Option("--discard", help="Delete the unfinished copy at --to, and nothing else.", show_default=False),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a log: to Kafka when one machine has become too small, or home into a file, to audit it.

    Everything stays what it was: the log's id, every record, offset, time, chain value and token. It can be interrupted
    and repeated at any time; while headrace runs on the log most of the work is done, and it waits for that to end.
    """
    from headrace.cli import log_copying

    if discard:
        if from_ is not None or move is not None:
            raise typer.BadParameter(
                "it deletes the unfinished copy at --to: only that goes with it", param_hint="--discard"
            )
        log_copying.discard(to)
        return
    if from_ is None:
        raise typer.BadParameter("say which log to copy, or --discard the unfinished copy at --to", param_hint="--from")
    told = log_copying.copy(from_, to, move=move)
    output.document(told) if as_json else log_copying.print_told(told)


@log.command("ls")
def list_(
    *,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    partition: PartitionOption = None,
    type_: TypeOption = None,
    after: Annotated[
        Place | None,
        typer.Option(
            "--after", parser=parse_place, metavar="POSITION", help="Only its partition, from behind this position on."
        ),
    ] = None,
    opening: Annotated[
        bool, typer.Option("--opening", help="Also the opening record of every partition.", show_default=False)
    ] = False,
    content: ContentOption = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List records, oldest first. Across partitions they are ordered by the time they were appended."""
    from headrace.cli.reading import checked, reading

    with reading(store) as opened:
        start = 0
        if after is not None:
            position = checked(opened, after)
            if partition not in (None, position.partition):
                raise BadInputError(f"--after {position.partition}:{position.offset} is not in partition {partition}")
            partition, start = position.partition, position.offset + 1
        filters = _Filter(opened, tenant, account, partition, type_, opening=opening, content=content)
        found = list(islice(filters.records(start), limit + 1))
    more = len(found) > limit
    _print(found[:limit], as_json=as_json)
    if more:
        output.note(f"headrace: there are more; raise --limit, or go on with --after {found[limit - 1]['position']}")


@log.command("show")
def show(
    *,
    position: PlaceArgument,
    store: StoreOption = None,
    content: ContentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show one record whole: envelope, body, and what became of it."""
    from headrace.cli.reading import checked, reading, rows
    from headrace.cli.records import RecordView

    with reading(store) as opened:
        at = checked(opened, position)
        stored = opened.log.read(at.partition, at.offset, 1)
        if not stored:
            raise NotFoundError(f"there is no record at {at.partition}:{at.offset}")
        record = RecordView(opened.registry, content=content).shown(stored[0])
        sql = "SELECT * FROM {} WHERE partition = :partition AND offset = :offset"
        folded = rows(opened.tables, sql.format("events"), **at._asdict())
        verdicts = rows(opened.tables, sql.format("verdicts"), **at._asdict())
    record["fold"] = _fold(folded[0], verdicts) if folded else None
    if as_json:
        output.document(record)
        return
    output.fields((name, value) for name, value in record.items() if name not in ("body", "fold", "concerns"))
    output.text("body")
    output.block(record["body"])
    output.text("what became of it" if folded else "not folded yet")
    if folded:
        output.block(record["fold"])


@log.command("redeliver")
def redeliver(
    *,
    position: PlaceArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it comes to.", show_default=False)] = False,
    store: StoreOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a stored delivery (a source.notified) again: read its raw form as today's code does, and hint its source.

    What showed who sent it is not kept, so that is not verified again; it was when it came. No hint is added while an
    earlier one waits for its sync.
    """
    import asyncio

    from headrace.cli.redelivering import print_told, run_again

    done = asyncio.run(run_again(position, store, url, api_key, dry_run=dry_run))
    output.document(done) if as_json else print_told(done, dry_run=dry_run)


@log.command("tail")
def tail(
    *,
    store: StoreOption = None,
    tenant: TenantOption = None,
    account: AccountOption = None,
    partition: PartitionOption = None,
    type_: TypeOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is appended, until Ctrl-C.", show_default=False)
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, metavar="N", help="How many of the last ones.")] = 10,
    content: ContentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the last records, and with -f every one that follows."""
    from headrace.cli.interrupts import heeded
    from headrace.cli.reading import reading

    with reading(store) as opened, heeded() as check:
        filters = _Filter(opened, tenant, account, partition, type_, opening=False, content=content)
        ends = dict(enumerate(opened.log.describe().ends))
        last = filters.last(lines) if lines else []
        if as_json:
            for record in last:
                output.line(record)
        elif not follow:
            _print(last, as_json=False)
        else:
            for record in last:
                _print_line(record)
        while follow:
            check()
            for grown in sorted(opened.log.wait(ends, _FOLLOW_SECONDS)):
                for record in filters.following(grown, ends):
                    output.line(record) if as_json else _print_line(record)


class _Filter:
    """Which records are asked for."""

    def __init__(
        self,
        store: "Store",
        tenant: str | None,
        account: str | None,
        partition: int | None,
        type_: str | None,
        *,
        opening: bool,
        content: bool,
    ) -> None:
        from headrace.cli.records import RecordView

        self._log = store.log
        self._view = RecordView(store.registry, content=content)
        self._tenant, self._account, self._type, self._opening = tenant, account, type_, opening
        count = store.log.describe().partitions
        if partition is not None and partition >= count:
            raise NotFoundError(f"there is no partition {partition}; this log has 0 to {count - 1}")
        if partition is None and tenant is not None and account is not None:
            partition = store.intake.partition(tenant, account)
        self._partitions = range(count) if partition is None else range(partition, partition + 1)

    def records(self, start: int) -> Iterator[dict[str, Any]]:
        """Oldest first, from offset ``start`` on of each partition."""
        runs = [_from(self._log, partition, start) for partition in self._partitions]
        return self._shown(heapq.merge(*runs, key=lambda stored: (stored.appended_at, stored.partition)))

    def last(self, count: int) -> list[dict[str, Any]]:
        """The last ``count``, oldest first."""
        found: list[Stored] = []
        for partition in self._partitions:
            newest = islice((one for one in _backwards(self._log, partition) if self._wants(one)), count)
            found += newest
        found.sort(key=lambda stored: (stored.appended_at, stored.partition, stored.offset))
        return [self._view.shown(stored) for stored in found[-count:]]

    def following(self, partition: int, ends: dict[int, int]) -> Iterator[dict[str, Any]]:
        """What was appended behind ``ends``, which moves on."""
        for stored in _from(self._log, partition, ends[partition]):
            ends[partition] = stored.offset + 1
            if partition in self._partitions:
                yield from self._shown([stored])

    def _shown(self, run: "Iterable[Stored]") -> Iterator[dict[str, Any]]:
        return (self._view.shown(stored) for stored in run if self._wants(stored))

    def _wants(self, stored: "Stored") -> bool:
        if stored.offset == 0 and not self._opening and self._type is None:
            return False
        tenant, _, account = (stored.key or b"").decode(errors="replace").partition("/")
        if self._tenant not in (None, tenant) or self._account not in (None, account):
            return False
        return self._type is None or _fits(
            self._type, dict(stored.headers).get("ce_type", b"").decode("utf-8", "replace")
        )


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == name


def _from(log_: "Log", partition: int, start: int) -> "Iterator[Stored]":
    offset, end = start, log_.describe().ends[partition]
    while offset < end:
        run = log_.read(partition, offset, min(_BATCH, end - offset))
        if not run:
            return
        yield from run
        offset += len(run)


def _backwards(log_: "Log", partition: int) -> "Iterator[Stored]":
    end = log_.describe().ends[partition]
    while end > 0:
        start, run = max(0, end - _BATCH), deque["Stored"]()
        while start + len(run) < end:  # fewer come at a time where they are large: only the last are wanted
            found = log_.read(partition, start + len(run), end - start - len(run))
            if not found:
                return
            run.extend(found)
        while run:
            yield run.pop()
        end = start


def _fold(folded: dict[str, Any], verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    import json

    return {
        "disposition": folded["disposition"],
        "effect": folded["effect"],
        "note": folded["note"],
        "proposal": folded["proposal"],
        "verdict": json.loads(verdicts[0]["text"]) if verdicts else None,
        "log_time": output.time(folded["log_time"]),
        "chain": folded["chain"].hex(),
    }


def _print(found: list[dict[str, Any]], *, as_json: bool) -> None:
    from headrace.cli import records

    if as_json:
        output.document(found)
    elif found:
        output.table(records.COLUMNS, map(records.row, found))
    else:
        output.note("headrace: no such records")


def _print_line(record: dict[str, Any]) -> None:
    from headrace.cli import records

    output.columns(records.row(record))
