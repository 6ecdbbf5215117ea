"""A guest's other processor: it rewrites words of the guest's memory while the engine reads them.

Random input from one thread never shows a double fetch: the words would have to change between two reads a
few nanoseconds apart. The mutator takes a few words after the others and rewrites them some thousand
times, as fast as the line goes back and forth between two cores, so the engine meets it in the middle.
"""

import threading

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc

from cdna.abi cimport (
    DESC_F_EOP, MAILBOX_RX_PRODUCER, MAILBOX_TX_PRODUCER, PAGE_SIZE, PROTECTION_IOMMU, desc_t,
)
from cdna.cpu cimport compiler_barrier, load_u32, store_u16, store_u32, store_u64, xor_u16
from cdna.fuzz.native_attacks cimport NativeAttacks
from cdna.fuzz.native_guest cimport OWN_PAGES, attacker_t
from cdna.fuzz.rng cimport below, next_u64, rng_t
from cdna.fuzz.virtio_attacks cimport VirtioAttacks
from cdna.fuzz.virtio_guest cimport SLOT, SLOTS, TABLE_ENTRIES, TABLES, TX_QUEUE, guest_t
from cdna.nic.virtio.queue cimport avail_ring, virtqueue_t
from cdna.virtio cimport (
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED, vring_desc_t,
)

from cdna.errors import ConfigError

cdef enum:
    REWRITES = 4096             # before the turn of others
    NEIGHBOURS = 4              # words that are rewritten together: of a descriptor, or of a few in one line


cdef inline void write_word(const target_t *target, uint64_t value) noexcept nogil:
    if target.size == 8:
        store_u64(<uint64_t *>target.at, value)
    elif target.size == 4:
        store_u32(<uint32_t *>target.at, <uint32_t>value)
    elif target.size == 2:
        store_u16(<uint16_t *>target.at, <uint16_t>value)
    else:
        target.at[0] = <uint8_t>value
        compiler_barrier()              # each time


cdef class Mutator:
    """Words and how they change; `start` begins a thread, `stop` ends it.

    A target is (address, bytes, pattern, a, b): an address of this process, of memory that stays until the
    mutator was stopped. `keep`: objects that hold it.
    """

    def __init__(self, seed=0, targets=(), keep=None):
        self.seed = seed
        self._keep = keep
        for target in targets:
            self.add(*target)

    def __dealloc__(self):
        free(self.target)

    def __len__(self):
        return self.targets

    def add(self, uintptr_t address, size, pattern=PATTERN_RANDOM, uint64_t a=0, uint64_t b=0):
        if size not in (1, 2, 4, 8) or address % size:
            raise ConfigError(f"a target of {size} bytes at {address:#x}: give 1, 2, 4 or 8 bytes, aligned")
        if pattern == PATTERN_TOGGLE and size != 2:
            raise ConfigError(f"a target of {size} bytes whose bits are toggled: give 2 bytes")
        self._add(<uint8_t *>address, size, pattern, a, b)

    cdef int _add(self, uint8_t *at, uint32_t size, uint32_t pattern, uint64_t a, uint64_t b) except -1:
        cdef target_t *more
        cdef target_t *entry
        if self._thread is not None:
            raise ConfigError("the mutator runs: stop it first")
        if self.targets == self.room:
            more = <target_t *>realloc(self.target, 2 * (self.room + 32) * sizeof(target_t))
            if more == NULL:
                raise MemoryError
            self.target, self.room = more, 2 * (self.room + 32)
        entry = &self.target[self.targets]
        entry.at, entry.size, entry.pattern, entry.a, entry.b = at, size, pattern, a, b
        self.targets += 1
        return 0

    cdef void _hammer(self) noexcept nogil:
        cdef rng_t rng
        cdef const target_t *target
        cdef uint32_t i, first
        rng.state = self.seed
        while self.targets and not load_u32(&self.stopped):
            first = below(&rng, self.targets)
            for i in range(REWRITES):
                target = &self.target[(first + i // 2 % NEIGHBOURS) % self.targets]
                if target.pattern == PATTERN_FLIP:
                    write_word(target, target.b if i & 1 else target.a)
                elif target.pattern == PATTERN_COUNT:
                    write_word(target, target.a + i)
                elif target.pattern == PATTERN_TOGGLE:
                    xor_u16(<uint16_t *>target.at, <uint16_t>target.a)
                elif target.b:
                    write_word(target, target.a | (next_u64(&rng) & target.b))
                else:
                    write_word(target, next_u64(&rng))
            for i in range(NEIGHBOURS):         # what is often the good one: the guest goes on
                target = &self.target[(first + i) % self.targets]
                if target.pattern != PATTERN_COUNT and target.pattern != PATTERN_TOGGLE:
                    write_word(target, target.a)
            self.writes += REWRITES

    def _run(self):
        with nogil:
            self._hammer()

    def start(self):
        if self._thread is None:
            self.stopped = 0
            self._thread = threading.Thread(target=self._run, name="mutator", daemon=True)
            self._thread.start()
        return self

    def stop(self):
        """Nothing is written any more when this returns. Stopping twice is harmless."""
        store_u32(&self.stopped, 1)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.stop()


# --- what to aim at ---------------------------------------------------------------------------------------

cdef _aim_descriptor(Mutator mutator, const guest_t *who, uint32_t ring, vring_desc_t *desc, bint table):
    """One descriptor of a ring, or of an indirect table, whose WRITE flag then decides whose it is.

    Of flags single bits are toggled, and a strict attacker's INDIRECT stays: without it the NIC would send
    the table itself, whose bytes would pass for a secret.
    """
    cdef uint64_t near = who.frames_addr + (SLOTS - 1) * SLOT, far
    if ring != TX_QUEUE:                # a strict attacker receives in `room` alone
        near = who.room_addr + 64
    far = who.end_addr - 100 if ring != TX_QUEUE or who.loose else who.end_addr + 64
    mutator._add(<uint8_t *>&desc.addr, 8, PATTERN_FLIP, near, far)
    mutator._add(<uint8_t *>&desc.len, 4, PATTERN_FLIP, who.header + 100, who.header + 9000)
    mutator._add(<uint8_t *>&desc.len, 4, PATTERN_FLIP, who.header + 1500, 0xFFFFFFF0)
    if who.packed:
        if not table:
            mutator._add(<uint8_t *>&desc.next, 2, PATTERN_TOGGLE,
                         VRING_DESC_F_NEXT | VRING_PACKED_DESC_F_AVAIL | VRING_PACKED_DESC_F_USED, 0)
        if not table and who.loose:
            mutator._add(<uint8_t *>&desc.next, 2, PATTERN_TOGGLE, VRING_DESC_F_INDIRECT, 0)
        return
    mutator._add(<uint8_t *>&desc.next, 2, PATTERN_RANDOM, 0, 0)
    mutator._add(<uint8_t *>&desc.flags, 2, PATTERN_TOGGLE, VRING_DESC_F_NEXT, 0)
    if not table:
        mutator._add(<uint8_t *>&desc.flags, 2, PATTERN_TOGGLE, VRING_DESC_F_WRITE, 0)


cdef _aim_guest(Mutator mutator, const guest_t *who):
    cdef uint32_t ring, i
    cdef virtqueue_t *q
    cdef vring_desc_t *tables = <vring_desc_t *>(who.rings + who.tables)
    cdef uint8_t *slot
    for ring in range(2):
        q = who.queue[ring]
        for i in range(q.size):
            _aim_descriptor(mutator, who, ring, &(<vring_desc_t *>q.desc)[i], False)
            if not who.packed:
                mutator._add(<uint8_t *>&avail_ring(q).ring[i], 2, PATTERN_RANDOM, 0, 2 * q.size - 1)
        if not who.packed:
            mutator._add(<uint8_t *>&avail_ring(q).idx, 2, PATTERN_COUNT, 0, 0)
            mutator._add(<uint8_t *>&avail_ring(q).idx, 2, PATTERN_RANDOM, 0, 0)
    for i in range(TABLES * TABLE_ENTRIES if who.indirect else 0):
        if i % TABLE_ENTRIES < 8:
            _aim_descriptor(mutator, who, TX_QUEUE, &tables[i], True)
    for i in range(SLOTS if who.loose else 0):      # headers, of the two offset 0 and 6; then of IP and UDP
        slot = who.frames + i * SLOT
        mutator._add(slot, 2, PATTERN_FLIP, 0x0101, 0x0000)
        mutator._add(slot + 2, 2, PATTERN_FLIP, 54, 9000)
        mutator._add(slot + 4, 2, PATTERN_FLIP, 60, 9000)
        mutator._add(slot + 6, 2, PATTERN_FLIP, 34, 9000)
        mutator._add(slot + 8, 2, PATTERN_FLIP, 16, 9000)
        mutator._add(slot + who.header + 14, 2, PATTERN_RANDOM, 0x0045, 0x000F)
        mutator._add(slot + who.header + 12, 2, PATTERN_FLIP, 0x0008, 0xDD86)


def aim_virtio(Mutator mutator not None, VirtioAttacks attacks not None):
    """Rings, indices, tables and headers of all attackers."""
    cdef uint32_t i
    for i in range(attacks.guests):
        _aim_guest(mutator, &attacks.guest[i])


def aim_native(Mutator mutator not None, NativeAttacks attacks not None):
    """Descriptors of the attackers that write their rings themselves, and the mailboxes of all of them."""
    cdef uint32_t i, j, ring
    cdef attacker_t *who
    cdef desc_t *desc
    cdef uint64_t last = (OWN_PAGES - 1) * <uint64_t>PAGE_SIZE
    for i in range(attacks.attackers):
        who = &attacks.attacker[i]
        for j in (<int>MAILBOX_TX_PRODUCER, <int>MAILBOX_RX_PRODUCER):
            mutator._add(<uint8_t *>&who.page.mailbox[j], 4, PATTERN_RANDOM, 0, 0x3FF)
        mutator._add(<uint8_t *>&who.page.doorbell, 4, PATTERN_RANDOM, 0, 7)
        if who.protection != PROTECTION_IOMMU:
            continue
        for ring in range(2):
            for j in range(who.size[ring]):
                desc = &who.ring[ring][j]
                mutator._add(<uint8_t *>&desc.len, 2, PATTERN_FLIP, 64, 4000)
                mutator._add(<uint8_t *>&desc.len, 2, PATTERN_FLIP, 200, 0xFFFF)
                mutator._add(<uint8_t *>&desc.addr, 8, PATTERN_FLIP, last + 64, last + 4000)
                mutator._add(<uint8_t *>&desc.addr, 8, PATTERN_FLIP, last + 3900, last + PAGE_SIZE)
                mutator._add(<uint8_t *>&desc.flags, 2, PATTERN_FLIP, DESC_F_EOP, 0)
