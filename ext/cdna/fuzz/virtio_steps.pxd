"""What an attacker with rings of virtio does in one step."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport RING_TX
from cdna.cpu cimport store_u16
from cdna.fuzz.arena cimport arena_t
from cdna.fuzz.rng cimport below, next_u64, one_in, rng_t
from cdna.fuzz.virtio_guest cimport (
    MAX_BUFFERS, SLOT, SLOTS, TABLES, TABLE_ENTRIES, TX_QUEUE, WRONG_EMPTY, WRONG_WORK, WRONGS, chain_plan_t,
    frame_at, free_slots, guest_t, mask_of, plan_rx, plan_tx, put_packed, put_split, spoil_plan, write_table,
)
from cdna.nic.engine cimport engine_poll
from cdna.nic.virtio.queue cimport avail_ring, packed_table, split_table, virtqueue_t
from cdna.virtio cimport VRING_DESC_F_INDIRECT, vring_desc_t, vring_packed_desc_t, vring_packed_event_t

cdef enum:
    FEW = 4                     # frames of a round that is cut short


cdef inline void post_one(arena_t *arena, guest_t *who, uint32_t ring, uint32_t wrong,
                          rng_t *rng) noexcept nogil:
    """Makes one buffer available; wrong: one of `Wrong`, or WRONGS for a good one."""
    cdef chain_plan_t plan
    cdef uint32_t n, at, cost
    if ring == TX_QUEUE:
        plan_tx(arena, who, rng, &plan, wrong == WRONG_WORK)
    else:
        plan_rx(who, rng, &plan)
    if wrong < WRONGS:
        spoil_plan(who, rng, wrong, &plan)
        # What is wrong with tables is tried by those that have not agreed on any, too.
        plan.indirect = (plan.indirect or wrong >= WRONG_EMPTY + 3) and (who.indirect or one_in(rng, 4))
    n = 1 if plan.indirect else plan.n
    if n > free_slots(who, ring):
        return
    cost = plan.n + plan.indirect
    at = who.available[ring] % who.queue[ring].size
    if plan.indirect:
        write_table(who, &plan, wrong, &plan.desc[0])
    if who.packed:
        put_packed(who, ring, &plan, n, wrong)
    else:
        put_split(who, ring, &plan, n, wrong)
    who.cost[ring][at] = <uint8_t>cost
    arena.descriptors += cost


cdef inline void show(guest_t *who, uint32_t ring) noexcept nogil:
    """Split: the index. In a packed ring every buffer was shown as it was written."""
    if not who.packed:
        store_u16(&avail_ring(who.queue[ring]).idx, who.available[ring])


cdef inline void post_buffers(arena_t *arena, guest_t *who, uint32_t ring, uint32_t count, uint32_t profile,
                              rng_t *rng) noexcept nogil:
    """profile 0: none is wrong; 1: one of them; 2: each may be."""
    cdef uint32_t n = 1 + count % MAX_BUFFERS, i, at = below(rng, n)
    for i in range(n):
        if free_slots(who, ring) == 0:
            break
        if profile == 0 or (profile == 1 and i != at):
            post_one(arena, who, ring, WRONGS, rng)
        else:
            post_one(arena, who, ring, below(rng, WRONGS), rng)
    show(who, ring)


cdef inline uint16_t other_flags(const guest_t *who, uint16_t flags, uint16_t bits) noexcept nogil:
    """Any flags. A strict one's tables stay tables: their bytes, sent as a frame, would pass for a secret."""
    if who.loose:
        return bits
    return (bits & ~<uint16_t>VRING_DESC_F_INDIRECT) | (flags & VRING_DESC_F_INDIRECT)


cdef inline void lie_index(guest_t *who, uint32_t ring, uint32_t argument, rng_t *rng) noexcept nogil:
    """An available index that cannot be, heads that are none, any event area; in a packed ring flags."""
    cdef virtqueue_t *q = who.queue[ring]
    cdef uint16_t bits = <uint16_t>next_u64(rng)
    cdef uint32_t kind = argument & 7
    cdef vring_packed_desc_t *entry
    if who.packed:
        if kind < 3:
            entry = &packed_table(q)[below(rng, q.size)]
            store_u16(&entry.flags, other_flags(who, entry.flags, bits))
        elif kind == 3:
            packed_table(q)[below(rng, q.size)].id = bits
        else:
            (<vring_packed_event_t *>q.driver).off_wrap = bits
            (<vring_packed_event_t *>q.driver).flags = bits >> 13
        return
    if kind == 0:                       # beyond the ring
        store_u16(&avail_ring(q).idx, <uint16_t>(q.last_avail + q.size + 1 + (bits & 7)))
    elif kind == 1:                     # back
        store_u16(&avail_ring(q).idx, <uint16_t>(q.last_avail - 1 - (bits & 7)))
    elif kind == 2:
        store_u16(&avail_ring(q).idx, bits)
    elif kind < 5:
        avail_ring(q).ring[bits & mask_of(q)] = <uint16_t>next_u64(rng)
    else:
        avail_ring(q).ring[q.size] = bits       # used_event
        avail_ring(q).flags = bits


cdef inline void write_over(guest_t *who, uint32_t ring, uint32_t count, rng_t *rng) noexcept nogil:
    """Words of a ring and its tables, in the middle of it. A strict one leaves addresses alone."""
    cdef virtqueue_t *q = who.queue[ring]
    cdef vring_desc_t *table = split_table(q)
    cdef uint32_t n = 1 + count % 16
    cdef uint64_t bits
    for _ in range(n):
        bits = next_u64(rng)
        if bits & 3 == 0:
            table = <vring_desc_t *>(who.rings + who.tables)
            table += (bits >> 4) % (TABLES * TABLE_ENTRIES)
        else:
            table = split_table(q) + (bits >> 4) % q.size
        if bits & 12 == 0:
            table.len = <uint32_t>(bits >> 32) >> (bits >> 27 & 31)
        elif bits & 12 == 4:
            table.flags = other_flags(who, table.flags, <uint16_t>(bits >> 32))    # of a packed one: its id
        elif bits & 12 == 8:
            table.next = other_flags(who, table.next, <uint16_t>(bits >> 32))   # of a packed one: its flags
        elif who.loose:
            table.addr ^= bits >> (bits >> 27 & 63)


cdef inline void change_behind(arena_t *arena, guest_t *who, uint32_t ring, uint32_t count,
                               rng_t *rng) noexcept nogil:
    """Makes buffers available, lets the NIC begin, then rewrites ring, tables and headers."""
    cdef uint32_t i
    post_buffers(arena, who, ring, count, 0, rng)
    engine_poll(arena.nic, FEW)
    write_over(who, ring, count, rng)
    for i in range(count & 15):
        frame_at(arena, who, rng, i & 1)


cdef inline void write_device_area(guest_t *who, uint32_t ring, uint32_t count, rng_t *rng) noexcept nogil:
    """Over what the device writes: used indices, used entries, its event area."""
    cdef uint16_t *word = <uint16_t *>who.queue[ring].device
    cdef uint32_t words = 2 if who.packed else 3 + 4 * <uint32_t>who.queue[ring].size
    for _ in range(1 + count % 8):
        word[below(rng, words)] = <uint16_t>next_u64(rng)
