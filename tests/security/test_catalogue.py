"""docs/security.md says what is there: every check, every test, and no test of this folder is left out."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TABLE = ROOT / "docs" / "security.md"
CHECK = re.compile(r"`([\w.]+)` in `([\w./]+)`")
TEST = re.compile(r"`(?:([\w/.]+\.py)::)?(test_\w+)`")


def rows():
    """(class, elsewhere, checks, tests, test file of the section) of each row."""
    found, module = [], None
    for line in TABLE.read_text().splitlines():
        if section := re.match(r"## .*\(`(tests/security/test_\w+\.py)`\)", line):
            module = section[1]
        elif line.startswith("| ") and not line.startswith("| Class "):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found.append((*cells, module))
    return found


@functools.cache
def functions(path):
    """Names that a Python or Cython file defines: functions, methods, classes, and constants of its own."""
    text = path.read_text()
    if path.suffix == ".py":
        tree = ast.parse(text)
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        names = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
        targets = (node for part in tree.body if isinstance(part, ast.Assign) for node in part.targets)
        return names | {node.id for node in targets if isinstance(node, ast.Name)}
    return set(re.findall(r"^ *(?:cdef|cpdef|def|class)\b[^(\n=]*?\b(\w+)\(", text, re.M))


def tests_of(path):
    return {name for name in functions(ROOT / path) if name.startswith("test_")}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_of_the_table(row):
    """It has four cells, and what it names is there."""
    assert len(row) == 5, "a row has a class, what it did elsewhere, our check, our test"
    _, elsewhere, checks, tests, module = row
    assert elsewhere
    named = CHECK.findall(checks)
    assert named
    for name, path in named:
        assert name.rpartition(".")[2] in functions(ROOT / path), f"{name} in {path}"
    tried = TEST.findall(tests)
    assert tried
    for path, name in tried:
        assert name in tests_of(path or module), f"{name} in {path or module}"


def test_there_are_many():
    assert len(rows()) >= 40
    classes = [row[0] for row in rows()]
    assert len(set(classes)) == len(classes)


def test_every_test_of_this_folder_is_there():
    listed = {(path or row[4], name) for row in rows() for path, name in TEST.findall(row[3])}
    for path in sorted(HERE.glob("test_*.py")):
        if path.name != Path(__file__).name:
            for name in sorted(tests_of(path.relative_to(ROOT))):
                assert (str(path.relative_to(ROOT)), name) in listed, f"{path.name}::{name} is in no row"
