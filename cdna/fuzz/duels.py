"""Duels: one word that a guest's second thread rewrites, and one place where the engine could read it twice.

Each function tries until `deadline`, and returns what was found, or None, and how often it tried. Where it
can be so, both values of the word are allowed, so nothing stops the guest and every try counts; only an
engine that checks one of them and uses the other does what is looked for.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np

from cdna.abi import PAGE_BYTES, ContextState, Limits, Ring
from cdna.base.units import parse_mac
from cdna.fuzz.mutator import Mutator, Pattern
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT, NetDriver
from cdna.guest_driver.vrings import AVAIL, GuestMemory, MemoryRegion, PackedRing, SplitRing
from cdna.guests.hostile import EOP, PRODUCER, RX, TX, Hostile
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from cdna.nic.virtio.device import Region, VirtioDevice
from cdna.settings import ContextSettings

Result = tuple[str | None, int]
Duel = Callable[[float], Result]

FLIP = Pattern.PATTERN_FLIP
NEXT, WRITE, INDIRECT = 1, 2, 4
MEMORY = 8 << 20
SECRET = 0xEE  # every byte of what is not the guest's
OUTSIDE = bytes.fromhex("02ffffffff01")
TYPE = b"\x88\xb5"  # IEEE 802, for local experiments
HIDDEN = 2048  # bytes between the end of the first region and that of its last page
TRIES = 16  # between two looks


def frame(to: bytes, source: bytes, size: int) -> bytes:
    return (to + source + TYPE).ljust(size, b"\x11")


def udp_frame(to: bytes, source: bytes, size: int) -> bytes:
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, b"\n\0\0\1", b"\n\0\0\2")
    udp = struct.pack(">HHHH", 1, 2, size - 34, 0)
    return (to + source + b"\x08\0" + ip + udp).ljust(size, b"\x11")


def offset_of(table: np.ndarray, name: str) -> int:
    """Of a field in a descriptor, bytes."""
    fields = table.dtype.fields
    assert fields is not None
    return int(fields[name][1])


@contextmanager
def machine_on(wire: QueueWire | str | None) -> Iterator[Machine]:
    """A machine that is stepped."""
    machine = Machine(MEMORY, wire=wire or QueueWire(), contexts=4)
    try:
        yield machine
    finally:
        machine.close()


# --- native rings -----------------------------------------------------------------------------------------


def iommu_guest(machine: Machine) -> tuple[Hostile, np.ndarray]:
    """Two I/O pages in a row that are its last page and its first; and the page behind, which is a secret."""
    hostile = Hostile(machine, pages=2, protection="iommu:single-use")
    victim = machine.vmm.create_guest("victim", PAGE_BYTES)
    assert victim.first_page == hostile.guest.first_page + 2
    victim.memory[:] = SECRET
    first = hostile.guest.first_page
    assert hostile.iommu_map([0, 1], [first + 1, first]) == 2
    return hostile, victim.memory


def again(hostile: Hostile, ring: Ring) -> None:
    """Announces what lies in the ring once more; the mutator writes there, so nobody else does."""
    hostile.posted[ring] = hostile.consumer(ring) + hostile.size[ring]
    hostile.ring_doorbell(PRODUCER[ring], hostile.posted[ring])


def native_length(deadline: float) -> Result:
    """The length of a transmit descriptor: within its page, or into the next I/O page."""
    tries = 0
    wire = QueueWire()
    with machine_on(wire) as machine:
        hostile, _ = iommu_guest(machine)
        hostile.write(frame(OUTSIDE, hostile.mac, 96), 1, 4000)
        ring = hostile.ring(TX)
        at = ring.ctypes.data + offset_of(ring, "len")
        words = [(at + 16 * i, 2, FLIP, 64, 2000) for i in range(len(ring))]
        with Mutator(1, words, ring):
            hostile.post(TX, [(4000, 64, EOP)] * len(ring))
            while time.monotonic() < deadline:
                machine.step(2)
                again(hostile, TX)
                tries += len(ring)
                if any(SECRET in got for got in wire.get()):
                    return "a frame carries bytes of the page behind", tries
    return None, tries


def native_address(deadline: float) -> Result:
    """The address of a receive descriptor: the frame fits behind it into the page, or crosses its end."""
    tries = 0
    wire = QueueWire()
    with machine_on(wire) as machine:
        hostile, secret = iommu_guest(machine)
        ring = hostile.ring(RX)
        frames = [frame(hostile.mac, OUTSIDE, 500)] * len(ring)
        words = [(ring.ctypes.data + 16 * i, 8, FLIP, 64, 4000) for i in range(len(ring))]
        with Mutator(1, words, ring):
            hostile.post(RX, [(64, 1000, EOP)] * len(ring))
            while time.monotonic() < deadline:
                wire.put(frames)
                machine.step(2)
                again(hostile, RX)
                tries += len(ring)
                if np.any(secret != SECRET):
                    return "the page behind was written to", tries
                if hostile.context.state != ContextState.CONTEXT_RUNNING:
                    return f"stopped: {hostile.context.fault}", tries
    return None, tries


def request_address(deadline: float) -> Result:
    """The address in a request for the VMM: what it writes to the ring has to be what it has pinned."""
    tries = 0
    with machine_on(None) as machine:
        foreign = machine.vmm.create_guest("victim", PAGE_BYTES).maddr + 64
        hostile = Hostile(machine)
        requests = np.array([(hostile.maddr(), 60, int(EOP), 0)], hostile.ring(TX).dtype)
        with Mutator(1, [(requests.ctypes.data, 8, FLIP, hostile.maddr(), foreign)], requests):
            while time.monotonic() < deadline:
                for _ in range(8):
                    machine.vmm.tables.enqueue(
                        hostile.guest.domain, hostile.context.index, TX, requests.view(np.uint8)
                    )
                    tries += 1
                if foreign in hostile.ring(TX)["addr"]:
                    return "a foreign address is in the ring", tries
                hostile.renew()
    return None, tries


def shrinking_buffers(deadline: float) -> Result:
    """Lengths of receive buffers, while a frame is scattered: no buffer is used that was not posted."""
    tries = 0
    with machine_on("loopback") as machine:
        alice = machine.attach("alice")
        hostile = Hostile(machine, protection="iommu:direct-map")
        source = parse_mac(alice.context.mac)
        while time.monotonic() < deadline:
            hostile.renew()
            ring = hostile.ring(RX)
            ring["len"], ring["flags"], ring["addr"] = 20, 0, PAGE_BYTES
            last = ring.ctypes.data + 16 + offset_of(ring, "len")
            hostile.post(RX, [(0, 100, 0), (PAGE_BYTES, 200, 0)])
            with Mutator(tries, [(last, 2, FLIP, 200, 20)], ring):
                for _ in range(50):
                    if hostile.context.state != ContextState.CONTEXT_RUNNING:
                        break
                    alice.send([frame(hostile.mac, source, 200)])
                    machine.step(2)
                    tries += 1
                    if hostile.consumer(RX) > hostile.posted[RX]:
                        return f"{hostile.consumer(RX)} buffers were used, {hostile.posted[RX]} posted", tries
                    if hostile.consumer(RX) == hostile.posted[RX]:
                        break
            alice.recv()
    return None, tries


# --- virtio rings -----------------------------------------------------------------------------------------


class VirtioGuest:
    """A guest with a virtio device and no frontend, whose memory is mapped here as its driver maps it.

    Two regions adjoin in the guest and nowhere else; between the first one's end and that of its last page
    lie secrets.
    """

    def __init__(self, machine: Machine, number: int, queues: tuple[int, ...], features: int = SPLIT) -> None:
        guest = machine.vmm.create_guest(f"guest {number}", PAGE_BYTES)
        self.mac = bytes([2, 0, 0, 0, 0, number])
        settings = ContextSettings(protection="table", mac=self.mac.hex(":"))
        self.context = machine.vmm.assign(guest, settings)
        self.memory = memory = GuestMemory(1 << 20, regions=2)
        first, second = memory.regions
        end = first.guest_addr + first.size - HIDDEN
        memory.regions[0] = MemoryRegion(first.guest_addr, first.size - HIDDEN, first.user_addr, 0)
        memory.regions[1] = MemoryRegion(end, second.size, second.user_addr, second.offset)
        self.end = end  # guest address
        self.hidden = memory.bytes[first.size - HIDDEN : first.size]
        self.hidden[:] = SECRET
        self.driver = NetDriver(memory, features, size=32)
        self.device = VirtioDevice(machine.nic, self.context.index)
        self.device.set_memory(
            [Region(r.guest_addr, r.size, r.user_addr, memory.fd, r.offset) for r in memory.regions]
        )
        self.device.set_features(features)
        self.tx, self.rx = cast(SplitRing, self.driver.tx[0]), cast(SplitRing, self.driver.rx[0])
        user = memory.user
        for queue in queues:
            ring = self.driver.queues[queue]
            self.device.set_size(queue, ring.size)
            self.device.set_addresses(queue, user(ring.desc), user(ring.driver), user(ring.device))
            self.device.start(queue)
            self.device.enable(queue, True)

    def address(self, guest_addr: int) -> int:
        """Of this process."""
        return int(self.memory.bytes.ctypes.data) + self.memory.offset(guest_addr)

    def desc(self, ring: SplitRing, index: int, name: str) -> int:
        """The address of a field of a descriptor."""
        return self.address(ring.desc) + 16 * index + offset_of(ring.table, name)

    def restart(self, queue: int) -> None:
        """A context that was stopped goes on from what it has used."""
        self.device.stop(queue)
        self.device.start(queue)

    def stopped(self) -> bool:
        return bool(self.context.state != ContextState.CONTEXT_RUNNING)

    def close(self) -> None:
        self.device.close()
        self.driver.close()
        self.memory.close()


@contextmanager
def virtio_guest(
    machine: Machine, queue: int = 1, number: int = 10, features: int = SPLIT
) -> Iterator[VirtioGuest]:
    """One of the two queues is served."""
    guest = VirtioGuest(machine, number, (queue,), features)
    try:
        yield guest
    finally:
        guest.close()


def sends(guest: VirtioGuest, machine: Machine, wire: QueueWire, head: int) -> list[bytes]:
    """The buffer at `head` some times over; what came out."""
    tx = guest.tx
    for _ in range(TRIES):
        tx.expose(head)
    machine.step(2)
    if guest.stopped():
        tx.avail[1] = tx.used[1]
        guest.restart(1)
    return wire.get()


def virtio_length(deadline: float) -> Result:
    """The length of a buffer that ends in its region, or in the next one."""
    tries = 0
    wire = QueueWire()
    with machine_on(wire) as machine, virtio_guest(machine) as guest:
        at = guest.end - 256
        guest.memory.write(at, bytes(12) + frame(OUTSIDE, guest.mac, 244))
        guest.tx.table[0] = (at, 200, 0, 0)
        with Mutator(1, [(guest.desc(guest.tx, 0, "len"), 4, FLIP, 200, 1500)], guest):
            while time.monotonic() < deadline:
                tries += TRIES
                if any(SECRET in got for got in sends(guest, machine, wire, 0)):
                    return "a frame carries bytes of behind the region", tries
    return None, tries


def virtio_address(deadline: float) -> Result:
    """The address of a receive buffer, in this region or the next one."""
    tries = 0
    wire = QueueWire()
    with machine_on(wire) as machine, virtio_guest(machine, 0) as guest:
        rx = guest.rx
        header = guest.memory.alloc(64)
        data = frame(guest.mac, OUTSIDE, 200)
        rx.avail[1] = rx.used[1]
        guest.restart(0)
        rx.table[0] = (header, 12, WRITE | NEXT, 1)
        rx.table[1] = (guest.end - 400, 300, WRITE, 0)
        with Mutator(1, [(guest.desc(rx, 1, "addr"), 8, FLIP, guest.end - 400, guest.end + 64)], guest):
            while time.monotonic() < deadline:
                for _ in range(TRIES):
                    rx.expose(0)
                wire.put([data] * TRIES)
                machine.step(4)
                tries += TRIES
                if np.any(guest.hidden != SECRET):
                    return "bytes behind the region were written to", tries
    return None, tries


def virtio_next(deadline: float) -> Result:
    """The index of the next descriptor, in the table or outside; there lies one for another frame."""
    tries = 0
    wire = QueueWire()
    with machine_on(wire) as machine, virtio_guest(machine) as guest:
        tx = guest.tx
        header, good, bad = (guest.memory.alloc(256) for _ in range(3))
        guest.memory.write(header, bytes(12))
        guest.memory.write(good, frame(OUTSIDE, guest.mac, 100))
        guest.memory.write(bad, frame(OUTSIDE, guest.mac, 100).replace(b"\x11", b"\x22"))
        outside = (guest.memory.alloc(16, 16) - tx.desc) // 16
        tx.table[0], tx.table[1] = (header, 12, NEXT, 1), (good, 100, 0, 0)
        guest.memory.view(tx.desc + 16 * outside, 16, tx.table.dtype)[0] = (bad, 100, 0, 0)
        with Mutator(1, [(guest.desc(tx, 0, "next"), 2, FLIP, 1, outside)], guest):
            while time.monotonic() < deadline:
                tries += TRIES
                if any(b"\x22" in got for got in sends(guest, machine, wire, 0)):
                    return "a descriptor outside the table was followed", tries
    return None, tries


def indirect_length(deadline: float) -> Result:
    """The length of a table, whose second entry the guest has hidden behind the end of its region."""
    tries = 0
    wire = QueueWire()
    with machine_on(wire) as machine, virtio_guest(machine) as guest:
        tx = guest.tx
        header, bad = guest.memory.alloc(64), guest.memory.alloc(256)
        guest.memory.write(header, bytes(12))
        guest.memory.write(bad, frame(OUTSIDE, guest.mac, 100))
        table = guest.end - 16
        guest.memory.view(table, 16, tx.table.dtype)[0] = (header, 12, NEXT, 1)
        guest.hidden[:16].view(tx.table.dtype)[0] = (bad, 100, 0, 0)
        tx.table[0] = (table, 16, INDIRECT, 0)
        with Mutator(1, [(guest.desc(tx, 0, "len"), 4, FLIP, 16, 32)], guest):
            while time.monotonic() < deadline:
                tries += 1
                tx.expose(0)
                if sends(guest, machine, wire, 0):
                    return "an entry behind the end of memory was followed", tries
    return None, tries


def available_index(deadline: float) -> Result:
    """The available index: one more, or more than the ring holds."""
    tries = 0
    wire = QueueWire()
    with machine_on(wire) as machine, virtio_guest(machine) as guest:
        ring = guest.tx
        place = guest.memory.alloc(2048)
        guest.memory.write(place, bytes(12) + frame(OUTSIDE, guest.mac, 60))
        ring.table["addr"], ring.table["len"], ring.table["flags"] = place, 72, 0
        while time.monotonic() < deadline:
            good = (int(ring.used[1]) + 1) & 0xFFFF
            far = (good + 2 * ring.size) & 0xFFFF
            with Mutator(tries, [(guest.address(ring.driver) + 2, 2, FLIP, good, far)], guest):
                for _ in range(20):
                    guest.restart(1)
                    machine.step(2)
                    tries += 1
                    ahead = int(ring.used[1]) - good & 0xFFFF
                    if 0 < ahead < 0x8000:
                        return f"{ahead} buffers were used that were not available", tries
                    if ahead == 0:
                        break
            wire.get()
    return None, tries


def vnet_header(deadline: float) -> Result:
    """csum_start: who gets the frame with its work to do gets an offset that is in the frame."""
    tries = 0
    with (
        machine_on("loopback") as machine,
        virtio_guest(machine) as alice,
        virtio_guest(machine, 0, 11) as bob,
    ):
        data = udp_frame(bob.mac, alice.mac, 100)
        place = alice.memory.alloc(2048)
        alice.memory.write(place, struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 6, 0) + data)
        alice.tx.table[0] = (place, 112, 0, 0)
        with Mutator(1, [(alice.address(place) + 6, 2, FLIP, 34, 9000)], alice):
            while time.monotonic() < deadline:
                for _ in range(TRIES):
                    alice.tx.expose(0)
                machine.step(2)
                tries += TRIES
                bob.driver.recv()
                starts = [struct.unpack_from("<H", header, 6)[0] for header in bob.driver.headers]
                if max(starts, default=0) > len(data):
                    return f"csum_start {max(starts)} in a frame of {len(data)} bytes", tries
    return None, tries


def changing_headers(deadline: float) -> Result:
    """The length of an IP header, while the frame is collected: no frame without work is too long.

    Behind the longer header the frame is no longer than a fragment of it, so there is nothing to do.
    """
    tries = 0
    wire = QueueWire()
    fragment = 8976
    with machine_on(wire) as machine, virtio_guest(machine) as guest:
        data = udp_frame(OUTSIDE, guest.mac, 34 + fragment + 20)
        place = guest.memory.alloc(16384)
        guest.memory.write(place, struct.pack("<BBHHHHH", 0, 3, 0, fragment, 0, 0, 0) + data)
        guest.tx.table[0] = (place, 12 + len(data), 0, 0)
        with Mutator(1, [(guest.address(place) + 12 + 14, 1, FLIP, 0x45, 0x4F)], guest):
            while time.monotonic() < deadline:
                tries += TRIES
                longest = max(map(len, sends(guest, machine, wire, 0)), default=0)
                if longest > Limits.MAX_FRAME:
                    return f"a frame of {longest} bytes on the wire", tries
    return None, tries


def endless_slots(deadline: float) -> Result:
    """The flags of a packed chain that goes once around the ring: it has no more slots than the ring."""
    tries = 0
    with machine_on(None) as machine, virtio_guest(machine, features=ALL_PACKED) as guest:
        ring = cast(PackedRing, guest.driver.tx[0])
        ring.table["addr"], ring.table["len"] = guest.memory.alloc(64), 4
        flags = guest.address(ring.desc) + 16 * 5 + offset_of(ring.table, "flags")
        with Mutator(1, [(flags, 2, FLIP, AVAIL | NEXT, AVAIL)], guest):
            while time.monotonic() < deadline:
                guest.device.stop(1)
                guest.device.set_base(1, 1 << 15)
                ring.device_event[0] = (0, 0)
                ring.table["flags"][:5] = AVAIL | NEXT
                ring.table["flags"][6:] = NEXT  # of a chain that begins before; none begins here
                guest.device.start(1)
                machine.step(1)
                tries += 1
                base = guest.device.stop(1)
                if not base >> 15 & 1:
                    return f"a chain of more slots than the ring has: it stands at {base:#x}", tries
    return None, tries


DUELS: dict[str, Duel] = {
    duel.__name__: duel
    for duel in (
        native_length,
        native_address,
        request_address,
        shrinking_buffers,
        virtio_length,
        virtio_address,
        virtio_next,
        indirect_length,
        available_index,
        vnet_header,
        changing_headers,
        endless_slots,
    )
}
