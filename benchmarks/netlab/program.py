"""A comparison in turns as a program: its options, tables and JSON, and its exit status."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from cdna.cli import output
from cdna.compare.hostinfo import host_facts
from cdna.errors import CdnaError
from netlab.tables import table
from netlab.turns import Loads

BUSY = 0.5  # load average above which the figures say more about the machine


class Parser(argparse.ArgumentParser):
    """A bad argument gets one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def turns_parser(description: str | None, loads: Sequence[str], *, seconds: float, rounds: int) -> Parser:
    """With --seconds, --rounds, --only and --json."""
    parser = Parser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--seconds", type=float, default=seconds, metavar="S", help="of a contender's turn")
    add("--rounds", type=int, default=rounds, metavar="N", help="turns of each contender")
    add("--only", default=",".join(loads), metavar="LOAD,...", help=f"of {', '.join(loads)}")
    add("--json", metavar="FILE", help="write the figures")
    return parser


def parse_turns(parser: Parser, loads: Sequence[str]) -> argparse.Namespace:
    """The arguments: `only` is a list, `prog` the program's name. A bad one ends the program."""
    given = parser.parse_args()
    given.prog, given.only = parser.prog, given.only.split(",")
    if unknown := [load for load in given.only if load not in loads]:
        parser.error(f"--only {unknown[0]}: give {', '.join(loads)}")
    if not 0 < given.seconds < 3600 or given.rounds < 1:
        parser.error("give --seconds above 0 and --rounds of 1 or more")
    return given


def compare(given: argparse.Namespace, loads: Loads, facts: Mapping[str, Any] | None = None) -> int:
    """Shows a table of each load as soon as it is measured, and writes --json. Returns the exit status.

    facts: what else the JSON file says, read when all loads are measured.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that everything is given back

    def run() -> int:
        json_to = None if given.json is None else output.file_to_write("--json", given.json)
        style, done = output.style(), []
        with contextlib.closing(loads):
            for load in loads:
                output.show(table(load, style))
                done.append(asdict(load))
        if json_to is not None:
            said = {"host": host_facts(), **(facts or {}), "loads": done}
            output.write_file("--json", json_to, json.dumps(said, indent=2) + "\n")
        return 0

    return exit_status(given.prog, run)


def exit_status(prog: str, run: Callable[[], int]) -> int:
    """Calls `run`. Returns its exit status; 2 after one line about an error, 130 after an interruption."""
    try:
        return run()
    except CdnaError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def tell_mpps(prog: str, load: str) -> Callable[[str, float], None]:
    """For `take_turns`: says each figure on standard error."""

    def tell(turn: str, rate: float) -> None:
        print(f"{prog}: {load}: {turn}: {rate:.2f} Mpps", file=sys.stderr)

    return tell


def warn_if_busy(prog: str) -> None:
    """Says on standard error that other programs will disturb the figures."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(
            f"{prog}: the machine is not idle (load average {load:.1f}): expect wide spreads", file=sys.stderr
        )
