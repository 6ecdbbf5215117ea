"""A driver whose hypercalls are function calls: guest and VMM share the process."""

from libc.stdint cimport uint32_t

from cdna.abi cimport PAGE_SIZE, desc_t
from cdna.guest_driver.queues cimport Queues
from cdna.nic.device cimport Nic
from cdna.vmm cimport protection
from cdna.vmm.tables cimport Tables


cdef int call_enqueue(void *caller, uint32_t context, uint32_t ring, const desc_t *request,
                      int n) noexcept nogil:
    cdef caller_t *from_ = <caller_t *>caller
    return protection.enqueue(from_.vmm, from_.domain, context, ring, request, n)


cdef int call_iommu(void *caller, uint32_t context, const uint32_t *io_page, const uint32_t *page,
                    int n) noexcept nogil:
    cdef caller_t *from_ = <caller_t *>caller
    if page == NULL:
        return protection.iommu_unmap(from_.vmm, from_.domain, context, io_page, n)
    return protection.iommu_map(from_.vmm, from_.domain, context, io_page, page, n)


cdef class LocalQueues(Queues):
    """The queues of a context of this process."""

    def __init__(self, context, uint32_t buffer_size=2048):
        cdef Tables tables = context.vmm.tables
        cdef Nic nic = tables.nic
        settings, guest = context.settings, context.guest
        self._keep = context
        self._caller.vmm = tables.c
        self._caller.domain = guest.domain
        self._memory = guest.memory
        self.c.context = context.index
        self.c.protection = settings.mode
        self.vnet_header = settings.vnet_header
        self.c.strategy = settings.strategy
        self.c.page = nic.c.context[<uint32_t>context.index].page
        self.c.first_level = nic.c.doorbell
        self.c.memory = nic.memory.c.base + <size_t>guest.maddr
        self.c.size = guest.size
        self.c.maddr = guest.maddr
        self.c.enqueue = call_enqueue
        self.c.iommu = call_iommu
        self.c.vmm = &self._caller
        self._setup(settings.tx_ring, settings.rx_ring, nic.max_ring, buffer_size,
                    <unsigned char *>self.c.page + PAGE_SIZE)
