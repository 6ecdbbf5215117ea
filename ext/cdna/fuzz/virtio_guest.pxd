"""An attacker with rings of virtio in its own memory: what lies where, the buffers that it makes up.

Its memory is three regions of one file. The guest addresses of the first two and the third adjoin, so runs
cross from one to the next, and nothing lies behind. None is a whole number of pages: what is mapped behind
its end is not the guest's, and holds secrets.

    rings   ring 0: table, driver, device; ring 1: the same; indirect tables
    frames  SLOTS places, each with a virtio-net header and a frame
    room    where frames are received

A strict attacker's descriptors begin at a place in `frames`, in `room`, or nowhere, so the header that the
NIC reads is always one that it made, and the NIC never works on its frames. A loose one's begin anywhere.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from cdna.abi cimport CONTEXT_ASSIGNED, CONTEXT_FAULTED, CONTEXT_RUNNING, RING_TX, context_page_t
from cdna.cpu cimport load_u16, store_u16
from cdna.fuzz.arena cimport arena_t
from cdna.fuzz.frames cimport write_frame, write_nonsense, write_work
from cdna.fuzz.rng cimport below, next_u64, rng_t
from cdna.nic.bits cimport set_bit
from cdna.nic.context cimport context_t
from cdna.nic.serving cimport begin_serving, end_serving, set_state
from cdna.nic.virtio.queue cimport avail_ring, has_available, packed_table, split_table, virtio_t, virtqueue_t
from cdna.virtio cimport (
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED, vring_desc_t, vring_packed_desc_t,
)

cdef enum:
    SLOTS = 64                  # places for frames
    SLOT = 512                  # bytes of one
    ROOM = 65536 - 1024         # bytes of `room`
    TABLES = 8                  # indirect tables
    TABLE_ENTRIES = 320         # of each: more than a chain may have
    MAX_BUFFERS = 64            # of one step
    RX_QUEUE = 0                # numbers of the queues, and of the rings here
    TX_QUEUE = 1

cdef enum Wrong:                # what is wrong with a buffer
    WRONG_OUTSIDE               # an address in no region
    WRONG_ACROSS                # from the end of a region on: into the next one, or out of the last
    WRONG_WRAPS                 # the sum of address and length is small
    WRONG_EMPTY
    WRONG_HUGE
    WRONG_DIRECTION
    WRONG_LOOP                  # a chain that comes back
    WRONG_NEXT                  # an index outside the table
    WRONG_NESTED                # an indirect table in an indirect table, or with NEXT
    WRONG_TABLE                 # an indirect table of an odd length, or in no region
    WRONG_MANY                  # more pieces than a chain may have
    WRONG_SHORT                 # shorter than the header
    WRONG_WORK                  # work that cannot be done
    WRONGS

cdef struct chain_plan_t:       # a buffer that is to be made available
    uint32_t n
    uint32_t indirect           # 1: by a table
    vring_desc_t desc[8]        # flags: WRITE alone; next: 0

cdef struct guest_t:
    uint32_t number
    uint32_t context
    uint32_t loose
    uint32_t packed
    uint32_t indirect           # it may use tables
    uint32_t header
    uint64_t mac
    uint64_t rings_addr         # guest addresses of the three regions
    uint64_t frames_addr
    uint64_t room_addr
    uint64_t end_addr           # behind the last
    uint8_t *rings              # and where they are mapped
    uint8_t *frames
    uint8_t *room
    uint64_t rings_size
    uint64_t room_size
    uint64_t tables             # offset of the indirect tables in `rings`
    uint32_t next_table
    virtqueue_t *queue[2]
    uint16_t available[2]       # split: avail.idx; packed: the next slot
    uint8_t wrap[2]             # packed
    uint16_t next_desc[2]       # split: the next entry of the table
    uint8_t cost[2][256]        # descriptors of what was made available, by slot
    context_t fresh
    virtqueue_t fresh_queue[2]


cdef inline uint32_t mask_of(const virtqueue_t *q) noexcept nogil:
    return q.size - 1


# --- room -------------------------------------------------------------------------------------------------

cdef inline uint32_t outstanding(const guest_t *who, uint32_t ring) noexcept nogil:
    """Buffers (split) or slots (packed) that the device has not taken."""
    cdef virtqueue_t *q = who.queue[ring]
    cdef uint32_t at = who.available[ring]
    if not who.packed:
        return <uint16_t>(who.available[ring] - q.last_avail)
    if who.wrap[ring] != q.avail_wrap:
        at += q.size
    return at - q.last_avail if at >= q.last_avail else 0


cdef inline uint32_t free_slots(const guest_t *who, uint32_t ring) noexcept nogil:
    cdef uint32_t used = outstanding(who, ring), size = who.queue[ring].size
    return size - used if used < size else 0


cdef inline bint stuck(const guest_t *who, uint32_t ring) noexcept nogil:
    """Whether driver and device no longer agree, after a lie: nothing fits, and nothing is available."""
    return free_slots(who, ring) == 0 and not has_available(who.queue[ring])


# --- buffers ----------------------------------------------------------------------------------------------

cdef inline uint64_t frame_at(arena_t *arena, const guest_t *who, rng_t *rng, bint nonsense) noexcept nogil:
    """Writes the beginning of a frame, with its header, to some place; its guest address."""
    cdef uint64_t bits = next_u64(rng)
    cdef uint32_t slot = <uint32_t>(bits >> 56) & (SLOTS - 1)
    cdef uint8_t *at = who.frames + slot * SLOT
    memset(at, 0, 16)
    if who.loose:
        write_work(at, who.header, bits)
    elif nonsense:
        write_nonsense(at, who.header)
    write_frame(arena, who.mac, who.loose, False, at + who.header, bits)
    return who.frames_addr + slot * SLOT


cdef inline void fill_desc(vring_desc_t *desc, uint64_t addr, uint32_t len, uint16_t flags) noexcept nogil:
    desc.addr, desc.len, desc.flags, desc.next = addr, len, flags, 0


cdef inline void plan_tx(arena_t *arena, const guest_t *who, rng_t *rng, chain_plan_t *plan,
                         bint nonsense) noexcept nogil:
    """A frame in one piece, behind its header in another, or in several."""
    cdef uint64_t addr = frame_at(arena, who, rng, nonsense), bits = next_u64(rng)
    cdef uint32_t len = 60 + <uint32_t>(bits & (0x3F if bits & 0xF00 else 0x7FF)), i
    plan.n = 1
    plan.indirect = who.indirect and bits >> 16 & 7 == 0
    if bits >> 20 & 7:
        fill_desc(&plan.desc[0], addr, who.header + len, 0)
    elif bits >> 23 & 1:
        plan.n = 2
        fill_desc(&plan.desc[0], addr, who.header, 0)
        fill_desc(&plan.desc[1], addr + who.header, len, 0)
    else:
        plan.n = 2 + <uint32_t>(bits >> 24) % 7
        fill_desc(&plan.desc[0], addr, who.header + 20, 0)
        for i in range(1, plan.n):
            fill_desc(&plan.desc[i], who.frames_addr + (bits >> 4 * i & 63) * SLOT,
                      <uint32_t>(bits >> 3 * i) & 0xFF, 0)


cdef inline void plan_rx(const guest_t *who, rng_t *rng, chain_plan_t *plan) noexcept nogil:
    cdef uint64_t bits = next_u64(rng)
    cdef uint32_t i
    plan.n = 1 if bits & 7 else 2 + <uint32_t>(bits >> 8) % 7
    plan.indirect = who.indirect and bits >> 16 & 7 == 0
    for i in range(plan.n):
        bits = next_u64(rng)
        fill_desc(&plan.desc[i], who.room_addr + (bits >> 16) % (who.room_size - 2048),
                  <uint32_t>(bits & 0x7FF) if bits >> 60 else <uint32_t>(bits & 31), VRING_DESC_F_WRITE)


cdef inline uint64_t nowhere(const guest_t *who, uint64_t bits) noexcept nogil:
    """An address in no region: behind the last, before the first, far away."""
    if bits & 3 == 0:
        return who.end_addr + (bits >> 8 & 0xFFF)
    if bits & 3 == 1:
        return who.rings_addr - 1 - (bits >> 8 & 0xFFF)
    if bits & 3 == 2:
        return bits >> 8 & 0xFFFFFF
    return bits | <uint64_t>1 << 63


cdef inline void spoil_plan(const guest_t *who, rng_t *rng, uint32_t wrong,
                            chain_plan_t *plan) noexcept nogil:
    """What can be said in the descriptors; loops and the like are made where they are written."""
    cdef uint64_t bits = next_u64(rng)
    cdef vring_desc_t *desc = &plan.desc[<uint32_t>(bits >> 60) % plan.n]
    if wrong == WRONG_OUTSIDE:
        desc.addr = nowhere(who, bits)
    elif wrong == WRONG_ACROSS:
        if plan.n == 1 and not desc.flags & VRING_DESC_F_WRITE:     # behind a good beginning
            plan.n = 2
            desc = &plan.desc[1]
            desc.flags = desc.next = 0
        # Of a strict one nothing is received in `frames`, and a header from there is its own as a whole.
        desc.addr = who.end_addr - 1 - (bits >> 8 & 0x7F)
        if bits & 1 and (who.loose or not desc.flags & VRING_DESC_F_WRITE):
            desc.addr = who.room_addr - 16 - (bits >> 8 & 0x7F)
        desc.len = 60 + <uint32_t>(bits >> 16 & (0x3F if bits >> 40 & 1 else 0x7FF))
    elif wrong == WRONG_WRAPS:
        desc.addr = <uint64_t>0 - (bits & 0xFFF)
        desc.len = <uint32_t>(bits >> 16 & 0xFFFFF)
    elif wrong == WRONG_EMPTY:
        desc.len = 0
    elif wrong == WRONG_HUGE:
        desc.len = <uint32_t>0xFFFFFFFF - <uint32_t>(bits & 0xFFF)
        if bits >> 40 & 1:
            desc.len = <uint32_t>(bits >> 8 & 0x1FFFF)
    elif wrong == WRONG_DIRECTION:
        desc.flags ^= VRING_DESC_F_WRITE
    elif wrong == WRONG_SHORT:
        plan.n = 1
        plan.desc[0].len = <uint32_t>(bits & 15)
    elif who.loose and wrong == WRONG_WORK:         # any bytes as a header
        plan.desc[0].addr = who.rings_addr + (bits >> 8) % (who.end_addr - who.rings_addr)


# --- rings ------------------------------------------------------------------------------------------------

cdef inline vring_desc_t *next_table(guest_t *who, uint64_t *addr) noexcept nogil:
    who.next_table = (who.next_table + 1) % TABLES
    addr[0] = who.rings_addr + who.tables + who.next_table * TABLE_ENTRIES * 16
    return <vring_desc_t *>(who.rings + who.tables + who.next_table * TABLE_ENTRIES * 16)


cdef inline void write_table(guest_t *who, const chain_plan_t *plan, uint32_t wrong,
                             vring_desc_t *by) noexcept nogil:
    """An indirect table with the plan's descriptors; `by` becomes the one that names it."""
    cdef uint64_t addr = 0
    cdef vring_desc_t *table = next_table(who, &addr)
    cdef vring_packed_desc_t *packed = <vring_packed_desc_t *>table
    cdef uint32_t n = TABLE_ENTRIES if wrong == WRONG_MANY else plan.n, i
    cdef const vring_desc_t *from_
    for i in range(n):
        from_ = &plan.desc[i if i < plan.n else plan.n - 1]
        table[i] = from_[0]
        if who.packed:
            packed[i].flags = from_.flags | (VRING_DESC_F_INDIRECT if wrong == WRONG_NESTED else 0)
            packed[i].id = 0
            continue
        table[i].flags |= (VRING_DESC_F_NEXT if i + 1 < n else 0) | \
            (VRING_DESC_F_INDIRECT if wrong == WRONG_NESTED and i == 0 else 0)
        table[i].next = <uint16_t>(i + 1)
        if wrong == WRONG_LOOP and i + 1 == n:
            table[i].flags |= VRING_DESC_F_NEXT
            table[i].next = 0
        elif wrong == WRONG_NEXT:
            table[i].flags |= VRING_DESC_F_NEXT
            table[i].next = <uint16_t>(n + (wrong << i))
    fill_desc(by, addr, 16 * n, VRING_DESC_F_INDIRECT)
    if wrong == WRONG_TABLE:
        by.len += 8 if n & 1 else 0
        by.addr = addr if n & 1 else who.end_addr - 8


cdef inline void put_split(guest_t *who, uint32_t ring, const chain_plan_t *plan, uint32_t n,
                           uint32_t wrong) noexcept nogil:
    """Writes a chain to the table and its head to the available ring."""
    cdef virtqueue_t *q = who.queue[ring]
    cdef vring_desc_t *table = split_table(q)
    cdef uint32_t first = who.next_desc[ring] & mask_of(q), i, at = 0
    for i in range(n):
        at = (first + i) & mask_of(q)
        table[at] = plan.desc[i]
        if i + 1 < n:
            table[at].flags |= VRING_DESC_F_NEXT
        table[at].next = <uint16_t>((at + 1) & mask_of(q))
    if wrong == WRONG_LOOP or wrong == WRONG_MANY:
        table[at].flags |= VRING_DESC_F_NEXT
        table[at].next = <uint16_t>first
    elif wrong == WRONG_NEXT:
        table[at].flags |= VRING_DESC_F_NEXT
        table[at].next = <uint16_t>(q.size + at)
    who.next_desc[ring] += <uint16_t>n
    if wrong == WRONG_TABLE and n & 1:
        first += q.size                 # a head outside the table
    avail_ring(q).ring[who.available[ring] & mask_of(q)] = <uint16_t>first
    who.available[ring] += 1


cdef inline void put_packed(guest_t *who, uint32_t ring, const chain_plan_t *plan, uint32_t n,
                            uint32_t wrong) noexcept nogil:
    """Writes a chain to the ring; the first flags last."""
    cdef virtqueue_t *q = who.queue[ring]
    cdef vring_packed_desc_t *table = packed_table(q)
    cdef uint32_t at = who.available[ring], first = at, i
    cdef uint16_t flags = 0, first_flags = 0
    for i in range(n):
        flags = VRING_PACKED_DESC_F_AVAIL if who.wrap[ring] else VRING_PACKED_DESC_F_USED
        flags |= plan.desc[i].flags | (VRING_DESC_F_NEXT if i + 1 < n else 0)
        if wrong == WRONG_LOOP or wrong == WRONG_NEXT or wrong == WRONG_MANY:
            flags |= VRING_DESC_F_NEXT      # on and on, into what was not made available
        table[at].addr, table[at].len, table[at].id = plan.desc[i].addr, plan.desc[i].len, <uint16_t>first
        who.cost[ring][at] = 0
        if i:
            store_u16(&table[at].flags, flags)
        else:
            first_flags = flags
        at += 1
        if at == q.size:
            at = 0
            who.wrap[ring] ^= 1
    store_u16(&table[first].flags, first_flags)
    who.available[ring] = <uint16_t>at


# --- its context ------------------------------------------------------------------------------------------

cdef inline void count_untaken(arena_t *arena, const guest_t *who) noexcept nogil:
    """Takes back what was counted when it was made available, and no look was ever taken at."""
    cdef uint32_t ring, left, i, at
    cdef const virtqueue_t *q
    cdef const context_t *context = &arena.nic.context[who.context]
    if context.state == CONTEXT_FAULTED:
        arena.fault[context.fault & 31] += 1
    for ring in range(2):
        q = who.queue[ring]
        left = outstanding(who, ring)
        if left > q.size:
            continue
        at = q.last_avail
        for i in range(left):
            if i or context.state != CONTEXT_FAULTED:
                arena.descriptors -= who.cost[ring][(at + i) % q.size]


cdef inline void forget_rings(guest_t *who) noexcept nogil:
    memset(who.rings, 0, who.tables)
    who.available[0] = who.available[1] = 0
    who.wrap[0] = who.wrap[1] = 1
    who.next_desc[0] = who.next_desc[1] = 0


cdef inline void begin_anew(arena_t *arena, guest_t *who) noexcept nogil:
    """As `VirtioDevice.reset`, and the same rings set up and started once more."""
    cdef context_t *context = &arena.nic.context[who.context]
    count_untaken(arena, who)
    end_serving(arena.nic, context)
    set_state(arena.nic, context, CONTEXT_ASSIGNED)
    forget_rings(who)
    context[0] = who.fresh
    context.virtio.told = 0
    context.virtio.tx_cursor = 0
    who.queue[0][0] = who.fresh_queue[0]
    who.queue[1][0] = who.fresh_queue[1]
    set_state(arena.nic, context, CONTEXT_RUNNING)
    begin_serving(arena.nic, context)
    set_bit(arena.nic.virtio, who.context)
