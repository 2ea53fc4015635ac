"""What the audit commands print."""

import sys
from collections.abc import Generator
from contextlib import contextmanager

from headrace.cli import output
from headrace.processors.findings import Report
from headrace.processors.replay import Progress


@contextmanager
def progress(what: str) -> Generator[Progress | None, None, None]:
    """A bar on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal waits for rich
    from rich.progress import Progress as Bar  # noqa: PLC0415

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_report(report: Report) -> None:
    """The report of ``audit verify`` as a screen."""
    if report.verified:
        output.text(f"verified: {report.records} records folded again, {report.rows} rows compared, nothing differs")
    for finding in report.findings:
        where = f"{finding.partition}:{finding.offset}" if finding.offset is not None else finding.table or "-"
        output.text(f"MISMATCH  {finding.what:<10}  {where:<10}  {output.plain(finding.message)}")
        if finding.column is not None and finding.what == "row":
            told = finding.to_json()
            output.text(f"          in the tables      {output.plain(told.get('live'))}")
            output.text(f"          the log leads to   {output.plain(told.get('refolded'))}")
    if not report.verified:
        more = report.found - len(report.findings)
        output.text(
            f"{report.found} mismatches{f', {more} not shown (raise --limit)' if more else ''};"
            f" {report.records} records folded again, {report.rows} rows compared"
        )
        output.note(_advice(report))


def _advice(report: Report) -> str:
    if any(finding.what in ("log", "halt") for finding in report.findings):
        return "headrace: the log is not what it was: restore log.db from a backup; the tables hold what it had led to"
    return "headrace: the log is sound: stop headrace, delete tables.db, and `headrace dev` folds it again from the log"
