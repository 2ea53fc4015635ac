"""``docs/sql.md``: its ten questions are asked of both databases, and it names every table there is."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headrace.processors.core.policy import DEFAULT_POLICY, Policy, PolicyRule
from headrace.processors.engine import Engine
from headrace.projections.postgres import PostgresTables
from headrace.projections.sqlite import SqliteTables
from tests.contract.rich_history import START, Author, MemoryLog, mail, write
from tests.contract.tables_recording import KINDS, REGISTRY
from tests.postgres.both import fold_by

Ask = Callable[..., list[tuple[Any, ...]]]
PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
_SECTION = re.compile(r"^### (?P<title>\d+\. .+?)\n(?P<body>.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```sql(?: (?P<of>sqlite|postgresql))?\n(?P<sql>.*?)^```$", re.MULTILINE | re.DOTALL)


class Question(NamedTuple):
    """A section of the page: the statement for each of the two."""

    title: str
    sqlite: str
    postgresql: str


def _questions() -> Iterator[Question]:
    for section in _SECTION.finditer(PAGE):
        blocks = {block["of"]: block["sql"] for block in _BLOCK.finditer(section["body"])}
        assert set(blocks) in ({None}, {"sqlite", "postgresql"}), section["title"]
        both = blocks.get(None, "")
        yield Question(section["title"], blocks.get("sqlite", both), blocks.get("postgresql", both))


QUESTIONS = list(_questions())


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    """Everything, and somebody who waits."""
    found = MemoryLog()
    review = PolicyRule("mail.label", "mail.labelled", "*", "review")
    author = Author(found, policy=Policy("review", (review, *DEFAULT_POLICY.rules)))
    head = author.fact("mail.received", "w-1", "wm-1", mail(900), content={"subject": "Lunch?", "text": "?"})
    author.fact("mail.labelled", "w-1", "wm-2", {"added": ["food"], "removed": []})
    thread = "mail.thread/w-1"
    author.propose("w-p", "mail.label", thread, [author.entity(thread, head)], {"added": ["x"], "removed": []})
    write(author)
    assert found.now > START
    return found


@pytest.fixture
def postgres(database: str, schema: str, log: MemoryLog) -> Iterator[PostgresTables]:
    """The history in PostgreSQL."""
    with PostgresTables(database, REGISTRY, KINDS, schema=schema) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, 0, (1_000,))
        yield tables


@pytest.fixture
def sqlite(log: MemoryLog) -> Iterator[SqliteTables]:
    """The history in SQLite."""
    with SqliteTables.in_memory(REGISTRY, KINDS) as tables:
        fold_by(Engine(REGISTRY, KINDS, tables), log, 0, (1_000,))
        yield tables


def test_there_are_ten() -> None:
    assert [question.title.partition(".")[0] for question in QUESTIONS] == [str(number) for number in range(1, 11)]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_both_answer_alike(question: Question, postgres: PostgresTables, sqlite: SqliteTables, ask: Ask) -> None:
    there = ask(question.postgresql)
    here = list(sqlite.connection.execute(question.sqlite))
    assert here
    assert [tuple(map(str, row)) for row in _plain(there)] == [tuple(map(str, row)) for row in _plain(here)]


def _plain(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(int(value) if isinstance(value, bool) else value for value in row) for row in rows]


def test_the_page_names_every_table(postgres: PostgresTables, sqlite: SqliteTables, ask: Ask) -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE.partition("## The tables")[2].partition("## Ten questions")[0]))
    there = {
        name
        for (name,) in ask(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v')"
        )
    }
    views = {f"{kind.table}_view" for kind in KINDS.values()}
    assert named - {"_view"} == there - views
    assert views < there
    inside = {str(name) for (name,) in sqlite.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert inside <= there
