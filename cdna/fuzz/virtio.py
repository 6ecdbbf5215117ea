"""The campaign "virtio": attackers with split and packed rings in their own memory, and honest neighbours.

Episodes as of "native". A guest's memory is a file of three regions (ext/cdna/fuzz/virtio_guest.pxd).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cdna.abi import ContextState
from cdna.fuzz.arena import mac_text
from cdna.fuzz.episodes import EpisodeCampaign
from cdna.fuzz.stage import LOOSE_KIND, LOOSE_VLAN, STRICT_KIND, Stage
from cdna.fuzz.virtio_attacks import VirtioAttacks, device_offset, generate, ring_bytes, sizes
from cdna.nic.virtio.device import Region, VirtioDevice
from cdna.nic.virtio.features import GUEST_OFFLOADS
from cdna.settings import ContextSettings
from cdna.virtio import Feature

PAGE = 4096
GUEST_ADDR = 1 << 32  # of the first region
USER_ADDR = 0x7F00_0000_0000
USER_STRIDE = 1 << 30

V1 = 1 << Feature.VIRTIO_F_VERSION_1
PACKED = V1 | 1 << Feature.VIRTIO_F_RING_PACKED
INDIRECT = 1 << Feature.VIRTIO_F_INDIRECT_DESC
EVENT_IDX = 1 << Feature.VIRTIO_F_EVENT_IDX
IN_ORDER = 1 << Feature.VIRTIO_F_IN_ORDER
MERGEABLE = 1 << Feature.VIRTIO_NET_F_MRG_RXBUF
OFFLOADS = GUEST_OFFLOADS | 1 << Feature.VIRTIO_NET_F_CSUM

# (features, ring size, loose) of each attacker
ATTACKERS: tuple[tuple[int, int, bool], ...] = (
    (V1, 64, False),
    (V1 | INDIRECT | EVENT_IDX, 64, False),
    (PACKED | INDIRECT, 64, False),
    (PACKED | EVENT_IDX | IN_ORDER, 61, False),
    (0, 64, False),
    (V1 | MERGEABLE | INDIRECT | IN_ORDER, 128, False),
    (PACKED | MERGEABLE | INDIRECT | EVENT_IDX, 128, False),
    (V1 | MERGEABLE | INDIRECT | OFFLOADS, 64, True),
    (PACKED | MERGEABLE | INDIRECT | OFFLOADS | EVENT_IDX, 64, True),
    (OFFLOADS, 16, True),
)


class Attacker:
    """One attacker's memory file, its context and its device, which come and go."""

    def __init__(self, stage: Stage, number: int, features: int, size: int, loose: bool) -> None:
        self.vmm = stage.machine.vmm
        self.features, self.size, self.loose = features, size, loose
        self.settings = ContextSettings(
            mac=mac_text(LOOSE_KIND if loose else STRICT_KIND, number),
            vlan=LOOSE_VLAN if loose else 0,
            protection="table",
        )
        self.guest = self.vmm.create_guest(f"mallory {number}", PAGE)  # which it has no use for
        self.sizes = sizes(size)
        self.regions: tuple[int, ...] = ()
        self._table: list[Region] = []
        self._fd = os.memfd_create("attacker", os.MFD_CLOEXEC)
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        addr, offset = GUEST_ADDR, 0
        for i, size in enumerate(self.sizes):
            self.regions += (addr,)
            self._table.append(Region(addr, size, USER_ADDR + i * USER_STRIDE, self._fd, offset))
            addr += size  # they adjoin in the guest
            offset += -(-size // PAGE) * PAGE
        os.ftruncate(self._fd, offset)

    def _connect(self) -> None:
        self.context = self.vmm.assign(self.guest, self.settings)
        self.device = VirtioDevice(self.vmm.nic, self.context.index)
        self.device.set_memory(self._table)
        self._start()

    def _start(self) -> None:
        self.device.set_features(self.features)
        for queue in range(2):
            at = USER_ADDR + queue * ring_bytes(self.size)
            self.device.set_size(queue, self.size)
            self.device.set_addresses(queue, at, at + 16 * self.size, at + device_offset(self.size))
            self.device.set_base(queue, 1 << 15 if self.features & PACKED == PACKED else 0)
            self.device.start(queue)
            self.device.enable(queue, True)

    def reconnect(self) -> None:
        """Everything is taken away, in the middle of anything, and given anew."""
        self.device.close()
        self.vmm.revoke(self.context)
        self._connect()

    def change_memory(self, meanwhile: Callable[[], None]) -> bool:
        """`meanwhile` runs without the last region. Returns whether nobody wrote to it then."""
        region = self._table[-1]
        self.device.remove_region(region.guest_addr, region.size, region.user_addr)
        before = os.pread(self._fd, region.size, region.offset)
        meanwhile()
        kept = os.pread(self._fd, region.size, region.offset) == before
        self.device.add_region(region)
        self.device.reset()
        self._start()
        return kept and self.context.state == ContextState.CONTEXT_RUNNING

    def close(self) -> None:
        self.device.close()
        os.close(self._fd)


class VirtioEpisode:
    """A machine with attackers that have virtio devices. steps: what `generate` makes, or rows of numbers."""

    generate = staticmethod(generate)

    def __init__(self, seed: int) -> None:
        self.stage = Stage(len(ATTACKERS), len(ATTACKERS))
        self._attackers: list[Attacker] = []
        try:
            for i, attacker in enumerate(ATTACKERS):
                self._attackers.append(Attacker(self.stage, i, *attacker))
            self.attacks = VirtioAttacks(
                self.stage.machine,
                self.stage.wire,
                self.stage.drivers,
                self.stage.load,
                self.stage.foreign(),
                seed=seed,
                control=list(self._attackers),
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for attacker in self._attackers:
            attacker.close()
        self.stage.close()


class VirtioCampaign(EpisodeCampaign):
    name = "virtio"
    episode = VirtioEpisode


__all__ = ["ATTACKERS", "VirtioCampaign", "VirtioEpisode"]
