"""What every file keeps to: imports go downward, a module says why it exists, each thing has one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from infra import PACKAGES
from lineage.catalogue import catalogue
from lineage.schemas import TABLES

ROOT = Path(__file__).parents[1]
MOST_LINES = 520
FILES = {
    path.relative_to(ROOT).as_posix(): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def test_the_packages_are_those_that_the_build_takes():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}
    assert packages == set(PACKAGES)
    assert len(FILES) > 80


def test_imports_keep_to_the_contracts():
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout
    contracts = (ROOT / "pyproject.toml").read_text().count("[[tool.importlinter.contracts]]")
    assert contracts >= 3
    assert f"Contracts: {contracts} kept, 0 broken." in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_a_module_says_in_its_first_sentence_why_it_exists(name: str):
    said = (ast.get_docstring(TREES[name]) or "").partition("\n\n")[0]
    assert len(said) > 20, f"{name} begins with {said!r}"
    assert said[-1] in ".:?!" or "    " in said, (
        f"{name} begins with {said!r}"
    )  # a picture may follow at once


def test_no_file_is_a_whale():
    long = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def reads_the_environment(tree: ast.AST) -> bool:
    names = {"environ", "getenv", "putenv"}
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    }
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    return bool(names & (imported | used))


def test_only_settings_read_the_environment():
    readers = {name for name, tree in TREES.items() if reads_the_environment(tree)}
    assert readers == {"infra/settings.py"}


def test_each_table_names_its_writers_and_they_exist():
    assert len(TABLES) > 15
    writers = {spec.name: spec.writer.split(", ") for spec in TABLES.values()}
    for name, modules in writers.items():
        for path in (module.replace(".", "/") for module in modules):
            assert f"{path}.py" in FILES or f"{path}/__init__.py" in FILES, f"{name}: {modules}"
    several = {name for name, modules in writers.items() if len(modules) > 1}
    assert several == {"rejected"}, (
        "a step rejects what it reads, a gate what it judges; all else has one writer"
    )


def test_the_catalogue_of_tables_is_up_to_date():
    written = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert written == catalogue(), "run: make docs"
