"""Attacks on virtio rings: steps from a seed, carried out one after the other against the real engine.

Everything happens in the caller's thread, so a seed decides all of it. The rings are reset without Python;
what changes a device's memory, or makes another device, goes through the control plane.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cdna.abi cimport CONTEXT_RUNNING
from cdna.fuzz.action cimport action_t
from cdna.fuzz.arena cimport FOUND_STATE, Arena, FuzzWire, add_area, arena_round, arena_settle, arena_t, find
from cdna.fuzz.rng cimport next_u64, rng_t
from cdna.fuzz.virtio_guest cimport (
    ROOM, RX_QUEUE, SLOT, SLOTS, TABLE_ENTRIES, TABLES, TX_QUEUE, begin_anew, count_untaken, forget_rings,
    guest_t, stuck,
)
from cdna.fuzz.virtio_steps cimport change_behind, lie_index, post_buffers, write_device_area, write_over
from cdna.memory cimport SharedRegion
from cdna.nic.context cimport context_t
from cdna.nic.virtio.memory cimport guest_memory_t, region_t

import numpy as np

from cdna.fuzz.native_attacks import ACTION_DTYPE

cdef enum:
    PAGE = 4096
    FILL = 0x33

# How often each step is made, in 64.
cdef uint8_t[64] _choice
cdef uint32_t _at = 0
for _op, _share in (
    (VIRTIO_POST, 46), (VIRTIO_INDEX, 3), (VIRTIO_CHANGE, 5), (VIRTIO_SCRIBBLE, 4), (VIRTIO_DEVICE_AREA, 2),
    (VIRTIO_RESET, 1), (VIRTIO_POLL, 3),
):
    for _ in range(_share):
        _choice[_at] = _op
        _at += 1
assert _at == 64


def generate(uint64_t seed, uint64_t n):
    """`n` steps, an array of ACTION_DTYPE; the same ones for the same seed."""
    steps = np.empty(n, ACTION_DTYPE)
    cdef uint8_t[::1] raw = steps.view(np.uint8)
    cdef action_t *action = <action_t *>&raw[0] if n else NULL
    cdef rng_t rng
    cdef uint64_t i, bits
    rng.state = seed
    with nogil:
        for i in range(n):
            bits = next_u64(&rng)
            action[i].op = _choice[bits & 0x3F]
            if bits >> 8 & 0x1FFF == 0:
                action[i].op = VIRTIO_MEMORY if bits >> 21 & 1 else VIRTIO_RECONNECT
            action[i].guest = <uint8_t>(bits >> 24)
            action[i].ring = TX_QUEUE if bits >> 22 & 3 else RX_QUEUE
            action[i].count = <uint8_t>(bits >> 48) | 0x10
            action[i].argument = <uint32_t>(bits >> 32)
            action[i].seed = next_u64(&rng)
    return steps


def table_offset(size) -> int:
    """Where the indirect tables begin in the region of the rings, behind two rings of `size`."""
    return 2 * ring_bytes(size)


def ring_bytes(size) -> int:
    """A ring's table, driver and device areas: at 0, 16 * size, and the next multiple of 64 behind."""
    return (device_offset(size) + 6 + 8 * size + 63) // 64 * 64


def device_offset(size) -> int:
    return (16 * size + 6 + 2 * size + 63) // 64 * 64


def sizes(size):
    """Bytes of the three regions for rings of `size`; no whole number of pages, a multiple of 8."""
    rings = table_offset(size) + TABLES * TABLE_ENTRIES * 16
    return (rings + (520 if rings % PAGE == 0 else 0)), SLOTS * SLOT + 1544, ROOM


cdef inline uint32_t profile_of(uint32_t argument) noexcept nogil:
    """Half of the batches are good, one in eight is wrong all over."""
    if argument & 7 < 4:
        return 0
    return 1 if argument & 7 < 7 else 2


cdef class VirtioAttacks(Arena):
    """An arena with attackers that have virtio devices.

    control: of each, an object with `context`, `device` and `size` as they are now, the guest addresses
    `regions`, `loose`, and the methods `reconnect` and `change_memory`, which takes what is to be called
    while the last region is not in the table.
    """

    def __init__(self, machine, FuzzWire wire, list drivers, load, foreign, *, seed, list control):
        super().__init__(machine, wire, drivers, load, foreign, seed=seed, attackers=len(control))
        cdef SharedRegion region = SharedRegion(len(control) * sizeof(guest_t))
        self._region_of_guests = region
        self._control = control
        self.guest = <guest_t *>region.base
        self.guests = len(control)
        for i in range(self.guests):
            self.guest[<uint32_t>i].number = i
            self._adopt(&self.guest[<uint32_t>i], True)
        self._watch_memory()

    cdef _adopt(self, guest_t *who, bint fill):
        """A device whose rings have just been started: where everything is, and how it was then."""
        control = self._control[who.number]
        cdef context_t *context = &self.c.nic.context[<uint32_t>control.context.index]
        cdef uint32_t i
        who.context, who.mac = context.index, context.mac
        who.loose = control.loose
        who.header = context.virtio.header
        who.packed, who.indirect = context.virtio.queue[0].packed, context.virtio.queue[0].indirect
        who.rings_addr, who.frames_addr, who.room_addr = control.regions
        who.rings_size, frames, who.room_size = sizes(control.size)
        who.end_addr = who.room_addr + who.room_size
        who.tables = table_offset(control.size)
        self._find_memory(who)
        if fill:
            memset(who.rings, 0, who.rings_size)
            memset(who.frames, FILL, frames)
            memset(who.room, FILL, who.room_size)
        who.fresh = context[0]
        for i in range(2):
            who.queue[i] = &context.virtio.queue[i]
            who.fresh_queue[i] = who.queue[i][0]
        begin_anew(self.c, who)

    cdef void _find_memory(self, guest_t *who) noexcept:
        cdef const guest_memory_t *memory = self.c.nic.context[who.context].virtio.memory
        cdef uint32_t i
        for i in range(memory.regions):
            if memory.region[i].guest_addr == who.rings_addr:
                who.rings = memory.region[i].base
            elif memory.region[i].guest_addr == who.frames_addr:
                who.frames = memory.region[i].base
            elif memory.region[i].guest_addr == who.room_addr:
                who.room = memory.region[i].base

    def _watch_memory(self):
        """What is mapped behind the regions' ends is foreign."""
        cdef uint32_t i, j
        cdef const guest_memory_t *memory
        cdef const region_t *region
        cdef uint64_t behind
        self.c.areas = 0
        for i in range(self.guests):
            memory = self.c.nic.context[self.guest[i].context].virtio.memory
            for j in range(memory.regions):
                region = &memory.region[j]
                behind = -region.size & (PAGE - 1)
                if behind and not add_area(self.c, region.base + region.size, behind):
                    raise AssertionError("room for the areas of all attackers")

    # --- control ------------------------------------------------------------------------------------------

    def _without_room(self, number):
        """Rounds of the NIC while a region is not the guest's. Its rings begin anew afterwards."""
        cdef int _
        for _ in range(4):
            arena_round(self.c, 64)
        forget_rings(&self.guest[<uint32_t>number])

    cdef void _by_control(self, guest_t *who, uint32_t op) noexcept:
        number = who.number
        control = self._control[number]
        count_untaken(self.c, who)
        self.c.areas = 0                # their mappings go
        if op == VIRTIO_MEMORY:
            if not control.change_memory(lambda: self._without_room(number)):
                find(self.c, FOUND_STATE, who.context, 0, op)
        else:
            forget_rings(who)
            control.reconnect()
        self._adopt(who, True)
        self._watch_memory()

    # --- steps --------------------------------------------------------------------------------------------

    cdef void _step(self, const action_t *action) noexcept nogil:
        cdef arena_t *arena = self.c
        cdef guest_t *who = &self.guest[action.guest % self.guests]
        cdef uint32_t op = action.op, ring = action.ring & 1, count = action.count, argument = action.argument
        cdef rng_t rng
        rng.state = action.seed
        arena.attempts += 1
        if arena.nic.context[who.context].state != CONTEXT_RUNNING or stuck(who, ring):
            begin_anew(arena, who)
        if op == VIRTIO_POST:
            post_buffers(arena, who, ring, count, profile_of(argument), &rng)
        elif op == VIRTIO_INDEX:
            lie_index(who, ring, argument, &rng)
        elif op == VIRTIO_CHANGE:
            change_behind(arena, who, ring, count, &rng)
        elif op == VIRTIO_SCRIBBLE:
            write_over(who, ring, count, &rng)
        elif op == VIRTIO_DEVICE_AREA:
            write_device_area(who, ring, count, &rng)
        elif op == VIRTIO_RESET:
            begin_anew(arena, who)
        elif op == VIRTIO_MEMORY or op == VIRTIO_RECONNECT:
            with gil:
                self._by_control(who, op)
        elif op == VIRTIO_POLL:
            for _ in range(count & 7):
                arena_round(arena, 64)
        elif op == VIRTIO_PLANT:        # the last region is a page longer than the guest said
            (<guest_memory_t *>arena.nic.context[who.context].virtio.memory).region[2].size += 512
            who.end_addr += 512
        if argument & 0x300:
            arena_round(arena, 64)

    cdef uint64_t _run(self, const action_t *action, uint64_t n) noexcept nogil:
        cdef uint64_t i
        for i in range(n):
            self._step(&action[i])
            if self.c.found:
                return i + 1
        return n

    def execute(self, steps) -> int:
        """Carries out an array of ACTION_DTYPE. Returns how many: all, or those up to the first finding."""
        cdef const uint8_t[::1] raw = np.ascontiguousarray(steps).view(np.uint8)
        cdef uint64_t n = raw.shape[0] // sizeof(action_t)
        if n == 0:
            return 0
        with nogil:
            n = self._run(<const action_t *>&raw[0], n)
        return n

    def finish(self) -> bool:
        """Resets all attackers, lets the neighbours have what is on its way, checks everything.

        Returns whether nothing was found.
        """
        cdef uint32_t i
        with nogil:
            self.c.wire_quiet = 1
            for i in range(self.guests):
                begin_anew(self.c, &self.guest[i])
            arena_settle(self.c)
        return self.c.found == 0
