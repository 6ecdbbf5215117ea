"""A guest's control queue, where its frontend leaves it to us: served by the server's thread, in bounds.

Frontends that keep it to themselves, as QEMU and DPDK do, never start it, and nothing here happens. A
command makes the engine stand still for a moment, so a guest gets only so many a second carried out; the
others wait in its ring.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from cdna.nic.event_fd import event_descriptor
from cdna.nic.virtio.control_queue import ControlQueue
from cdna.virtio import Feature
from cdna.vmm.vhost_user.net_control import NetControl

if TYPE_CHECKING:
    from cdna.vmm.vhost_user.guest import VhostUserGuest

BURST = 256  # commands at once, after a pause: a driver that sets up VLANs has many
RATE = 1000  # commands a second
TURN = 16  # commands until others have their turn
POLL = 0.01  # seconds between two looks at a queue that has no kick descriptor


class ControlRing(ControlQueue):
    """The control queue of one guest, with what its commands have set.

    turn: what the server calls when there may be commands: `ControlRing.turn`, and what to do if it fails.
    """

    def __init__(self, guest: VhostUserGuest, turn: Callable[[float], None]) -> None:
        super().__init__(guest.context.vmm.nic, guest.context.index, guest.device.memory)
        self.net = NetControl(guest.context, guest.device)
        self.due: float | None = None  # when to look at the ring without a kick
        self._guest = guest
        self._server = guest.server
        self._turn = turn
        self._left = float(BURST)
        self._counted = 0.0

    # --- setting up ---------------------------------------------------------------------------------------

    def set_features(self, features: int) -> None:
        super().set_features(features)
        self.net.take_offloads()

    def set_kick(self, queue: int, fd: int) -> None:
        if fd >= 0:
            event_descriptor(fd, f"kick descriptor of queue {queue}")
            self._server.watch(fd, self._turn, select.EPOLLIN | select.EPOLLET)
        if self.kick_fd >= 0:
            self._server.unwatch(self.kick_fd)
        super().set_kick(queue, fd)

    def start(self, queue: int) -> None:
        super().start(queue)
        self.net.begin(self.fresh)
        if not self.fresh:
            self.ask_to_announce()
        self.look()

    def ask_to_announce(self) -> None:
        """Has a guest that goes on, perhaps elsewhere or after a while, say where it is (5.1.6.5.4)."""
        if self.ready and self.net.has(Feature.VIRTIO_NET_F_GUEST_ANNOUNCE):
            self.net.announcing = True
            if not self._guest.config_changed():
                self.net.announcing = False

    def enable(self, queue: int, on: bool) -> None:
        super().enable(queue, on)
        self.look()

    def reset(self) -> None:
        if self.kick_fd >= 0:
            self._server.unwatch(self.kick_fd)
        super().reset()
        self.net.end()
        self.due = None

    # --- commands -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Has the server look at the ring, kicked or not."""
        self.due = self._server.clock()

    def turn(self, now: float) -> None:
        """Carries out what is there, as much as has its turn."""
        self._left = min(BURST, self._left + (now - self._counted) * RATE)
        self._counted = now
        for _ in range(TURN):
            if self._left < 1:
                self.due = now + 1 / RATE
                return
            command = self.pop()
            if command is None:
                self.due = now + POLL if self.ready and self.kick_fd < 0 else None
                return
            self._left -= 1
            self.answer(self.net.handle(command))
        self.due = now
