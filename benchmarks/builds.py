"""Compares a build of cdna with an older one: they take turns in one run, and ratios are new over old.

    python benchmarks/builds.py OLD [NEW] [--seconds S] [--rounds N] [--only LOAD,...] [--json FILE]

OLD and NEW are checkouts with a build and a `.venv`, as `make build` leaves them; NEW is this one by default.

bench                 each row of `cdna bench`, and its bare ring, which is the same code in both
tx64, tx1514          `cdna serve` takes what a guest sends
rx64, rx1514          it sends to a guest
guests64, guests1514  two guests load each other

The guests are those of benchmarks/dpdk.py: one dpdk-testpmd on the other core. The builds take turns, and who
begins changes from round to round; a ratio is the median over rounds, with the quartiles.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

from netlab.program import compare, parse_turns, turns_parser, warn_if_busy
from netlab.tables import judged
from netlab.turns import Load, Loads, figures, take_turns
from vhostlab.backends import CdnaServe, Setup
from vhostlab.loads import guest_to_guest, guest_to_nic, nic_to_guest
from vhostlab.testpmd import need

from cdna.errors import ConfigError

NEW, OLD = "new", "old"
WANTED = "at least 0.98"
LOADS: dict[str, tuple[str, Callable[..., float], int]] = {
    "tx64": ("Guest to NIC, 64 B", guest_to_nic, 64),
    "tx1514": ("Guest to NIC, 1514 B", guest_to_nic, 1514),
    "rx64": ("NIC to guest, 64 B", nic_to_guest, 64),
    "rx1514": ("NIC to guest, 1514 B", nic_to_guest, 1514),
    "guests64": ("Guest to guest, both ways, 64 B", guest_to_guest, 64),
    "guests1514": ("Guest to guest, both ways, 1514 B", guest_to_guest, 1514),
}
BENCH = "bench"

Builds = Mapping[str, tuple[str, ...]]  # the beginning of a command line, by contender


def main() -> int:
    given = arguments()
    return compare(given, loads(given))


def arguments() -> argparse.Namespace:
    names = (BENCH, *LOADS)
    parser = turns_parser(__doc__, names, seconds=1.0, rounds=5)
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW", nargs="?", default=Path(__file__).parents[1])
    return parse_turns(parser, names)


def loads(given: argparse.Namespace) -> Loads:
    builds = {NEW: program(given.new), OLD: program(given.old)}
    warn_if_busy(given.prog)
    for name in given.only:
        if name == BENCH:
            yield from rows(given, builds)
        else:
            yield served(given, builds, name)


def program(checkout: Path) -> tuple[str, ...]:
    """How its `cdna` is started. ConfigError: there is none."""
    python = checkout.resolve() / ".venv" / "bin" / "python"
    if not python.exists():
        raise ConfigError(f"{checkout}: no {python}; give a checkout in which `make build` has run")
    return (str(python), "-P", "-m", "cdna")


def served(given: argparse.Namespace, builds: Builds, name: str) -> Load:
    """Frames that `cdna serve` of each build carries."""
    need()
    title, load, size = LOADS[name]
    setup = Setup(queue_size=256, megabytes=128, mbufs=4096)

    def measure(start: tuple[str, ...]) -> float:
        return load(CdnaServe, replace(setup, program=start), size, given.seconds)

    found = take_turns(builds, given.rounds, measure)
    return judged(Load(name, title, "Mpps", figures(found)), OLD, wanted=WANTED)


def rows(given: argparse.Namespace, builds: Builds) -> Loads:
    """The rows of `cdna bench` of each build."""

    def measure(start: tuple[str, ...]) -> dict[str, float]:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [*start, "bench", "--seconds", str(given.seconds), "--json", file.name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            result = json.loads(Path(file.name).read_bytes())
        return {title(row): median(row["slices"]) for row in result["runs"]}

    found = take_turns(builds, given.rounds, measure)
    for name in found[NEW][0]:
        of_row = {build: [turn[name] for turn in turns] for build, turns in found.items()}
        yield judged(Load(BENCH, name, "Mpps", figures(of_row)), OLD, wanted=WANTED)


def title(row: Mapping[str, object]) -> str:
    words = (row["path"], f"{row['size']} B", row["protection"], f"of {row['contexts']} contexts")
    return ", ".join(str(word) for word in words if word is not None)


if __name__ == "__main__":
    sys.exit(main())
