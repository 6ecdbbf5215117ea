"""Line and branch coverage of the data path: the fuzzers' inputs and the tests that are about it.

    python fuzz/coverage.py [--json FILE] [--missing] [--no-run] [TEST ...]

The modules are built with gcc's --coverage (`CDNA_VARIANT=coverage`); by Cython's line directives gcov speaks
of .pyx and .pxd files. A function of a .pxd is compiled into several modules: a line, or a way that a branch
can go, is covered if it is in any of them.

Functions that run without the interpreter, `noexcept nogil`, are the data path; the files that they are in
are below. What else is in those files is Python, whose generated error handling nobody wants to read about.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIB = Path("build/coverage/lib")
OBJECTS = Path("build/coverage/objects")

DATA_PATH = (  # patterns below the root, and what of them is none: benchmarks, control
    "ext/cdna/nic/**/*.pxd",
    "ext/cdna/vmm/protection.pxd",
    "ext/cdna/guest_driver/queues.pxd",
    "ext/cdna/guests/tap_port.pxd",
    "ext/cdna/guests/slow_tap.pxd",
    "ext/cdna/guests/udp_gro.pxd",
    "ext/cdna/nic/**/*.pyx",
    "ext/cdna/vmm/*.pyx",
    "ext/cdna/guests/pump.pyx",
)
LEFT_OUT = ("traffic", "generator", "line")  # the load of benchmarks, and its checks
TESTS = (  # two groups, which run at the same time
    ("tests/nic", "tests/guests", "tests/captures", "tests/test_model.py"),
    ("tests/vmm",),
)
WANTED = 96.0  # per cent of lines

BEGIN = re.compile(r"( *)c(?:p)?def .*")


def data_path() -> list[Path]:
    found = [path for pattern in DATA_PATH for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT) for path in found if path.stem not in LEFT_OUT]


def functions(path: Path) -> set[int]:
    """The lines of the functions of a file that run without the interpreter; not those of their heads."""
    lines = (ROOT / path).read_text().splitlines()
    inside: set[int] = set()
    at = 0
    while at < len(lines):
        begin = BEGIN.fullmatch(lines[at])
        head = at
        if begin and "(" in lines[at]:
            while head + 1 < len(lines) and not lines[head].rstrip().endswith((":", "nogil", "noexcept")):
                head += 1
            if lines[head].rstrip().endswith("nogil:"):
                indent = len(begin[1])
                end = head + 1
                while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
                    end += 1
                inside |= set(range(head + 2, end + 1))
                at = end
                continue
        at = head + 1
    return inside


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


# --- running ----------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    paths = [str(ROOT / LIB), str(ROOT)]
    # CI: hypothesis sets no deadlines, which this build would not keep.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "CI": "1"}


def forget() -> None:
    """Drops the counts of earlier runs."""
    for path in (ROOT / OBJECTS).rglob("*.gcda"):
        path.unlink()


def run(arguments: list[str], timeout: float) -> int:
    try:
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment(), timeout=timeout
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"not done after {timeout:.0f} s, and ended: {' '.join(arguments)}", file=sys.stderr)
        return 1


PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "pythonpath=", "--no-header", "--timeout=300")


def measure(groups: Iterable[Iterable[str]], timeout: float) -> int:
    """The fuzzers' inputs, then each group of tests beside the others. Returns how many failed."""
    forget()
    failed = run(["-m", "fuzz.replay"], timeout) != 0
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda tests: run([*PYTEST, *tests], timeout), groups)
        return failed + sum(status != 0 for status in results)


# --- what gcov says ---------------------------------------------------------------------------------------


class Lines:
    """Of one file: how often each line was reached, and each way out of its branches."""

    def __init__(self) -> None:
        self.count: dict[int, int] = defaultdict(int)
        self.ways: dict[int, list[int]] = {}

    def add(self, line: int, count: int, ways: list[int]) -> None:
        self.count[line] += count
        known = self.ways.get(line)
        if known is None or len(known) == len(ways):
            self.ways[line] = [a + b for a, b in zip(known or [0] * len(ways), ways, strict=True)]
        elif _share(ways) > _share(known):  # other code was made of it in this module
            self.ways[line] = ways


def _share(ways: list[int]) -> float:
    return sum(map(bool, ways)) / len(ways) if ways else 1.0


def gcov(data: Path) -> dict[str, Any]:
    told = subprocess.run(
        ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(data)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return dict(json.loads(told.stdout))


def collect() -> dict[Path, Lines]:
    """What was covered of the data path's functions, merged over all compiled modules."""
    wanted = {path: functions(path) for path in data_path()}
    found: dict[Path, Lines] = {path: Lines() for path in wanted}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for told in pool.map(gcov, sorted((ROOT / OBJECTS).rglob("*.gcda"))):
            for file in told["files"]:
                path = Path("ext", file["file"])  # Cython names its sources from there
                for line in file["lines"] if path in wanted else ():
                    if line["line_number"] in wanted[path]:
                        ways = [branch["count"] for branch in line["branches"]]
                        found[path].add(line["line_number"], line["count"], ways)
    return {path: lines for path, lines in found.items() if lines.count}


def summary(found: dict[Path, Lines]) -> dict[str, Any]:
    """Figures by file and in all; `missing`: lines that nothing reached."""
    files = {}
    for path, lines in found.items():
        ways = [way for found_ways in lines.ways.values() for way in found_ways]
        files[str(path)] = {
            "lines": len(lines.count),
            "lines_covered": sum(map(bool, lines.count.values())),
            "branches": len(ways),
            "branches_covered": sum(map(bool, ways)),
            "missing": sorted(line for line, count in lines.count.items() if not count),
            "partial": sorted(
                line for line, w in lines.ways.items() if lines.count[line] and not all(w) and w
            ),
        }
    keys = ("lines", "lines_covered", "branches", "branches_covered")
    return {"files": files, "all": {key: sum(file[key] for file in files.values()) for key in keys}}


def per_cent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def show(figures: dict[str, Any], missing: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Coverage of the data path", title_justify="left")
    table.add_column("file")
    for name in ("lines", "%", "branches", "%"):
        table.add_column(name, justify="right")
    if missing:
        table.add_column("not reached")
    for path, file in [*sorted(figures["files"].items()), ("all", figures["all"])]:
        row = [path]
        for what in ("lines", "branches"):
            row += [str(file[what]), f"{per_cent(file[what + '_covered'], file[what]):.1f}"]
        if missing:
            row.append(" ".join(map(str, file.get("missing", ()))))
        table.add_row(*row, end_section=False)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("--missing", action="store_true", help="show the lines that nothing reached")
    parser.add_argument("--no-run", action="store_true", help="show what earlier runs have left")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds that the tests may take")
    parser.add_argument("tests", nargs="*", help="instead of those about the data path")
    options = parser.parse_args()
    failed = 0 if options.no_run else measure([options.tests] if options.tests else TESTS, options.timeout)
    figures = summary(collect())
    if not figures["files"]:
        print(f"nothing was measured: no counts in {OBJECTS} are of the data path's files", file=sys.stderr)
        return 1
    show(figures, options.missing)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")
    reached = per_cent(figures["all"]["lines_covered"], figures["all"]["lines"])
    if reached < WANTED:
        print(f"{reached:.1f} % of the data path's lines: {WANTED} are wanted", file=sys.stderr)
    return 1 if failed or reached < WANTED else 0


if __name__ == "__main__":
    sys.exit(main())
