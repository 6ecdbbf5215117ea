"""Invariants of the NIC's seams: numbered at the head of their file, and each names what holds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.spin import checks

ROOT = Path(__file__).parents[2]
NIC = ROOT / "ext/cdna/nic"
FILES = {"R": NIC / "native/ring.pxd", "Q": NIC / "virtio/queue.pxd", "I": NIC / "irq_ring.pxd"}
HEAD = re.compile(r"^    ([A-Z])(\d+)  \S.*\n((?:^        .*\n)+)", re.M)


def invariants(path: Path) -> list[tuple[str, int, list[str]]]:
    """Of each: its letter, its number, and the names of what holds it."""
    found = HEAD.findall(path.read_text().split('"""')[1])
    return [(letter, int(number), re.findall(r"\w+", names)) for letter, number, names in found]


@pytest.mark.parametrize("letter", FILES)
def test_they_are_numbered_and_something_holds_each(letter: str) -> None:
    found = invariants(FILES[letter])
    assert [(a, b) for a, b, _ in found] == [(letter, n) for n in range(1, len(found) + 1)]
    assert len(found) >= 4
    assert all(names for *_, names in found)


@pytest.mark.parametrize("letter", FILES)
def test_what_holds_them_exists(letter: str) -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "ext/cdna").rglob("*.p[xy]*")))
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
    for _, number, names in invariants(FILES[letter]):
        for name in names:
            if name.startswith("CHECK_"):
                assert re.search(rf"broken\(\s*{name}\b", sources), f"{letter}{number}: nothing checks {name}"
            elif name.startswith("test_"):
                assert f"def {name}(" in tests, f"{letter}{number}: there is no {name}"
            else:
                assert name in checks(), f"{letter}{number}: the models have no {name}"


def test_a_wire_says_what_belongs_to_whom() -> None:
    contract, struct = (NIC / "wire_contract.pxd").read_text().split('"""')[1:]
    for member in re.findall(r"^    (?:\w+ \(?\*?)(\w+)", struct.split("cdef struct wire_t:")[1], re.M):
        assert re.search(rf"\b{member}\b", contract), f"wire_contract.pxd does not say whose {member} is"
