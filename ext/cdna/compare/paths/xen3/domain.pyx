"""Domains of the Xen baseline: their tables, their pages, and the hypervisor's heap."""
# build: control

from libc.string cimport memset

from cdna.abi cimport PAGE_SIZE
from cdna.compare.paths.xen3.public cimport DOMID_SELF, FOREIGN_FRAME, INVALID_MFN, PTE_PRESENT, PTE_WRITE
from cdna.compare.host cimport Host
from cdna.memory cimport DOMID_FREE, DOMID_VMM

from cdna.errors import ConfigError, ResourceError


cdef class Hypervisor:
    """What Xen keeps: the domains, the heap of free pages, the M2P table.

    `memory` is the machine, `heap_pages` what the hypervisor keeps free for XENMEM_increase_reservation.
    `host` is the host core of the comparison that the domains run on, or one of its own.
    """

    def __cinit__(self, Memory memory not None, Host host=None, uint32_t heap_pages=0):
        cdef uint32_t i, first
        self.memory = memory
        self._regions = []
        self.c = <xen_t *>self.share(sizeof(xen_t))
        self.c.memory = memory.c
        self._host = host or Host()
        self.c.host = self._host.c
        memset(self.c.hash, 0xFF, sizeof(self.c.hash))
        self.c.m2p = <uint32_t *>self.share(memory.c.pages * sizeof(uint32_t))
        memset(self.c.m2p, 0xFF, memory.c.pages * sizeof(uint32_t))
        self.c.heap = <uint32_t *>self.share(memory.c.pages * sizeof(uint32_t))
        if heap_pages:
            first = memory.allocate(heap_pages, DOMID_VMM)
            for i in range(heap_pages):
                self.c.heap[i] = first + heap_pages - 1 - i
            self.c.heap_pages = heap_pages

    cdef void *share(self, size_t size) except NULL:
        """Zeroed memory, page aligned, that forked processes share and that lives as long as this object."""
        region = SharedRegion(size)
        self._regions.append(region)
        return (<SharedRegion>region).base

    cdef xen_domain_t *domain(self, uint32_t index) except NULL:
        if index >= self.c.domains:
            raise ConfigError(f"domain {index}: there are {self.c.domains}")
        return &self.c.domain[index]

    def add_domain(self, uint32_t domid, uint32_t pages, uint32_t empty_pfns=0, uint32_t grant_entries=512,
                   uint32_t maptracks=0, uint32_t ports=64, uint32_t headroom=0) -> int:
        """Creates a domain that owns `pages` machine pages; returns its index.

        Pages are contiguous and mapped at pseudo-physical frames 0 .. pages - 1; `empty_pfns` more frames
        of its table hold nothing yet. It may own `headroom` pages more. The grant table, the shared
        information page and the page table are the domain's in addition to these.
        """
        cdef xen_domain_t *d
        cdef uint32_t i, first, bucket
        if domid == 0 or domid >= DOMID_SELF or find_domain(self.c, domid) != NULL:
            raise ConfigError(f"domain id {domid}: give one of 1 to {DOMID_SELF - 1} that is not in use")
        if self.c.domains == MAX_DOMAINS:
            raise ResourceError(f"there can be {MAX_DOMAINS} domains")
        if not 2 <= ports <= 4096:
            raise ConfigError(f"{ports} event channels: give 2 to 4096")
        d = &self.c.domain[self.c.domains]
        memset(d, 0, sizeof(xen_domain_t))
        d.domid = domid
        d.index = self.c.domains
        d.tot_pages = pages
        d.max_pages = pages + headroom
        d.pfns = pages + empty_pfns
        d.p2m = <uint32_t *>self.share(d.pfns * sizeof(uint32_t))
        d.pte = <uint64_t *>self.share(d.pfns * sizeof(uint64_t))
        first = self.memory.allocate(pages, domid)
        for i in range(d.pfns):
            d.p2m[i] = INVALID_MFN
        for i in range(pages):
            d.p2m[i] = first + i
            d.pte[i] = frame_maddr(first + i) | PTE_PRESENT | PTE_WRITE
            self.c.m2p[first + i] = i
            self.c.memory.page[first + i].pins += 1
        self._add_grants(d, grant_entries, maptracks)
        d.shared = <shared_info_t *>self.share(PAGE_SIZE)
        d.port = <evtchn_t *>self.share(ports * sizeof(evtchn_t))
        d.ports = ports
        bucket = domid & (DOMAIN_HASH - 1)
        d.hash_next = self.c.hash[bucket]
        self.c.hash[bucket] = d.index
        self.c.domains += 1
        return d.index

    cdef _add_grants(self, xen_domain_t *d, uint32_t entries, uint32_t maptracks):
        cdef uint32_t i
        d.grants.shared = <grant_entry_t *>self.share(entries * sizeof(grant_entry_t))
        d.grants.active = <active_grant_t *>self.share(entries * sizeof(active_grant_t))
        d.grants.entries = entries
        d.grants.maptrack = <maptrack_t *>self.share((maptracks + 1) * sizeof(maptrack_t))
        d.grants.maptracks = maptracks
        for i in range(maptracks):
            d.grants.maptrack[i].ref = i + 1 if i + 1 < maptracks else <uint32_t>NO_HANDLE
        d.grants.maptrack_head = 0 if maptracks else <uint32_t>NO_HANDLE

    def release(self) -> None:
        """Gives back every page: clears all page tables, then frees what the domains and the heap hold."""
        cdef xen_domain_t *d
        cdef uint32_t i, pfn
        for i in range(self.c.domains):
            d = &self.c.domain[i]
            for pfn in range(d.pfns):
                if d.pte[pfn] & PTE_PRESENT:
                    put_page(self.c, d.pte[pfn] >> PAGE_SHIFT)
                    d.pte[pfn] = 0
        for i in range(self.c.domains):
            d = &self.c.domain[i]
            for pfn in range(d.pfns):
                if d.p2m[pfn] != INVALID_MFN and not d.p2m[pfn] & FOREIGN_FRAME:
                    self._free(d.p2m[pfn])
        for pfn in range(self.c.memory.pages):          # transferred, and not yet taken by the guest
            d = find_domain(self.c, self.c.memory.page[pfn].owner)
            if d != NULL and d.index:
                self._free(pfn)
        for i in range(self.c.heap_pages):
            self._free(self.c.heap[i])
        self.c.heap_pages = 0
        self.c.domains = 0
        memset(self.c.hash, 0xFF, sizeof(self.c.hash))

    cdef _free(self, uint32_t frame):
        if self.c.memory.page[frame].pins:
            pins = self.c.memory.page[frame].pins
            raise ResourceError(f"page {frame} has {pins} references: a grant is in use")
        self.c.memory.page[frame].owner = DOMID_FREE
