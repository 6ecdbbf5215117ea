"""Buffers of more than one descriptor: a chain, in the ring or in an indirect table, as runs of memory.

    split:   head -> next -> next                 packed:  slot, slot, slot      (the last one has the id)
                       |                                         |
                       +-> indirect table                        +-> indirect table

Descriptors are read once, and everything in them is hostile: an index that leaves its table, a chain that
loops, a table in a table, a buffer of the wrong direction, an address that is nobody's. The first rule broken
ends the walk.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport FAULT_CHAIN, FAULT_DIRECTION, FAULT_INDIRECT, FAULT_MEMORY, FAULT_NONE
from cdna.nic.dma cimport piece_t
from cdna.nic.guest_memory cimport guest_bytes, guest_memory_t, guest_run
from cdna.nic.virtqueue cimport packed_available, read_words, split_head, virtqueue_t
from cdna.virtio cimport (
    VIRTIO_MAX_CHAIN, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, vring_desc_t,
    vring_packed_desc_t,
)

cdef struct chain_t:
    uint32_t n                  # pieces
    uint32_t len                # bytes in them
    uint32_t steps              # descriptors read, those of no bytes among them
    uint16_t id                 # by which the buffer is given back
    uint32_t slots              # packed: descriptors of the ring
    uint32_t found              # what is to blame, where the walk failed
    piece_t piece[256]          # VIRTIO_MAX_CHAIN; of guest memory


cdef inline uint32_t add_buffer(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint64_t addr,
                                uint32_t len, bint write, uint32_t flags) noexcept nogil:
    """Adds one descriptor's memory, of one region or of several that adjoin. Returns a Fault."""
    cdef uint32_t run = 0
    cdef uint8_t *at
    chain.steps += 1
    if chain.steps > VIRTIO_MAX_CHAIN:
        chain.found = chain.steps
        return FAULT_CHAIN
    if (flags & VRING_DESC_F_WRITE != 0) != write:
        chain.found = flags
        return FAULT_DIRECTION
    if len > ~chain.len:                # more than 32 bits count
        chain.found = len
        return FAULT_CHAIN
    while len:
        at = guest_run(memory, addr, len, &q.hint, &run)
        if at == NULL:
            chain.found = <uint32_t>(addr >> 12)
            return FAULT_MEMORY
        if chain.n == VIRTIO_MAX_CHAIN:
            chain.found = chain.n
            return FAULT_CHAIN
        chain.piece[chain.n].data = at
        chain.piece[chain.n].len = run
        chain.n += 1
        chain.len += run
        addr += run
        len -= run
    return FAULT_NONE


cdef inline const uint8_t *indirect_table(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain,
                                          const vring_desc_t *desc, uint32_t forbidden) noexcept nogil:
    """The table that a descriptor names (2.7.5.3.1, 2.8.7), or NULL with `found` set."""
    cdef const uint8_t *table
    chain.found = desc.len
    if not q.indirect or desc.flags & forbidden or desc.len == 0 or desc.len & 15:
        return NULL
    table = guest_bytes(memory, desc.addr, desc.len, &q.hint)
    if table == NULL:
        chain.found = <uint32_t>(desc.addr >> 12)
    return table


cdef inline uint32_t walk_split(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint32_t index,
                                bint write) noexcept nogil:
    """The chain that begins with this descriptor of a split ring. Returns a Fault."""
    cdef const uint8_t *table = q.desc
    cdef uint32_t entries = q.size, seen = 0, fault
    cdef vring_desc_t desc
    while True:
        if index >= entries or seen >= entries:         # outside, or round and round
            chain.found = index
            return FAULT_CHAIN
        seen += 1
        read_words(table, index, &desc)
        if desc.flags & VRING_DESC_F_INDIRECT:
            table = indirect_table(memory, q, chain, &desc, VRING_DESC_F_NEXT) if table == q.desc else NULL
            if table == NULL:
                return FAULT_INDIRECT
            entries = desc.len >> 4
            index = seen = 0
            continue
        fault = add_buffer(memory, q, chain, desc.addr, desc.len, write, desc.flags)
        if fault or not desc.flags & VRING_DESC_F_NEXT:
            return fault
        index = desc.next


cdef inline uint32_t walk_packed_table(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain,
                                       const vring_desc_t *desc, bint write) noexcept nogil:
    """An indirect table of a packed ring: all its entries, in order; of the flags only WRITE counts."""
    cdef vring_desc_t entry
    cdef uint32_t i, fault
    cdef const uint8_t *table = indirect_table(memory, q, chain, desc, VRING_DESC_F_NEXT)
    if table == NULL:
        return FAULT_INDIRECT
    for i in range(desc.len >> 4):
        read_words(table, i, &entry)
        fault = add_buffer(memory, q, chain, entry.addr, entry.len, write,
                           (<vring_packed_desc_t *>&entry).flags & VRING_DESC_F_WRITE)
        if fault:
            return fault
    return FAULT_NONE


cdef inline uint32_t walk_packed(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint32_t at,
                                 bint write) noexcept nogil:
    """The chain that begins in this slot of a packed ring. Returns a Fault.

    Its first descriptor is made available last (2.8.6), so the others are there.
    """
    cdef vring_desc_t desc
    cdef const vring_packed_desc_t *packed = <const vring_packed_desc_t *>&desc
    cdef uint32_t fault
    while True:
        if chain.slots == q.size:
            chain.found = chain.slots
            return FAULT_CHAIN
        read_words(q.desc, at, &desc)
        chain.slots += 1
        chain.id = packed.id
        if packed.flags & VRING_DESC_F_INDIRECT:
            # desc.flags of a packed descriptor is where a split one has `next`
            desc.flags = packed.flags
            return walk_packed_table(memory, q, chain, &desc, write)
        fault = add_buffer(memory, q, chain, desc.addr, desc.len, write, packed.flags)
        if fault or not packed.flags & VRING_DESC_F_NEXT:
            return fault
        at = at + 1 if at + 1 < q.size else 0


cdef inline uint32_t read_chain(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint32_t offset,
                                bint write) noexcept nogil:
    """Adds the memory of an available buffer to `chain`, which holds what it held. Returns a Fault.

    offset: buffers (split) or slots (packed, at most a ring) behind the next one.
    write: whether the device writes to it. Sets the chain's id and slots.
    """
    cdef uint32_t at
    chain.slots = 0
    if q.packed:
        at = q.last_avail + offset
        if at >= q.size:
            at -= q.size
        return walk_packed(memory, q, chain, at, write)
    at = split_head(q, offset)
    chain.id = <uint16_t>at
    return walk_split(memory, q, chain, at, write)
