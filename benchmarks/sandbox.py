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
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from netlab.options import add_turns, parse_turns
from netlab.tables import judged, table
from netlab.turns import Figure, Load, take_turns
from vhostlab.backends import CdnaServe, Setup
from vhostlab.loads import guest_to_guest, guest_to_nic
from vhostlab.testpmd import need

from cdna.cli import output
from cdna.compare.hostinfo import host_facts
from cdna.errors import CdnaError

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
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        json_to = None if given.json is None else output.file_to_write("--json", given.json)
        need()
        engine, guests = given.engine_cpu, given.guest_cpu
        setup = Setup(engine=engine, guests=guests, queue_size=256, megabytes=128, mbufs=4096)
        if os.getloadavg()[0] > 0.5:
            print(f"{given.prog}: the machine is not idle: expect wide spreads", file=sys.stderr)
        style, done = output.style(), []
        for name in given.only:
            load = run(given, name, CASES[name], setup)
            output.show(table(load, style, ON))
            done.append({"load": name, **asdict(load)})
        if json_to is not None:
            facts = {"host": host_facts(), "setup": asdict(setup), "loads": done}
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
    add_turns(parser, list(CASES), seconds=2.0, rounds=9)
    add("--engine-cpu", type=int, default=Setup.engine, metavar="N")
    add("--guest-cpu", type=int, default=Setup.guests, metavar="N")
    return parse_turns(parser, list(CASES))


def run(given: argparse.Namespace, name: str, case: Case, setup: Setup) -> Load:
    """One load, in turns."""
    done = 0

    def measure(contender: str) -> float:
        nonlocal done
        ours = replace(setup, poll=case.poll, options=OPTIONS[contender])
        rate = case.load(CdnaServe, ours, case.size, given.seconds)
        turn, done = done // len(OPTIONS) + 1, done + 1
        print(
            f"{given.prog}: {name}: round {turn} of {given.rounds}: {contender}: {rate:.2f} Mpps",
            file=sys.stderr,
        )
        return rate

    figures = take_turns({contender: contender for contender in OPTIONS}, given.rounds, measure)
    return judged(Load(case.title, "Mpps", [Figure(*item) for item in figures.items()]), OFF, wanted=WANTED)


if __name__ == "__main__":
    sys.exit(main())
