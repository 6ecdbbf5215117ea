"""Guests at the sockets of a server in a process of its own: the same attacks, in real time.

The guests are a loop of this process, on one core, which makes their buffers available again; the engine of
`cdna serve` has the other core.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from vhostlab.backends import CdnaServe, Role, Setup, mac

from cdna.base.units import parse_mac
from cdna.errors import ResourceError
from cdna.fuzz.rivals import OUTSIDE, Rings, frame
from cdna.guest_driver.vhost_frontend import Frontend
from cdna.protocol.features import OFFERED_PROTOCOL
from cdna.virtio import Feature

from .attacks import Attack, Settings
from .stage import LIMIT, Pair

PROTOCOL = 1 << Feature.VHOST_USER_F_PROTOCOL_FEATURES
WARM = 0.2  # seconds
PATIENCE = 20.0  # seconds until the first frames are taken


class ServedGuest(Rings):
    """A guest whose frontend has a socket of the server's."""

    def __init__(self, path: Path, address: str, **rings: Any) -> None:
        super().__init__(**rings)
        self.mac = parse_mac(address)
        self.frontend = Frontend.connect(path, self.memory)
        self.frontend.negotiate(self.features | PROTOCOL, OFFERED_PROTOCOL)
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


class ServedStage:
    """As `Stage`, with a server of its own, which ends with it. ports: how many guests it has room for."""

    def __init__(self, attack: Attack | None, attackers: int, ports: int) -> None:
        self.exit = contextlib.ExitStack()
        self.guests: list[ServedGuest] = []
        self.refilled: list[ServedGuest] = []
        try:
            place = self.exit.enter_context(tempfile.TemporaryDirectory(prefix="cdna-isolation-"))
            self.server = self.exit.enter_context(
                CdnaServe(Path(place), Setup(), Role.SINK, ports=ports, size=1514)
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
        number = len(self.guests)
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
