"""What attackers take of their neighbours' time: an honest guest beside each attack, in turns with it alone.

    python benchmarks/isolation.py [--attackers N] [--contexts N] [--only ATTACK,...] [--json FILE] [...]
    python benchmarks/isolation.py --served [--only ATTACK,...]     # in real time, at sockets

share of its part   the honest guest's frames of 1514 B over those that it has alone, times the number of
                    guests that want to send: 1.0 is its fair share; median and middle half of the turns
with rate=1M        its frames over those that it has alone, where each attacker has a rate of 1 Mbit/s
round trip          of 64 B between two other guests: the 99th percentile
worst round         the longest one, of the turn that was disturbed least

By itself it steps the engine in this process, with turns that are worth time, and only the engine's time
counts: a round trip is so many rounds, and what a guest does on a core of its own costs nobody. With
--served, guests of this process use the sockets of `cdna serve`, for those attacks that need no more, and in
turns with it those of DPDK's vhost (dpdk-testpmd), for those of them that need no switch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from functools import partial

from isolationlab import attacks, measure
from isolationlab.attacks import ATTACKS, FORWARDED, SERVED
from isolationlab.served import ServedStage
from isolationlab.stage import Stage
from netlab.program import exit_status, parse_turns, turns_parser
from vhostlab import testpmd
from vhostlab.backends import CdnaServe, DpdkVhost

from cdna.cli import output
from cdna.compare.hostinfo import host_facts
from cdna.report.summary import spread

MAX_ATTACKERS = 16
TRIPS = 200
SECONDS = 0.02  # of the engine's time, in a turn
SERVED_SECONDS = 0.5


def main() -> int:
    given = arguments()
    return exit_status(given.prog, lambda: run(given))


def run(given: argparse.Namespace) -> int:
    json_to = None if given.json is None else output.file_to_write("--json", given.json)
    rows = served(given) if given.served else stepped(given)
    where = "served, in real time" if given.served else f"{given.contexts} contexts, stepped"
    title = f"An honest guest beside {count(given.attackers)}, {where}"
    output.show(measure.table(rows, output.style(), title, None if given.served else given.contexts))
    if json_to is not None:
        facts = {
            "host": host_facts(),
            "attackers": given.attackers,
            "contexts": given.contexts,
            "served": given.served,
            "attacks": [measure.as_json(row) for row in rows],
        }
        output.write_file("--json", json_to, json.dumps(facts, indent=2) + "\n")
    return 0


def count(attackers: int) -> str:
    return "one attacker" if attackers == 1 else f"{attackers} attackers"


def arguments() -> argparse.Namespace:
    in_real_time = "--served" in sys.argv  # it has other defaults
    offered = SERVED if in_real_time else tuple(ATTACKS)
    parser = turns_parser(__doc__, offered, seconds=SERVED_SECONDS if in_real_time else SECONDS, rounds=9)
    add = parser.add_argument
    add("--attackers", type=int, default=1, metavar="N", help="at a time")
    add("--contexts", type=int, default=64, choices=(64, 256, 1024), help="of the NIC, when it is stepped")
    add("--served", action="store_true", help="by cdna serve, in real time")
    add("--trips", type=int, default=TRIPS, metavar="N", help="round trips of a turn")
    given = parse_turns(parser, offered)
    if not 1 <= given.attackers <= MAX_ATTACKERS:
        parser.error(f"--attackers {given.attackers}: give 1 to {MAX_ATTACKERS}")
    if given.trips < 1:
        parser.error(f"--trips {given.trips}: give 1 or more")
    return given


# --- stepped ------------------------------------------------------------------------------------------------


def stepped(given: argparse.Namespace) -> list[measure.Row]:
    rows = []
    for name in given.only:
        rows.append(one_stepped(given, name))
        report(given, rows[-1])
    return rows


def one_stepped(given: argparse.Namespace, name: str) -> measure.Row:
    row = measure.row_of(name, ATTACKS[name], given.attackers)
    contexts = max(given.contexts, attacks.CONTEXTS.get(name, 0))
    mount = partial(Stage, contexts, ATTACKS[name], given.attackers)
    take = partial(measure.stepped, seconds=given.seconds, trips=given.trips)
    with mount() as beside, Stage(contexts, refilled=len(beside.refilled)) as alone:
        row.alone, row.beside = measure.turns(alone, beside, given.rounds, take)
        row.share = measure.share(row.alone, row.beside, 1 + given.attackers)
        row.worst_standstill = beside.machine.nic.core_time["worst_standstill"] / 1e3
        with mount(rate=measure.RATE) as limited:
            take = partial(take, rate=measure.RATE)
            row.limited = measure.share(*measure.turns(alone, limited, given.rounds, take), 1)
    return row


def report(given: argparse.Namespace, row: measure.Row) -> None:
    assert row.share is not None
    server = f", {row.server}" if row.server else ""
    print(f"{given.prog}: {row.attack}{server}: {spread(row.share, '-')} of its share", file=sys.stderr)


# --- in real time -------------------------------------------------------------------------------------------


def served(given: argparse.Namespace) -> list[measure.Row]:
    rows = []
    take = partial(measure.in_real_time, seconds=given.seconds, trips=given.trips)
    has_dpdk = shutil.which(testpmd.PROGRAM) is not None
    if not has_dpdk:
        print(f"{given.prog}: no {testpmd.PROGRAM}: cdna serve alone", file=sys.stderr)
    for name in given.only:
        guests = 3 + given.attackers + attacks.RECEIVERS.get(name, 0)
        contenders = {
            server: measure.row_of(name, ATTACKS[name], given.attackers, server.name)
            for server in (CdnaServe, DpdkVhost)
            if server is CdnaServe or (has_dpdk and name in FORWARDED)
        }
        for _ in range(given.rounds):  # one server at a time has the engine's core
            for server, row in contenders.items():
                for attack, found in ((None, row.alone), (ATTACKS[name], row.beside)):
                    with ServedStage(server, attack, given.attackers, guests) as stage:
                        found.append(take(stage))
        for row in contenders.values():
            row.share = measure.share(row.alone, row.beside, 1 + given.attackers)
            report(given, row)
            rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
