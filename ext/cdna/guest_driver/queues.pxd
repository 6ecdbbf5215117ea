"""The native driver's data path: transmit and receive queues over one context, in batches.

A `driver_t` is all that a guest holds of a context: its own memory, its context page, its rings, and the
way into the VMM. The same functions serve a guest in this process, one in another process, and the
domains of a comparison; only the hypercall differs.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport (
    IO_PAGES_PER_SLOT, IOMMU_DIRECT_MAP, IOMMU_PERSISTENT, IOMMU_SHARED, IOMMU_SINGLE_USE,
    MAILBOX_RX_PRODUCER, MAILBOX_TX_PRODUCER, PAGE_SHIFT, PAGE_SIZE, PROTECTION_IOMMU, PROTECTION_VALIDATED,
    RING_RX, RING_TX, completion_t, context_page_t, desc_t,
)
from cdna.checks cimport cdna_step
from cdna.cpu cimport compiler_barrier, cpu_relax, load_u32
from cdna.doorbell cimport ring_doorbell
from cdna.memory cimport SharedRegion

cdef enum:
    REQUESTS = 256              # of one hypercall: they fill a page of the guest's
    NO_COOKIE = 0xFFFFFFFF

# The way into the VMM: returns descriptors taken, or a Refusal.
ctypedef int (*enqueue_call)(void *vmm, uint32_t context, uint32_t ring, const desc_t *request,
                             int n) noexcept nogil
# I/O pages mapped (machine pages given) or unmapped (page is NULL); IOMMU mode.
ctypedef int (*iommu_call)(void *vmm, uint32_t context, const uint32_t *io_page, const uint32_t *page,
                           int n) noexcept nogil

cdef struct queue_t:
    uint32_t size               # descriptors, a power of two
    uint32_t producer           # free-running; next descriptor to post
    uint32_t announced          # free-running; producer index last written to the mailbox
    uint32_t consumer           # free-running; completed descriptors that were taken
    desc_t *ring                # written by the guest in the modes none and iommu only
    uint32_t seq_mask
    uint32_t *slot              # cookie of each slot: the buffer's number, or what the poster likes
    uint32_t *free              # stack of free buffers: the one used last is used next, as it is in the cache
    uint32_t n_free
    uint32_t buffers

cdef struct io_map_t:           # the guest's book of its I/O mappings
    uint16_t *uses              # of each guest page: buffers posted on it (shared), or mapped (persistent)
    uint32_t pages              # guest pages; single-use addresses lie behind them
    uint32_t n_map
    uint32_t n_unmap
    uint32_t map_io[256]        # one hypercall's worth
    uint32_t map_page[256]
    uint32_t unmap_io[256]

cdef struct driver_t:
    uint32_t context
    uint32_t protection         # Protection
    uint32_t strategy           # IommuStrategy
    uint32_t buffer_size        # bytes; a buffer never shares its cache lines with another
    context_page_t *page
    uint64_t *first_level       # doorbell vector of the NIC, or NULL in another process
    uint8_t *memory             # the guest's own memory in this process
    uint64_t size               # bytes
    uint64_t maddr              # machine address of memory[0]
    uint64_t tx_pool            # offset of the transmit buffers in memory
    uint64_t rx_pool
    desc_t *request             # requests of one hypercall, in guest memory: REQUESTS of them
    const completion_t *completion
    queue_t tx
    queue_t rx
    enqueue_call enqueue
    iommu_call iommu
    void *vmm                   # first argument of both
    io_map_t *io                # IOMMU mode only
    uint64_t hypercalls
    int refusal                 # the last Refusal, or 0


# --- posting ----------------------------------------------------------------------------------------------

cdef inline uint32_t room(const queue_t *q) noexcept nogil:
    """Descriptors that can be posted now."""
    return q.size - (q.producer - q.consumer)


cdef inline uint8_t *buffer_at(const driver_t *d, uint64_t pool, uint32_t buffer) noexcept nogil:
    return d.memory + pool + <uint64_t>buffer * d.buffer_size


cdef inline uint64_t buffer_maddr(const driver_t *d, uint64_t pool, uint32_t buffer) noexcept nogil:
    return d.maddr + pool + <uint64_t>buffer * d.buffer_size


cdef inline uint32_t take_free(queue_t *q) noexcept nogil:
    """A free buffer's number; the caller has checked n_free."""
    q.n_free -= 1
    return q.free[q.n_free]


cdef inline void give_free(queue_t *q, uint32_t buffer) noexcept nogil:
    q.free[q.n_free] = buffer
    q.n_free += 1


cdef inline void post(driver_t *d, queue_t *q, uint32_t ring, uint64_t maddr, uint16_t length, uint16_t flags,
                      uint32_t cookie) noexcept nogil:
    """Adds a descriptor to the batch; `announce` hands the batch over. The caller has checked `room`."""
    cdef desc_t desc
    cdef uint32_t slot = q.producer & (q.size - 1)
    desc.addr = maddr
    desc.len = length
    desc.flags = flags
    desc.seq = 0
    q.slot[slot] = cookie
    cdna_step()
    if d.protection == PROTECTION_VALIDATED:
        if q.producer - q.announced == REQUESTS:
            announce(d, q, ring)
        d.request[q.producer - q.announced] = desc
    else:
        if d.protection == PROTECTION_IOMMU and length:
            desc.addr = io_map(d, ring, slot, maddr, length)
        q.ring[slot] = desc
    q.producer += 1


cdef inline int announce(driver_t *d, queue_t *q, uint32_t ring) noexcept nogil:
    """Hands the posted descriptors over: the hypercall of the protection mode, then the doorbell.

    Returns 0, or a Refusal; what was refused is no longer posted, and its buffers are free again.
    """
    cdef uint32_t n = q.producer - q.announced
    cdef int taken
    if n == 0:
        return 0
    cdna_step()
    if d.protection == PROTECTION_VALIDATED:
        d.hypercalls += 1
        taken = d.enqueue(d.vmm, d.context, ring, d.request, n)
        if taken < <int>n:
            d.refusal = taken if taken < 0 else d.enqueue(d.vmm, d.context, ring, d.request + taken, 1)
            taken = taken if taken > 0 else 0
            while q.producer - q.announced > <uint32_t>taken:
                q.producer -= 1
                if q.slot[q.producer & (q.size - 1)] < q.buffers:
                    give_free(q, q.slot[q.producer & (q.size - 1)])
    elif d.protection == PROTECTION_IOMMU:
        io_flush(d)
    if q.producer != q.announced:
        q.announced = q.producer
        cdna_step()
        ring_doorbell(d.page, MAILBOX_TX_PRODUCER if ring == RING_TX else MAILBOX_RX_PRODUCER, q.producer,
                      d.first_level, d.context)
    return d.refusal


# --- transmit ---------------------------------------------------------------------------------------------

cdef inline bint tx_take(driver_t *d, uint32_t *cookie) noexcept nogil:
    """The cookie of the next transmitted descriptor; False when there is none."""
    cdef queue_t *q = &d.tx
    if q.consumer == load_u32(&d.page.tx_consumer):
        return False
    cookie[0] = q.slot[q.consumer & (q.size - 1)]
    if d.protection == PROTECTION_IOMMU:
        io_unmap(d, RING_TX, q.consumer & (q.size - 1))
    q.consumer += 1
    return True


cdef inline uint32_t tx_reclaim(driver_t *d) noexcept nogil:
    """Frees the buffers of what was transmitted. Returns the room there is now."""
    cdef queue_t *q = &d.tx
    cdef uint32_t done = load_u32(&d.page.tx_consumer), cookie, slot
    if done - q.consumer > q.announced - q.consumer:        # not what the NIC would say
        return room(q)
    while q.consumer != done:
        slot = q.consumer & (q.size - 1)
        cookie = q.slot[slot]
        if cookie < q.buffers:
            give_free(q, cookie)
        if d.protection == PROTECTION_IOMMU:
            io_unmap(d, RING_TX, slot)
        q.consumer += 1
    if d.protection == PROTECTION_IOMMU:
        io_flush(d)
    return room(q)


# --- receive ----------------------------------------------------------------------------------------------

cdef inline uint32_t rx_ready(const driver_t *d) noexcept nogil:
    """Receive descriptors that the NIC has filled and the guest has not taken."""
    cdef uint32_t n = load_u32(&d.page.rx_consumer) - d.rx.consumer
    return n if n <= d.rx.announced - d.rx.consumer else 0


cdef inline uint32_t rx_take(driver_t *d, completion_t *completion) noexcept nogil:
    """Takes the next filled buffer: its number, and its completion. The caller has checked `rx_ready`."""
    cdef queue_t *q = &d.rx
    cdef uint32_t slot = q.consumer & (q.size - 1)
    completion[0] = d.completion[slot]
    if d.protection == PROTECTION_IOMMU:
        io_unmap(d, RING_RX, slot)
    q.consumer += 1
    return q.slot[slot]


cdef inline int rx_refill(driver_t *d) noexcept nogil:
    """Posts every free receive buffer. Returns 0, or a Refusal."""
    cdef queue_t *q = &d.rx
    cdef uint32_t n = room(q), buffer
    if d.protection == PROTECTION_IOMMU:
        io_flush(d)
    if n > q.n_free:
        n = q.n_free
    while n:
        buffer = take_free(q)
        post(d, q, RING_RX, buffer_maddr(d, d.rx_pool, buffer), d.buffer_size, 0, buffer)
        n -= 1
    return announce(d, q, RING_RX)


# --- IOMMU strategies (Willmann, Rixner, Cox, USENIX ATC 2008, section 3) ----------------------------------

cdef inline uint32_t single_use_page(const driver_t *d, uint32_t ring, uint32_t slot) noexcept nogil:
    cdef uint32_t first = d.io.pages + (d.tx.size if ring == RING_RX else 0) * IO_PAGES_PER_SLOT
    return first + slot * IO_PAGES_PER_SLOT


cdef inline void io_stage_map(driver_t *d, uint32_t io_page, uint64_t maddr) noexcept nogil:
    if d.io.n_map == REQUESTS:
        io_flush(d)
    d.io.map_io[d.io.n_map] = io_page
    d.io.map_page[d.io.n_map] = <uint32_t>(maddr >> PAGE_SHIFT)
    d.io.n_map += 1


cdef inline void io_stage_unmap(driver_t *d, uint32_t io_page) noexcept nogil:
    if d.io.n_unmap == REQUESTS:
        io_flush(d)
    d.io.unmap_io[d.io.n_unmap] = io_page
    d.io.n_unmap += 1


cdef inline uint64_t io_map(driver_t *d, uint32_t ring, uint32_t slot, uint64_t maddr,
                            uint32_t length) noexcept nogil:
    """Maps a buffer for DMA as the strategy says; returns its I/O address. `io_flush` before the doorbell.

    single-use: an address of the descriptor's own, mapped for this DMA alone.
    shared: the guest address, mapped while any buffer on the page is posted.
    persistent: the guest address, mapped at the first use and left so.
    direct-map: the guest address; the VMM mapped all of the guest when it assigned the context.
    """
    cdef uint64_t gpa = maddr - d.maddr
    cdef uint32_t first = <uint32_t>(gpa >> PAGE_SHIFT), last = <uint32_t>((gpa + length - 1) >> PAGE_SHIFT)
    cdef uint32_t io_page, page
    if d.strategy == IOMMU_SINGLE_USE:
        io_page = single_use_page(d, ring, slot)
        for page in range(first, last + 1):
            io_stage_map(d, io_page + page - first, d.maddr + (<uint64_t>page << PAGE_SHIFT))
        return (<uint64_t>io_page << PAGE_SHIFT) + (gpa & (PAGE_SIZE - 1))
    if d.strategy != IOMMU_DIRECT_MAP:
        for page in range(first, last + 1):
            if d.io.uses[page] == 0:
                io_stage_map(d, page, d.maddr + (<uint64_t>page << PAGE_SHIFT))
            if d.strategy == IOMMU_SHARED or d.io.uses[page] == 0:
                d.io.uses[page] += 1
    return gpa


cdef inline void io_unmap(driver_t *d, uint32_t ring, uint32_t slot) noexcept nogil:
    """Ends the mapping of a completed descriptor as the strategy says."""
    cdef queue_t *q = &d.tx if ring == RING_TX else &d.rx
    cdef desc_t desc = q.ring[slot]
    cdef uint64_t page, last
    if desc.len == 0 or d.strategy == IOMMU_PERSISTENT or d.strategy == IOMMU_DIRECT_MAP:
        return
    last = (desc.addr + desc.len - 1) >> PAGE_SHIFT
    for page in range(desc.addr >> PAGE_SHIFT, last + 1):
        if d.strategy == IOMMU_SINGLE_USE:
            io_stage_unmap(d, <uint32_t>page)
        else:
            d.io.uses[page] -= 1
            if d.io.uses[page] == 0:
                io_stage_unmap(d, <uint32_t>page)


cdef inline void io_flush(driver_t *d) noexcept nogil:
    """Makes the staged unmappings, then the mappings: one hypercall each."""
    cdef uint32_t done = 0
    cdef int n
    while done < d.io.n_unmap:
        d.hypercalls += 1
        n = d.iommu(d.vmm, d.context, d.io.unmap_io + done, NULL, d.io.n_unmap - done)
        if n <= 0:
            d.refusal = n
            break
        done += n
    d.io.n_unmap = 0
    done = 0
    while done < d.io.n_map:
        d.hypercalls += 1
        n = d.iommu(d.vmm, d.context, d.io.map_io + done, d.io.map_page + done, d.io.n_map - done)
        if n <= 0:
            d.refusal = n
            break
        done += n
    d.io.n_map = 0


# --- set-up, and the class that Python sees -----------------------------------------------------------------


cdef uint64_t driver_bytes(uint32_t tx_ring, uint32_t rx_ring, uint32_t buffer_size) noexcept
cdef SharedRegion driver_init(driver_t *d, uint32_t tx_ring, uint32_t rx_ring, uint32_t max_ring,
                              uint32_t buffer_size, uint8_t *rings, uint32_t io_pages)

cdef class Queues:
    cdef driver_t c
    cdef SharedRegion _state
    cdef readonly bint vnet_header      # frames start with a virtio-net header
    cdef object _memory         # the guest's memory as a numpy array
    cdef _setup(self, uint32_t tx_ring, uint32_t rx_ring, uint32_t max_ring, uint32_t buffer_size,
                uint8_t *rings)
    cdef bint _post_frame(self, bytes data, bint offload, uint64_t packed)
    cdef _announce(self, queue_t *q, uint32_t ring)
    cdef _raise_refusal(self)
    cdef list _take_frame(self)
    cdef _buffer(self, uint64_t pool, uint32_t number)
