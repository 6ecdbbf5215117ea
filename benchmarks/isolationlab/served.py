"""Guests at the sockets of a server in a process of its own: the same attacks, in real time.

The guests are a loop of this process, on one core, which makes their buffers available again. The other core
is the server's: the engine of `cdna serve`, or DPDK's vhost in dpdk-testpmd.

testpmd has no switch. It forwards the frames of each port to the port beside it and back (`io`), so only the
two guests that talk are such a pair; beside every other guest there is a port without a frontend, where its
frames end:

    port        0        1      2     3      4          5     6 ...
    guest    honest   nobody   one  other  attacker  nobody  ...
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from vhostlab.backends import Backend, CdnaServe, DpdkVhost, Role, Setup, mac

from cdna.base.units import parse_mac
from cdna.errors import ResourceError
from cdna.fuzz.rivals import OUTSIDE, Rings, frame
from cdna.guest_driver.vhost_frontend import Frontend
from cdna.protocol.features import OFFERED_PROTOCOL, ProtocolFeature
from cdna.virtio import Feature

from .attacks import Attack, Settings
from .stage import LIMIT, Pair

PROTOCOL = 1 << Feature.VHOST_USER_F_PROTOCOL_FEATURES
WITHOUT_STATUS = OFFERED_PROTOCOL & ~(1 << ProtocolFeature.STATUS)  # DPDK would wait for DRIVER_OK
WARM = 0.2  # seconds
PATIENCE = 20.0  # seconds until the first frames are taken


class ServedGuest(Rings):
    """A guest whose frontend has a socket of the server's."""

    def __init__(self, path: Path, address: str, **rings: Any) -> None:
        super().__init__(**rings)
        self.mac = parse_mac(address)
        self.frontend = Frontend.connect(path, self.memory)
        self.frontend.negotiate(self.features | PROTOCOL, WITHOUT_STATUS)
        self.set_memory()
        for queue, ring in enumerate(self.rings):
            self.frontend.start(queue, ring)
        self.frontend.sync()

    def set_memory(self) -> None:
        self.frontend.give_memory()

    def set_log(self, fd: int, size: int) -> None:
        self.frontend.set_log(fd, size)

    def close(self) -> None:
        self.frontend.sock.close()
        super().close()


def port_of(server: type[Backend], number: int) -> int:
    """The port of a guest: the honest one is number 0, the two that talk 1 and 2, then come attackers."""
    if server is not DpdkVhost or number == 0:
        return number
    return number + 1 if number <= 2 else 2 * number - 2


class ServedStage:
    """As `Stage`, with a server of its own, which ends with it. guests: how many it has room for."""

    def __init__(self, server: type[Backend], attack: Attack | None, attackers: int, guests: int) -> None:
        self.exit = contextlib.ExitStack()
        self.guests: list[ServedGuest] = []
        self.refilled: list[ServedGuest] = []
        try:
            place = self.exit.enter_context(tempfile.TemporaryDirectory(prefix="cdna-isolation-"))
            ports = port_of(server, guests - 1) + 1
            role = Role.SINK if server is CdnaServe else Role.SWITCH
            self.server = self.exit.enter_context(
                server(Path(place), Setup(), role, ports=ports + ports % 2, size=1514)
            )
            self.honest = self.virtio()
            self.honest.send([frame(OUTSIDE, self.honest.mac, 1514)])
            self.honest.receive()
            self.pair = Pair(self)
            settings: Settings = {}
            for _ in range(attackers if attack else 0):
                attack(self, settings)
            self._warm()
        except BaseException:
            self.close()
            raise

    def virtio(self, *, idle: bool = False, settings: Settings | None = None, **rings: Any) -> ServedGuest:
        if settings:
            raise ResourceError(f"guests of a server have the settings that it gives them, no {settings}")
        number = port_of(type(self.server), len(self.guests))
        guest = ServedGuest(self.server.path(number), mac(number), **rings)
        self.guests.append(guest)
        if not idle:
            self.refilled.append(guest)
        return guest

    def callback(self, *call: Any) -> None:
        """Called when the stage is closed."""
        self.exit.callback(*call)

    def _warm(self) -> None:
        """Returns when the honest guest's frames are taken. ResourceError: they are not."""
        until = time.monotonic() + PATIENCE
        while not self._run(WARM):
            if time.monotonic() > until:
                raise ResourceError(f"{self.server.name}: no frames of the honest guest are taken")
        self._run(WARM)

    def _look(self) -> None:
        for guest in self.refilled:
            guest.refill()

    def _run(self, seconds: float) -> int:
        """The frames that the honest guest sends meanwhile; it looks more often than its ring goes round."""
        until, frames, before = time.monotonic() + seconds, 0, int(self.honest.tx.used[1])
        while time.monotonic() < until:
            self._look()
            used = int(self.honest.tx.used[1])
            frames, before = frames + ((used - before) & 0xFFFF), used
        return frames

    def rate(self, seconds: float) -> float:
        """Frames that the honest guest sends in a microsecond."""
        return self._run(seconds) / (seconds * 1e6)

    def round_trips(self, n: int) -> list[int]:
        """The nanoseconds of n round trips of the pair."""
        trips = []
        one, other = self.pair.guests
        for _ in range(n):
            begun = time.monotonic_ns()
            for sender, receiver in ((one, other), (other, one)):
                self.pair.start(sender)
                until = time.monotonic_ns() + LIMIT * 1_000_000
                while not self.pair.has(receiver) and time.monotonic_ns() < until:
                    self._look()
            trips.append(time.monotonic_ns() - begun)
        return trips

    def close(self) -> None:
        for guest in self.guests:
            guest.close()
        self.exit.close()

    def __enter__(self) -> ServedStage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
