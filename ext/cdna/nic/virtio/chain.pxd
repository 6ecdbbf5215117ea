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
from cdna.checks cimport (
    CHECK_CHAIN_BYTES, CHECK_CHAIN_DIRECTION, CHECK_CHAIN_INDEX, CHECK_CHAIN_ORDER, CHECK_CHAIN_PIECES,
    CHECK_CHAIN_SLOTS, CHECK_CHAIN_STEPS, CHECK_INDIRECT_EMPTY, CHECK_INDIRECT_FEATURE, CHECK_INDIRECT_FLAGS,
    CHECK_INDIRECT_NESTED, CHECK_INDIRECT_SIZE, broken,
)
from cdna.nic.frame cimport piece_t
from cdna.nic.virtio.memory cimport guest_bytes, guest_memory_t, guest_run
from cdna.nic.virtio.queue cimport read_words, split_head, virtqueue_t
from cdna.virtio cimport (
    VIRTIO_MAX_CHAIN, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, vring_desc_t,
    vring_packed_desc_t,
)

cdef enum:                      # what the descriptors of a chain are
    CHAIN_READABLE = 0          # the driver wrote them all
    CHAIN_WRITABLE = 1          # the device is to write them all
    CHAIN_COMMAND = 2           # first those that the driver wrote, then the device's (2.7.4.2)

cdef struct chain_t:
    uint32_t n                  # pieces
    uint32_t len                # bytes in them
    uint32_t steps              # descriptors read, those of no bytes among them
    uint32_t readable           # of a command: pieces that the driver wrote
    uint32_t readable_len       # bytes in them
    bint writable               # of a command: the last descriptor was the device's
    uint16_t id                 # by which the buffer is given back
    uint32_t slots              # packed: descriptors of the ring
    uint32_t found              # what is to blame, where the walk failed
    piece_t piece[256]          # VIRTIO_MAX_CHAIN; of guest memory
    uint64_t addr[256]          # of each, as the guest has it


cdef inline bint misdirected(chain_t *chain, bint writable, int kind) noexcept nogil:
    if kind != CHAIN_COMMAND:
        return broken(CHECK_CHAIN_DIRECTION, writable != (kind == CHAIN_WRITABLE))
    if broken(CHECK_CHAIN_ORDER, chain.writable and not writable):
        return True
    chain.writable = writable
    return False


cdef inline uint32_t add_buffer(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint64_t addr,
                                uint32_t len, int kind, uint32_t flags) noexcept nogil:
    """Adds one descriptor's memory, of one region or of several that adjoin. Returns a Fault."""
    cdef uint32_t run = 0
    cdef uint8_t *at
    chain.steps += 1
    if broken(CHECK_CHAIN_STEPS, chain.steps > VIRTIO_MAX_CHAIN):
        chain.found = chain.steps
        return FAULT_CHAIN
    if misdirected(chain, flags & VRING_DESC_F_WRITE != 0, kind):
        chain.found = flags
        return FAULT_DIRECTION
    if broken(CHECK_CHAIN_BYTES, len > ~chain.len):     # more than 32 bits count
        chain.found = len
        return FAULT_CHAIN
    while len:
        at = guest_run(memory, addr, len, &q.hint, &run)
        if at == NULL:
            chain.found = <uint32_t>(addr >> 12)
            return FAULT_MEMORY
        if broken(CHECK_CHAIN_PIECES, chain.n == VIRTIO_MAX_CHAIN):
            chain.found = chain.n
            return FAULT_CHAIN
        chain.piece[chain.n].data = at
        chain.piece[chain.n].len = run
        chain.addr[chain.n] = addr
        chain.n += 1
        chain.len += run
        addr += run
        len -= run
    if kind == CHAIN_COMMAND and not chain.writable:
        chain.readable = chain.n
        chain.readable_len = chain.len
    return FAULT_NONE


cdef inline const uint8_t *indirect_table(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain,
                                          const vring_desc_t *desc) noexcept nogil:
    """The table that a descriptor names (2.7.5.3.1, 2.8.7), or NULL with `found` set."""
    cdef const uint8_t *table
    chain.found = desc.len
    if broken(CHECK_INDIRECT_FEATURE, not q.indirect) or \
            broken(CHECK_INDIRECT_FLAGS, desc.flags & VRING_DESC_F_NEXT) or \
            broken(CHECK_INDIRECT_EMPTY, desc.len == 0) or broken(CHECK_INDIRECT_SIZE, desc.len & 15):
        return NULL
    table = guest_bytes(memory, desc.addr, desc.len, &q.hint)
    if table == NULL:
        chain.found = <uint32_t>(desc.addr >> 12)
    return table


cdef inline uint32_t walk_split(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint32_t index,
                                int kind) noexcept nogil:
    """The chain that begins with this descriptor of a split ring. Returns a Fault."""
    cdef const uint8_t *table = q.desc
    cdef uint32_t entries = q.size, fault
    cdef bint nested = False
    cdef vring_desc_t desc
    while True:
        if broken(CHECK_CHAIN_INDEX, index >= entries):     # one that loops has too many steps
            chain.found = index
            return FAULT_CHAIN
        read_words(table, index, &desc)
        if desc.flags & VRING_DESC_F_INDIRECT:
            # Descriptors of the ring may precede a table (2.7.5.3.1).
            if broken(CHECK_INDIRECT_NESTED, nested):   # which may lie where the ring does
                return FAULT_INDIRECT
            nested = True
            table = indirect_table(memory, q, chain, &desc)
            if table == NULL:
                return FAULT_INDIRECT
            entries = desc.len >> 4
            index = 0
            continue
        fault = add_buffer(memory, q, chain, desc.addr, desc.len, kind, desc.flags)
        if fault or not desc.flags & VRING_DESC_F_NEXT:
            return fault
        index = desc.next


cdef inline uint32_t walk_packed_table(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain,
                                       const vring_desc_t *desc, int kind) noexcept nogil:
    """An indirect table of a packed ring: all its entries, in order; of the flags only WRITE counts."""
    cdef vring_desc_t entry
    cdef uint32_t i, fault
    cdef const uint8_t *table = indirect_table(memory, q, chain, desc)
    if table == NULL:
        return FAULT_INDIRECT
    for i in range(desc.len >> 4):
        read_words(table, i, &entry)
        fault = add_buffer(memory, q, chain, entry.addr, entry.len, kind,
                           (<vring_packed_desc_t *>&entry).flags & VRING_DESC_F_WRITE)
        if fault:
            return fault
    return FAULT_NONE


cdef inline uint32_t walk_packed(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint32_t at,
                                 int kind) noexcept nogil:
    """The chain that begins in this slot of a packed ring. Returns a Fault.

    Its first descriptor is made available last (2.8.6), so the others are there.
    """
    cdef vring_desc_t desc
    cdef const vring_packed_desc_t *packed = <const vring_packed_desc_t *>&desc
    cdef uint32_t fault
    while True:
        if broken(CHECK_CHAIN_SLOTS, chain.slots == q.size):
            chain.found = chain.slots
            return FAULT_CHAIN
        read_words(q.desc, at, &desc)
        chain.slots += 1
        chain.id = packed.id
        if packed.flags & VRING_DESC_F_INDIRECT:
            # desc.flags of a packed descriptor is where a split one has `next`
            desc.flags = packed.flags
            return walk_packed_table(memory, q, chain, &desc, kind)
        fault = add_buffer(memory, q, chain, desc.addr, desc.len, kind, packed.flags)
        if fault or not packed.flags & VRING_DESC_F_NEXT:
            return fault
        at = at + 1 if at + 1 < q.size else 0


cdef inline uint32_t read_chain(const guest_memory_t *memory, virtqueue_t *q, chain_t *chain, uint32_t offset,
                                int kind) noexcept nogil:
    """Adds the memory of an available buffer to `chain`, which holds what it held. Returns a Fault.

    offset: buffers (split) or slots (packed, at most a ring) behind the next one.
    kind: CHAIN_READABLE and so on. Sets the chain's id and slots.
    """
    cdef uint32_t at
    chain.slots = 0
    if q.packed:
        at = q.last_avail + offset
        if at >= q.size:
            at -= q.size
        return walk_packed(memory, q, chain, at, kind)
    at = split_head(q, offset)
    chain.id = <uint16_t>at
    return walk_split(memory, q, chain, at, kind)
