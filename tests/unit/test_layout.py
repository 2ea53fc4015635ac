"""The shape of the tree: stages and their links, sizes, and nothing that only works on one machine."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("schemas", "producers", "processors", "projections")
FOLDERS = (*STAGES, "headrace", "infra", "tests")
MODULE_LINES = 400
FUNCTION_LINES = 70
NOT_OURS = {"build", "dist", "node_modules", "__pycache__"}
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:(?:root|home/\w+|Users/\w+)/|work/(?:main|shared)\b)")


def project_files(root: Path = ROOT) -> Iterator[Path]:
    """Every file of the project, from a checkout or an unpacked source distribution; links are not followed."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(
            name
            for name in names
            if name not in NOT_OURS
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name == ".ci")
            and not (Path(folder) / name).is_symlink()
        )
        yield from (Path(folder, name) for name in sorted(files) if not name.endswith(".pyc"))


def modules() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project_config() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_folder_linked_into_the_package(stage: str) -> None:
    link = ROOT / "headrace" / stage
    assert link.is_symlink(), f"headrace/{stage} must be a link; `make setup` puts back one that is missing"
    assert link.readlink() == Path("..") / stage
    assert (link / "__init__.py").samefile(ROOT / stage / "__init__.py")


def test_links_lead_to_stages_and_nowhere_else() -> None:
    links = {path.name for path in (ROOT / "headrace").rglob("*") if path.is_symlink()}
    assert links == set(STAGES)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_top_level_folder_exists(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder).is_symlink()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("line", ["import {stage}", "import {stage}.refs", "from {stage}.refs import EntityRef"])
def test_a_bare_stage_import_is_refused_by_ruff(stage: str, line: str, tmp_path: Path) -> None:
    banned = project_config()["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(STAGES) <= set(banned)
    planted = tmp_path / "planted.py"
    planted.write_text(line.format(stage=stage) + "\n", encoding="utf-8")
    ruff = Path(sys.executable).with_name("ruff")
    options = ("--no-cache", "--output-format=concise", "--config", ROOT / "pyproject.toml")
    ran = subprocess.run([ruff, "check", *options, planted], capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert f"TID251 `{stage}" in ran.stdout
    assert f"import headrace.{stage}" in ran.stdout


def test_no_module_imports_a_stage_by_its_bare_name() -> None:
    bare: list[str] = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_bytes())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            bare += [f"{named(path)}: {name}" for name in names if name.split(".")[0] in STAGES]
    assert bare == []


def test_no_module_outgrows_its_noun() -> None:
    counted = {named(path): len(path.read_bytes().splitlines()) for path in modules()}
    assert counted, "no modules found: is the walk broken?"
    assert {name: lines for name, lines in counted.items() if lines > MODULE_LINES} == {}


def test_no_function_outgrows_a_screen() -> None:
    long: dict[str, int] = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{named(path)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_nothing_names_a_folder_of_one_machine() -> None:
    found: list[str] = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            found += [f"{named(path)}:{number}: {match[0]}" for match in MACHINE_PATH.finditer(line)]
    assert found == []


@pytest.mark.parametrize("path", ["/".join(["", "root", "x"]), "/".join(["", "home", "ann", "x"])])
def test_a_folder_of_one_machine_would_be_noticed(path: str) -> None:
    assert MACHINE_PATH.search(f'open("{path}")')


@pytest.mark.parametrize("lock", ["bootstrap", "runtime", "dev"])
def test_locks_hold_hashes_and_no_registry(lock: str) -> None:
    text = (ROOT / "infra" / "lock" / f"{lock}.txt").read_text(encoding="utf-8")
    assert "://" not in text, "a lock names a registry: write it with `make lock`"
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE), "a lock sets an option: write it with `make lock`"
    for requirement in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[a-z0-9.-]+==\S+ (?:; [^\n]+ )?\\\n +--hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_what_runs_is_locked_as_what_is_tested() -> None:
    def pins(lock: str) -> set[str]:
        text = (ROOT / "infra" / "lock" / f"{lock}.txt").read_text(encoding="utf-8")
        return set(re.findall(r"^\S+==\S+", text, re.MULTILINE))

    assert pins("runtime") <= pins("dev")
