"""`cdna serve` beside DPDK's own vhost-user backend, with the same DPDK frontends, in one run.

    python benchmarks/dpdk.py [--seconds S] [--rounds N] [--only LOAD,...] [--json FILE] [...]

tx64, tx1514          guest to NIC: the frontend is txonly, the backend takes
rx64, rx1514          NIC to guest: the backend sends, the frontend is rxonly
guests64, guests1514  two guests load each other; frames go round between their ports (io)
many-tx, many-rx      24 frontends on one engine over one, 64 B
taps                  guests64 beside two taps on a kernel bridge, whose guests have both cores

Each backend has one core for its engine; the frontends of a turn are one dpdk-testpmd on the other core.
Protection is on: both sides consult a guest's memory table for every buffer. Contenders take turns, each
with processes of its own; a ratio is the median over rounds, with the quartiles. Frames are counted
where they arrive. Needs dpdk-testpmd and two cores, and root for hugepages and for the taps; without
hugepages (--no-huge) neither side has any.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from netlab.program import compare, parse_turns, tell_mpps, turns_parser, warn_if_busy
from netlab.tables import judged
from netlab.turns import Load, Loads, figures, ratio, take_turns
from vhostlab.backends import CdnaServe, DpdkVhost, Setup
from vhostlab.hugepages import hugepages
from vhostlab.loads import guest_to_guest, guest_to_nic, nic_to_guest, over_taps
from vhostlab.profile import report
from vhostlab.testpmd import need
from vhostlab.verify import verify

from cdna.cli import output
from cdna.errors import ResourceError
from cdna.report.summary import spread

Measure = Callable[[Setup, float], float]  # a turn of so many seconds: millions of frames a second

CDNA, DPDK, TAPS = CdnaServe.name, DpdkVhost.name, "tap bridge"
MANY = 24
MANY_QUEUE = 256  # descriptors, as QEMU has by default: 24 rings of 1024 buffers fit no cache
PROCESSES = 2  # testpmds at a time


@dataclass(frozen=True)
class Case:
    """A load: what each contender does in its turn. The first contender is ours."""

    title: str
    contenders: Mapping[str, Measure]
    against: str
    wanted: str
    queue_size: int | None = None


def main() -> int:
    given = arguments()
    facts: dict[str, Any] = {}
    return compare(given, loads(given, facts), facts)


def loads(given: argparse.Namespace, facts: dict[str, Any]) -> Loads:
    check_machine(given)
    setup = Setup(
        engine=given.engine_cpu,
        guests=given.guest_cpu,
        queue_size=given.queue_size,
        burst=given.burst,
        frontend="".join(f",{part}" for part in given.frontend.split(",") if part),
    )
    with hugepages(0 if given.no_huge else PROCESSES * setup.megabytes) as huge:
        setup = replace(setup, huge=huge and not given.no_huge)
        facts["setup"] = asdict(setup)
        print(f"{given.prog}: memory: {'hugepages' if setup.huge else 'no hugepages'}", file=sys.stderr)
        for name in given.only:
            yield run(given, name, CASES[name], setup)
            for file in sorted(given.profile.glob(f"{name}-*.perf")) if given.profile else ():
                output.show(report(file) + "\n")


def arguments() -> argparse.Namespace:
    parser = turns_parser(__doc__, list(CASES), seconds=2.0, rounds=5)
    add = parser.add_argument
    add("--queue-size", type=int, default=Setup.queue_size, metavar="N", help="descriptors of each ring")
    add("--burst", type=int, default=Setup.burst, metavar="N", help="of every testpmd")
    add("--frontend", default=Setup.frontend, metavar="KEY=VALUE,...", help="virtio-user's: packed_vq=1, ...")
    add("--engine-cpu", type=int, default=Setup.engine, metavar="N")
    add("--guest-cpu", type=int, default=Setup.guests, metavar="N")
    add("--profile", metavar="DIR", help="perf records of the backends, and the functions that matter")
    add("--no-huge", action="store_true", help="no hugepages, for both sides")
    given = parse_turns(parser, list(CASES))
    if not 32 <= given.queue_size <= 1024 or given.queue_size & (given.queue_size - 1):
        parser.error(f"--queue-size {given.queue_size}: give a power of two from 32 to 1024")
    if given.profile is not None:
        given.profile = Path(given.profile)
        if not given.profile.is_dir():
            parser.error(f"--profile {given.profile}: no such directory")
    if not 1 <= given.burst <= 512:
        parser.error(f"--burst {given.burst}: give 1 to 512")
    return given


def check_machine(given: argparse.Namespace) -> None:
    """ResourceError: what the run needs and is not there."""
    need()
    allowed = os.sched_getaffinity(0)
    for cpu in (given.engine_cpu, given.guest_cpu):
        if cpu not in allowed:
            raise ResourceError(
                f"CPU {cpu} is not this process's: give --engine-cpu and --guest-cpu of {allowed}"
            )
    if given.engine_cpu == given.guest_cpu:
        raise ResourceError("engine and guests on one CPU: two that poll need two")
    warn_if_busy(given.prog)


def run(given: argparse.Namespace, name: str, case: Case, setup: Setup) -> Load:
    """One load: frames are looked at first, byte by byte, then counted in turns."""
    if case.queue_size is not None:
        setup = replace(setup, queue_size=min(setup.queue_size, case.queue_size))
    checked = verify(name, setup)
    print(f"{given.prog}: {name}: {checked}", file=sys.stderr)
    if given.profile is not None:
        setup = replace(setup, profile=str(given.profile / name))

    def measure(contender: Measure) -> float:
        return contender(setup, given.seconds)

    found = take_turns(case.contenders, given.rounds, measure, tell_mpps(given.prog, name))
    load = judged(Load(name, case.title, "Mpps", figures(found)), case.against, wanted=case.wanted)
    if DPDK_MANY in found:
        theirs = ratio(found[DPDK_MANY], found[DPDK_ONE])
        load.said += f" {DPDK_MANY} over {DPDK_ONE}: {spread(theirs, '-')}."
    return load


def against_dpdk(title: str, load: Callable[..., float], size: int, wanted: str, **more: str) -> Case:
    contenders = {
        backend.name: partial(_turn, load, backend, size, more) for backend in (CdnaServe, DpdkVhost)
    }
    return Case(f"{title}, {size} B", contenders, DPDK, wanted)


def many(title: str, load: Callable[..., float]) -> Case:
    contenders = {
        f"{backend.name}, {ports}": partial(_turn, load, backend, 64, {"ports": ports})
        for backend in (CdnaServe, DpdkVhost)
        for ports in (MANY, 1)
    }
    title = f"{title}, 64 B, {MANY} frontends and one"
    return Case(title, contenders, CDNA_ONE, "at least 0.9", MANY_QUEUE)


def _turn(load, backend, size, more, setup: Setup, seconds: float) -> float:
    return load(backend, setup, size, seconds, **more)


CDNA_ONE = f"{CDNA}, 1"
DPDK_MANY, DPDK_ONE = f"{DPDK}, {MANY}", f"{DPDK}, 1"

CASES: dict[str, Case] = {
    "tx64": against_dpdk("Guest to NIC", guest_to_nic, 64, "at least 1.0"),
    "tx1514": against_dpdk("Guest to NIC", guest_to_nic, 1514, "at least 1.0"),
    "rx64": against_dpdk("NIC to guest", nic_to_guest, 64, "at least 1.0"),
    "rx1514": against_dpdk("NIC to guest", nic_to_guest, 1514, "at least 1.0"),
    "guests64": against_dpdk("Guest to guest, both ways", guest_to_guest, 64, "at least 1.2"),
    "guests1514": against_dpdk("Guest to guest, both ways", guest_to_guest, 1514, "at least 1.5"),
    "many-tx": many("Guest to NIC", guest_to_nic),
    "many-rx": many("NIC to guest", nic_to_guest),
    "taps": Case(
        "Guest to guest, both ways, 64 B",
        {
            CDNA: partial(_turn, guest_to_guest, CdnaServe, 64, {}),
            TAPS: lambda setup, seconds: over_taps(setup, 64, seconds),
        },
        TAPS,
        "at least 20",
    ),
}


if __name__ == "__main__":
    sys.exit(main())
