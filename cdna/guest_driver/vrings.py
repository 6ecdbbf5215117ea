"""The driver side of virtqueues in plain Python: guest memory, split and packed rings (virtio 1.2, 2.7, 2.8).

Nothing here checks what it is told, so a test can break any rule: `SplitRing.table`, `avail` and `used`,
`PackedRing.table`, `driver_event` and `device_event` are numpy views of the guest's memory.
"""

from __future__ import annotations

import mmap
import os
import select
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from cdna import virtio
from cdna.virtio import VringDescFlag, VringEvent, VringFlag

NEXT = VringDescFlag.VRING_DESC_F_NEXT
WRITE = VringDescFlag.VRING_DESC_F_WRITE
INDIRECT = VringDescFlag.VRING_DESC_F_INDIRECT
AVAIL = VringDescFlag.VRING_PACKED_DESC_F_AVAIL
USED = VringDescFlag.VRING_PACKED_DESC_F_USED
MAPPED: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()  # what drivers of this process map
GAP = 1 << 30  # bytes between the guest addresses of two regions; in the frontend's process they adjoin


class MemoryRegion(NamedTuple):
    """As SET_MEM_TABLE has it."""

    guest_addr: int
    size: int
    user_addr: int
    offset: int


class GuestMemory:
    """A memory file, `regions` equal parts of it at guest addresses with gaps between them."""

    def __init__(self, size: int = 8 << 20, regions: int = 1, guest_addr: int = 1 << 32) -> None:
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        MAPPED.add(self.map)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.size = size
        part = size // regions // mmap.PAGESIZE * mmap.PAGESIZE
        user_addr = 0x7F00_0000_0000
        self.regions = [
            MemoryRegion(guest_addr + i * (part + GAP), part, user_addr + i * part, i * part)
            for i in range(regions)
        ]
        self._next = [0] * regions

    def alloc(self, size: int, align: int = 64, region: int = 0) -> int:
        """The guest address of so many bytes that nobody else gets."""
        at = -(-self._next[region] // align) * align
        assert at + size <= self.regions[region].size, "this guest's memory is full"
        self._next[region] = at + size
        return self.regions[region].guest_addr + at

    def offset(self, addr: int) -> int:
        """Where a guest address lies in the file."""
        for region in self.regions:
            if 0 <= addr - region.guest_addr < region.size:
                return addr - region.guest_addr + region.offset
        raise AssertionError(f"{addr:#x} is no address of this guest")

    def user(self, addr: int) -> int:
        """A guest address in the frontend's process."""
        return self.regions[0].user_addr + self.offset(addr)

    def view(self, addr: int, size: int, dtype: DTypeLike = np.uint8) -> np.ndarray:
        at = self.offset(addr)
        found: np.ndarray = self.bytes[at : at + size].view(np.dtype(dtype))
        return found

    def read(self, addr: int, size: int) -> bytes:
        return self.view(addr, size).tobytes()

    def write(self, addr: int, data: bytes) -> None:
        self.view(addr, len(data))[:] = np.frombuffer(data, np.uint8)

    def close(self) -> None:
        os.close(self.fd)


class Buffer(NamedTuple):
    """A piece of a chain."""

    addr: int
    len: int
    writable: bool = False


@dataclass
class Used:
    """A buffer that came back: its id, and how many bytes the device says it wrote."""

    id: int
    len: int
    chain: list[Buffer] = field(default_factory=list)


class Vring:
    """What both formats share. `desc`, `driver`, `device`: guest addresses of the three parts."""

    def __init__(self, memory: GuestMemory, size: int, event_idx: bool = False) -> None:
        self.memory = memory
        self.size = size
        self.event_idx = event_idx
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.err_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.chains: dict[int, list[Buffer]] = {}  # made available and not used, by id
        self._indirect: dict[int, int] = {}  # a table for each id that has used one
        self.desc = self.driver = self.device = 0

    @property
    def base(self) -> int:
        """For SET_VRING_BASE: where a device that has used everything that it was shown goes on."""
        raise NotImplementedError

    def add(self, chain: list[Buffer], indirect: bool = False) -> int:
        """Makes a chain available. Returns its id."""
        raise NotImplementedError

    def take(self) -> list[Used]:
        """What the device has used since the last call."""
        raise NotImplementedError

    def wants_kick(self) -> bool:
        raise NotImplementedError

    def move(self, memory: GuestMemory) -> None:
        """Another memory, which holds the same at the same addresses: the guest has migrated."""
        raise NotImplementedError

    def kick(self, always: bool = False) -> bool:
        """Notifies the device where it wants that. Returns whether it did."""
        wanted = always or self.wants_kick()
        if wanted:
            os.eventfd_write(self.kick_fd, 1)
        return wanted

    def called(self) -> int:
        """Interrupts since the last call; an eventfd adds them up."""
        try:
            return os.eventfd_read(self.call_fd)
        except BlockingIOError:
            return 0

    def failed(self, timeout: float = 0.0) -> bool:
        """Whether the device has signalled an error, or does within so many seconds."""
        poll = select.poll()
        poll.register(self.err_fd, select.POLLIN)
        return bool(poll.poll(1000 * timeout)) and os.eventfd_read(self.err_fd) > 0

    def room(self) -> int:
        """Descriptors that are free."""
        raise NotImplementedError

    def table_of(self, id: int, entries: int) -> int:
        """Guest address of an indirect table with room for so many descriptors."""
        if id not in self._indirect:
            self._indirect[id] = self.memory.alloc(16 * max(entries, 32), 16)
        return self._indirect[id]

    def close(self) -> None:
        for fd in (self.kick_fd, self.call_fd, self.err_fd):
            os.close(fd)


class SplitRing(Vring):
    def __init__(self, memory: GuestMemory, size: int, event_idx: bool = False) -> None:
        super().__init__(memory, size, event_idx)
        self.desc = memory.alloc(16 * size, 16)
        self.driver = memory.alloc(6 + 2 * size, 2)
        self.device = memory.alloc(6 + 8 * size, 4)
        self.last_used = 0
        self._free = list(range(size))[::-1]
        self._slots: dict[int, list[int]] = {}
        self._kicked_at = 0
        self.move(memory)

    def move(self, memory: GuestMemory) -> None:
        size, self.memory = self.size, memory
        self.table = memory.view(self.desc, 16 * size, virtio.VRING_DESC_DTYPE)
        self.avail = memory.view(self.driver, 6 + 2 * size, np.uint16)  # flags, idx, ring, used_event
        self.used = memory.view(self.device, 6 + 8 * size, np.uint16)  # flags, idx, ring, avail_event
        self.used_ring = memory.view(self.device + 4, 8 * size, virtio.VRING_USED_ELEM_DTYPE)

    @property
    def base(self) -> int:
        """For SET_VRING_BASE: where a device that has used everything that it was shown goes on."""
        return int(self.used[1])

    def room(self) -> int:
        return len(self._free)

    def add(self, chain: list[Buffer], indirect: bool = False) -> int:
        if indirect:
            slots = [self._free.pop()]
            at = self.table_of(slots[0], len(chain))
            table = self.memory.view(at, 16 * len(chain), virtio.VRING_DESC_DTYPE)
            self._write(table, range(len(chain)), chain)
            self.table[slots[0]] = (at, 16 * len(chain), INDIRECT, 0)
        else:
            slots = [self._free.pop() for _ in chain]
            self._write(self.table, slots, chain)
        self._slots[slots[0]] = slots
        self.chains[slots[0]] = chain
        self.expose(slots[0])
        return slots[0]

    @staticmethod
    def _write(table: np.ndarray, slots: Iterable[int], chain: list[Buffer]) -> None:
        slots = list(slots)
        for at, following, buffer in zip(slots, [*slots[1:], None], chain, strict=True):
            flags = (WRITE if buffer.writable else 0) | (NEXT if following is not None else 0)
            table[at] = (buffer.addr, buffer.len, flags, following or 0)

    def expose(self, head: int) -> None:
        """Puts any number into the available ring."""
        idx = int(self.avail[1])
        self.avail[2 + idx % self.size] = head
        self.avail[1] = (idx + 1) & 0xFFFF

    def wants_kick(self) -> bool:
        idx, before = int(self.avail[1]), self._kicked_at
        self._kicked_at = idx
        if not self.event_idx:
            return not self.used[0] & VringFlag.VRING_USED_F_NO_NOTIFY
        event = int(self.used[2 + 4 * self.size])
        return (idx - event - 1) & 0xFFFF < (idx - before) & 0xFFFF

    def take(self) -> list[Used]:
        found = []
        while self.last_used != int(self.used[1]):
            entry = self.used_ring[self.last_used % self.size]
            id, length = int(entry["id"]), int(entry["len"])
            self._free += reversed(self._slots.pop(id))
            found.append(Used(id, length, self.chains.pop(id)))
            self.last_used = (self.last_used + 1) & 0xFFFF
        if self.event_idx:
            self.avail[2 + self.size] = self.last_used
        return found


class PackedRing(Vring):
    def __init__(self, memory: GuestMemory, size: int, event_idx: bool = False) -> None:
        super().__init__(memory, size, event_idx)
        self.desc = memory.alloc(16 * size, 16)
        self.driver = memory.alloc(4, 4)
        self.device = memory.alloc(4, 4)
        self.next_avail, self.avail_wrap = 0, True
        self.last_used, self.used_wrap = 0, True
        self._free = list(range(size))[::-1]
        self._slots: dict[int, int] = {}
        self._left = size
        self.move(memory)

    def move(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.table = memory.view(self.desc, 16 * self.size, virtio.VRING_PACKED_DESC_DTYPE)
        self.driver_event = memory.view(self.driver, 4, virtio.VRING_PACKED_EVENT_DTYPE)
        self.device_event = memory.view(self.device, 4, virtio.VRING_PACKED_EVENT_DTYPE)

    @property
    def base(self) -> int:
        """For SET_VRING_BASE: the first descriptor that the device has not used, twice."""
        at, wrap = self.last_used, self.used_wrap
        while self._is_used(at, wrap):
            at, wrap = self._behind(at, wrap, self._slots[int(self.table["id"][at])])
        half = at | wrap << 15
        return half | half << 16

    def _is_used(self, at: int, wrap: bool) -> bool:
        flags = int(self.table["flags"][at])
        return bool(flags & AVAIL) == bool(flags & USED) == wrap

    def room(self) -> int:
        return self._left

    def add(self, chain: list[Buffer], indirect: bool = False) -> int:
        id = self._free.pop()
        self.chains[id] = chain
        written = chain
        if indirect:
            at = self.table_of(id, len(chain))
            table = self.memory.view(at, 16 * len(chain), virtio.VRING_PACKED_DESC_DTYPE)
            for i, buffer in enumerate(chain):
                table[i] = (buffer.addr, buffer.len, 0, WRITE if buffer.writable else 0)
            written = [Buffer(at, 16 * len(chain))]
        self._slots[id] = len(written)
        self._left -= len(written)
        first, first_flags = self.next_avail, 0
        for i, buffer in enumerate(written):
            flags = (AVAIL if self.avail_wrap else USED) | (NEXT if i + 1 < len(written) else 0)
            flags |= INDIRECT if indirect else (WRITE if buffer.writable else 0)
            at = self.next_avail
            self.table["addr"][at], self.table["len"][at], self.table["id"][at] = buffer.addr, buffer.len, id
            if i == 0:
                first_flags = flags
            else:
                self.table["flags"][at] = flags
            self.next_avail, self.avail_wrap = self._behind(at, self.avail_wrap)
        self.table["flags"][first] = first_flags  # the whole chain becomes available at once
        return id

    def _behind(self, at: int, wrap: bool, slots: int = 1) -> tuple[int, bool]:
        at += slots
        return (at - self.size, not wrap) if at >= self.size else (at, wrap)

    def wants_kick(self) -> bool:
        flags = int(self.device_event["flags"][0])
        return flags != VringEvent.VRING_PACKED_EVENT_FLAG_DISABLE

    def take(self) -> list[Used]:
        found = []
        while self._is_used(self.last_used, self.used_wrap):
            id, length = int(self.table["id"][self.last_used]), int(self.table["len"][self.last_used])
            slots = self._slots.pop(id)
            self._free.append(id)
            self._left += slots
            found.append(Used(id, length, self.chains.pop(id)))
            self.last_used, self.used_wrap = self._behind(self.last_used, self.used_wrap, slots)
        if self.event_idx:
            self.driver_event[0] = (
                self.last_used | self.used_wrap << 15,
                VringEvent.VRING_PACKED_EVENT_FLAG_DESC,
            )
        return found
