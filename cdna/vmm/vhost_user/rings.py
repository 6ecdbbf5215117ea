"""What a frontend said of each virtqueue, and when that is enough to start it.

Frontends differ in the order of their messages, so what they say is kept here and given to the device at
once:

    stopped --- size, addresses, SET_VRING_KICK known, rings within memory ---> started
    started --- GET_VRING_BASE, RESET_DEVICE, status 0; a new size, base or
                features while it is disabled -------------------------------> stopped, until the next kick

A started ring moves frames while it is enabled: by SET_VRING_ENABLE, or from its start where
VHOST_USER_F_PROTOCOL_FEATURES was not negotiated. A ring that a change of the memory table left without
memory waits where it stands, and goes on when its memory is there again. A driver of User-Mode Linux that
goes leaves its rings disabled, and the next one sets them up anew without GET_VRING_BASE.

Behind the pairs comes the control queue, for frontends that leave it to us: index 2 of a driver that knows of
one pair only, else that behind the last pair (virtio 1.2, 5.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.protocol.features import CTRL_VQ, PAIRS, PROTOCOL_FEATURES
from cdna.protocol.vhost_user import VHOST_VRING_F_LOG, VringAddr
from cdna.virtio import VirtioLimits

if TYPE_CHECKING:
    from cdna.nic.virtio.device import VirtioDevice
    from cdna.vmm.vhost_user.control import ControlRing


@dataclass
class Ring:
    """One virtqueue as the frontend described it."""

    index: int
    size: int = 0  # 0: not yet
    addresses: VringAddr | None = None
    base: int = 0
    kicked: bool = False  # SET_VRING_KICK came since it was stopped
    enabled: bool | None = None  # as SET_VRING_ENABLE said; None: it did not
    running: bool = False  # the device was told to start it
    serving: bool = False  # and to move frames


class Rings:
    """The virtqueues of one device. Methods raise ConfigError for what the device cannot do."""

    def __init__(self, device: VirtioDevice, control: ControlRing | None) -> None:
        self.device = device
        self.control = control  # None: not offered
        self.features = 0  # that the driver accepted
        self.have_memory = False  # a memory table came: rings outside it are a mistake from then on
        self._rings = self._none()

    def _none(self) -> list[Ring]:
        return [Ring(index) for index in range(self.queues)]

    @property
    def queues(self) -> int:
        """How many a frontend may speak of."""
        return self.device.queues + (self.control is not None)

    @property
    def _control_index(self) -> int:
        one_pair = self.features & CTRL_VQ and not self.features & PAIRS
        return 2 if one_pair else self.device.queues

    def target(self, index: int) -> VirtioDevice | ControlRing:
        """What serves the queue of this number. ConfigError: there is none."""
        if self.control is not None and index == self._control_index:
            return self.control
        if broken(Control.CHECK_QUEUE_NUMBER, index >= self.device.queues):
            raise ConfigError(f"queue {index}: this device has queues 0 to {self.device.queues - 1}")
        return self.device

    @property
    def any_running(self) -> bool:
        return any(ring.running for ring in self._rings)

    def _stopped(self, index: int, what: str) -> Ring:
        ring = self._ring(index)
        if ring.running and not ring.serving:
            self.stop(index)
        if broken(Control.CHECK_QUEUE_RUNNING, ring.running):
            raise ConfigError(f"{what} of queue {index}, which runs: stop it by GET_VRING_BASE first")
        return ring

    def _ring(self, index: int) -> Ring:
        self.target(index)
        return self._rings[index]

    # --- what messages say --------------------------------------------------------------------------------

    def set_features(self, features: int) -> None:
        """What the driver accepted; rings that were started without being told follow the rule above."""
        self.device.set_features(features)
        if self.control is not None:
            self.control.set_features(features)
        self.features = features
        for ring in self._rings:
            if ring.running:
                self._serve(ring, self._enabled(ring))

    def set_size(self, index: int, size: int) -> None:
        ring = self._stopped(index, "size")
        if broken(Control.CHECK_QUEUE_SIZE, not 1 <= size <= VirtioLimits.VIRTIO_MAX_RING):
            raise ConfigError(f"queue {index} of {size}: give 1 to {VirtioLimits.VIRTIO_MAX_RING}")
        ring.size = size
        self.start_ready(index)

    def set_base(self, index: int, base: int) -> None:
        self._stopped(index, "base").base = base

    def set_addresses(self, addresses: VringAddr) -> None:
        """Where a ring lies, and if its used ring is logged. One that runs may move with its contents."""
        ring = self._ring(addresses.queue)
        ring.addresses = addresses
        if ring.running:
            self._give_addresses(ring, addresses)
        else:
            self.start_ready(ring.index)

    def kick(self, index: int) -> None:
        """The frontend has given its kick descriptor, or said that there is none: its word to start."""
        ring = self._ring(index)
        ring.kicked = True
        self.start_ready(index)

    def enable(self, index: int, on: bool) -> None:
        ring = self._ring(index)
        ring.enabled = on
        if ring.running:
            self._serve(ring, on)

    def disable_all(self) -> None:
        """Until the next SET_VRING_ENABLE, or the next start."""
        for ring in self._rings:
            ring.enabled = None
            if ring.running:
                self._serve(ring, False)

    def _serve(self, ring: Ring, on: bool) -> None:
        self.target(ring.index).enable(ring.index, on)
        ring.serving = on

    # --- starting and stopping ----------------------------------------------------------------------------

    def start_ready(self, index: int | None = None) -> None:
        """Starts each ring of which enough is known.

        ConfigError: ring `index` cannot be, and it is not that its memory has yet to come.
        """
        for ring in self._rings:
            if ring.running or not ring.kicked or not ring.size or ring.addresses is None:
                continue
            try:
                self._start(ring)
            except ConfigError:
                if ring.index == index and self.have_memory:
                    raise

    def _start(self, ring: Ring) -> None:
        assert ring.addresses is not None
        target = self.target(ring.index)
        target.set_size(ring.index, ring.size)
        self._give_addresses(ring, ring.addresses)
        target.set_base(ring.index, ring.base)
        target.start(ring.index)
        ring.running = True
        self._serve(ring, self._enabled(ring))

    def _enabled(self, ring: Ring) -> bool:
        if ring.enabled is None:
            return not self.features & PROTOCOL_FEATURES
        return ring.enabled

    def _give_addresses(self, ring: Ring, at: VringAddr) -> None:
        log = at.log if at.flags & VHOST_VRING_F_LOG else None
        self.target(ring.index).set_addresses(ring.index, at.desc, at.avail, at.used, log)

    def stop(self, index: int) -> int:
        """Stops a ring until the next kick. Returns its base; of one that never ran, the one it was given."""
        ring = self._ring(index)
        target = self.target(index)
        if ring.running:
            ring.base = target.stop(index)
            ring.running = ring.serving = False
        ring.kicked = False
        target.set_kick(index, -1)
        return ring.base

    def stop_disabled(self) -> None:
        for ring in self._rings:
            if ring.running and not ring.serving:
                self.stop(ring.index)

    def stop_all(self) -> None:
        for ring in self._rings:
            if ring.index < self.device.queues or ring.index == self._control_index:
                self.stop(ring.index)

    def memory_changed(self) -> list[int]:
        """Starts what waited for memory. Returns the rings that run and have none now."""
        self.start_ready()
        if self.control is not None:
            self.control.look()
        infos = {ring.index: self.target(ring.index).info(ring.index) for ring in self._rings if ring.running}
        return [index for index, info in infos.items() if info["enabled"] and not info["ready"]]

    def reset(self) -> None:
        """Device and rings as at the beginning; the memory stays."""
        self.device.reset()
        if self.control is not None:
            self.control.reset()
        self.features = 0
        self._rings = self._none()
