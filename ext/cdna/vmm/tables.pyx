"""The VMM's hypercalls and interrupt decoding for Python callers; `protection` does the work.

Every call runs with the interpreter's lock held, which makes it the VMM's one big lock: a hypercall of a
batch lasts microseconds.
"""
# build: control

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cdna.abi cimport PAGE_SHIFT, desc_t
from cdna.cpu cimport store_u64
from cdna.memory cimport DOMID_VMM, SharedRegion
from cdna.nic.context cimport IO_PAGE_PRESENT, ring_t
from cdna.nic.device cimport Nic
from cdna.vmm.protection cimport (
    decode_interrupts, enqueue, io_limbo_t, iommu_map, iommu_unmap, reap, reap_all, transfer, vcontext_t,
    vmm_t, vring_t,
)

from cdna.errors import ConfigError

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *buf, size_t count)


cdef void post_virtual_interrupt(uint32_t context, void *arg) noexcept nogil:
    cdef vmm_t *vmm = <vmm_t *>arg
    cdef vcontext_t *vcontext = &vmm.context[context]
    cdef uint64_t one = 1
    vcontext.events += 1
    if vcontext.event_fd >= 0:
        write(vcontext.event_fd, &one, 8)


cdef void _take_ring(vring_t *vring, ring_t *ring) noexcept:
    """The VMM's side of an empty ring."""
    vring.desc, vring.size = ring.desc, ring.size
    vring.seq, vring.seq_mask = ring.seq, ring.seq_mask


cdef class Tables:
    """What the VMM keeps for each context of a NIC."""

    def __init__(self, Nic nic):
        cdef uint32_t i
        self._region = SharedRegion(sizeof(vmm_t) + nic.contexts * sizeof(vcontext_t))
        self._limbo = {}
        self.nic = nic
        self.c = <vmm_t *>self._region.base
        self.c.memory = nic.memory.c
        self.c.nic = nic.c
        self.c.context = <vcontext_t *>(self._region.base + sizeof(vmm_t))
        self.c.contexts = nic.contexts
        for i in range(self.c.contexts):
            self.c.context[i].event_fd = -1

    cdef vcontext_t *_context(self, uint32_t context) except NULL:
        if context >= self.c.contexts:
            raise ConfigError(f"context {context}: this NIC has contexts 0 to {self.c.contexts - 1}")
        return &self.c.context[context]

    def open_context(self, uint32_t context, uint32_t domain, int event_fd, uint32_t io_pages):
        """Makes a context a domain's: empty rings, numbers from 1, `event_fd` for its virtual interrupts."""
        cdef vcontext_t *vcontext = self._context(context)
        cdef uint64_t limbo = 1
        memset(vcontext, 0, sizeof(vcontext_t))     # nothing of its last owner's rings
        vcontext.domain = domain
        vcontext.event_fd = event_fd
        vcontext.protection = self.nic.c.context[context].protection
        _take_ring(&vcontext.ring[0], &self.nic.c.context[context].tx)
        _take_ring(&vcontext.ring[1], &self.nic.c.context[context].rx)
        if io_pages:
            while limbo < io_pages:
                limbo *= 2
            region = SharedRegion(limbo * sizeof(io_limbo_t))
            self._limbo[context] = region
            vcontext.limbo = <io_limbo_t *>(<SharedRegion>region).base
            vcontext.limbo_mask = <uint32_t>(limbo - 1)

    def close_context(self, uint32_t context):
        """Drops all pins of a context that the NIC no longer serves, and its owner."""
        cdef vcontext_t *vcontext = self._context(context)
        if vcontext.ring[0].desc != NULL:           # it was opened
            reap_all(self.c, context)
        memset(vcontext, 0, sizeof(vcontext_t))
        vcontext.domain = DOMID_VMM
        vcontext.event_fd = -1
        self._limbo.pop(context, None)

    def map_guest(self, uint32_t context, uint32_t first, uint32_t pages):
        """Direct map: I/O page i is page `first + i`, all of the guest's memory, pinned.

        Pages that the guest has given away since stay unmapped.
        """
        cdef uint32_t i
        cdef vcontext_t *vcontext = self._context(context)
        if first > self.c.memory.pages or pages > self.c.memory.pages - first \
                or pages > self.c.nic.context[context].io_pages:
            raise ConfigError(f"{pages} pages from page {first}: memory has {self.c.memory.pages}, "
                              f"and the context {self.c.nic.context[context].io_pages} I/O pages")
        for i in range(pages):
            if self.c.memory.page[first + i].owner != vcontext.domain:
                continue
            self.c.memory.page[first + i].pins += 1
            store_u64(&self.c.nic.context[context].io_page[i],
                      <uint64_t>(first + i) << PAGE_SHIFT | IO_PAGE_PRESENT)

    def enqueue(self, uint32_t domain, uint32_t context, uint32_t ring,
                const uint8_t[::1] requests not None) -> int:
        """The hypercall: `requests` are descriptors, 16 bytes each. Returns how many it took or a Refusal."""
        cdef int n = <int>(requests.shape[0] // sizeof(desc_t))
        return enqueue(self.c, domain, context, ring, <const desc_t *>&requests[0] if n else NULL, n)

    def iommu_map(self, uint32_t domain, uint32_t context, const uint32_t[::1] io_pages not None,
                  const uint32_t[::1] pages not None) -> int:
        cdef int n = <int>min(io_pages.shape[0], pages.shape[0])
        return iommu_map(self.c, domain, context, &io_pages[0] if n else NULL, &pages[0] if n else NULL, n)

    def iommu_unmap(self, uint32_t domain, uint32_t context, const uint32_t[::1] io_pages not None) -> int:
        cdef int n = <int>io_pages.shape[0]
        return iommu_unmap(self.c, domain, context, &io_pages[0] if n else NULL, n)

    def transfer(self, uint32_t domain, uint32_t to, const uint32_t[::1] pages not None) -> int:
        cdef int n = <int>pages.shape[0]
        return transfer(self.c, domain, to, &pages[0] if n else NULL, n)

    def reap(self, uint32_t context):
        """Drops the pins of what the NIC completed."""
        self._context(context)
        reap(self.c, context)

    def decode_interrupts(self) -> int:
        """Reads the interrupt bit vectors, posts a virtual interrupt for each bit. Returns vectors read."""
        return decode_interrupts(self.c, post_virtual_interrupt, self.c)

    def events(self, uint32_t context) -> int:
        """Virtual interrupts posted since the context was assigned."""
        return self._context(context).events

    @property
    def refused(self) -> tuple[int, int]:
        """Of the last refusal: index of the request, and the page to blame (0 where none is)."""
        return self.c.refused_index, self.c.refused_page

    @property
    def counters(self) -> dict[str, int]:
        return {"hypercalls": self.c.hypercalls, "descriptors": self.c.descriptors,
                "refusals": self.c.refusals, "interrupts": self.c.interrupts, "vectors": self.c.vectors}
