"""Warnings about MAC addresses of ours that another station on the wire uses as well."""

from __future__ import annotations

from collections.abc import Mapping

from cdna import logs

log = logs.logger("cdna.lab")

MOST = 256  # addresses warned of; a guest that changes its address again and again fills no log
COUNTER = "rx_own_source"


class Duplicates:
    """Looks at the counters of frames that came from the wire with a guest's own source address."""

    def __init__(self, live: bool) -> None:
        """live: whether other stations are on the wire; a file's frames, or a loopback's, may be our own."""
        self._live = live
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
