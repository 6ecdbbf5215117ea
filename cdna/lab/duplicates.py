"""Warnings about MAC addresses of ours that another station on the wire uses as well."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger("cdna.lab")

LIVE_WIRES = ("tap", "packet")  # a file's frames, and those of a loopback, may well be our own
MOST = 256  # addresses warned of; a guest that changes its address again and again fills no log
COUNTER = "rx_own_source"


def is_live(wire: str) -> bool:
    """Whether other machines, or this one, may be on the wire of this name."""
    return wire.partition(":")[0] in LIVE_WIRES


class Duplicates:
    """Looks at the counters of frames that came from the wire with a guest's own source address."""

    def __init__(self, wire: str) -> None:
        self._live = is_live(wire)
        self._seen: dict[str, int] = {}
        self._warned: set[str] = set()

    def look(self, counters: Mapping[str, Mapping[str, int]], macs: Mapping[str, str]) -> None:
        """Logs one line for each address that has appeared on the wire since the last look.

        counters, macs: by guest.
        """
        if not self._live:
            return
        for guest, mac in macs.items():
            count = counters[guest].get(COUNTER, 0)
            if count > self._seen.get(guest, 0) and mac not in self._warned and len(self._warned) < MOST:
                self._warned.add(mac)
                log.warning(
                    "MAC address %s of guest %s comes in from the wire: another station has it, or the "
                    "network has a loop; give the guest another mac=, or one of two labs another --identity",
                    mac,
                    guest,
                )
            self._seen[guest] = count
        for guest in self._seen.keys() - macs.keys():
            del self._seen[guest]
