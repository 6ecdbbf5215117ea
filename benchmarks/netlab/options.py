"""The options that comparisons in turns share, and their checks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_turns(parser: argparse.ArgumentParser, loads: Sequence[str], *, seconds: float, rounds: int) -> None:
    """--seconds, --rounds, --only and --json."""
    add = parser.add_argument
    add("--seconds", type=float, default=seconds, metavar="S", help="of a contender's turn")
    add("--rounds", type=int, default=rounds, metavar="N", help="turns of each contender")
    add("--only", default=",".join(loads), metavar="LOAD,...", help=f"of {', '.join(loads)}")
    add("--json", metavar="FILE", help="write the figures")


def parse_turns(parser: argparse.ArgumentParser, loads: Sequence[str]) -> argparse.Namespace:
    """The arguments: `only` is a list, `prog` the program's name. A bad one ends the program."""
    given = parser.parse_args()
    given.prog, given.only = parser.prog, given.only.split(",")
    if unknown := [load for load in given.only if load not in loads]:
        parser.error(f"--only {unknown[0]}: give {', '.join(loads)}")
    if not 0 < given.seconds < 3600 or given.rounds < 1:
        parser.error("give --seconds above 0 and --rounds of 1 or more")
    return given
