"""A machine whose contexts receive in every way there is, for what comes from the wire."""

from __future__ import annotations

from typing import Any

from cdna import ContextSettings, Machine
from cdna.abi import Takes
from cdna.guest_driver.vhost_frontend import ALL_PACKED, LEGACY, SPLIT, NetDriver
from cdna.guest_driver.vrings import GuestMemory
from cdna.nic.capture_ring import CaptureRing
from cdna.nic.virtio.device import Region, VirtioDevice
from cdna.nic.wire import Wire
from cdna.virtio import Feature

ALL = sum(Takes)
PLAIN_PACKED = 1 << Feature.VIRTIO_F_VERSION_1 | 1 << Feature.VIRTIO_F_RING_PACKED
GROUPS = tuple(f"01:00:5e:00:00:{n:02x}" for n in range(16))

NATIVE: tuple[dict[str, Any], ...] = (
    {"buffer_size": 2048},
    {"buffer_size": 64, "vlan": 5, "all_multicast": True},
    {"buffer_size": 2048, "vlan": "trunk", "vnet_header": True, "takes": ALL},
    {"buffer_size": 4096, "vnet_header": True, "takes": int(Takes.TAKES_CSUM), "multicast": GROUPS},
    {"buffer_size": 1024, "protection": "iommu:direct-map", "vlan": 5, "vnet_header": True, "takes": ALL},
)
VIRTIO: tuple[tuple[int, int, int, int], ...] = (  # features, pairs, bytes of a buffer, regions
    (SPLIT, 1, 1536, 1),
    (ALL_PACKED, 2, 1536, 2),
    (LEGACY, 2, 4096, 1),
    (PLAIN_PACKED, 2, 2048, 1),
    (SPLIT, 2, 512, 1),
)
RSS = (3, 4)  # of them, those that distribute as their drivers say
RINGS = 8192  # bytes at the beginning of each region that hold rings; the buffers are behind them
RING = 64


def receivers(wire: Wire) -> tuple[Machine, list[VirtioDevice]]:
    """The machine, not running, and its virtio devices; everything is posted."""
    contexts = len(NATIVE) + len(VIRTIO)
    machine = Machine(
        16 << 20, wire=wire, contexts=contexts, max_ring=256, interrupt_frames=2, interrupt_us=0.0
    )
    for i, settings in enumerate(NATIVE):
        machine.attach(f"native{i}", tx_ring=8, rx_ring=RING, **settings)
    devices = [_virtio(machine, i, *what) for i, what in enumerate(VIRTIO)]
    capture = CaptureRing(machine.nic, size=1 << 18, snaplen=64)
    for index in machine.vmm.contexts:
        capture.add(index, f"context{index}", bytes(6))
    machine.keep_alive = capture  # type: ignore[attr-defined]
    return machine, devices


def _virtio(
    machine: Machine, number: int, features: int, pairs: int, room: int, regions: int
) -> VirtioDevice:
    guest = machine.vmm.create_guest(f"virtio{number}", 4096)
    vlan = "trunk" if number == 1 else 0
    context = machine.vmm.assign(guest, ContextSettings(protection="table", vlan=vlan))
    memory = GuestMemory(2 << 20, regions)
    driver = NetDriver(memory, features, pairs=pairs, size=RING, rx_room=room)
    device = VirtioDevice(machine.nic, context.index, pairs=pairs)
    device.set_memory(
        [Region(r.guest_addr, r.size, r.user_addr, memory.fd, r.offset) for r in memory.regions]
    )
    device.set_features(features)
    for queue, ring in enumerate(driver.queues):
        device.set_size(queue, ring.size)
        device.set_addresses(queue, *map(memory.user, (ring.desc, ring.driver, ring.device)))
        device.start(queue)
        device.enable(queue, True)
    if number in RSS:
        device.set_rss(511, bytes(range(40)), [0, 1], 1)
    memory.close()
    return device
