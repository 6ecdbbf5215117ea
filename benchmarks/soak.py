"""Hours of mixed traffic, honest guests beside hostile ones, all of them coming and going.

    python benchmarks/soak.py --seconds 7200 --report soak --json soak.json      (make soak)

Honest: two native guests that never rest; visitors in every protection mode; a guest in another process,
killed again and again; a virtual machine's rings behind vhost-user, split and packed; and, for root, a lab of
network namespaces in a process of its own. Hostile: a native guest, guests in other processes, vhost-user
frontends.
Each honest frame is compared with what was sent, and counted: received, or dropped for a reason, or lost.
Between turns everybody rests, and what the process holds is written down: memory, descriptors, mappings,
threads, pages, pins, contexts. Exit status 1: a frame was lost or changed, or something grows (docs/soak.md).
"""

from __future__ import annotations

import argparse
import json
import sys

from netlab.program import exit_status
from soaklab.page import page
from soaklab.run import PARTS, Soak, summary

from cdna.cli import output


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=7200.0, metavar="S", help="how long; 7200")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of contents and of attacks; 1")
    parser.add_argument("--without", action="append", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--report", metavar="DIR", help="write a page with plots: DIR/index.html")
    parser.add_argument("--json", metavar="FILE", help="write all counts and samples")
    given = parser.parse_args()
    if unknown := [name for name in given.without if name not in PARTS]:
        parser.error(f"--without {unknown[0]}: give {', '.join(PARTS)}")
    if not 0 < given.seconds <= 1e7:
        parser.error("give --seconds above 0, up to 1e7")

    def run() -> int:
        report_to = None if given.report is None else output.directory_to_write("--report", given.report)
        json_to = None if given.json is None else output.file_to_write("--json", given.json, coming=report_to)
        soak = Soak(given.seconds, given.seed, [name for name in PARTS if name not in given.without])
        result = soak.run(lambda line: print(line, file=sys.stderr, flush=True))
        output.show(summary(result))
        if report_to is not None:
            output.write_directory("--report", report_to, lambda: {"index.html": page(result)})
        if json_to is not None:
            output.write_file("--json", json_to, json.dumps(result.to_dict(), indent=1) + "\n")
        return 1 if result.failures else 0

    return exit_status(parser.prog, run)


if __name__ == "__main__":
    sys.exit(main())
