"""An attacker of native rings: what it maps and owns, the descriptors that it makes up, how it begins anew.

It has its context page, its rings where the mode lets a guest write them, its own pages, and the hypercalls
with any arguments. What it knows beyond that (the addresses of others) only makes it more dangerous.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from cdna.abi cimport (
    CONTEXT_ASSIGNED, CONTEXT_FAULTED, CONTEXT_RUNNING, DESC_F_EOP, DESC_F_OFFLOAD, IOMMU_DIRECT_MAP,
    MAILBOX_RX_PRODUCER, MAILBOX_TX_PRODUCER, PAGE_SHIFT, PAGE_SIZE, PROTECTION_IOMMU, PROTECTION_VALIDATED,
    RING_TX, context_page_t, desc_t, offload_t,
)
from cdna.doorbell cimport ring_doorbell
from cdna.fuzz.arena cimport FOUND_LEFT, arena_t, find
from cdna.fuzz.frames cimport write_frame, write_work
from cdna.fuzz.rng cimport below, next_u64, rng_t
from cdna.nic.context cimport IO_PAGE_PRESENT, context_t, ring_t
from cdna.nic.serving cimport begin_serving, end_serving, set_state
from cdna.vmm.protection cimport reap_all, vcontext_t

cdef enum:
    OWN_PAGES = 16              # of an attacker
    BATCH = 64                  # descriptors of one step at most
    IO_WINDOW = 32              # I/O pages that an attacker uses most
    HEADER_SLOTS = 8            # places in a page where it puts frames
    SLOT_BYTES = PAGE_SIZE // HEADER_SLOTS

cdef enum Bad:                  # what is wrong with a descriptor
    BAD_FOREIGN                 # a page of somebody else
    BAD_ACROSS                  # begins in an own page, ends in the next one
    BAD_BEYOND                  # at the end of memory
    BAD_WRAPS                   # the sum of address and length is small
    BAD_EMPTY
    BAD_LONG
    BAD_FLAGS
    BAD_OFFLOAD                 # an offload descriptor with any fields
    BAD_WILD                    # any address
    BAD_SHORT                   # shorter than a frame
    BAD_FRAGMENT                # no last one
    BAD_STALE                   # a page that was given away, or unmapped
    BADS

cdef struct attacker_t:
    uint32_t number
    uint32_t context
    uint32_t domain
    uint32_t protection
    uint32_t strategy           # IommuStrategy
    uint32_t loose
    uint32_t vnet
    uint32_t first_page
    uint64_t mac
    context_page_t *page
    desc_t *ring[2]
    uint32_t size[2]
    uint32_t posted[2]          # what an honest driver would announce
    uint32_t begun              # index at which its rings began
    uint32_t given              # bit i: page i of it is somebody else's now
    uint32_t stale_io           # an I/O page that was unmapped
    uint32_t restarts
    context_t fresh             # as it was assigned
    vcontext_t fresh_vmm


# --- its own memory ---------------------------------------------------------------------------------------

cdef inline uint64_t own_maddr(const attacker_t *who, uint32_t page) noexcept nogil:
    return <uint64_t>(who.first_page + page) << PAGE_SHIFT


cdef inline bint owns(const attacker_t *who, uint32_t page) noexcept nogil:
    return not who.given >> page & 1


cdef inline uint32_t own_page(const attacker_t *who, rng_t *rng) noexcept nogil:
    """One of its pages that is still its own; it never gives page 0 away."""
    cdef uint32_t page = below(rng, OWN_PAGES)
    return page if owns(who, page) else 0


cdef inline void put_frame(const arena_t *arena, const attacker_t *who, uint8_t *at,
                           uint64_t bits) noexcept nogil:
    """The beginning of a frame, where it may say anything."""
    if who.vnet:
        write_work(at, 12, bits if bits >> 57 & 7 == 0 else 0x7E00)     # what cannot be stops the context
        at += 12
    write_frame(arena, who.mac, who.loose, not who.loose, at, bits)


# --- descriptors ------------------------------------------------------------------------------------------

cdef inline uint64_t dma_of(const arena_t *arena, const attacker_t *who, uint32_t page, rng_t *rng,
                            uint8_t **at) noexcept nogil:
    """The address of an own page as its descriptors say it; `at`: where that is, NULL where it is nowhere."""
    cdef const context_t *context = &arena.nic.context[who.context]
    cdef uint64_t entry
    cdef uint32_t io_page
    at[0] = NULL
    if who.protection != PROTECTION_IOMMU:
        at[0] = arena.memory.base + own_maddr(who, page)
        return own_maddr(who, page)
    io_page = page if who.strategy != 0 else below(rng, IO_WINDOW)
    entry = context.io_page[io_page]
    for _ in range(IO_WINDOW):          # most frames are to go through
        if entry & IO_PAGE_PRESENT:
            break
        io_page = (io_page + 1) & (IO_WINDOW - 1)
        entry = context.io_page[io_page]
    if entry & IO_PAGE_PRESENT:
        at[0] = arena.memory.base + (entry & ~<uint64_t>(PAGE_SIZE - 1))
    return <uint64_t>io_page << PAGE_SHIFT


cdef inline void good_tx(const arena_t *arena, const attacker_t *who, rng_t *rng,
                         desc_t *desc) noexcept nogil:
    cdef uint64_t bits = next_u64(rng)
    cdef uint32_t slot = <uint32_t>(bits >> 56) & (HEADER_SLOTS - 1), offset
    cdef uint8_t *at = NULL
    offset = slot * SLOT_BYTES
    if not who.vnet:                    # a header that another one lies over by half stops the context
        offset += <uint32_t>(bits >> 50) & 31
    desc.addr = dma_of(arena, who, own_page(who, rng), rng, &at) + offset
    desc.len = <uint16_t>(60 + (bits & 0x7F))
    if bits & 0xF00 == 0:
        desc.len = <uint16_t>(60 + (bits & 0x3FFF) % (PAGE_SIZE - 60 - offset))
    desc.flags = DESC_F_EOP
    if at != NULL:
        put_frame(arena, who, at + offset, bits)


cdef inline void good_rx(const arena_t *arena, const attacker_t *who, rng_t *rng,
                         desc_t *desc) noexcept nogil:
    cdef uint64_t bits = next_u64(rng)
    cdef uint32_t offset = <uint32_t>(bits >> 52)
    cdef uint8_t *at = NULL
    desc.addr = dma_of(arena, who, own_page(who, rng), rng, &at) + offset
    desc.len = <uint16_t>(1 + (bits & 0xFFF) % (PAGE_SIZE - offset))
    desc.flags = <uint16_t>(bits >> 20 & 1)


cdef inline uint64_t foreign_maddr(const arena_t *arena, rng_t *rng) noexcept nogil:
    """Secrets, a neighbour's memory, anybody's."""
    cdef uint64_t bits = next_u64(rng), page
    if bits & 1 and arena.foreigns:
        page = arena.foreign[<uint32_t>(bits >> 32) % arena.foreigns]
        return (page << PAGE_SHIFT) + (bits >> 4 & 0xFFF)
    if bits & 2:
        return arena.neighbour[(bits >> 8) % 3].driver.maddr + (bits >> 16 & 0x3FFFF)
    return (bits >> 8) % arena.memory.size


cdef inline void spoil(const arena_t *arena, const attacker_t *who, rng_t *rng, uint32_t ring, uint32_t bad,
                       desc_t *desc) noexcept nogil:
    """Makes a good descriptor a bad one."""
    cdef uint64_t bits = next_u64(rng)
    cdef bint iommu = who.protection == PROTECTION_IOMMU
    if bad == BAD_FOREIGN:
        desc.addr = foreign_maddr(arena, rng)
    elif bad == BAD_ACROSS:             # of an IOMMU: into whatever is mapped behind
        desc.addr = (0 if iommu else own_maddr(who, 0)) + OWN_PAGES * PAGE_SIZE - 1 - (bits & 0xFF)
        desc.len = <uint16_t>(60 + (bits >> 8 & 0x1FFF))
    elif bad == BAD_BEYOND:
        desc.addr = arena.memory.size - (bits & 0x7F)
        desc.len = <uint16_t>(60 + (bits >> 8 & 0xFFF))
    elif bad == BAD_WRAPS:
        desc.addr = <uint64_t>0 - (bits & 0xFF)
        desc.len = <uint16_t>(60 + (bits >> 8 & 0xFFF))
    elif bad == BAD_EMPTY:
        desc.len = 0
    elif bad == BAD_LONG:
        desc.len = <uint16_t>(0xFFFF - (bits & 0xFFF))
    elif bad == BAD_FLAGS:
        desc.flags = <uint16_t>bits
        if desc.flags == DESC_F_OFFLOAD and not who.loose:      # its frames are never worked on
            desc.flags = 4
    elif bad == BAD_OFFLOAD:
        desc.flags = DESC_F_OFFLOAD
        desc.addr = bits if bits & 3 else <uint64_t>34 | <uint64_t>(16 if bits & 4 else 6) << 16 | \
            (bits >> 8 & 0x1FF) << 32 | <uint64_t>54 << 48
        if not who.loose:               # a size that no segment has: the others would change its bytes
            desc.addr |= <uint64_t>0xFFFF << 32
    elif bad == BAD_WILD:
        desc.addr = bits >> (bits & 63)
    elif bad == BAD_SHORT:
        desc.len = <uint16_t>(1 + (bits & 15))
    elif bad == BAD_FRAGMENT:
        desc.flags = 0
    else:
        desc.addr = <uint64_t>who.stale_io << PAGE_SHIFT if iommu else own_maddr(who, bits & 15)
        desc.addr += bits >> 8 & 0x7FF


cdef inline void make_up(const arena_t *arena, const attacker_t *who, rng_t *rng, uint32_t ring, uint32_t bad,
                         desc_t *desc) noexcept nogil:
    """A descriptor for a ring; bad: one of `Bad`, or BADS for a good one."""
    if ring == RING_TX:
        good_tx(arena, who, rng, desc)
    else:
        good_rx(arena, who, rng, desc)
    desc.seq = <uint32_t>rng.state
    if bad < BADS:
        spoil(arena, who, rng, ring, bad, desc)


# --- its context ------------------------------------------------------------------------------------------

cdef inline void announce_posted(arena_t *arena, attacker_t *who, uint32_t ring,
                                 uint32_t producer) noexcept nogil:
    ring_doorbell(who.page, MAILBOX_TX_PRODUCER if ring == RING_TX else MAILBOX_RX_PRODUCER, producer, NULL,
                  who.context)


cdef inline void age(ring_t *ring, desc_t *desc, uint32_t index) noexcept nogil:
    """A ring on which so many descriptors were posted and used."""
    ring.producer = ring.consumer = index
    ring.seq = (index + 1) & ring.seq_mask


cdef inline void begin_at(arena_t *arena, attacker_t *who, uint32_t index) noexcept nogil:
    """Both rings, for NIC and VMM, as after `index` descriptors: a wrap of the index is near then."""
    cdef context_t *context = &arena.nic.context[who.context]
    cdef vcontext_t *vcontext = &arena.vmm.context[who.context]
    cdef uint32_t ring
    age(&context.tx, NULL, index)
    age(&context.rx, NULL, index)
    context.tx_reported = context.rx_reported = index
    for ring in range(2):
        vcontext.ring[ring].producer = vcontext.ring[ring].reaped = index
        vcontext.ring[ring].seq = (index + 1) & vcontext.ring[ring].seq_mask
        who.posted[ring] = index
    arena.nic.progress[who.context].tx_consumer = arena.nic.progress[who.context].rx_consumer = index
    context.page.tx_consumer = context.page.rx_consumer = index
    who.begun = index


cdef inline void count_used(arena_t *arena, attacker_t *who) noexcept nogil:
    """Descriptors that the NIC has judged since the rings began; the VMM's are counted as they are made."""
    cdef const context_t *context = &arena.nic.context[who.context]
    if context.state == CONTEXT_FAULTED:
        arena.fault[context.fault & 31] += 1
    if who.protection == PROTECTION_IOMMU:
        arena.descriptors += context.tx.consumer - who.begun + context.rx.consumer - who.begun + \
            (context.state == CONTEXT_FAULTED)


cdef inline void revoke_now(arena_t *arena, attacker_t *who) noexcept nogil:
    """As `Hypervisor.revoke`: the NIC stops serving the context, then its pins are dropped; none is left."""
    cdef uint32_t page
    count_used(arena, who)
    end_serving(arena.nic, &arena.nic.context[who.context])
    set_state(arena.nic, &arena.nic.context[who.context], CONTEXT_ASSIGNED)
    reap_all(arena.vmm, who.context)
    for page in range(OWN_PAGES):
        if arena.memory.page[who.first_page + page].pins:
            find(arena, FOUND_LEFT, who.first_page + page, 0, arena.memory.page[who.first_page + page].pins)


cdef inline void assign_again(arena_t *arena, attacker_t *who, uint32_t index) noexcept nogil:
    """As `Hypervisor.assign` left it, rings from `index` on. A direct map is the caller's to make."""
    cdef context_t *context = &arena.nic.context[who.context]
    context[0] = who.fresh
    arena.vmm.context[who.context] = who.fresh_vmm
    memset(context.page, 0, sizeof(context_page_t))
    memset(context.tx.desc, 0, context.tx.size * sizeof(desc_t))
    memset(context.rx.desc, 0, context.rx.size * sizeof(desc_t))
    memset(&arena.nic.progress[who.context], 0, sizeof(arena.nic.progress[0]))
    context.page.link = arena.nic.link
    begin_at(arena, who, index)
    set_state(arena.nic, context, CONTEXT_RUNNING)
    begin_serving(arena.nic, context)
    who.restarts += 1
