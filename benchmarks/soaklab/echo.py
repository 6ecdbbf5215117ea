"""A guest in a process of its own, which sends each frame back to where it came from.

python benchmarks/soaklab/echo.py SOCKET
"""

from __future__ import annotations

import sys

from cdna.guest_driver.remote import RemoteDriver


def main(path: str) -> None:
    with RemoteDriver(path, name="echo", tx_ring=256, rx_ring=256) as driver:
        print(driver.context.mac, flush=True)
        waiting: list[bytes] = []
        while True:
            waiting += [frame[6:12] + frame[:6] + frame[12:] for frame in driver.recv()]
            if waiting:
                del waiting[: driver.send(waiting)]
            else:
                driver.wait(1)


if __name__ == "__main__":
    main(sys.argv[1])
