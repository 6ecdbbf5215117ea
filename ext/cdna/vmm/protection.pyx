"""DMA protection, the VMM's side: validate, pin, stamp, enqueue; map and unmap; transfer (section 3.3).

Nothing here allocates or raises. A refusal is a negative number, and what was to blame is left in
`vmm.refused_index` and `vmm.refused_page`.
"""
# build: explored

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from cdna.abi cimport (
    CONTEXT_RUNNING, DESC_F_EOP, DESC_F_OFFLOAD, PAGE_SHIFT, PROTECTION_IOMMU, PROTECTION_VALIDATED,
    REFUSED_ADDRESS, REFUSED_CONTEXT, REFUSED_FLAGS, REFUSED_LENGTH, REFUSED_MAPPED, REFUSED_MODE,
    REFUSED_OWNER, REFUSED_PINNED, REFUSED_RING_FULL, RING_RX, RING_TX, desc_t,
)
from cdna.checks cimport (
    CHECK_CONTEXT_OWNER, CHECK_CONTEXT_RANGE, CHECK_CONTEXT_RUNNING, CHECK_ENQUEUE_MODE, CHECK_LIMBO_EPOCH,
    CHECK_MAP_IO_RANGE, CHECK_MAP_MAPPED, CHECK_MAP_MODE, CHECK_MAP_OWNER, CHECK_MAP_RANGE, CHECK_PIN_EMPTY,
    CHECK_PIN_END, CHECK_PIN_OWNER, CHECK_PIN_START, CHECK_REQUEST_FLAGS, CHECK_RING_FULL, CHECK_RING_NUMBER,
    CHECK_TRANSFER_OWNER, CHECK_TRANSFER_PINNED, CHECK_TRANSFER_RANGE, CHECK_UNMAP_LIMBO, CHECK_UNMAP_MAPPED,
    CHECK_UNMAP_MODE, CHECK_UNMAP_RANGE, broken, cdna_step,
)
from cdna.cpu cimport fence, load_u32, load_u64, lowest_bit, read_once_u64, store_u32, store_u64
from cdna.memory cimport DOMID_VMM, memory_t
from cdna.nic.context cimport IO_PAGE_PRESENT, context_t, progress_t
from cdna.nic.irq_ring cimport irq_ring_t

cdef enum:
    LIMBO_EPOCHS = 4            # two whole rounds of the NIC


cdef inline int refuse(vmm_t *vmm, int reason, uint32_t index, uint32_t page) noexcept nogil:
    vmm.refusals += 1
    vmm.refused_index = index
    vmm.refused_page = page
    return reason


cdef inline context_t *owned(vmm_t *vmm, uint32_t domain, uint32_t context) noexcept nogil:
    """The running context of this domain, or NULL."""
    if broken(CHECK_CONTEXT_RANGE, context >= vmm.contexts) or \
            broken(CHECK_CONTEXT_OWNER, vmm.context[context].domain != domain or domain == DOMID_VMM):
        return NULL
    if broken(CHECK_CONTEXT_RUNNING, load_u32(&vmm.nic.progress[context].state) != CONTEXT_RUNNING):
        return NULL
    return &vmm.nic.context[context]


cdef inline void unpin(memory_t *memory, const desc_t *desc) noexcept nogil:
    """Drops the pins of a descriptor that the VMM wrote."""
    cdef uint64_t page, last
    if desc.flags & DESC_F_OFFLOAD:
        return
    last = (desc.addr + desc.len - 1) >> PAGE_SHIFT
    for page in range(desc.addr >> PAGE_SHIFT, last + 1):
        memory.page[page].pins -= 1


cdef inline int pin(vmm_t *vmm, const memory_t *memory, uint32_t domain, const desc_t *desc,
                    uint32_t index) noexcept nogil:
    """Checks the owner of every page of a buffer and pins them; 0, or a Refusal with nothing pinned."""
    cdef uint64_t page, first, last
    if broken(CHECK_PIN_EMPTY, desc.len == 0):
        return refuse(vmm, REFUSED_LENGTH, index, 0)
    if broken(CHECK_PIN_START, desc.addr > memory.size) or \
            broken(CHECK_PIN_END, desc.len > memory.size - desc.addr):
        return refuse(vmm, REFUSED_ADDRESS, index, <uint32_t>(desc.addr >> PAGE_SHIFT))
    first = desc.addr >> PAGE_SHIFT
    last = (desc.addr + desc.len - 1) >> PAGE_SHIFT
    for page in range(first, last + 1):
        if broken(CHECK_PIN_OWNER, memory.page[page].owner != domain):
            return refuse(vmm, REFUSED_OWNER, index, <uint32_t>page)
    for page in range(first, last + 1):
        cdna_step()
        memory.page[page].pins += 1
    return 0


cdef inline void reap_ring(memory_t *memory, vring_t *vring, uint32_t upto) noexcept nogil:
    """Drops the pins of the descriptors below `upto`."""
    cdef uint32_t at = vring.reaped, mask = vring.size - 1
    while at != upto:
        cdna_step()
        unpin(memory, &vring.desc[at & mask])
        at += 1
    vring.reaped = at


cdef inline void write_desc(desc_t *slot, const desc_t *desc) noexcept nogil:
    """The word with the number last, which the NIC reads first: it may look at any moment."""
    cdna_step()
    store_u64(&(<uint64_t *>slot)[0], (<const uint64_t *>desc)[0])
    cdna_step()
    store_u64(&(<uint64_t *>slot)[1], (<const uint64_t *>desc)[1])


cdef inline int take_requests(vmm_t *vmm, uint32_t domain, vring_t *vring, uint16_t lone_flags, uint32_t room,
                              const desc_t *request, int n) noexcept nogil:
    """Validates, pins, stamps and writes; returns how many, or the Refusal of the first.

    It works on locals: to the compiler, the pins that it writes could be any word that it reads.
    """
    cdef memory_t memory = vmm.memory[0]
    cdef desc_t *ring = vring.desc
    cdef uint32_t mask = vring.size - 1, producer = vring.producer, seq = vring.seq, seq_mask = vring.seq_mask
    cdef desc_t desc
    cdef int i = 0, status = 0
    while i < n:
        (<uint64_t *>&desc)[0] = read_once_u64(&(<const uint64_t *>&request[i])[0])
        (<uint64_t *>&desc)[1] = read_once_u64(&(<const uint64_t *>&request[i])[1])
        if broken(CHECK_RING_FULL, <uint32_t>i == room):
            status = refuse(vmm, REFUSED_RING_FULL, i, 0)
        elif desc.flags & ~<uint16_t>DESC_F_EOP == 0:
            status = pin(vmm, &memory, domain, &desc, i)
        elif broken(CHECK_REQUEST_FLAGS, desc.flags != lone_flags):
            status = refuse(vmm, REFUSED_FLAGS, i, 0)
        else:
            desc.len = 0
        if status:
            break
        desc.seq = seq
        seq = (seq + 1) & seq_mask
        write_desc(&ring[producer & mask], &desc)
        producer += 1
        i += 1
    cdna_step()
    vring.producer, vring.seq = producer, seq
    vmm.descriptors += i
    return i if i or n <= 0 else status


cdef int enqueue(vmm_t *vmm, uint32_t domain, uint32_t context, uint32_t ring,
                 const desc_t *request, int n) noexcept nogil:
    cdef vring_t *vring
    cdef uint32_t consumer
    vmm.hypercalls += 1
    if owned(vmm, domain, context) == NULL or broken(CHECK_RING_NUMBER, ring > RING_RX):
        return refuse(vmm, REFUSED_CONTEXT, 0, 0)
    if broken(CHECK_ENQUEUE_MODE, vmm.context[context].protection != PROTECTION_VALIDATED):
        return refuse(vmm, REFUSED_MODE, 0, 0)
    vring = &vmm.context[context].ring[ring]
    consumer = completed_upto(vmm, context, ring)
    reap_ring(vmm.memory, vring, consumer)
    return take_requests(vmm, domain, vring, DESC_F_OFFLOAD if ring == RING_TX else DESC_F_EOP,
                         vring.size - (vring.producer - consumer), request, n)


cdef inline uint32_t completed_upto(const vmm_t *vmm, uint32_t context, uint32_t ring) noexcept nogil:
    """Consumer index of a ring at the end of the NIC's last round."""
    cdef const progress_t *progress = &vmm.nic.progress[context]
    return load_u32(&progress.tx_consumer if ring == RING_TX else &progress.rx_consumer)


cdef void reap(vmm_t *vmm, uint32_t context) noexcept nogil:
    cdef vcontext_t *vcontext = &vmm.context[context]
    if vcontext.protection == PROTECTION_VALIDATED:
        reap_ring(vmm.memory, &vcontext.ring[<int>RING_TX], completed_upto(vmm, context, RING_TX))
        reap_ring(vmm.memory, &vcontext.ring[<int>RING_RX], completed_upto(vmm, context, RING_RX))
    elif vcontext.protection == PROTECTION_IOMMU:
        reap_limbo(vmm, vcontext, False)


cdef void reap_all(vmm_t *vmm, uint32_t context) noexcept nogil:
    cdef context_t *nic_context = &vmm.nic.context[context]
    cdef vcontext_t *vcontext = &vmm.context[context]
    cdef uint32_t i
    if vcontext.protection == PROTECTION_VALIDATED:
        reap_ring(vmm.memory, &vcontext.ring[<int>RING_TX], vcontext.ring[<int>RING_TX].producer)
        reap_ring(vmm.memory, &vcontext.ring[<int>RING_RX], vcontext.ring[<int>RING_RX].producer)
    elif vcontext.protection == PROTECTION_IOMMU:
        for i in range(nic_context.io_pages):
            if nic_context.io_page[i] & IO_PAGE_PRESENT:
                vmm.memory.page[nic_context.io_page[i] >> PAGE_SHIFT].pins -= 1
                nic_context.io_page[i] = 0
        reap_limbo(vmm, vcontext, True)


# --- IOMMU mode -------------------------------------------------------------------------------------------

cdef inline void reap_limbo(vmm_t *vmm, vcontext_t *vcontext, bint stopped) noexcept nogil:
    """Drops the pins of unmapped pages that no round of the NIC can still be using.

    A round that began before the unmapping may hold a translation. Two whole rounds later none does. A NIC
    that is not in a round, because it is stopped or is stepped by the caller, holds none.
    """
    cdef uint64_t epoch = load_u64(&vmm.nic.epoch)
    cdef bint still = not load_u32(&vmm.nic.alive) or load_u32(&vmm.nic.paused)
    cdef bint idle = stopped or (not epoch & 1 and still)
    cdef io_limbo_t *entry
    while vcontext.limbo_head != vcontext.limbo_tail:
        entry = &vcontext.limbo[vcontext.limbo_head & vcontext.limbo_mask]
        if not idle and broken(CHECK_LIMBO_EPOCH, epoch - entry.epoch < LIMBO_EPOCHS):
            return
        cdna_step()
        vmm.memory.page[entry.page].pins -= 1
        cdna_step()
        vcontext.limbo_head += 1


cdef int iommu_map(vmm_t *vmm, uint32_t domain, uint32_t context, const uint32_t *io_page,
                   const uint32_t *page, int n) noexcept nogil:
    cdef context_t *nic_context = owned(vmm, domain, context)
    cdef uint32_t at, machine_page
    cdef int i, status = 0
    vmm.hypercalls += 1
    if nic_context == NULL:
        return refuse(vmm, REFUSED_CONTEXT, 0, 0)
    if broken(CHECK_MAP_MODE, nic_context.protection != PROTECTION_IOMMU):
        return refuse(vmm, REFUSED_MODE, 0, 0)
    reap_limbo(vmm, &vmm.context[context], False)
    for i in range(n):
        at = load_u32(&io_page[i])
        machine_page = load_u32(&page[i])
        if broken(CHECK_MAP_IO_RANGE, at >= nic_context.io_pages) or \
                broken(CHECK_MAP_RANGE, machine_page >= vmm.memory.pages):
            status = refuse(vmm, REFUSED_ADDRESS, i, machine_page)
        elif broken(CHECK_MAP_OWNER, vmm.memory.page[machine_page].owner != domain):
            status = refuse(vmm, REFUSED_OWNER, i, machine_page)
        elif broken(CHECK_MAP_MAPPED, nic_context.io_page[at] & IO_PAGE_PRESENT):
            status = refuse(vmm, REFUSED_MAPPED, i, machine_page)
        if status:
            return i if i else status
        cdna_step()
        vmm.memory.page[machine_page].pins += 1
        cdna_step()
        store_u64(&nic_context.io_page[at],
                  <uint64_t>machine_page << PAGE_SHIFT | IO_PAGE_PRESENT)
    return n


cdef int iommu_unmap(vmm_t *vmm, uint32_t domain, uint32_t context, const uint32_t *io_page,
                     int n) noexcept nogil:
    cdef context_t *nic_context = owned(vmm, domain, context)
    cdef vcontext_t *vcontext = &vmm.context[context]
    cdef io_limbo_t *entry
    cdef uint32_t at, first
    cdef uint64_t epoch
    cdef int i
    vmm.hypercalls += 1
    if nic_context == NULL:
        return refuse(vmm, REFUSED_CONTEXT, 0, 0)
    if broken(CHECK_UNMAP_MODE, nic_context.protection != PROTECTION_IOMMU):
        return refuse(vmm, REFUSED_MODE, 0, 0)
    reap_limbo(vmm, vcontext, False)
    first = vcontext.limbo_tail
    for i in range(n):
        at = load_u32(&io_page[i])
        if broken(CHECK_UNMAP_RANGE, at >= nic_context.io_pages) or \
                broken(CHECK_UNMAP_MAPPED, not nic_context.io_page[at] & IO_PAGE_PRESENT):
            refuse(vmm, REFUSED_MAPPED, i, at)
            break
        if broken(CHECK_UNMAP_LIMBO, vcontext.limbo_tail - vcontext.limbo_head > vcontext.limbo_mask):
            refuse(vmm, REFUSED_RING_FULL, i, at)
            break
        entry = &vcontext.limbo[vcontext.limbo_tail & vcontext.limbo_mask]
        entry.page = <uint32_t>(nic_context.io_page[at] >> PAGE_SHIFT)
        cdna_step()
        vcontext.limbo_tail += 1
        cdna_step()
        store_u64(&nic_context.io_page[at], 0)
    else:
        i = n
    fence()                             # the table before the epoch
    epoch = load_u64(&vmm.nic.epoch)
    while first != vcontext.limbo_tail:
        vcontext.limbo[first & vcontext.limbo_mask].epoch = epoch
        first += 1
    return i if i or n == 0 else REFUSED_MAPPED


# --- pages and interrupts ---------------------------------------------------------------------------------

cdef int transfer(vmm_t *vmm, uint32_t domain, uint32_t to, const uint32_t *page, int n) noexcept nogil:
    cdef uint32_t at
    cdef int i
    vmm.hypercalls += 1
    for i in range(n):
        at = page[i]
        if broken(CHECK_TRANSFER_RANGE, at >= vmm.memory.pages):
            return refuse(vmm, REFUSED_ADDRESS, i, at)
        if broken(CHECK_TRANSFER_OWNER, vmm.memory.page[at].owner != domain):
            return refuse(vmm, REFUSED_OWNER, i, at)
        if broken(CHECK_TRANSFER_PINNED, vmm.memory.page[at].pins != 0):
            return refuse(vmm, REFUSED_PINNED, i, at)
    for i in range(n):
        cdna_step()
        vmm.memory.page[page[i]].owner = to
    return n


cdef int decode_interrupts(vmm_t *vmm, void (*post)(uint32_t context, void *arg) noexcept nogil,
                           void *arg) noexcept nogil:
    cdef irq_ring_t *irq = vmm.nic.irq
    cdef uint32_t producer = load_u32(&irq.producer), consumer = irq.consumer, word
    cdef int vectors = 0
    cdef const uint64_t *vector
    cdef uint64_t bits
    if producer == consumer:
        return 0
    vmm.interrupts += 1
    while consumer != producer:
        vector = &irq.vector[(consumer & (irq.slots - 1)) * irq.words]
        for word in range(irq.words):
            bits = vector[word]
            while bits:
                post(word * 64 + lowest_bit(bits), arg)
                bits &= bits - 1
        consumer += 1
        vectors += 1
    store_u32(&irq.consumer, consumer)
    vmm.vectors += vectors
    return vectors
