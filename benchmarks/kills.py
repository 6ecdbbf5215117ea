"""kill -9 of guests, servers and VMMs at every step that they make, and a look at what is left.

    python benchmarks/kills.py                       every step of every party once, at least 10000 kills
    python benchmarks/kills.py --party server --kills 500 --json kills.json

What is checked after each kill stands in docs/kills.md. The first thing that is wrong ends it, with status 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

sys.path.append(os.fspath(Path(__file__).parents[1]))  # tests.support; behind the build that is to be used

from cdna import checks
from cdna.errors import CdnaError
from tests.support.kills.nursery import PartyFailed
from tests.support.kills.parties import PARTIES, scenarios
from tests.support.kills.tally import Leak, Tally

HEAD = f"{'party':<10}{'scenario':<28}{'steps':>7}{'kills':>7}{'lost':>6}{'twice':>6}  ms to the next frame"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, help="of each scenario, spread over its steps; each step once")
    parser.add_argument("--party", choices=PARTIES, action="append", help="only this one; may be repeated")
    parser.add_argument("--lines", action="store_true", help="in a test build, too: no compiled code")
    parser.add_argument("--json", metavar="FILE", help="the figures; - for standard output")
    given = parser.parse_args()
    if given.kills is not None and given.kills < 1:
        print(f"kills.py: --kills {given.kills}: give at least 1", file=sys.stderr)
        return 2
    logging.getLogger("cdna").setLevel(logging.CRITICAL)  # servers log who has gone
    begun = time.monotonic()
    out = sys.stderr if given.json == "-" else sys.stdout
    print(HEAD, file=out)
    tallies: list[Tally] = []
    try:
        for party in given.party or PARTIES:
            for scenario in scenarios(party, checks.is_test_build and not given.lines):
                tallies.append(scenario.run(partial(scenario.steps, kills=given.kills), show))
                print(line(tallies[-1]), file=out, flush=True)
    except (Leak, PartyFailed, CdnaError) as error:
        print(f"kills.py: {error}", file=sys.stderr)
        return 1
    kills, seconds = sum(t.kills for t in tallies), time.monotonic() - begun
    print(f"{kills} kills in {seconds:.0f} s, no leak, no frame of a neighbour lost", file=out)
    if given.json:
        text = json.dumps({"kills": kills, "seconds": seconds, "parties": [t.report() for t in tallies]})
        if given.json == "-":
            print(text)
        else:
            Path(given.json).write_text(text + "\n")
    return 0


def line(tally: Tally) -> str:
    return (
        f"{tally.party:<10}{tally.scenario:<28}{tally.steps:>7}{tally.kills:>7}{tally.lost:>6}{tally.doubled:>6}"
        f"  {tally.quantile(0.5):.1f}, p99 {tally.quantile(0.99):.1f}"
    )


def show(tally: Tally) -> None:
    """Progress, on a terminal."""
    if sys.stderr.isatty() and tally.kills % 50 == 0:
        print(f"\r{tally.party}, {tally.scenario}: {tally.kills} kills", end="\r", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
