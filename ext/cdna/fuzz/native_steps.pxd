"""What an attacker of native rings does in one step."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport (
    CONTEXT_RUNNING, FAULT_PRODUCER, MAILBOXES, PAGE_SHIFT, PROTECTION_IOMMU, PROTECTION_VALIDATED,
    REFUSED_MODE, REFUSED_RING_FULL, RING_TX, desc_t,
)
from cdna.cpu cimport load_u32
from cdna.fuzz.arena cimport (
    FOUND_GIVEN, FOUND_LEFT, FOUND_OWNER, FOUND_SEQUENCE, FOUND_STATE, arena_round, arena_t, count_refusal,
    find, make_foreign, make_own,
)
from cdna.fuzz.native_guest cimport (
    BAD_FOREIGN, BAD_FRAGMENT, BAD_OFFLOAD, BAD_SHORT, BADS, BATCH, IO_WINDOW, OWN_PAGES, SLOT_BYTES,
    announce_posted, attacker_t, foreign_maddr, make_up, own_maddr, own_page, owns, put_frame,
)
from cdna.fuzz.rng cimport below, next_u64, one_in, rng_t
from cdna.nic.context cimport IO_PAGE_PRESENT, context_t, ring_t
from cdna.nic.engine cimport engine_poll
from cdna.vmm.protection cimport enqueue, iommu_map, iommu_unmap, reap, transfer, vcontext_t, vring_t

cdef enum:
    FEW = 4                     # frames of a round that is cut short


cdef inline ring_t *nic_ring(const arena_t *arena, const attacker_t *who, uint32_t ring) noexcept nogil:
    cdef context_t *context = &arena.nic.context[who.context]
    return &context.tx if ring == RING_TX else &context.rx


cdef inline uint32_t room(const arena_t *arena, const attacker_t *who, uint32_t ring) noexcept nogil:
    """Descriptors that fit; more are announced elsewhere."""
    cdef uint32_t used = who.posted[ring] - nic_ring(arena, who, ring).consumer
    return who.size[ring] - used if used <= who.size[ring] else 0


# --- posting ----------------------------------------------------------------------------------------------

cdef inline void hand_over(arena_t *arena, attacker_t *who, uint32_t ring, const desc_t *request,
                           uint32_t n) noexcept nogil:
    """Every request is judged: what is refused is left out, and the hypercall made again for the rest."""
    cdef uint32_t done = 0
    cdef int status
    while done < n:
        status = enqueue(arena.vmm, who.domain, who.context, ring, request + done, n - done)
        if status > 0:
            done += status
            arena.descriptors += status
            who.posted[ring] += status
            continue
        arena.descriptors += 1
        count_refusal(arena, status)
        done += 1
        if status == REFUSED_RING_FULL:
            break


cdef inline void put(attacker_t *who, uint32_t ring, uint32_t offset, const desc_t *desc) noexcept nogil:
    """Writes a descriptor to the ring itself (modes iommu and none)."""
    who.ring[ring][(who.posted[ring] + offset) & (who.size[ring] - 1)] = desc[0]


cdef inline uint32_t which_bad(rng_t *rng, uint32_t profile, uint32_t i, uint32_t at) noexcept nogil:
    """profile 0: none is bad. 1: one. 2: every fourth. 3: each may be."""
    cdef uint32_t bad
    if profile == 0 or (profile == 1 and i != at) or (profile == 2 and i & 3 != 3):
        return BADS
    bad = below(rng, BADS + 1)
    # What no hypercall refuses stops the context, and that is the end of the batch.
    if (bad == BAD_OFFLOAD or bad == BAD_SHORT or bad == BAD_FRAGMENT) and below(rng, 8):
        return BAD_FOREIGN
    return bad


cdef inline void post_some(arena_t *arena, attacker_t *who, uint32_t ring, uint32_t count, uint32_t profile,
                           rng_t *rng) noexcept nogil:
    cdef desc_t request[BATCH]
    cdef uint32_t n = 1 + count % BATCH, i, at = below(rng, n)
    if who.protection == PROTECTION_VALIDATED:
        for i in range(n):
            make_up(arena, who, rng, ring, which_bad(rng, profile, i, at), &request[i])
        hand_over(arena, who, ring, request, n)
    else:
        if n > room(arena, who, ring):
            n = room(arena, who, ring)
        for i in range(n):
            make_up(arena, who, rng, ring, which_bad(rng, profile, i, at), &request[0])
            put(who, ring, i, &request[0])
        who.posted[ring] += n
    announce_posted(arena, who, ring, who.posted[ring])


cdef inline void post_duplicates(arena_t *arena, attacker_t *who, uint32_t ring, uint32_t count,
                                 uint32_t argument, rng_t *rng) noexcept nogil:
    """One descriptor many times, or so many parts of one frame."""
    cdef desc_t request[BATCH]
    cdef uint32_t n = 1 + count % BATCH, i
    make_up(arena, who, rng, ring, BAD_FRAGMENT if argument & 3 == 0 else BADS, &request[0])
    for i in range(1, n):
        request[i] = request[0]
    if who.protection == PROTECTION_VALIDATED:
        hand_over(arena, who, ring, request, n)
    else:
        if n > room(arena, who, ring):
            n = room(arena, who, ring)
        for i in range(n):
            put(who, ring, i, &request[0])
        who.posted[ring] += n
    announce_posted(arena, who, ring, who.posted[ring])
    announce_posted(arena, who, ring, who.posted[ring])


# --- mailboxes --------------------------------------------------------------------------------------------

cdef inline void stops(arena_t *arena, attacker_t *who, uint32_t ring, uint32_t producer) noexcept nogil:
    """Announces an index for which the NIC has to stop the context at its next look."""
    announce_posted(arena, who, ring, producer)
    engine_poll(arena.nic, 0)
    if arena.nic.context[who.context].state == CONTEXT_RUNNING:
        find(arena, FOUND_STATE, who.context, FAULT_PRODUCER, CONTEXT_RUNNING)


cdef inline void lie(arena_t *arena, attacker_t *who, uint32_t ring, uint32_t argument,
                     rng_t *rng) noexcept nogil:
    """A producer index that is none, or a mailbox that is not meant for it."""
    cdef uint32_t bits = <uint32_t>next_u64(rng), kind = argument & 7
    if kind == 0:                       # beyond the ring
        stops(arena, who, ring, nic_ring(arena, who, ring).consumer + who.size[ring] + 1 + (bits & 7))
    elif kind == 1:                     # back
        stops(arena, who, ring, nic_ring(arena, who, ring).producer - 1 - (bits & 15))
    elif kind == 2:
        announce_posted(arena, who, ring, bits)
    elif kind == 3:                     # as it was
        announce_posted(arena, who, ring, who.posted[ring])
    elif kind == 4:                     # mailboxes that mean nothing, and interrupts on and off
        who.page.mailbox[2 + bits % (MAILBOXES - 2)] = bits
        who.page.doorbell |= 1 << (2 + bits % 30)
    else:                               # a doorbell with nothing behind it
        who.page.doorbell |= bits & ~<uint32_t>3


cdef inline void announce_used(arena_t *arena, attacker_t *who, uint32_t ring, uint32_t count) noexcept nogil:
    """What lies in the ring from the last time around, or never did."""
    cdef uint32_t n = 1 + count % who.size[ring], left = room(arena, who, ring)
    if n > left:
        n = left
    if who.protection != PROTECTION_VALIDATED:
        who.posted[ring] += n
        announce_posted(arena, who, ring, who.posted[ring])
    else:
        announce_posted(arena, who, ring, who.posted[ring] + n)


cdef inline void scribble(arena_t *arena, attacker_t *who, uint32_t count, rng_t *rng) noexcept nogil:
    """Anything, anywhere in its context page; seldom where it would ring a doorbell."""
    cdef uint32_t *word = <uint32_t *>who.page
    cdef uint32_t n = 1 + count % 32
    cdef uint64_t bits
    for _ in range(n):
        bits = next_u64(rng)
        if bits & 0xF0:
            word[25 + (bits >> 8) % 999] = <uint32_t>(bits >> 32)
        else:
            word[(bits >> 8) % 1024] = <uint32_t>(bits >> 32)


# --- while the NIC works ----------------------------------------------------------------------------------

cdef inline void change_after(arena_t *arena, attacker_t *who, uint32_t ring, uint32_t count,
                              rng_t *rng) noexcept nogil:
    """Posts, lets the NIC begin, then rewrites its ring, or in `validated` its frames."""
    cdef uint32_t i, n = 1 + count % BATCH
    cdef desc_t desc
    cdef uint8_t *at
    post_some(arena, who, ring, count, 0, rng)
    engine_poll(arena.nic, FEW)
    if who.protection == PROTECTION_VALIDATED:
        for i in range(n):
            at = arena.memory.base + own_maddr(who, own_page(who, rng)) + (i & 7) * SLOT_BYTES
            put_frame(arena, who, at, next_u64(rng))
        return
    for i in range(n):
        make_up(arena, who, rng, ring, which_bad(rng, 2, i, 0), &desc)
        who.ring[ring][below(rng, who.size[ring])] = desc


cdef inline bint stray(arena_t *arena, attacker_t *who, uint32_t ring, uint32_t count, uint32_t argument,
                       rng_t *rng) noexcept nogil:
    """A slot that the VMM wrote is overwritten with a descriptor of another number: the NIC must not use it.

    What the VMM wrote is put back before the VMM reads it again, as if the mapping had not been there.
    """
    cdef ring_t *nic = nic_ring(arena, who, ring)
    cdef desc_t before, after
    cdef uint32_t at, slot
    post_some(arena, who, ring, count % 8, 0, rng)
    if who.posted[ring] == nic.consumer:
        return True
    at = nic.consumer + below(rng, who.posted[ring] - nic.consumer)
    slot = at & (who.size[ring] - 1)
    before = after = who.ring[ring][slot]
    make_up(arena, who, rng, ring, below(rng, BADS + 1), &after)
    after.seq = before.seq - who.size[ring] if argument & 1 else <uint32_t>next_u64(rng)
    if argument & 2:
        after.seq = before.seq + 1
    after.seq &= nic.seq_mask
    if after.seq == before.seq:
        after.seq ^= 1
    who.ring[ring][slot] = after
    arena.descriptors += 1
    arena_round(arena, 64)
    arena_round(arena, 64)
    who.ring[ring][slot] = before
    if <int>(nic.consumer - at) > 0:
        return find(arena, FOUND_SEQUENCE, who.context, before.seq, after.seq)
    return True


# --- mappings and pages -----------------------------------------------------------------------------------

cdef inline void map_some(arena_t *arena, attacker_t *who, uint32_t count, uint32_t argument,
                          rng_t *rng) noexcept nogil:
    cdef uint32_t io_page[BATCH]
    cdef uint32_t page[BATCH]
    cdef uint32_t i, n = 1 + count % 32, done = 0
    cdef int status
    for i in range(n):
        io_page[i] = below(rng, IO_WINDOW)
        page[i] = who.first_page + own_page(who, rng)
        if argument & 7 == 1 and one_in(rng, 4):
            page[i] = <uint32_t>(foreign_maddr(arena, rng) >> PAGE_SHIFT)
        elif argument & 7 == 2 and one_in(rng, 4):
            io_page[i] = <uint32_t>next_u64(rng)
        elif argument & 7 == 3 and one_in(rng, 4):
            page[i] = <uint32_t>next_u64(rng)
    while done < n:
        status = iommu_map(arena.vmm, who.domain, who.context, io_page + done, page + done, n - done)
        count_refusal(arena, status)
        done += <uint32_t>status if status > 0 else <uint32_t>1
        if status == REFUSED_MODE:
            break


cdef inline void unmap_some(arena_t *arena, attacker_t *who, uint32_t count, rng_t *rng) noexcept nogil:
    cdef uint32_t io_page[8]
    cdef uint32_t i, n = 1 + count % 8
    cdef int status
    for i in range(n):
        io_page[i] = below(rng, IO_WINDOW)
    who.stale_io = io_page[0]
    for i in range(n):
        status = iommu_unmap(arena.vmm, who.domain, who.context, io_page + i, 1)
        count_refusal(arena, status)


cdef inline bint in_flight(const arena_t *arena, const attacker_t *who, uint32_t page) noexcept nogil:
    """Whether the NIC may still touch a page for this context, by what is on its rings or in its table."""
    cdef const context_t *context = &arena.nic.context[who.context]
    cdef const vring_t *vring
    cdef const desc_t *desc
    cdef uint32_t i, ring, at
    if who.protection == PROTECTION_IOMMU:
        for i in range(context.io_pages):
            if context.io_page[i] & IO_PAGE_PRESENT and context.io_page[i] >> PAGE_SHIFT == page:
                return True
        return False
    for ring in range(2):
        vring = &arena.vmm.context[who.context].ring[ring]
        at = nic_ring(arena, who, ring).consumer
        while at != vring.producer:
            desc = &vring.desc[at & (vring.size - 1)]
            if desc.len and desc.addr >> PAGE_SHIFT <= page <= (desc.addr + desc.len - 1) >> PAGE_SHIFT:
                return True
            at += 1
    return False


cdef inline bint give_page(arena_t *arena, attacker_t *who, uint32_t victim, rng_t *rng) noexcept nogil:
    cdef uint32_t own = 1 + below(rng, OWN_PAGES // 2), page = who.first_page + own
    cdef int status
    if one_in(rng, 8):                  # somebody else's page, or none
        page = <uint32_t>(foreign_maddr(arena, rng) >> PAGE_SHIFT)
        if arena.owner[page] == who.domain:
            return True
        if one_in(rng, 4):
            page = arena.memory.pages + below(rng, 100)
        status = transfer(arena.vmm, who.domain, victim, &page, 1)
        count_refusal(arena, status)
        return status < 0 or find(arena, FOUND_OWNER, page, 0, who.domain)
    reap(arena.vmm, who.context)        # as `Hypervisor.transfer` does
    status = transfer(arena.vmm, who.domain, victim, &page, 1)
    count_refusal(arena, status)
    if status < 0:
        return True
    if not owns(who, own) or in_flight(arena, who, page):
        return find(arena, FOUND_GIVEN, page, 0, who.context)
    who.given |= <uint32_t>1 << own
    arena.owner[page] = victim
    make_foreign(arena, page)
    return True


cdef inline bint take_page(arena_t *arena, attacker_t *who, uint32_t victim, rng_t *rng) noexcept nogil:
    """The victim gives a page back."""
    cdef uint32_t own = 1 + below(rng, OWN_PAGES // 2), page = who.first_page + own
    cdef int status
    if owns(who, own):
        return True
    status = transfer(arena.vmm, victim, who.domain, &page, 1)
    if status < 0:
        return find(arena, FOUND_LEFT, page, 0, arena.memory.page[page].pins)
    who.given &= ~(<uint32_t>1 << own)
    arena.owner[page] = who.domain
    make_own(arena, page)
    return True


# --- in other names ---------------------------------------------------------------------------------------

cdef inline bint in_other_names(arena_t *arena, attacker_t *who, uint32_t argument,
                                rng_t *rng) noexcept nogil:
    """Hypercalls of which none may be granted."""
    cdef uint32_t other = below(rng, arena.nic.contexts + 2), io_page = below(rng, IO_WINDOW)
    cdef uint32_t page = who.first_page
    cdef desc_t desc
    cdef int status = 0
    if other == who.context:
        other = arena.nic.contexts
    make_up(arena, who, rng, RING_TX, BADS, &desc)
    arena.descriptors += argument & 7 < 4
    if argument & 7 == 0:               # a context of somebody else
        status = enqueue(arena.vmm, who.domain, other, argument >> 3 & 1, &desc, 1)
    elif argument & 7 == 1:             # in the name of somebody else
        status = enqueue(arena.vmm, who.domain + 1 + below(rng, 100), who.context, argument >> 3 & 1, &desc,
                         1)
    elif argument & 7 == 2:             # in the VMM's
        status = enqueue(arena.vmm, 0, other, 0, &desc, 1)
    elif argument & 7 == 3:             # a ring that there is not
        status = enqueue(arena.vmm, who.domain, who.context, 2 + below(rng, 100), &desc, 1)
    elif argument & 7 == 4:
        status = iommu_map(arena.vmm, who.domain, other, &io_page, &page, 1)
    elif argument & 7 == 5:
        status = iommu_unmap(arena.vmm, who.domain, other, &io_page, 1)
    elif who.protection == PROTECTION_VALIDATED:        # hypercalls of the other mode
        status = iommu_map(arena.vmm, who.domain, who.context, &io_page, &page, 1)
    else:
        status = enqueue(arena.vmm, who.domain, who.context, 0, &desc, 1)
    count_refusal(arena, status)
    return status < 0 or find(arena, FOUND_STATE, who.context, other, status)
