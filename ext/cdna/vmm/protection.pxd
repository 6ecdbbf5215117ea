"""DMA protection: what the VMM does on the data path, and the state that it keeps for it.

The state lies in VMM memory. `enqueue` is the one hypercall of the data path in validated mode: it reads
each request once, checks that the calling guest owns every page, pins them, stamps the sequence number
and writes the ring (section 3.3). IOMMU mode has `iommu_map` and `iommu_unmap` instead.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport desc_t
from cdna.memory cimport memory_t
from cdna.nic.state cimport nic_t

cdef struct vring_t:            # the VMM's side of one descriptor ring
    desc_t *desc
    uint32_t size               # a power of two
    uint32_t seq_mask
    uint32_t producer           # free-running; next slot to write
    uint32_t reaped             # free-running; pins below it are dropped
    uint32_t seq                # next number to stamp

cdef struct io_limbo_t:         # an unmapped I/O page that the NIC may still be using
    uint32_t page
    uint32_t reserved
    uint64_t epoch              # engine epoch when it was unmapped

cdef struct vcontext_t:
    uint32_t domain             # owner, or DOMID_VMM
    uint32_t protection         # Protection
    uint32_t limbo_head
    uint32_t limbo_tail
    uint32_t limbo_mask
    io_limbo_t *limbo
    vring_t ring[2]             # by Ring
    uint64_t events             # virtual interrupts posted
    int event_fd                # written when a virtual interrupt is posted, or -1

cdef struct vmm_t:
    memory_t *memory
    nic_t *nic
    vcontext_t *context         # by context index
    uint32_t contexts
    uint64_t hypercalls
    uint64_t descriptors        # validated, pinned and stamped
    uint64_t refusals
    uint64_t interrupts         # physical
    uint64_t vectors            # interrupt bit vectors decoded
    # of the last refusal
    uint32_t refused_index      # request in the batch
    uint32_t refused_page       # page, where one is to blame

# Enqueues up to n requests of domain `domain` on a ring of one of its contexts. Returns how many were
# taken, or, when the first one is refused, a Refusal. n = 0 only drops the pins of completed DMA.
cdef int enqueue(vmm_t *vmm, uint32_t domain, uint32_t context, uint32_t ring,
                 const desc_t *request, int n) noexcept nogil
# Drops the pins of what the NIC has completed on both rings.
cdef void reap(vmm_t *vmm, uint32_t context) noexcept nogil
# Drops every pin of a context that the NIC no longer serves.
cdef void reap_all(vmm_t *vmm, uint32_t context) noexcept nogil
# Maps n machine pages at n I/O pages (both page numbers). Returns how many, or a Refusal.
cdef int iommu_map(vmm_t *vmm, uint32_t domain, uint32_t context, const uint32_t *io_page,
                   const uint32_t *page, int n) noexcept nogil
cdef int iommu_unmap(vmm_t *vmm, uint32_t domain, uint32_t context, const uint32_t *io_page,
                     int n) noexcept nogil
# Gives pages to another domain; refuses all of them when one is foreign or pinned. Returns n or a Refusal.
cdef int transfer(vmm_t *vmm, uint32_t domain, uint32_t to, const uint32_t *page, int n) noexcept nogil
# Reads the interrupt bit vectors; calls post(context, arg) for each context. Returns vectors read.
cdef int decode_interrupts(vmm_t *vmm, void (*post)(uint32_t context, void *arg) noexcept nogil,
                           void *arg) noexcept nogil
