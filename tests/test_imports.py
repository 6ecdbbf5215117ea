"""Who may import whom, compiled modules included: docs/design.md, "The parts"."""

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT = re.compile(r"^\s*(?:(?:from|cimport|import) cdna\.|from cdna c?import )(\w+)", re.M)

PARTIES = {"nic", "vmm", "guest_driver"}  # they meet in the modules beside these folders alone
SEAMS = {"base", "extend", "protocol"}
MAY = {"vmm": {"nic"}}  # it holds the NIC
ONLY_THEMSELVES = {
    "cli": {"cli"},
    "fuzz": {"fuzz", "cli", "report"},
    "compare": {"compare", "report", "bench", "cli"},
}


def imports() -> dict[str, set[str]]:
    """By folder, the folders that it imports from."""
    found = defaultdict(set)
    for tree in (ROOT / "cdna", ROOT / "ext" / "cdna"):
        for path in tree.rglob("*.p[xy]*"):
            if path.suffix in {".py", ".pyi", ".pyx", ".pxd"} and path.parent != tree:
                folder = path.relative_to(tree).parts[0]
                named = {name for name in IMPORT.findall(path.read_text()) if (ROOT / "cdna" / name).is_dir()}
                found[folder] |= named - {folder}
    return found


def test_parties_meet_in_the_seams_alone() -> None:
    wrong = {
        (folder, other)
        for folder, others in imports().items()
        if folder in PARTIES | SEAMS
        for other in others - SEAMS - MAY.get(folder, set())
    }
    assert wrong == set()


def test_what_nobody_else_imports() -> None:
    wrong = {
        (folder, other)
        for folder, others in imports().items()
        for other in others & set(ONLY_THEMSELVES)
        if folder not in ONLY_THEMSELVES[other]
    }
    assert wrong == set()


def test_there_is_no_circle() -> None:
    graph = imports()
    assert {(a, b) for a, others in graph.items() for b in others if a in reaches(graph, b)} == set()


def reaches(graph: dict[str, set[str]], start: str) -> set[str]:
    found, todo = set(), [start]
    while todo:
        for other in graph.get(todo.pop(), set()) - found:
            found.add(other)
            todo.append(other)
    return found
