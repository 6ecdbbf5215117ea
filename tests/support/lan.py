"""Guests by name on one NIC that is stepped, and the world outside behind a queue wire."""

from __future__ import annotations

from cdna.guests.driver import Driver
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import OUTSIDE, mac, receive_all


class Lan:
    """Guests by name on one NIC, and what the wire sees."""

    def __init__(self, **guests: dict[str, object]) -> None:
        self.wire = QueueWire(256)
        self.machine = Machine(4 << 20, wire=self.wire, contexts=8)
        self.guests = {
            name: self.machine.attach(name, **{"tx_ring": 16, "rx_ring": 16, **settings})
            for name, settings in guests.items()
        }

    def __getitem__(self, name: str) -> Driver:
        return self.guests[name]

    def addr(self, name: str) -> bytes:
        return mac(self[name]) if name in self.guests else OUTSIDE

    def send(self, data: bytes, source: str) -> dict[str, list[bytes]]:
        """Sends one frame and returns who received what; `wire` is the world outside."""
        if source == "wire":
            assert self.wire.put([data]) == 1
        else:
            assert self[source].send([data]) == 1
        self.machine.step(2)
        got = {name: receive_all(driver) for name, driver in self.guests.items()}
        got["wire"] = self.wire.get()
        return {name: frames for name, frames in got.items() if frames}

    def stats(self, name: str) -> dict[str, int]:
        return {key: value for key, value in self[name].context.stats().items() if "drop" in key and value}
