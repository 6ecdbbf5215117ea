"""What an attacker takes of a neighbour's time: an honest guest's frames beside each attack over half of those alone.

    python benchmarks/isolation.py [--seconds S] [--attackers N] [--only ATTACK,...] [--json FILE]

The engine is stepped here, with turns that are worth time, and only its own time is counted: what a guest does on
its own core costs nobody. The honest guest always has frames of 1514 bytes for the wire. `share` is its frames a
second of the engine over those that it has alone, times the number of guests: 1.0 is its fair share. `worst` is the
longest round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cdna import ContextSettings, Machine
from cdna.guest_driver.vhost_frontend import SPLIT, AttachedGuest, attach
from cdna.guest_driver.vrings import Buffer, GuestMemory, SplitRing
from cdna.nic.null_wire import NullWire
from cdna.protocol.features import SUPPORTED
from cdna.virtio import Feature
from cdna.vmm.vhost_user import VhostUserServer

SIZE = 256  # descriptors of a ring
HEADER = bytes(12)
OUTSIDE = bytes.fromhex("02ff00000001")
BROADCAST = b"\xff" * 6


class Stage:
    """A machine on a wire that takes everything, and guests at sockets."""

    def __init__(self, folder: Path, contexts: int = 64) -> None:
        self.folder = folder
        self.machine = Machine(16 << 20, wire=NullWire(), contexts=contexts)
        self.server = VhostUserServer(self.machine.vmm)
        self.guests: list[Guest] = []

    def add(self, memory: GuestMemory | None = None, wanted: int = SPLIT, size: int = SIZE) -> Guest:
        number = len(self.guests)
        mac = f"02:00:00:00:01:{number:02x}"
        settings = ContextSettings(protection="table", mac=mac)
        context = self.server.add(f"guest{number}", self.folder / f"{number}.sock", settings=settings, features=SUPPORTED)
        guest = Guest(bytes.fromhex(mac.replace(":", "")), attach(context.path, wanted, memory=memory, size=size), context)
        self.guests.append(guest)
        return guest

    def rate(self, seconds: float, honest: Guest) -> float:
        """The honest guest's frames a second of the engine."""
        nic = self.machine.nic
        for _ in range(50):
            self.step()
        nic.reset_worst()
        before, spent = honest.sent(), 0
        while spent < seconds * 1e9:
            spent += self.step()
        return (honest.sent() - before) / (spent * 1e-9)

    def step(self) -> int:
        """Refills every ring, then one round. Returns the nanoseconds of the round."""
        for guest in self.guests:
            guest.refill()
        begun = time.thread_time_ns()
        self.machine.nic.poll(1, 64, timed=True)
        return time.thread_time_ns() - begun

    def close(self) -> None:
        for guest in self.guests:
            guest.attached.close()
        self.server.close()
        self.machine.close()


class Guest:
    """A guest whose driver makes every buffer available again as soon as it is used."""

    def __init__(self, mac: bytes, attached: AttachedGuest, context) -> None:
        self.mac = mac
        self.attached = attached
        self.context = context.context
        self.memory: GuestMemory = attached.memory

    @property
    def tx(self) -> SplitRing:
        return self.attached.tx[0]

    @property
    def rx(self) -> SplitRing:
        return self.attached.rx[0]

    def sends(self, frame: bytes) -> None:
        """Every buffer of its transmit ring is this frame."""
        addr = self.memory.alloc(len(HEADER) + len(frame))
        self.memory.write(addr, HEADER + frame)
        for _ in range(self.tx.size):
            self.tx.add([Buffer(addr, len(HEADER) + len(frame))])

    def refill(self) -> None:
        for ring in (self.tx, self.rx):
            if ring.chains:
                ring.avail[1] = (int(ring.used[1]) + len(ring.chains)) & 0xFFFF

    def sent(self) -> int:
        return self.context.stats()["tx_frames"]


def frame(to: bytes, source: bytes, size: int) -> bytes:
    return (to + source + b"\x88\xb5").ljust(size, b"x")


# --- attacks ----------------------------------------------------------------------------------------------


def fair(stage: Stage) -> None:
    """no attack: frames of 1514 bytes, as the honest guest's"""
    guest = stage.add()
    guest.sends(frame(OUTSIDE, guest.mac, 1514))


def small(stage: Stage) -> None:
    """frames of 14 bytes"""
    guest = stage.add()
    guest.sends(frame(OUTSIDE, guest.mac, 14))


def broadcasts(stage: Stage) -> None:
    """broadcasts of 14 bytes to 24 receivers"""
    guest = stage.add()
    guest.sends(frame(BROADCAST, guest.mac, 14))
    while len(stage.guests) < 26:
        stage.add()


def chains(stage: Stage) -> None:
    """receive chains of 256 pieces over 64 regions, for frames of its own"""
    memory = GuestMemory(64 << 20, regions=8)
    guest = stage.add(memory, size=512)
    guest.sends(frame(guest.mac, guest.mac, 4000))
    ring = guest.rx
    ring.take()
    addr = [memory.alloc(1 << 16, region=i % 8) for i in range(8)]
    ring.avail[1] = ring.used[1]


def dirty_log(stage: Stage) -> None:
    """a dirty log, and receive descriptors of 1 GiB for frames of 14 bytes of its own"""
    memory = GuestMemory(2 << 30)
    guest = stage.add(memory, SPLIT | 1 << Feature.VHOST_F_LOG_ALL)
    log = GuestMemory(16 << 20)
    guest.attached.frontend.set_log(log.fd, 2 << 20)
    guest.sends(frame(guest.mac, guest.mac, 60))
    guest.rx.table["len"][:] = 1 << 30
    guest.rx.table["addr"][:] = memory.alloc(1 << 30)


ATTACKS: dict[str, Callable[[Stage], None]] = {
    "fair": fair,
    "small": small,
    "broadcasts": broadcasts,
    "dirty-log": dirty_log,
}


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="cdna-isolation") as folder:
        made = Stage(Path(folder))
        try:
            yield made
        finally:
            made.close()


def measure(attack: Callable[[Stage], None] | None, attackers: int, seconds: float) -> tuple[float, float]:
    """(the honest guest's frames a second, the longest round in microseconds)"""
    with stage() as made:
        honest = made.add()
        honest.sends(frame(OUTSIDE, honest.mac, 1514))
        for _ in range(attackers if attack else 0):
            attack(made)
        rate = made.rate(seconds, honest)
        return rate, made.machine.nic.core_time["worst_round"] / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.3, help="of the engine's time, for each attack")
    parser.add_argument("--attackers", type=int, default=1)
    parser.add_argument("--only", default=",".join(ATTACKS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    alone, _ = measure(None, 0, given.seconds)
    print(f"{'alone':12} {alone:12,.0f} frames/s")
    for name in given.only.split(","):
        rate, worst = measure(ATTACKS[name], given.attackers, given.seconds)
        print(f"{name:12} {rate:12,.0f} frames/s  share {rate / alone * (1 + given.attackers):.2f}  worst round {worst:.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
