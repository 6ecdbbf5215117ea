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
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from netlab.options import add_turns, parse_turns
from netlab.tables import judged, table
from netlab.turns import Figure, Load, take_turns
from vhostlab.backends import CdnaServe, Setup
from vhostlab.loads import guest_to_guest, guest_to_nic, nic_to_guest
from vhostlab.testpmd import need

from cdna.cli import output
from cdna.compare.hostinfo import host_facts
from cdna.errors import CdnaError, ConfigError

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
    try:
        json_to = None if given.json is None else output.file_to_write("--json", given.json)
        builds = {NEW: program(given.new), OLD: program(given.old)}
        if os.getloadavg()[0] > 0.5:
            print(f"{given.prog}: the machine is not idle: expect wide spreads", file=sys.stderr)
        style, done = output.style(), []
        for name in given.only:
            for load in rows(given, builds) if name == BENCH else [served(given, builds, name)]:
                output.show(table(load, style, NEW))
                done.append(asdict(load))
        if json_to is not None:
            facts = {"host": host_facts(), "loads": done}
            output.write_file("--json", json_to, json.dumps(facts, indent=2) + "\n")
    except CdnaError as error:
        print(f"{given.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    names = (BENCH, *LOADS)
    add("old", type=Path, metavar="OLD")
    add("new", type=Path, metavar="NEW", nargs="?", default=Path(__file__).parents[1])
    add_turns(parser, names, seconds=1.0, rounds=5)
    return parse_turns(parser, names)


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

    figures = take_turns(builds, given.rounds, measure)
    return judged(Load(title, "Mpps", [Figure(*item) for item in figures.items()]), OLD, wanted=WANTED)


def rows(given: argparse.Namespace, builds: Builds) -> list[Load]:
    """The rows of `cdna bench` of each build."""

    def measure(start: tuple[str, ...]) -> dict[str, float]:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [*start, "bench", "--seconds", str(given.seconds), "--json", file.name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            result = json.loads(Path(file.name).read_bytes())
        return {title(row): median(row["slices"]) for row in result["runs"]}

    figures = take_turns(builds, given.rounds, measure)
    return [
        judged(
            Load(name, "Mpps", [Figure(build, [turn[name] for turn in figures[build]]) for build in builds]),
            OLD,
            wanted=WANTED,
        )
        for name in figures[NEW][0]
    ]


def title(row: Mapping[str, object]) -> str:
    words = (row["path"], f"{row['size']} B", row["protection"], f"of {row['contexts']} contexts")
    return ", ".join(str(word) for word in words if word is not None)


if __name__ == "__main__":
    sys.exit(main())
