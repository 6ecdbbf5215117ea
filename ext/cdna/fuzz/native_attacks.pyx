"""Attacks on native rings: steps from a seed, carried out one by one against the real engine and VMM.

Everything happens in the caller's thread, so a seed decides all of it. Python is called for what the control
plane does in Python, and for nothing else.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cdna.abi cimport (
    CONTEXT_RUNNING, IOMMU_DIRECT_MAP, IOMMU_SINGLE_USE, PAGE_SHIFT, PAGE_SIZE, PROTECTION_IOMMU,
    PROTECTION_VALIDATED, desc_t,
)
from cdna.fuzz.action cimport action_t
from cdna.fuzz.arena cimport (
    FOUND_PINS, Arena, FuzzWire, arena_round, arena_settle, arena_t,
    check_owners, find,
)
from cdna.fuzz.native_guest cimport OWN_PAGES, assign_again, attacker_t, count_used, owns, revoke_now
from cdna.fuzz.native_steps cimport (
    announce_used, change_after, give_page, in_other_names, lie, map_some, post_duplicates, post_some,
    scribble, stray, take_page, unmap_some,
)
from cdna.fuzz.rng cimport next_u64, rng_t
from cdna.memory cimport DOMID_VMM, Memory, SharedRegion
from cdna.nic.context cimport IO_PAGE_PRESENT, context_t
from cdna.vmm.protection cimport iommu_map, vcontext_t, vring_t

import numpy as np

cdef enum:
    PIN_STEPS = 1024            # steps between two counts of all pins
    NEAR_THE_WRAP = 0xFFFFFFC0  # an index that a ring begins at now and then

ACTION_DTYPE = np.dtype([("op", "u1"), ("guest", "u1"), ("ring", "u1"), ("count", "u1"), ("argument", "u4"),
                         ("seed", "u8")])
assert ACTION_DTYPE.itemsize == sizeof(action_t)

# How often each step is made, in 256.
cdef uint8_t[256] _choice
cdef uint32_t _at = 0
for _op, _share in (
    (NATIVE_POST, 166), (NATIVE_DUPLICATE, 12), (NATIVE_MAILBOX, 10), (NATIVE_REPLAY, 5), (NATIVE_CHANGE, 10),
    (NATIVE_STRAY, 6), (NATIVE_MAP, 12), (NATIVE_UNMAP, 10), (NATIVE_GIVE, 6), (NATIVE_TAKE, 6),
    (NATIVE_FOREIGN, 6), (NATIVE_SCRIBBLE, 3), (NATIVE_REVOKE, 2), (NATIVE_POLL, 2),
):
    for _ in range(_share):
        _choice[_at] = _op
        _at += 1
assert _at == 256


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
            action[i].op = _choice[bits & 0xFF]
            if bits >> 8 & 0x1FFF == 0:
                action[i].op = NATIVE_REASSIGN
            action[i].guest = <uint8_t>(bits >> 24)
            action[i].ring = 0 if bits >> 21 & 7 else 1
            action[i].count = <uint8_t>(bits >> 48) | 0x30 if bits >> 56 & 3 else <uint8_t>(bits >> 48)
            action[i].argument = <uint32_t>(bits >> 32)
            action[i].seed = next_u64(&rng)
    return steps


cdef class NativeAttacks(Arena):
    """An arena with attackers. contexts: theirs, remote ones, assigned. victim: a domain that gets pages."""

    def __init__(self, machine, FuzzWire wire, list drivers, load, foreign, *, seed, list contexts, victim):
        super().__init__(machine, wire, drivers, load, foreign, seed=seed, attackers=len(contexts))
        cdef Memory memory = machine.memory
        cdef SharedRegion attackers = SharedRegion(len(contexts) * sizeof(attacker_t))
        cdef SharedRegion expected = SharedRegion(memory.c.pages * sizeof(uint32_t))
        self._parts = [attackers, expected]
        self._contexts = contexts
        self.attacker = <attacker_t *>attackers.base
        self.attackers = len(contexts)
        self.expected = <uint32_t *>expected.base
        self.victim = victim
        for i in range(self.attackers):
            self._adopt(i)
            memset(self.c.memory.base + (<uint64_t>self.attacker[<int>i].first_page << PAGE_SHIFT), 0x33,
                   OWN_PAGES * PAGE_SIZE)
            with nogil:
                self._restart(&self.attacker[<uint32_t>i], 1)

    def _adopt(self, number):
        """A context that the VMM has assigned: where its attacker finds it, and how it was then."""
        cdef attacker_t *who = &self.attacker[<uint32_t>number]
        assigned = self._contexts[number]
        settings = assigned.settings
        cdef context_t *context = &self.c.nic.context[<uint32_t>assigned.index]
        who.number = number
        who.context, who.domain = assigned.index, assigned.guest.domain
        who.protection, who.strategy = settings.mode, settings.strategy
        who.loose, who.vnet = settings.vlan != 0, settings.vnet_header
        who.first_page = assigned.guest.first_page
        who.mac, who.page = context.mac, context.page
        who.ring[0], who.ring[1] = context.tx.desc, context.rx.desc
        who.size[0], who.size[1] = context.tx.size, context.rx.size
        who.posted[0] = who.posted[1] = who.begun = 0
        who.fresh, who.fresh_vmm = context[0], self.c.vmm.context[<uint32_t>assigned.index]

    cdef void _direct_map(self, attacker_t *who) noexcept:
        self.tables.map_guest(who.context, who.first_page, OWN_PAGES)

    cdef void _through_control(self, attacker_t *who) noexcept:
        """Revoked and assigned by the hypervisor itself."""
        vmm = self.machine.vmm
        old = self._contexts[who.number]
        vmm.revoke(old)
        self._contexts[who.number] = vmm.assign(old.guest, old.settings, index=old.index)
        self._adopt(who.number)

    cdef void _restart(self, attacker_t *who, uint64_t seed) noexcept nogil:
        """The context is revoked, and assigned to the same guest once more."""
        cdef uint32_t io_page[OWN_PAGES]
        cdef uint32_t page[OWN_PAGES]
        cdef uint32_t i, n = 0
        revoke_now(self.c, who)
        assign_again(self.c, who, NEAR_THE_WRAP if seed & 3 == 0 else 0)
        if who.protection != PROTECTION_IOMMU:
            return
        if who.strategy == IOMMU_DIRECT_MAP:
            with gil:
                self._direct_map(who)
            return
        for i in range(8 if who.strategy == IOMMU_SINGLE_USE else OWN_PAGES):
            if owns(who, i):
                io_page[n], page[n] = i, who.first_page + i
                n += 1
        iommu_map(self.c.vmm, who.domain, who.context, io_page, page, n)

    # --- steps --------------------------------------------------------------------------------------------

    cdef void _step(self, const action_t *action) noexcept nogil:
        cdef arena_t *arena = self.c
        cdef attacker_t *who = &self.attacker[action.guest % self.attackers]
        cdef uint32_t op = action.op, ring = action.ring & 1, count = action.count, argument = action.argument
        cdef uint32_t profile
        cdef rng_t rng
        rng.state = action.seed
        arena.attempts += 1
        if arena.nic.context[who.context].state != CONTEXT_RUNNING:
            self._restart(who, action.seed)
        if op == NATIVE_POST:
            profile = argument & 3
            if who.protection == PROTECTION_IOMMU:      # one that is bad is the last: the context is stopped
                profile = 1 if argument & 7 == 7 else 0
            post_some(arena, who, ring, count, profile, &rng)
        elif op == NATIVE_DUPLICATE:
            post_duplicates(arena, who, ring, count, argument, &rng)
        elif op == NATIVE_MAILBOX:
            lie(arena, who, ring, argument, &rng)
        elif op == NATIVE_REPLAY:
            announce_used(arena, who, ring, count)
        elif op == NATIVE_CHANGE:
            change_after(arena, who, ring, count, &rng)
        elif op == NATIVE_STRAY:
            if who.protection == PROTECTION_VALIDATED:
                stray(arena, who, ring, count, argument, &rng)
        elif op == NATIVE_MAP:
            map_some(arena, who, count, argument, &rng)
        elif op == NATIVE_UNMAP:
            unmap_some(arena, who, count, &rng)
        elif op == NATIVE_GIVE:
            give_page(arena, who, self.victim, &rng)
        elif op == NATIVE_TAKE:
            take_page(arena, who, self.victim, &rng)
        elif op == NATIVE_FOREIGN:
            in_other_names(arena, who, argument, &rng)
        elif op == NATIVE_SCRIBBLE:
            scribble(arena, who, count, &rng)
        elif op == NATIVE_REVOKE:
            self._restart(who, action.seed)
        elif op == NATIVE_REASSIGN:
            count_used(arena, who)
            with gil:
                self._through_control(who)
            self._restart(who, action.seed)
        elif op == NATIVE_POLL:
            for _ in range(count & 7):
                arena_round(arena, 64)
        elif op == NATIVE_PLANT:
            self._plant(who, argument, &rng)
        if argument & 0x100:
            arena_round(arena, 64)

    cdef void _plant(self, attacker_t *who, uint32_t argument, rng_t *rng) noexcept nogil:
        """A flaw that the arena has to find, by number: see `Plant`."""
        cdef uint32_t page = self.c.foreign[(argument >> 8) % self.c.foreigns], i
        if argument & 3 == PLANT_PAGE and who.protection == PROTECTION_IOMMU:
            self.c.nic.context[who.context].io_page[next_u64(rng) % OWN_PAGES] = \
                <uint64_t>page << PAGE_SHIFT | IO_PAGE_PRESENT
        elif argument & 3 == PLANT_PAGE:
            for i in range(0, self.c.foreigns, 2):
                self.c.memory.page[self.c.foreign[i]].owner = who.domain
        elif argument & 3 == PLANT_PIN:
            self.c.memory.page[who.first_page].pins += 1
        elif argument & 3 == PLANT_UNPIN:
            self.c.memory.page[self.c.neighbour[0].driver.maddr >> PAGE_SHIFT].pins -= 1
        else:
            self.c.nic.wire.link = 0
            arena_round(self.c, 64)
            arena_round(self.c, 64)
            arena_round(self.c, 64)
            self.c.nic.wire.link = 1

    cdef uint64_t _run(self, const action_t *action, uint64_t n) noexcept nogil:
        cdef uint64_t i
        for i in range(n):
            self._step(&action[i])
            self.steps += 1
            if self.steps % PIN_STEPS == 0:
                self._check_pins()
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
        """Revokes all attackers, lets the neighbours have what is on its way, checks everything.

        Returns whether nothing was found. The attackers have no contexts then: the arena is done.
        """
        cdef uint32_t i
        with nogil:
            self.c.wire_quiet = 1
            for i in range(self.attackers):
                revoke_now(self.c, &self.attacker[i])
            self._check_pins()
            arena_settle(self.c)
        return self.c.found == 0

    # --- pins ---------------------------------------------------------------------------------------------

    cdef bint _check_pins(self) noexcept nogil:
        """Counts what is outstanding: every page's pins, and that whoever posted it owns it."""
        cdef arena_t *arena = self.c
        cdef uint32_t i, page
        memset(self.expected, 0, arena.memory.pages * sizeof(uint32_t))
        for i in range(arena.nic.contexts):
            if arena.vmm.context[i].domain != DOMID_VMM:
                if not count_context(arena, self.expected, i):
                    return False
        for page in range(arena.memory.pages):
            if arena.memory.page[page].pins != self.expected[page]:
                return find(arena, FOUND_PINS, page, self.expected[page], arena.memory.page[page].pins)
        return check_owners(arena)


cdef bint count_page(arena_t *arena, uint32_t *expected, uint32_t domain, uint64_t page) noexcept nogil:
    if page >= arena.memory.pages or arena.memory.page[page].owner != domain:
        return find(arena, FOUND_PINS, page, domain, DOMID_VMM if page >= arena.memory.pages else
                    arena.memory.page[page].owner)
    expected[page] += 1
    return True


cdef bint count_ring(arena_t *arena, uint32_t *expected, uint32_t domain,
                     const vring_t *vring) noexcept nogil:
    cdef uint32_t at = vring.reaped
    cdef uint64_t page
    cdef const desc_t *desc
    while at != vring.producer:
        desc = &vring.desc[at & (vring.size - 1)]
        if desc.len:
            for page in range(desc.addr >> PAGE_SHIFT, ((desc.addr + desc.len - 1) >> PAGE_SHIFT) + 1):
                if not count_page(arena, expected, domain, page):
                    return False
        at += 1
    return True


cdef bint count_context(arena_t *arena, uint32_t *expected, uint32_t index) noexcept nogil:
    cdef const vcontext_t *vcontext = &arena.vmm.context[index]
    cdef const context_t *context = &arena.nic.context[index]
    cdef uint32_t i
    if vcontext.protection == PROTECTION_VALIDATED:
        return count_ring(arena, expected, vcontext.domain, &vcontext.ring[0]) and \
            count_ring(arena, expected, vcontext.domain, &vcontext.ring[1])
    if vcontext.protection != PROTECTION_IOMMU:
        return True
    for i in range(context.io_pages):
        if context.io_page[i] & IO_PAGE_PRESENT and \
                not count_page(arena, expected, vcontext.domain, context.io_page[i] >> PAGE_SHIFT):
            return False
    i = vcontext.limbo_head
    while i != vcontext.limbo_tail:
        if not count_page(arena, expected, vcontext.domain, vcontext.limbo[i & vcontext.limbo_mask].page):
            return False
        i += 1
    return True
