"""What an idle `cdna serve` costs: two virtual machines are attached, and nobody says anything.

    python benchmarks/idle.py --seconds 10

Needs what `cdna compare --guest vm` needs. The guests' kernels may still speak now and then (IPv6, ARP), so
the frames that passed meanwhile are printed, too.
"""

from __future__ import annotations

import argparse
import sys
import time

from netlab.program import exit_status

from cdna.compare.paths.cdna.vm import CdnaScene
from cdna.errors import CdnaError
from cdna.lab.control import ControlClient
from cdna.vm import image
from cdna.vm.machine import cpu_times

WANTED = 1.0  # percent of a core
SETTLE = 5.0  # seconds after the guests have met


def frames(client: ControlClient) -> int:
    reply, _ = client.call("stats")
    return sum(traffic["tx_frames"] for traffic in reply["traffic"])


def measure(seconds: float) -> tuple[float, int]:
    """Percent of a core that the server used, and frames that the guests sent meanwhile."""
    with CdnaScene("cdna") as scene:
        scene.wait_ready()
        time.sleep(SETTLE)
        with ControlClient(str(scene.control)) as client:
            sent, used, begun = frames(client), sum(cpu_times(scene.server)), time.monotonic()
            time.sleep(seconds)
            used = sum(cpu_times(scene.server)) - used
            return 100 * used / (time.monotonic() - begun), frames(client) - sent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look; above 0, to 600")
    seconds = parser.parse_args().seconds

    def run() -> int:
        if not 0 < seconds <= 600:
            raise CdnaError(f"--seconds {seconds:g}: give a time above 0, and up to 600")
        if lacking := image.missing():
            raise CdnaError(f"virtual machines need {', '.join(lacking)}; make peers installs them")
        percent, sent = measure(seconds)
        used = f"{percent:.2f} % of a core (wanted: below {WANTED:g})"
        print(f"cdna serve, two idle guests: {used}, {sent} frames")
        return 0

    return exit_status(parser.prog, run)


if __name__ == "__main__":
    sys.exit(main())
