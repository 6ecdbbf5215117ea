"""What its sandbox costs `cdna serve`: frames with it over frames without it, in one run.

    python benchmarks/sandbox.py [--seconds S] [--rounds N] [--only LOAD,...] [--json FILE] [...]

tx64, tx1514          guest to NIC
guests64, guests1514  two guests load each other; frames go round between their ports
kicks64               as guests64, with a NIC that sleeps and is woken: system calls on the way of frames

The frontends are those of benchmarks/dpdk.py: one dpdk-testpmd on the other core. The two servers take turns,
each with processes of its own; who begins changes from round to round; a ratio is the median over rounds,
with the quartiles. Needs dpdk-testpmd and two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from netlab.program import compare, parse_turns, tell_mpps, turns_parser, warn_if_busy
from netlab.tables import judged
from netlab.turns import Load, Loads, figures, take_turns
from vhostlab.backends import CdnaServe, Setup
from vhostlab.loads import guest_to_guest, guest_to_nic
from vhostlab.testpmd import need

ON, OFF = "sandbox on", "sandbox off"
OPTIONS = {ON: ("--sandbox", "on"), OFF: ("--sandbox", "off")}
WANTED = "at least 0.99"


@dataclass(frozen=True)
class Case:
    title: str
    load: Callable[..., float]
    size: int
    poll: str = "busy"


CASES = {
    "tx64": Case("Guest to NIC, 64 B", guest_to_nic, 64),
    "tx1514": Case("Guest to NIC, 1514 B", guest_to_nic, 1514),
    "guests64": Case("Guest to guest, both ways, 64 B", guest_to_guest, 64),
    "guests1514": Case("Guest to guest, both ways, 1514 B", guest_to_guest, 1514),
    "kicks64": Case("Guest to guest, both ways, 64 B, adaptive", guest_to_guest, 64, "adaptive"),
}


def main() -> int:
    given = arguments()
    setup = Setup(engine=given.engine_cpu, guests=given.guest_cpu, queue_size=256, megabytes=128, mbufs=4096)
    return compare(given, loads(given, setup), {"setup": asdict(setup)})


def arguments() -> argparse.Namespace:
    parser = turns_parser(__doc__, list(CASES), seconds=2.0, rounds=9)
    parser.add_argument("--engine-cpu", type=int, default=Setup.engine, metavar="N")
    parser.add_argument("--guest-cpu", type=int, default=Setup.guests, metavar="N")
    return parse_turns(parser, list(CASES))


def loads(given: argparse.Namespace, setup: Setup) -> Loads:
    need()
    warn_if_busy(given.prog)
    for name in given.only:
        yield run(given, name, CASES[name], setup)


def run(given: argparse.Namespace, name: str, case: Case, setup: Setup) -> Load:
    """One load, in turns."""

    def measure(options: tuple[str, ...]) -> float:
        ours = replace(setup, poll=case.poll, options=options)
        return case.load(CdnaServe, ours, case.size, given.seconds)

    found = take_turns(OPTIONS, given.rounds, measure, tell_mpps(given.prog, name))
    return judged(Load(name, case.title, "Mpps", figures(found)), OFF, wanted=WANTED)


if __name__ == "__main__":
    sys.exit(main())
