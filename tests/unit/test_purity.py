"""The fold sees the records and nothing else.

Import-linter keeps clocks, randomness and IO out of the pure modules' imports. Here is what an import cannot show:
builtins that differ between runs, a clock behind ``datetime``, state kept between calls, the order of a set.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = ("processors/core", "processors/kinds")

IMPURE_BUILTINS: Final = frozenset(
    {"open", "print", "input", "hash", "id", "eval", "exec", "compile", "globals", "breakpoint", "__import__"}
)
LOCAL_CLOCK: Final = frozenset(
    {"now", "utcnow", "today", "fromtimestamp", "utcfromtimestamp", "timestamp", "astimezone", "strftime"}
)
MUTATORS: Final = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault"}
    | {"sort", "reverse", "update"}
)
ANY_ORDER: Final = frozenset({"sorted", "set", "frozenset", "any", "all", "sum", "min", "max", "len"})
MUTABLE: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
FUNCTION: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def impurities(source: str) -> list[str]:
    """What in this module's text could make two runs differ, as ``line: why``, in line order."""
    tree = ast.parse(source)
    found = [*_calls(tree), *_clocks(tree), *_kept_state(tree), *_set_order(tree)]
    return [f"{line}: {why}" for line, why in sorted(found)]


def _calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in IMPURE_BUILTINS:
            yield node.lineno, f"builtin {node.id}"
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "async: the fold waits for nothing"


def _clocks(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Where ``datetime`` is imported at all, nothing of it that asks this machine for its time or its zone.

    ``(when - EPOCH) // timedelta(milliseconds=1)`` does what ``timestamp`` does and refuses a naive ``when``.
    """
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    if not any(
        "datetime" in {getattr(node, "module", None), *(alias.name for alias in node.names)} for node in imports
    ):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in LOCAL_CLOCK:
            yield node.lineno, f"datetime's {node.attr}"


def _kept_state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    shared = {name for name, value in _assigned(tree) if _is_mutable(value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"global {', '.join(node.names)}"
    for function in (node for node in ast.walk(tree) if isinstance(node, FUNCTION)):
        for node in ast.walk(function):
            name = _changed(node)
            if isinstance(node, ast.expr) and name in shared and name not in _locals(function):
                yield node.lineno, f"changes {name}, which outlives the call"


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.value


def _is_mutable(value: ast.expr | None) -> bool:
    return isinstance(value, (*MUTABLE, ast.Call))


def _changed(node: ast.AST) -> str | None:
    """The name of what this node changes in place, if it does."""
    place: ast.expr | None = None
    if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
        place = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        place = node.func.value
    return place.id if isinstance(place, ast.Name) else None


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    names = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    return names | {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _set_order(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Text's hash differs from process to process, and with it the order in which a set yields it."""
    harmless = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ANY_ORDER
        for argument in node.args
    }
    for node in ast.walk(tree):
        walked: list[ast.expr] = []
        if isinstance(node, ast.For):
            walked = [node.iter]
        elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp) and id(node) not in harmless:
            walked = [generator.iter for generator in node.generators]
        elif isinstance(node, ast.Call) and _gives_order(node.func):
            walked = node.args
        elif isinstance(node, ast.Starred):
            walked = [node.value]
        yield from ((place.lineno, "a set's order: sort it") for place in walked if _is_set(place))


def _gives_order(func: ast.expr) -> bool:
    if isinstance(func, ast.Name):
        return func.id in {"list", "tuple", "iter", "enumerate", "next", "map", "filter", "zip"}
    return isinstance(func, ast.Attribute) and func.attr == "join"


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp)


def pure_modules() -> list[Path]:
    return sorted(path for folder in PURE for path in (ROOT / folder).rglob("*.py"))


def test_there_are_pure_modules() -> None:
    assert {path.parent.relative_to(ROOT).as_posix() for path in pure_modules()} >= set(PURE)


@pytest.mark.parametrize("path", pure_modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_pure_module_is_pure(path: Path) -> None:
    assert impurities(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("open('x')", "1: builtin open"),
        ("print(1)", "1: builtin print"),
        ("sorted(refs, key=hash)", "1: builtin hash"),
        ("order = {id(ref) for ref in refs}", "1: builtin id"),
        ("async def f(): ...", "1: async: the fold waits for nothing"),
        ("from datetime import datetime\nx = datetime.now()", "2: datetime's now"),
        ("import datetime as d\nx = d.datetime.fromtimestamp(0)", "2: datetime's fromtimestamp"),
        ("from datetime import date\nf = date.today", "2: datetime's today"),
        ("n = 0\ndef f():\n    global n\n    n += 1", "3: global n"),
        ("seen = {}\ndef f(x):\n    seen[x] = 1", "3: changes seen, which outlives the call"),
        ("seen = set()\ndef f(x):\n    seen.add(x)", "3: changes seen, which outlives the call"),
        ("seen: list[int] = []\nf = lambda x: seen.append(x)", "2: changes seen, which outlives the call"),
        ("for x in {1, 2}: ...", "1: a set's order: sort it"),
        ("x = [y for y in set(z)]", "1: a set's order: sort it"),
        ("x = tuple(frozenset(z))", "1: a set's order: sort it"),
        ("x = ','.join({y for y in z})", "1: a set's order: sort it"),
        ("x = [*set(z)]", "1: a set's order: sort it"),
    ],
)
def test_a_planted_impurity_is_found(source: str, why: str) -> None:
    assert impurities(source) == [why]


@pytest.mark.parametrize(
    "source",
    [
        "x = ref.id",
        "class Ref:\n    id: str",
        "from datetime import datetime\nx = datetime.fromisoformat('2026-11-21T00:00:00Z')",
        "x = context.now",
        "TABLE = {'a': 1}\ndef f(x):\n    return TABLE[x]",
        "seen = []\ndef f(x):\n    seen = []\n    seen.append(x)",
        "def f(seen):\n    seen.append(1)",
        "for x in sorted({1, 2}): ...",
        "x = any(y > 1 for y in {1, 2})",
        "x = {y + 1 for y in set(z)}",
    ],
)
def test_what_is_pure_passes(source: str) -> None:
    assert impurities(source) == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and the contracts, to plant wrong imports in."""
    root = tmp_path_factory.mktemp("contracts")
    for folder in ("headrace", "schemas", "producers", "processors", "projections"):
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def broken_contracts(root: Path) -> str:
    """What import-linter says of this tree; empty when every contract is kept."""
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([linter, "--no-logo", "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode in {0, 1}
    return ran.stdout if ran.returncode else ""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("processors/core/__init__.py", "import time"),
        ("processors/core/__init__.py", "from zoneinfo import ZoneInfo"),
        ("processors/kinds/__init__.py", "import os.path"),
        ("processors/kinds/__init__.py", "import headrace.log.port"),
        ("schemas/__init__.py", "import headrace.processors"),
        ("processors/__init__.py", "import headrace.producers"),
        ("projections/__init__.py", "import headrace.processors"),
    ],
)
def test_a_planted_import_breaks_a_contract(copy: Path, path: str, line: str) -> None:
    module = copy / path
    before = module.read_text(encoding="utf-8")
    module.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        said = broken_contracts(copy)
    finally:
        module.write_text(before, encoding="utf-8")
    imported = line.split()[1].removesuffix(".path")
    assert "BROKEN" in said
    assert f"-> {imported}" in said


def test_a_clock_reached_by_way_of_another_module_breaks_the_contract(copy: Path) -> None:
    helper = copy / "schemas" / "planted.py"
    module = copy / "processors" / "core" / "__init__.py"
    before = module.read_text(encoding="utf-8")
    helper.write_text("import time\n", encoding="utf-8")
    module.write_text(f"{before}\nimport headrace.schemas.planted\n", encoding="utf-8")
    try:
        said = broken_contracts(copy)
    finally:
        helper.unlink()
        module.write_text(before, encoding="utf-8")
    assert "headrace.processors.core -> headrace.schemas.planted" in said
